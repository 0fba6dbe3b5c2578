"""exam_query and text_encoder on tiny graphs that are made on the spot."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from node.errors import ContractError, InferenceError, InferenceUnavailableError, NotOfferedError
from node.inference.load import contract_of, load_model, load_phrases
from node.inference.openvino_graph import OpenVinoGraph, onnx_file, read_onnx
from node.inference.phrase_models import PHRASES_AT_ONCE, PhraseModels
from node.inference.query_contract import (
    query_contract_from_json,
    query_contract_to_json,
    text_contract_from_json,
    text_contract_to_json,
)
from node.inference.triton_config import write_config
from node.settings import InferenceSettings
from tests.models import TEXT_SPACE, make_tiny_model, make_tiny_phrase_models

HEIGHT, WIDTH = 152, 96
EVERY = np.ones(4, dtype=np.bool_)


def settings_for(exam_encoder: Path) -> InferenceSettings:
    return InferenceSettings("openvino", exam_encoder, "f32", 1, "", "exam_encoder", 10.0, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_phrase_models(tmp_path_factory.mktemp("models"), height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def models(folder: Path) -> PhraseModels:
    return load_phrases(settings_for(folder))


def a_blob(view: int = 0) -> np.ndarray:
    """Four breasts of brightness 0.3; in one a disc of 0.8 around (x, y) = (40, 64)."""
    views = np.full((4, 1, HEIGHT, WIDTH), 0.3, np.float32)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    views[view, 0][(x - 40.5) ** 2 + (y - 64.5) ** 2 < 10**2] = 0.8
    return views


def contract_in(folder: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_onnx(onnx_file(folder.parent / name))[1])
    return document


def test_phrases_become_unit_vectors_by_their_words(models: PhraseModels) -> None:
    mass, spiculated, calcifications = models.embed(["mass", "Spiculated mass", "calcifications"])
    assert np.linalg.norm([mass, spiculated, calcifications], axis=1) == pytest.approx(1, abs=1e-6)
    assert mass @ spiculated > 0.9
    assert abs(mass @ calcifications) < 0.1


def test_each_phrase_is_found_where_it_is_shown(models: PhraseModels) -> None:
    answer = models.ask(a_blob(1), EVERY, models.embed(["calcifications", "mass"]))
    assert answer.logits.shape == (4, 2)
    assert answer.heatmaps.shape == (4, 2, 19, 12)
    assert int(answer.logits[:, 1].argmax()) == 1
    row, column = np.unravel_index(answer.heatmaps[1, 1].argmax(), (19, 12))
    stride, offset = models.query.heatmap_stride, models.query.heatmap_offset
    assert (offset[0] + stride[0] * row, offset[1] + stride[1] * column) == (64.5, 40.5)


def test_absent_views_are_minus_30_and_0_whatever_their_pixels(models: PhraseModels) -> None:
    present, embeddings = np.array([True, False, True, True]), models.embed(["mass"])
    clean, dirty = a_blob(), a_blob()
    dirty[1] = np.nan
    first, second = (models.ask(views, present, embeddings) for views in (clean, dirty))
    assert (first.logits[1] == -30).all()
    assert not first.heatmaps[1].any()
    assert np.array_equal(first.logits, second.logits)
    assert np.array_equal(first.heatmaps, second.heatmaps)


def test_many_phrases_are_answered_as_one_by_one(models: PhraseModels) -> None:
    embeddings = models.embed(["mass", "calcifications", "grouped calcifications"])
    many = np.tile(embeddings, (PHRASES_AT_ONCE // 3 + 2, 1))
    answer = models.ask(a_blob(), EVERY, many)
    assert answer.logits.shape == (4, len(many))
    alone = models.ask(a_blob(), EVERY, embeddings[2:])
    np.testing.assert_allclose(answer.logits[:, 2::3], np.repeat(alone.logits, len(many) // 3, axis=1), atol=1e-5)
    np.testing.assert_allclose(answer.heatmaps[:, -1:], alone.heatmaps, atol=1e-5)


def test_no_view_is_refused(models: PhraseModels) -> None:
    with pytest.raises(InferenceError, match="no view is present"):
        models.ask(a_blob(), ~EVERY, models.embed(["mass"]))


def test_a_deadline_is_kept_and_said(folder: Path) -> None:
    with pytest.raises(InferenceUnavailableError, match="did not answer within 1e-06 s"):
        load_phrases(replace(settings_for(folder), deadline_seconds=1e-6))


def test_after_a_deadline_that_passed_the_graph_answers_again(folder: Path) -> None:
    read, _ = read_onnx(onnx_file(folder.parent / "exam_query"))
    graph = OpenVinoGraph(read, ("query_logits",), "f32", 1)
    queries = np.zeros((1, 200, 8), np.float32)
    inputs = {"views": a_blob()[None], "present": EVERY[None], "query_embeddings": queries}
    wanted = graph.run(inputs)["query_logits"]
    with pytest.raises(InferenceUnavailableError):
        graph.run(inputs, 1e-6)
    assert np.array_equal(graph.run(inputs, 100.0)["query_logits"], wanted)


def test_a_node_without_the_two_models_reads_and_offers_no_phrases(tmp_path: Path) -> None:
    settings = settings_for(make_tiny_model(tmp_path / "exam_encoder", height=HEIGHT, width=WIDTH))
    load_model(settings).check_health()
    with pytest.raises(NotOfferedError, match=r"not offered: exam_encoder 0\.0\.1-tiny has no text space"):
        load_phrases(settings)


@pytest.mark.parametrize("missing", ["exam_query", "text_encoder"])
def test_one_missing_model_is_named(folder: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(folder.parent, tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / missing)
    with pytest.raises(NotOfferedError, match=f"not offered: there is no {missing} beside"):
        load_phrases(settings_for(tmp_path / "models/exam_encoder"))


@pytest.mark.parametrize("changed", ["query", "text"])
def test_models_of_two_exports_are_refused(tmp_path: Path, changed: str) -> None:
    other: dict[str, Any] = {changed: {"text_space": "0" * 64}}
    exam_encoder = make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH, **other)
    with pytest.raises(ContractError, match=r"text_space differs: exam_encoder eeee.*not made together"):
        load_phrases(settings_for(exam_encoder))


def test_a_query_that_depends_on_others_is_refused(tmp_path: Path) -> None:
    exam_encoder = make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH, leaky=True)
    with pytest.raises(ContractError, match="depend on another query"):
        load_phrases(settings_for(exam_encoder))


def test_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder.parent, tmp_path / "models")
    file = tmp_path / "models/text_encoder/vocabulary.txt"
    file.write_text(file.read_text().replace("mass\ncalcifications", "calcifications\nmass"))
    with pytest.raises(ContractError, match=r"vocabulary_hash: vocabulary\.txt is not the one that was trained with"):
        load_phrases(settings_for(tmp_path / "models/exam_encoder"))
    file.unlink()
    with pytest.raises(ContractError, match=r"vocabulary: vocabulary\.txt cannot be read"):
        load_phrases(settings_for(tmp_path / "models/exam_encoder"))


def test_contracts_as_json_and_back(folder: Path) -> None:
    query = query_contract_from_json(json.dumps(contract_in(folder, "exam_query")))
    assert json.loads(query_contract_to_json(query)) == contract_in(folder, "exam_query")
    text = text_contract_from_json(json.dumps(contract_in(folder, "text_encoder")))
    assert json.loads(text_contract_to_json(text)) == contract_in(folder, "text_encoder")
    assert contract_of(settings_for(folder)).text_space == query.text_space == text.text_space == TEXT_SPACE


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("outputs", ["query_logits"], "outputs: are query_logits; they must be query_heatmaps, query_logits"),
        ("text_space", "", "text_space: is empty"),
        ("embed_dim", 0, "embed_dim: is 0"),
        ("calibration", {}, "calibration: must have query_logits"),
        (
            "calibration",
            {"query_logits": {"a": 0, "b": 0, "dataset": "none", "prevalence": 0.5}},
            r"calibration\.query_logits: needs a > 0",
        ),
        ("operating_point", {"probability": 0.5, "heat": 0}, r"operating_point\.heat: is 0"),
        ("operating_point", {"probability": 0.5}, r"operating_point\.heat: is missing"),
        ("views", ["LCC"], "views: are LCC"),
        ("heatmap_offset", [900.0, 0.5], "heatmap_offset: puts cells"),
        ("preset", "big", "preset: "),
        ("threshold", 1, "threshold: is unknown"),
    ],
)
def test_a_query_contract_that_cannot_be_kept_names_the_field(
    folder: Path, field: str, value: Any, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        query_contract_from_json(json.dumps(contract_in(folder, "exam_query") | {field: value}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("outputs", ["embedding"], "outputs: are embedding"),
        ("max_tokens", 2, "max_tokens: is 2"),
        ("vocabulary", "../words.txt", "vocabulary: is '../words.txt'"),
        ("vocabulary_hash", "0", "vocabulary_hash: is no SHA-256"),
        ("lower_case", 1, "lower_case: must be true or false"),
        ("contract_version", 2, "contract_version: is 2; this node understands 1"),
    ],
)
def test_a_text_contract_that_cannot_be_kept_names_the_field(
    folder: Path, field: str, value: Any, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        text_contract_from_json(json.dumps(contract_in(folder, "text_encoder") | {field: value}))


def test_a_graph_that_does_not_keep_its_contract_is_refused(tmp_path: Path) -> None:
    exam_encoder = make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH, query={"embed_dim": 9})
    with pytest.raises(ContractError, match="tensor query_embeddings has shape"):
        load_phrases(settings_for(exam_encoder))


def test_config_for_triton_carries_what_stands_beside_the_model_to_the_byte(tmp_path: Path) -> None:
    folder = make_tiny_phrase_models(tmp_path, height=HEIGHT, width=WIDTH)
    phrases = '{"phrases": ["größe \\ mass"], "words": ["mass"], "least_cosine": 0.5}\r\n'.encode()
    (tmp_path / "text_encoder/phrases.json").write_bytes(phrases)
    write_config(tmp_path / "text_encoder")
    config = text_format.Parse(
        (folder.parent / "text_encoder/config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    vocabulary = config.parameters["vocabulary"].string_value.encode()
    assert vocabulary == (folder.parent / "text_encoder/vocabulary.txt").read_bytes()
    assert config.parameters["phrases"].string_value.encode() == phrases
    contract = text_contract_from_json(config.parameters["contract"].string_value)
    assert hashlib.sha256(vocabulary).hexdigest() == contract.vocabulary_hash
    config = text_format.Parse((folder.parent / "exam_query/config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert [list(tensor.dims) for tensor in config.input] == [[4, 1, HEIGHT, WIDTH], [4], [-1, 8]]
    assert [list(tensor.dims) for tensor in config.output] == [[4, -1, 19, 12], [4, -1]]
