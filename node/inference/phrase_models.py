"""exam_query and text_encoder, beside exam_encoder: phrases in, where they are shown out. OpenVINO or Triton."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError, InferenceUnavailableError, NotOfferedError, NotServedError
from node.inference.openvino_graph import OpenVinoGraph, onnx_file, port_signature, read_onnx
from node.inference.query_contract import check_text_space, query_contract_from_json, text_contract_from_json
from node.inference.query_tensors import (
    Run,
    check_query,
    check_text,
    embed_text,
    query_answer,
    query_inputs,
    query_signature,
    text_signature,
)
from node.inference.tensors import Signature, check_signature
from node.inference.triton_served import ServedModel, parameter, served_signature, served_variant
from node.mammography.contract import ModelContract, QueryAnswer, QueryContract, TextContract
from node.mammography.known_phrases import KnownPhrases, known_phrases_of, load_known_phrases
from node.mammography.wordpiece import WordPiece, wordpiece_of
from node.settings import InferenceSettings

logger = logging.getLogger(__name__)

EXAM_QUERY = "exam_query"
TEXT_ENCODER = "text_encoder"
KNOWN_PHRASES = "phrases.json"
PRECISION = "f32"
"""Cosines and norms are float32: bf16 would move what a phrase's rank rests on."""
PHRASES_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class PhraseModels:
    """The two models that answer phrases, checked against each other and against exam_encoder."""

    query: QueryContract
    text: TextContract
    tokens: WordPiece
    known: KnownPhrases | None
    """What was trained on; None: not told."""
    query_variant: str
    text_variant: str
    _run_query: Run
    _run_text: Run

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (Q, D). Raises InferenceError, InferenceUnavailableError."""
        return np.stack([embed_text(self._run_text, text, self.text, self.tokens) for text in texts])

    def ask(
        self, views: NDArray[np.float32], present: NDArray[np.bool_], embeddings: NDArray[np.float32]
    ) -> QueryAnswer:
        """Views (4, 1, H, W) in [0, 1], present (4,), not all false, unit vectors (Q, D) of `embed`.

        Raises InferenceError for this exam, InferenceUnavailableError where a later try may work.
        """
        answers = [
            self._ask(views, present, embeddings[start : start + PHRASES_AT_ONCE])
            for start in range(0, len(embeddings), PHRASES_AT_ONCE)
        ]
        return QueryAnswer(
            logits=np.concatenate([answer.logits for answer in answers], axis=1),
            heatmaps=np.concatenate([answer.heatmaps for answer in answers], axis=1),
        )

    def _ask(
        self, views: NDArray[np.float32], present: NDArray[np.bool_], embeddings: NDArray[np.float32]
    ) -> QueryAnswer:
        inputs = query_inputs(views, present, embeddings, self.query)
        return query_answer(self._run_query(inputs), self.query, present, len(embeddings))


def load_phrase_models(settings: InferenceSettings, exam: ModelContract) -> PhraseModels:
    """The models beside the exam_encoder whose contract is `exam`, tried.

    Raises NotOfferedError where there are none, ContractError where one does not fit the others, and for Triton
    InferenceUnavailableError while the server is away.
    """
    if exam.text_space is None:
        raise NotOfferedError(f"phrase queries are not offered: {exam.name} {exam.version} has no text space")
    models = _of_openvino(settings) if settings.backend == "openvino" else _of_triton(settings)
    check_text_space(exam, models.query, models.text)
    check_text(models._run_text, models.text, models.tokens)
    check_query(models._run_query, models.query)
    logger.info("phrases: %s %s, %s", models.query.name, models.query.version, models.query_variant)
    return models


def _of_openvino(settings: InferenceSettings) -> PhraseModels:
    beside = settings.model_folder.parent
    for name in (EXAM_QUERY, TEXT_ENCODER):
        if not (beside / name).is_dir():
            raise NotOfferedError(f"phrase queries are not offered: there is no {name} beside {settings.model_folder}")
    query_graph, written = read_onnx(onnx_file(beside / EXAM_QUERY))
    query = query_contract_from_json(written)
    _compare(port_signature(query_graph.inputs), port_signature(query_graph.outputs), query_signature(query))
    text_graph, written = read_onnx(onnx_file(beside / TEXT_ENCODER))
    text = text_contract_from_json(written)
    _compare(port_signature(text_graph.inputs), port_signature(text_graph.outputs), text_signature(text))
    tokens = _tokens(_vocabulary(beside / TEXT_ENCODER / text.vocabulary), text)
    phrases = beside / TEXT_ENCODER / KNOWN_PHRASES
    known = load_known_phrases(phrases) if phrases.exists() else None
    run_query = OpenVinoGraph(query_graph, query.outputs, PRECISION, settings.threads)
    run_text = OpenVinoGraph(text_graph, text.outputs, PRECISION, settings.threads)
    seconds = settings.deadline_seconds
    return PhraseModels(
        query,
        text,
        tokens,
        known,
        run_query.variant,
        run_text.variant,
        lambda inputs: run_query.run(inputs, seconds),
        lambda inputs: run_text.run(inputs, seconds),
    )


def _of_triton(settings: InferenceSettings) -> PhraseModels:
    served_query, served_text = (ServedModel(settings, name) for name in (EXAM_QUERY, TEXT_ENCODER))
    try:
        query_config, text_config = served_query.config(), served_text.config()
    except NotServedError as error:
        raise NotOfferedError(f"phrase queries are not offered: {error}") from error
    query = query_contract_from_json(parameter(query_config, "contract"))
    _compare(served_signature(query_config.input), served_signature(query_config.output), query_signature(query))
    text = text_contract_from_json(parameter(text_config, "contract"))
    _compare(served_signature(text_config.input), served_signature(text_config.output), text_signature(text))
    tokens = _tokens(parameter(text_config, "vocabulary").encode(), text)
    told = text_config.parameters["phrases"].string_value.encode() if "phrases" in text_config.parameters else b""
    known = known_phrases_of(told, f"Triton's {TEXT_ENCODER}: parameter phrases") if told else None

    def run_query(inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        wanted = query_signature(query, inputs["query_embeddings"].shape[1])[1]
        outputs = dict(served_query.run(inputs, wanted).outputs)
        if served_query.config() != query_config:
            raise InferenceUnavailableError("Triton was given another exam_query during this inference; ask again")
        return outputs

    return PhraseModels(
        query,
        text,
        tokens,
        known,
        served_variant(query_config),
        served_variant(text_config),
        run_query,
        lambda inputs: served_text.run(inputs, text_signature(text)[1]).outputs,
    )


def _compare(inputs: Signature, outputs: Signature, wanted: tuple[Signature, Signature]) -> None:
    check_signature(inputs, wanted[0])
    check_signature(outputs, wanted[1])


def _vocabulary(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ContractError(f"contract: vocabulary: {file.name} cannot be read: {error.strerror}") from error


def _tokens(vocabulary: bytes, contract: TextContract) -> WordPiece:
    """The tokenizer of the vocabulary that the text encoder was trained with. Raises ContractError."""
    if hashlib.sha256(vocabulary).hexdigest() != contract.vocabulary_hash:
        raise ContractError(f"contract: vocabulary_hash: {contract.vocabulary} is not the one that was trained with")
    return wordpiece_of(vocabulary, contract.vocabulary, lower_case=contract.lower_case)
