"""exam_encoder in this process: the exported ONNX compiled by OpenVINO for the CPU."""

import logging
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from node.errors import ContractError
from node.inference.contract import contract_from_json
from node.inference.openvino_graph import OpenVinoGraph, onnx_file, port_signature, read_onnx
from node.inference.tensors import check_signature, prediction_of, probe, self_check, signature_of, wire_inputs
from node.mammography.contract import ModelContract, Prediction
from node.settings import InferenceSettings

logger = logging.getLogger(__name__)


def read_graph(file: Path) -> tuple[openvino.Model, ModelContract]:
    """The graph and the contract in its metadata; tensor names, types and shapes are compared. Raises ContractError."""
    graph, written = read_onnx(file)
    contract = contract_from_json(written)
    inputs, outputs = signature_of(contract)
    check_signature(port_signature(graph.inputs), inputs)
    check_signature(port_signature(graph.outputs), outputs)
    return graph, contract


class OpenVinoModel:
    """Compiled once; one inference at a time. Make it after a fork: OpenVINO's threads do not survive one."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Raises ContractError where the model does not fit, SettingsError for a precision that the CPU has not."""
        graph, self._contract = read_graph(onnx_file(settings.model_folder))
        _check_labels(settings.model_folder, self._contract)
        self._graph = OpenVinoGraph(graph, self._contract.outputs, settings.precision, settings.threads)
        self_check(self._graph.run, self._contract)
        logger.info("model %s %s loaded: %s", self._contract.name, self._contract.version, self.variant)

    @property
    def contract(self) -> ModelContract:
        """What the model promises."""
        return self._contract

    @property
    def variant(self) -> str:
        """Backend and the precision that really runs."""
        return self._graph.variant

    def infer(self, views: NDArray[np.float32], present: NDArray[np.bool_], priority: int = 5) -> Prediction:
        """Views (4, 1, H, W) in [0, 1], present (4,), not all false; exams take turns. Raises InferenceError."""
        inputs = wire_inputs(views, present, self._contract)
        return prediction_of(self._graph.run(inputs), self._contract, present)

    def check_turn(self) -> None:
        """In this process it is always an exam's turn."""

    def check_health(self) -> None:
        """A real inference. Raises InferenceError."""
        self.infer(*probe(self._contract))


def _check_labels(model_folder: Path, contract: ModelContract) -> None:
    """labels.txt, where there is one, names the finding axis in its order."""
    file = model_folder / "labels.txt"
    if file.exists() and tuple(file.read_text(encoding="utf-8").split()) != contract.findings:
        raise ContractError("model: labels.txt does not name the contract's findings in their order")
