"""exam_encoder on a Triton Inference Server, over gRPC."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError, InferenceUnavailableError
from node.inference.contract import contract_from_json
from node.inference.tensors import (
    Outputs,
    check_signature,
    prediction_of,
    probe,
    self_check,
    signature_of,
    wire_inputs,
)
from node.inference.triton_served import ServedModel, parameter, served_signature, served_variant
from node.mammography.contract import ModelContract, Prediction
from node.settings import InferenceSettings

logger = logging.getLogger(__name__)


class TritonModel:
    """One served model. Make it after a fork: gRPC's threads do not survive one."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Raises ContractError where the served model does not fit, InferenceUnavailableError while there is none."""
        self._served = ServedModel(settings, settings.triton_model)
        self._adopt(self._served.config())

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
        config = self._served.config()
        if config != self._config:
            self._adopt(config)
            raise InferenceUnavailableError("Triton was given another model during this inference; read the exam again")
        return prediction

    def check_health(self) -> None:
        """A real inference: a server whose model process has died still calls itself ready. Raises a ModelError."""
        self.infer(*probe(self._contract))

    def _adopt(self, config: Any) -> None:
        """Check the served configuration and keep it. Raises ContractError."""
        contract = contract_from_json(parameter(config, "contract"))
        if config.max_batch_size < 1:
            raise ContractError("model: max_batch_size is 0; the contract has a batch axis")
        inputs, outputs = signature_of(contract)
        check_signature(served_signature(config.input), inputs)
        check_signature(served_signature(config.output), outputs)
        self._config, self._contract = config, contract
        self._variant = served_variant(config)
        self_check(self._run, contract)
        logger.info("model %s %s served by Triton: %s", contract.name, contract.version, self._variant)

    def _run(self, inputs: dict[str, NDArray[Any]]) -> Outputs:
        return self._served.run(inputs, self._contract.outputs)
