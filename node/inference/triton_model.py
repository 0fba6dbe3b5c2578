"""exam_encoder on a Triton Inference Server, over gRPC."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError, ModelWaitError
from node.inference.breaker import Breaker
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
from node.inference.triton_labels import LABELLED, check_labels, served_labels
from node.inference.triton_served import (
    ROUTINE,
    Answer,
    ServedModel,
    check_server,
    parameter,
    served_signature,
    served_variant,
)
from node.mammography.contract import ModelContract, Prediction
from node.settings import InferenceSettings

logger = logging.getLogger(__name__)

ROUNDS = 3
"""So often one call asks again where the server was given another model meanwhile."""
PROBE_PRIORITY = 0


@dataclass(frozen=True, slots=True, eq=False)
class Adopted:
    """What the server serves, checked: its configuration, the version that answers, and what that promises."""

    config: Any
    version: str
    contract: ModelContract
    variant: str


class TritonModel:
    """One served model. Make it after a fork: gRPC's threads do not survive one."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Raises ContractError where the served model does not fit, InferenceUnavailableError while there is none."""
        self._served = ServedModel(settings, settings.triton_model, settings.triton_version)
        self._breaker = Breaker(self._probe, self._served.reload)
        self._server = check_server(self._served.server())
        self._adopted = self._adopt(self._served.config())

    @property
    def contract(self) -> ModelContract:
        """What the model promises, from the parameter `contract` of its configuration on the server."""
        return self._adopted.contract

    @property
    def variant(self) -> str:
        """Backend and precision, as the served configuration says, and the number of the version there."""
        return self._adopted.variant

    @property
    def server(self) -> str:
        """In words: which server, and how tensors go there."""
        return f"{self._server}, {'shared memory' if self._served.uses_shared_memory else 'gRPC'}"

    def check_turn(self) -> None:
        """Before an exam is prepared. Raises ModelWaitError while the server is not asked because it failed."""
        self._breaker.check()

    def infer(self, views: NDArray[np.float32], present: NDArray[np.bool_], priority: int = ROUTINE) -> Prediction:
        """Views (4, 1, H, W) in [0, 1], present (4,), not all false; the exam's priority, 0 first to 9 last.

        Raises InferenceError for this input, InferenceUnavailableError where a later try may work, ModelWaitError
        where the exam had no turn. Where the server was given another model meanwhile, that one is adopted and asked;
        an answer names its own contract (`answered_by`). Raises ContractError where it does not fit the node.
        """
        self.check_turn()
        with self._breaker.watched():
            return self._infer(views, present, priority)

    def check_health(self) -> None:
        """A real inference: a server whose model process has died still calls itself ready. Raises a ModelError."""
        self._infer(*probe(self.contract), ROUTINE)

    def close(self) -> None:
        """Let go of the connection and of shared memory."""
        self._served.close()

    def _probe(self) -> None:
        self._infer(*probe(self.contract), PROBE_PRIORITY)

    def _infer(self, views: NDArray[np.float32], present: NDArray[np.bool_], priority: int) -> Prediction:
        adopted = self._adopted
        for _ in range(ROUNDS):
            inputs = wire_inputs(views, present, adopted.contract)
            answer = self._run(inputs, adopted.contract, priority)
            config = self._served.config()
            if config == adopted.config and answer.version == adopted.version:
                prediction = prediction_of(answer.outputs, adopted.contract, present)
                return replace(prediction, answered_by=(adopted.contract, adopted.variant))
            before, adopted = adopted, self._adopt(config)
            self._adopted = adopted
            if adopted.contract.preset != before.contract.preset:
                break
        raise ModelWaitError("Triton was given another model during this inference; the exam is read again", 0.0)

    def _adopt(self, config: Any) -> Adopted:
        """Check the served configuration. Raises ContractError, ModelWaitError while versions are being exchanged."""
        wanted = self._served.latest_version()
        contract = contract_from_json(_contract_text(config, wanted))
        if config.max_batch_size < 1:
            raise ContractError("model: max_batch_size is 0; the contract has a batch axis")
        inputs, outputs = signature_of(contract)
        check_signature(served_signature(config.input), inputs)
        check_signature(served_signature(config.output), outputs)
        answers: list[Answer] = []

        def run(tensors: dict[str, NDArray[Any]]) -> Outputs:
            answers.append(self._run(tensors, contract, ROUTINE))
            return answers[-1].outputs

        self_check(run, contract)
        version = answers[-1].version
        if {answer.version for answer in answers} != {wanted or version}:
            raise ModelWaitError(f"Triton is just being given version {wanted} of {contract.name}", 0.0)
        if any(tensor.name == LABELLED and tensor.label_filename for tensor in config.output):
            check_labels(served_labels(self._served, config.name, version, contract), contract)
        variant = f"{served_variant(config)} v{version}" if version else served_variant(config)
        logger.info("model %s %s served by %s: %s", contract.name, contract.version, self._server, variant)
        return Adopted(config, version, contract, variant)

    def _run(self, inputs: dict[str, NDArray[Any]], contract: ModelContract, priority: int) -> Answer:
        return self._served.run(inputs, signature_of(contract)[1], priority)


def served_contract(served: ServedModel) -> ModelContract:
    """What the version promises that an inference asks for. Raises ContractError, InferenceUnavailableError."""
    return contract_from_json(_contract_text(served.config(), served.latest_version()))


def _contract_text(config: Any, version: str) -> str:
    """Of one version where the configuration tells them apart, else of all."""
    own = f"contract.{version}"
    return parameter(config, own if own in config.parameters else "contract")
