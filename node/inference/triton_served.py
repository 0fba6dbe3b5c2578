"""One model on a Triton Inference Server, over gRPC: its configuration, its tensors, within a deadline."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from node.errors import (
    ContractError,
    InferenceError,
    InferenceUnavailableError,
    ModelError,
    NotServedError,
    SettingsError,
)
from node.inference.tensors import Outputs, Signature
from node.settings import InferenceSettings

T = TypeVar("T")
Question = Callable[[triton.InferenceServerClient, float], T]

FIRST_PAUSE_SECONDS = 0.2
NUMPY_TYPES = {
    "TYPE_FP32": "float32",
    "TYPE_FP16": "float16",
    "TYPE_UINT8": "uint8",
    "TYPE_BOOL": "bool",
    "TYPE_INT64": "int64",
}
WIRE_NAMES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "bool": "BOOL", "int64": "INT64"}
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # mammograms go straight to the server, whatever http_proxy says
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the waiting times of the lost one
]


class ServedModel:
    """One served model by name. Make it after a fork: gRPC's threads do not survive one.

    `deadline_seconds` bounds a call with all its attempts. Tried again within it is only what a moment may mend: no
    connection, a full queue. A server that is too slow is not asked twice; the caller's own retry comes later.
    """

    def __init__(self, settings: InferenceSettings, name: str) -> None:
        self._settings, self._name = settings, name
        self._client = _connect(settings.triton_url)

    def config(self) -> Any:
        """The served configuration. Raises InferenceUnavailableError, InferenceError."""
        return self._ask(self._served_config)

    def run(self, inputs: dict[str, NDArray[Any]], outputs: Sequence[str]) -> Outputs:
        """One inference. Raises InferenceError for this input, InferenceUnavailableError where a later try may work."""
        result = self._ask(lambda client, seconds: self._infer(client, seconds, inputs, outputs))
        answer = {}
        for name in outputs:
            try:
                answer[name] = result.as_numpy(name)
            except ValueError as error:  # Triton's Python backend under numpy 2 sends empty outputs
                raise InferenceError(f"Triton: output {name} is not as long as its shape says") from error
        return {name: value for name, value in answer.items() if value is not None}

    def _infer(
        self,
        client: triton.InferenceServerClient,
        seconds: float,
        inputs: dict[str, NDArray[Any]],
        outputs: Sequence[str],
    ) -> Any:
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), WIRE_NAMES[array.dtype.name])
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        return client.infer(self._name, tensors, outputs=wanted, client_timeout=seconds)

    def _served_config(self, client: triton.InferenceServerClient, seconds: float) -> Any:
        return client.get_model_config(self._name, client_timeout=seconds).config

    def _ask(self, question: Question[T]) -> T:
        """Ask within the deadline, again where that may help. Raises InferenceError, InferenceUnavailableError."""
        ends = time.monotonic() + self._settings.deadline_seconds
        for attempt in range(1, self._settings.attempts + 1):
            pause = FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1)
            try:
                return question(self._client, max(ends - time.monotonic(), 0.001))
            except InferenceServerException as error:
                away = error.status() == "StatusCode.UNAVAILABLE"
                if away:
                    self._client = _connect(self._settings.triton_url)
                if not away or attempt == self._settings.attempts or time.monotonic() + pause >= ends:
                    raise _translated(error, self._settings, self._name) from error
            time.sleep(pause)
        raise SettingsError("inference.attempts must be at least 1")


def parameter(config: Any, name: str) -> str:
    """A parameter of a served configuration. Raises ContractError where it has none of that name."""
    if name not in config.parameters:
        raise ContractError(f"contract: Triton's configuration of {config.name} has no parameter {name}")
    return str(config.parameters[name].string_value)


def served_signature(tensors: Any) -> Signature:
    """What a served configuration's inputs or outputs are, the batch first."""
    result = {}
    for tensor in tensors:
        data_type = triton.model_config_pb2.DataType.Name(tensor.data_type)
        shape = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        result[tensor.name] = (NUMPY_TYPES.get(data_type, data_type), (-1, *shape))
    return result


def served_variant(config: Any) -> str:
    """Backend and precision, as a served configuration says."""
    return f"triton {config.backend or config.platform} {parameter(config, 'precision')}"


def _connect(url: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(url, channel_args=CHANNEL_OPTIONS)


def _translated(error: InferenceServerException, settings: InferenceSettings, model: str) -> ModelError:
    where = f"Triton at {settings.triton_url}"
    status, message = error.status(), (error.message() or "").strip().partition("\n")[0]
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return InferenceUnavailableError(f"{where} did not answer within {settings.deadline_seconds:g} s")
    if status == "StatusCode.UNAVAILABLE":
        return InferenceUnavailableError(f"{where} is away: {message}")
    if status == "StatusCode.NOT_FOUND":
        return NotServedError(f"{where} serves no model {model}: {message}")
    if "stub process" in message.lower():
        return InferenceUnavailableError(f"{where}: the process of model {model} has died; unload and load the model")
    return InferenceError(f"{where} answered {str(status).removeprefix('StatusCode.')}: {message}")
