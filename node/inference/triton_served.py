"""One model on a Triton Inference Server, over gRPC: its configuration, its tensors, within a deadline."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from node.errors import ContractError, InferenceError, InferenceUnavailableError, SettingsError
from node.inference.shared_memory import NoSharedMemoryError, SharedTensors, sweep
from node.inference.tensors import Outputs, Signature
from node.inference.triton_failures import Retry, error_of, failure_of
from node.inference.triton_targets import priority_of
from node.inference_settings import is_loopback
from node.settings import InferenceSettings

T = TypeVar("T")
Question = Callable[[triton.InferenceServerClient, float], T]

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
ROUTINE = 5
"""The priority of a rule that names none."""
OLDEST_TRITON = (2, 51)
"""The one that the node is tested with."""
QUEUE_SHARE = 0.9
"""Of its deadline that a request may wait in the server's queue: so the server says that it is busy, and not silent."""
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
RELOAD_SECONDS = 120.0
"""For unloading a model, and for loading it: more than an inference takes, less than an exam's lease."""
SECRET_PREFIX = "triton-grpc-protocol-"
"""Before the key of a restricted protocol in gRPC's metadata."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of one inference, and the number of the model's version that gave them; empty: not told."""

    outputs: Outputs
    version: str


class ServedModel:
    """One served model by name. Make it after a fork: gRPC's threads do not survive one.

    A deadline bounds a call with all its attempts. Tried again within it is only what a moment may mend: no
    connection, a model that is being loaded. A server that is too slow is not asked twice; the caller's own retry
    comes later. Where the server is on this host, tensors go through shared memory.
    """

    def __init__(self, settings: InferenceSettings, name: str, version: str = "") -> None:
        """`version`: the number of the model's version on the server; empty: its latest. Raises SettingsError."""
        self._settings, self._name, self._version = settings, name, version
        self._client = _connect(settings)
        self._shared: SharedTensors | None = None
        self._is_swept = False
        mode = settings.shared_memory
        if mode == "always" or (mode == "auto" and is_loopback(settings.triton_url)):
            self._shared = SharedTensors()

    @property
    def uses_shared_memory(self) -> bool:
        """Whether tensors go through shared memory, as far as is known."""
        return self._shared is not None

    def config(self) -> Any:
        """The served configuration. Raises InferenceUnavailableError, InferenceError, ContractError."""
        return self.ask(
            lambda client, seconds: client.get_model_config(self._name, self._version, client_timeout=seconds).config
        )

    def latest_version(self) -> str:
        """The number of the version that an inference asks for; empty where the server does not say."""
        if self._version:
            return self._version
        told = self.ask(lambda client, seconds: client.get_model_metadata(self._name, client_timeout=seconds).versions)
        return max(told, key=lambda number: int(number) if number.isdecimal() else 0, default="")

    def server(self) -> str:
        """Name and version of the server."""
        told = self.ask(lambda client, seconds: client.get_server_metadata(client_timeout=seconds))
        return f"{told.name} {told.version}"

    def run(self, inputs: dict[str, NDArray[Any]], outputs: Signature, priority: int = ROUTINE) -> Answer:
        """One inference with a batch of one exam of that priority, 0 (first) to 9, by which its deadline is chosen.

        Raises InferenceError for this input, ModelWaitError where it had no turn, InferenceUnavailableError where a
        later try may work.
        """
        seconds = deadline_of(self._settings, priority)
        return self.ask(lambda client, left: self._infer(client, left, inputs, outputs, priority), seconds)

    def reload(self) -> bool:
        """Unload and load the model, which mends a dead process. False where the server does not let us; logged."""
        try:
            self.ask(lambda client, left: client.unload_model(self._name, client_timeout=left), RELOAD_SECONDS)
            self.ask(lambda client, left: client.load_model(self._name, client_timeout=left), RELOAD_SECONDS)
        except (InferenceError, InferenceUnavailableError, ContractError) as error:
            logger.error("ALARM model %s could not be unloaded and loaded: %s", self._name, error)
            return False
        logger.warning("model %s was unloaded and loaded: its process had died", self._name)
        return True

    def close(self) -> None:
        """Let go of the connection and of shared memory."""
        if self._shared is not None:
            self._shared.close(self._client)
        self._client.close()

    def ask(self, question: Question[T], seconds: float | None = None) -> T:
        """Ask within a deadline (none given: a routine exam's), again where that may help. Raises ModelErrors."""
        seconds = self._settings.deadline_seconds if seconds is None else seconds
        ends = time.monotonic() + seconds
        for attempt in range(1, self._settings.attempts + 1):
            pause = FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1)
            try:
                return question(self._client, max(ends - time.monotonic(), 0.001))
            except InferenceServerException as error:
                status, message = str(error.status()), error.message() or ""
                is_passing = failure_of(status, message).retry is Retry.NOW
                if is_passing:
                    self._client = _connect(self._settings)
                if attempt == self._settings.attempts or time.monotonic() + pause >= ends or not is_passing:
                    raise error_of(status, message, self._settings.triton_url, self._name, seconds) from error
            time.sleep(pause)
        raise SettingsError("inference.attempts must be at least 1")

    def _infer(
        self,
        client: triton.InferenceServerClient,
        seconds: float,
        inputs: dict[str, NDArray[Any]],
        outputs: Signature,
        priority: int,
    ) -> Answer:
        ends = time.monotonic() + seconds

        def send(tensors: list[Any], wanted: list[Any]) -> Any:
            left = max(ends - time.monotonic(), 0.001)
            return client.infer(
                self._name,
                tensors,
                model_version=self._version,
                outputs=wanted,
                client_timeout=left,
                priority=priority_of(priority).level,
                timeout=int(left * QUEUE_SHARE * 1e6),
            )

        shared = self._shared
        if shared is not None:
            self._sweep(client)
            try:
                return _answer(*shared.exchange(client, seconds, inputs, outputs, send))
            except NoSharedMemoryError as error:
                self._do_without(error)
        result = send(*_on_the_wire(inputs, outputs))
        return _answer(result, _received(result, outputs))

    def _sweep(self, client: triton.InferenceServerClient) -> None:
        """Once; where the server does not let us, what dead processes left stays with it until it is started anew."""
        if self._is_swept:
            return
        self._is_swept = True
        try:
            sweep(client)
        except InferenceServerException as error:
            logger.info("regions of dead processes stay with Triton at %s: %s", self._settings.triton_url, error)

    def _do_without(self, error: NoSharedMemoryError) -> None:
        if self._settings.shared_memory == "always":
            words = (
                f"inference.shared_memory is always, and Triton at {self._settings.triton_url} cannot use it: {error}"
            )
            raise InferenceUnavailableError(words) from error
        logger.warning("no shared memory with Triton at %s, tensors go over gRPC: %s", self._settings.triton_url, error)
        self._shared = None


def check_server(told: str) -> str:
    """Name and version as told; one that the node was not tested with is said in the log. Raises ContractError."""
    name, _, version = told.partition(" ")
    numbers = tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2])
    if name == "triton" and numbers[:1] != OLDEST_TRITON[:1]:
        raise ContractError(f"the server is Triton {version}; this node speaks with Triton 2")
    if name != "triton" or numbers < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        logger.warning("the model server is %s; this node is tested with Triton %s and later", told, oldest)
    return told


def deadline_of(settings: InferenceSettings, priority: int) -> float:
    """Seconds for one inference of an exam of that priority, 0 to 9; urgent is never more than routine."""
    return {
        "urgent": min(settings.urgent_deadline_seconds, settings.deadline_seconds),
        "routine": settings.deadline_seconds,
        "retrospective": settings.retrospective_deadline_seconds,
    }[priority_of(priority).name]


def _answer(result: Any, outputs: Outputs) -> Answer:
    return Answer(outputs, result.get_response().model_version)


def _on_the_wire(inputs: dict[str, NDArray[Any]], outputs: Signature) -> tuple[list[Any], list[Any]]:
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), WIRE_NAMES[array.dtype.name])
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors, [triton.InferRequestedOutput(name) for name in outputs]


def _received(result: Any, outputs: Signature) -> Outputs:
    answer = {}
    for name in outputs:
        try:
            answer[name] = result.as_numpy(name)
        except ValueError as error:  # Triton's Python backend under numpy 2 sends empty outputs
            raise InferenceError(f"Triton: output {name} is not as long as its shape says") from error
    return {name: value for name, value in answer.items() if value is not None}


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


class _Secret(triton.InferenceServerClientPlugin):  # type: ignore[misc]
    """Puts the header of the restricted protocols on every call."""

    def __init__(self, header: str, value: str) -> None:
        self._header, self._value = header, value

    def __call__(self, request: Any) -> None:
        request.headers = {**(request.headers or {}), self._header: self._value}


def _connect(settings: InferenceSettings) -> triton.InferenceServerClient:
    client = triton.InferenceServerClient(
        settings.triton_url,
        creds=_credentials(settings) if settings.triton_tls else None,
        channel_args=CHANNEL_OPTIONS,
    )
    if settings.triton_secret_header:
        client.register_plugin(_Secret(SECRET_PREFIX + settings.triton_secret_header, settings.triton_secret))
    return client


def _credentials(settings: InferenceSettings) -> grpc.ChannelCredentials:
    files = (settings.triton_ca_file, settings.triton_key_file, settings.triton_certificate_file)
    return grpc.ssl_channel_credentials(*(None if file is None else _pem(file) for file in files))


def _pem(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"inference: {file} cannot be read: {error.strerror}") from error
