"""Triton's Python backend around the ONNX beside this file, on the CPU with OpenVINO. Tensors in, tensors out."""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as triton

sys.modules["openvino_telemetry"] = None  # importing openvino otherwise reports to its maker over the network
import openvino  # noqa: E402


class TritonPythonModel:
    """One instance: the graph compiled once, any batch size."""

    def initialize(self, args: dict[str, str]) -> None:
        """Raises where the ONNX and config.pbtxt do not carry the same contract; Triton then refuses the model."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        core = openvino.Core()
        graph = core.read_model(Path(args["model_repository"]) / args["model_version"] / "model.onnx")
        contract = graph.get_rt_info(["framework", "contract"]).value
        promised = parameters.get(f"contract.{args['model_version']}", parameters["contract"])
        if json.loads(contract) != json.loads(promised):
            raise triton.TritonModelException("config.pbtxt and model.onnx carry different contracts")
        precision = parameters["precision"]
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise triton.TritonModelException("precision is bf16, which this CPU does not have")
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        self._request = core.compile_model(graph, "CPU", options).create_infer_request()
        self._inputs = [item["name"] for item in config["input"]]
        self._outputs = [item["name"] for item in config["output"]]
        self._warm_up(Path(args["model_repository"]) / "warmup" / "sample.npz", config["input"])

    def _warm_up(self, file: Path, inputs: list) -> None:
        """Answer the sample, where there is one, before the model is ready: memory is taken, numbers are finite."""
        if not file.exists():
            return
        batch = {}
        with np.load(file, allow_pickle=False) as sample:
            for item in inputs:
                value, wanted = sample[item["name"]], triton.triton_string_to_numpy(item["data_type"])
                scaled = value / np.float32(255) if value.dtype == np.uint8 and wanted != np.uint8 else value
                batch[item["name"]] = scaled.astype(wanted)[None]
        answer = self._request.infer(batch)
        if not all(np.isfinite(answer[name]).all() for name in self._outputs):
            raise triton.TritonModelException("an answer to warmup/sample.npz is not finite")

    def execute(self, requests: list) -> list:
        """All requests as one batch; each gets its own rows of the outputs."""
        parts = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        answer = self._request.infer({name: np.concatenate([part[name] for part in parts]) for name in self._inputs})
        responses, start = [], 0
        for part in parts:
            rows = slice(start, start + len(part[self._inputs[0]]))
            tensors = [triton.Tensor(name, answer[name][rows].copy()) for name in self._outputs]
            responses.append(triton.InferenceResponse(tensors))
            start = rows.stop
        return responses
