"""An exported ONNX in this process: read, compared with its contract's tensors, compiled for the CPU by OpenVINO."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import openvino
from numpy.typing import NDArray

from node.errors import ContractError, InferenceError, InferenceUnavailableError, SettingsError
from node.inference.tensors import Outputs, Signature

PRECISIONS = {"f32": "f32", "bf16": "bf16"}


def onnx_file(model_folder: Path) -> Path:
    """`<version>/model.onnx` of the highest version in the folder. Raises ContractError where there is none."""
    return onnx_versions(model_folder)[-1]


def onnx_versions(model_folder: Path) -> list[Path]:
    """All of them, the lowest version first. Raises ContractError where there is none."""
    found = [file for file in model_folder.glob("*/model.onnx") if file.parent.name.isdecimal()]
    if not found:
        raise ContractError(f"model: no <version>/model.onnx in {model_folder}")
    return sorted(found, key=lambda file: int(file.parent.name))


def read_onnx(file: Path) -> tuple[openvino.Model, str]:
    """The graph, and the contract in its metadata as it is written there. Raises ContractError."""
    try:
        graph = openvino.Core().read_model(file)
    except RuntimeError as error:
        raise ContractError(f"model: {file.name} cannot be read as ONNX") from error
    if not graph.has_rt_info(["framework", "contract"]):
        raise ContractError(f"contract: {file.name} carries none in its metadata")
    return graph, graph.get_rt_info(["framework", "contract"]).value


def port_signature(ports: list[Any]) -> Signature:
    """What a graph's inputs or outputs are."""
    result = {}
    for port in ports:
        element_type = "bool" if port.element_type.get_type_name() == "boolean" else port.element_type.to_dtype().name
        shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.partial_shape)
        result[port.any_name] = (element_type, shape)
    return result


def choose_precision(wanted: str, capabilities: list[str]) -> str:
    """ "auto" is bf16 where the CPU multiplies it in hardware, otherwise f32. Raises SettingsError."""
    if wanted == "auto":
        return "bf16" if "BF16" in capabilities else "f32"
    if wanted not in PRECISIONS:
        raise SettingsError(f"inference.precision is {wanted}; known are auto, {', '.join(PRECISIONS)}")
    if wanted == "bf16" and "BF16" not in capabilities:
        raise SettingsError("inference.precision is bf16, which this CPU does not have; use auto or f32")
    return wanted


class OpenVinoGraph:
    """A graph compiled once; one inference of a batch of one at a time. Make it after a fork: threads survive none."""

    def __init__(self, graph: openvino.Model, outputs: Sequence[str], precision: str, threads: int) -> None:
        """Raises ContractError where it cannot be compiled, SettingsError for a precision that the CPU has not."""
        core = openvino.Core()
        self._precision = choose_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._outputs = tuple(outputs)
        self._request = _compile(core, graph, self._precision, threads).create_infer_request()
        self._lock = Lock()
        self._is_abandoned = False

    @property
    def variant(self) -> str:
        """Backend and the precision that really runs."""
        return f"openvino {self._precision}"

    def run(self, inputs: dict[str, NDArray[Any]], deadline_seconds: float | None = None) -> Outputs:
        """The outputs, copied. Raises InferenceError, and InferenceUnavailableError where the deadline passes."""
        with self._lock:
            self._end_abandoned()
            try:
                self._request.start_async(inputs)
                self._wait(deadline_seconds)
            except RuntimeError as error:
                raise InferenceError(f"OpenVINO: {str(error).splitlines()[0]}") from error
            return {name: self._request.get_tensor(name).data.copy() for name in self._outputs}

    def _wait(self, deadline_seconds: float | None) -> None:
        if deadline_seconds is None:
            self._request.wait()
            return
        ends = time.monotonic() + deadline_seconds
        if not self._request.wait_for(int(deadline_seconds * 1000)):
            self._is_abandoned = True
            self._request.cancel()
        if self._is_abandoned or time.monotonic() > ends:
            raise InferenceUnavailableError(f"the model did not answer within {deadline_seconds:g} s")

    def _end_abandoned(self) -> None:
        """A cancelled inference ends at its own pace; the request is busy until then."""
        if self._is_abandoned:
            with suppress(RuntimeError):  # says that it was cancelled
                self._request.wait()
            self._is_abandoned = False


def _compile(core: openvino.Core, graph: openvino.Model, precision: str, threads: int) -> openvino.CompiledModel:
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads > 0:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        graph.reshape({port: [1, *list(port.partial_shape)[1:]] for port in graph.inputs})
        return core.compile_model(graph, "CPU", options)
    except RuntimeError as error:
        raise ContractError(f"model: OpenVINO cannot compile it: {str(error).splitlines()[0]}") from error
