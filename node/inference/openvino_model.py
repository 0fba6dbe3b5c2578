"""The model in this process: the exported ONNX compiled by OpenVINO for the CPU."""

import logging
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from node.errors import ContractError, InferenceError, SettingsError
from node.inference.contract import contract_from_json
from node.inference.tensors import (
    Outputs,
    Signature,
    check_signature,
    prediction_of,
    probe,
    self_check,
    signature_of,
    wire_inputs,
)
from node.mammography.contract import ModelContract, Prediction
from node.settings import InferenceSettings

logger = logging.getLogger(__name__)
PRECISIONS = {"f32": "f32", "bf16": "bf16"}


def onnx_file(model_folder: Path) -> Path:
    """`<version>/model.onnx` of the highest version in the folder. Raises ContractError where there is none."""
    found = [file for file in model_folder.glob("*/model.onnx") if file.parent.name.isdecimal()]
    if not found:
        raise ContractError(f"model: no <version>/model.onnx in {model_folder}")
    return max(found, key=lambda file: int(file.parent.name))


def read_graph(file: Path) -> tuple[openvino.Model, ModelContract]:
    """The graph and the contract in its metadata; tensor names, types and shapes are compared. Raises ContractError."""
    try:
        graph = openvino.Core().read_model(file)
    except RuntimeError as error:
        raise ContractError(f"model: {file.name} cannot be read as ONNX") from error
    if not graph.has_rt_info(["framework", "contract"]):
        raise ContractError(f"contract: {file.name} carries none in its metadata")
    contract = contract_from_json(graph.get_rt_info(["framework", "contract"]).value)
    inputs, outputs = signature_of(contract)
    check_signature(_signature(graph.inputs), inputs)
    check_signature(_signature(graph.outputs), outputs)
    return graph, contract


class OpenVinoModel:
    """Compiled once; one inference at a time. Make it after a fork: OpenVINO's threads do not survive one."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Raises ContractError where the model does not fit, SettingsError for a precision that the CPU has not."""
        file = onnx_file(settings.model_folder)
        graph, self._contract = read_graph(file)
        _check_labels(settings.model_folder, self._contract)
        core = openvino.Core()
        self._precision = choose_precision(settings.precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._request = _compile(core, graph, self._precision, settings.threads).create_infer_request()
        self._lock = Lock()
        self_check(self._run, self._contract)
        logger.info("model %s %s loaded: %s", self._contract.name, self._contract.version, self.variant)

    @property
    def contract(self) -> ModelContract:
        """What the model promises."""
        return self._contract

    @property
    def variant(self) -> str:
        """Backend and the precision that really runs."""
        return f"openvino {self._precision}"

    def infer(self, views: NDArray[np.float32], present: NDArray[np.bool_]) -> Prediction:
        """Views (4, 1, H, W) in [0, 1], present (4,), not all false. Raises InferenceError."""
        return prediction_of(self._run(wire_inputs(views, present, self._contract)), self._contract, present)

    def check_health(self) -> None:
        """A real inference. Raises InferenceError."""
        self.infer(*probe(self._contract))

    def _run(self, inputs: dict[str, NDArray[Any]]) -> Outputs:
        with self._lock:
            try:
                answer = self._request.infer(inputs)
            except RuntimeError as error:
                raise InferenceError(f"OpenVINO: {str(error).splitlines()[0]}") from error
            return {name: answer[name].copy() for name in self._contract.outputs}


def choose_precision(wanted: str, capabilities: list[str]) -> str:
    """ "auto" is bf16 where the CPU multiplies it in hardware, otherwise f32. Raises SettingsError."""
    if wanted == "auto":
        return "bf16" if "BF16" in capabilities else "f32"
    if wanted not in PRECISIONS:
        raise SettingsError(f"inference.precision is {wanted}; known are auto, {', '.join(PRECISIONS)}")
    if wanted == "bf16" and "BF16" not in capabilities:
        raise SettingsError("inference.precision is bf16, which this CPU does not have; use auto or f32")
    return wanted


def _compile(core: openvino.Core, graph: openvino.Model, precision: str, threads: int) -> openvino.CompiledModel:
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads > 0:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        graph.reshape({port: [1, *list(port.partial_shape)[1:]] for port in graph.inputs})
        return core.compile_model(graph, "CPU", options)
    except RuntimeError as error:
        raise ContractError(f"model: OpenVINO cannot compile it: {str(error).splitlines()[0]}") from error


def _signature(ports: list[Any]) -> Signature:
    result = {}
    for port in ports:
        element_type = "bool" if port.element_type.get_type_name() == "boolean" else port.element_type.to_dtype().name
        shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.partial_shape)
        result[port.any_name] = (element_type, shape)
    return result


def _check_labels(model_folder: Path, contract: ModelContract) -> None:
    """labels.txt, where there is one, names the finding axis in its order."""
    file = model_folder / "labels.txt"
    if file.exists() and tuple(file.read_text(encoding="utf-8").split()) != contract.findings:
        raise ContractError("model: labels.txt does not name the contract's findings in their order")
