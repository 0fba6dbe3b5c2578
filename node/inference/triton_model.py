"""The model on a Triton Inference Server, over gRPC."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from node.errors import ContractError, InferenceError, InferenceUnavailableError, ModelError, SettingsError
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
T = TypeVar("T")
Question = Callable[[triton.InferenceServerClient, float], T]

FIRST_PAUSE_SECONDS = 0.2
NUMPY_TYPES = {"TYPE_FP32": "float32", "TYPE_FP16": "float16", "TYPE_UINT8": "uint8", "TYPE_BOOL": "bool"}
WIRE_NAMES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "bool": "BOOL"}
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # mammograms go straight to the server, whatever http_proxy says
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the waiting times of the lost one
]


class TritonModel:
    """One served model. Make it after a fork: gRPC's threads do not survive one.

    `deadline_seconds` bounds a call with all its attempts. Tried again within it is only what a moment may mend: no
    connection, a full queue. A server that is too slow is not asked twice; the caller's own retry comes later.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        """Raises ContractError where the served model does not fit, InferenceUnavailableError while there is none."""
        self._settings = settings
        self._client = _connect(settings.triton_url)
        self._adopt(self._ask(self._served_config))

    @property
    def contract(self) -> ModelContract:
        """What the model promises, from the parameter `contract` of its configuration on the server."""
        return self._contract

    @property
    def variant(self) -> str:
        """Backend and precision, as the served configuration says."""
        return self._variant

    def infer(self, views: NDArray[np.float32], present: NDArray[np.bool_]) -> Prediction:
        """Views (4, 1, H, W) in [0, 1], present (4,), not all false.

        Raises InferenceError for this input, InferenceUnavailableError where a later try may work. That is also so
        where the server has been given another model meanwhile: its contract is taken over for that later try.
        """
        contract = self._contract
        prediction = prediction_of(self._run(wire_inputs(views, present, contract)), contract, present)
        config = self._ask(self._served_config)
        if config != self._config:
            self._adopt(config)
            raise InferenceUnavailableError("Triton was given another model during this inference; read the exam again")
        return prediction

    def check_health(self) -> None:
        """A real inference: a server whose model process has died still calls itself ready. Raises a ModelError."""
        self.infer(*probe(self._contract))

    def _adopt(self, config: Any) -> None:
        """Check the served configuration and keep it. Raises ContractError."""
        contract = contract_from_json(_parameter(config, "contract"))
        if config.max_batch_size < 1:
            raise ContractError("model: max_batch_size is 0; the contract has a batch axis")
        inputs, outputs = signature_of(contract)
        check_signature(_signature(config.input), inputs)
        check_signature(_signature(config.output), outputs)
        self._config, self._contract = config, contract
        self._variant = f"triton {config.backend or config.platform} {_parameter(config, 'precision')}"
        self_check(self._run, contract)
        logger.info("model %s %s served by Triton: %s", contract.name, contract.version, self._variant)

    def _run(self, inputs: dict[str, NDArray[Any]]) -> Outputs:
        result = self._ask(lambda client, seconds: self._infer(client, seconds, inputs))
        outputs = {}
        for name in self._contract.outputs:
            try:
                outputs[name] = result.as_numpy(name)
            except ValueError as error:  # Triton's Python backend under numpy 2 sends empty outputs
                raise InferenceError(f"Triton: output {name} is not as long as its shape says") from error
        return {name: value for name, value in outputs.items() if value is not None}

    def _infer(self, client: triton.InferenceServerClient, seconds: float, inputs: dict[str, NDArray[Any]]) -> Any:
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), WIRE_NAMES[array.dtype.name])
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        outputs = [triton.InferRequestedOutput(name) for name in self._contract.outputs]
        return client.infer(self._settings.triton_model, tensors, outputs=outputs, client_timeout=seconds)

    def _served_config(self, client: triton.InferenceServerClient, seconds: float) -> Any:
        return client.get_model_config(self._settings.triton_model, client_timeout=seconds).config

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
                    raise _translated(error, self._settings) from error
            time.sleep(pause)
        raise SettingsError("inference.attempts must be at least 1")


def _connect(url: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(url, channel_args=CHANNEL_OPTIONS)


def _translated(error: InferenceServerException, settings: InferenceSettings) -> ModelError:
    where, model = f"Triton at {settings.triton_url}", settings.triton_model
    status, message = error.status(), (error.message() or "").strip().partition("\n")[0]
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return InferenceUnavailableError(f"{where} did not answer within {settings.deadline_seconds:g} s")
    if status == "StatusCode.UNAVAILABLE":
        return InferenceUnavailableError(f"{where} is away: {message}")
    if status == "StatusCode.NOT_FOUND":
        return InferenceUnavailableError(f"{where} serves no model {model}: {message}")
    if "stub process" in message.lower():
        return InferenceUnavailableError(f"{where}: the process of model {model} has died; unload and load the model")
    return InferenceError(f"{where} answered {str(status).removeprefix('StatusCode.')}: {message}")


def _parameter(config: Any, name: str) -> str:
    if name not in config.parameters:
        raise ContractError(f"contract: Triton's configuration of {config.name} has no parameter {name}")
    return str(config.parameters[name].string_value)


def _signature(tensors: Any) -> Signature:
    result = {}
    for tensor in tensors:
        data_type = triton.model_config_pb2.DataType.Name(tensor.data_type)
        shape = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        result[tensor.name] = (NUMPY_TYPES.get(data_type, data_type), (-1, *shape))
    return result
