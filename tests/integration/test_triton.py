"""The Triton backend of the seam against a real Triton server on the CPU."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tritonclient.utils import InferenceServerException

from node.errors import ContractError, InferenceUnavailableError, NotOfferedError
from node.inference.load import load_model, load_phrases
from node.inference.openvino_model import OpenVinoModel
from node.inference.triton_model import TritonModel
from node.mammography.contract import Prediction
from node.settings import InferenceSettings
from tests.integration.triton_server import TritonServer, install_triton
from tests.models import make_tiny_model, make_tiny_phrase_models
from tests.servers import free_port

SHIPPED = Path(__file__).parents[2] / "triton_models/exam_encoder"
HEIGHT, WIDTH = 152, 96
EVERY = np.ones(4, dtype=np.bool_)
SLOW_EXECUTE = """
    def execute(self, requests):
        import time
        time.sleep(3)
        return self.execute_at_once(requests)

    def execute_at_once("""


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def change_contract(folder: Path, old: str, new: str) -> None:
    """In the ONNX and in config.pbtxt alike, so that Triton itself sees nothing wrong."""
    model = onnx.load(folder / "1/model.onnx")
    assert old in model.metadata_props[0].value
    model.metadata_props[0].value = model.metadata_props[0].value.replace(old, new)
    onnx.save(model, folder / "1/model.onnx")
    change(folder / "config.pbtxt", old.replace('"', '\\"'), new.replace('"', '\\"'))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    install_triton()
    folder = tmp_path_factory.mktemp("triton_models")
    for name in ("exam_encoder", "fragile", "replaced", "slow", "other_version"):
        make_tiny_model(folder / name, height=HEIGHT, width=WIDTH)
    change_contract(folder / "other_version", '"contract_version": 1', '"contract_version": 2')
    change(folder / "slow/1/model.py", "\n    def execute(", SLOW_EXECUTE)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(repository, tmp_path_factory.mktemp("log") / "triton.log") as running:
        yield running


@pytest.fixture(scope="module")
def settings(server: TritonServer, repository: Path) -> InferenceSettings:
    return InferenceSettings("triton", repository / "exam_encoder", "f32", 1, server.url, "exam_encoder", 20.0, 3)


@pytest.fixture(scope="module")
def in_process(settings: InferenceSettings) -> OpenVinoModel:
    return OpenVinoModel(settings)


def some_views(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((4, 1, HEIGHT, WIDTH), dtype=np.float32)


def differ(first: Prediction, second: Prediction) -> float:
    pairs = [
        (first.exam_logit, second.exam_logit),
        (first.exam_embedding, second.exam_embedding),
        (first.breast_logits, second.breast_logits),
        (first.finding_logits, second.finding_logits),
        (first.heatmaps, second.heatmaps),
        (first.view_embeddings, second.view_embeddings),
    ]
    return max(float(np.abs(np.subtract(one, other)).max()) for one, other in pairs)


@pytest.mark.parametrize("present", [[True] * 4, [True, False, True, False], [False, False, False, True]])
def test_same_outputs_as_in_process(
    settings: InferenceSettings, in_process: OpenVinoModel, present: list[bool]
) -> None:
    model = load_model(settings)
    views = some_views(1)
    views[~np.array(present)] = np.nan
    assert model.contract == in_process.contract
    assert model.variant == "triton python f32"
    assert differ(model.infer(views, np.array(present)), in_process.infer(views, np.array(present))) < 1e-5


def test_the_shipped_model_is_served_from_its_folder(tmp_path: Path) -> None:
    install_triton()
    with TritonServer(SHIPPED.parent, tmp_path / "log") as server:
        settings = InferenceSettings("triton", SHIPPED, "f32", 1, server.url, "exam_encoder", 60.0, 3)
        served, in_process = TritonModel(settings), OpenVinoModel(settings)
        views = np.zeros((4, 1, *in_process.contract.input_shape), np.float32)
        views[:, :, 100:-100, :300] = 0.4
        views[1, :, 300:340, 100:140] = 0.9
        assert served.contract == in_process.contract
        assert differ(served.infer(views, EVERY), in_process.infer(views, EVERY)) < 1e-3


def test_exams_at_once_get_each_their_own_answer(settings: InferenceSettings, in_process: OpenVinoModel) -> None:
    model = TritonModel(settings)
    exams = [some_views(seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda views: model.infer(views, EVERY), exams))
    differences = [differ(answer, in_process.infer(views, EVERY)) for answer, views in zip(answers, exams, strict=True)]
    assert max(differences) < 1e-4


def test_phrases_have_the_same_answers_as_in_process(
    server: TritonServer, settings: InferenceSettings, tmp_path: Path
) -> None:
    with pytest.raises(NotOfferedError, match="has no text space"):
        load_phrases(settings)
    make_tiny_phrase_models(tmp_path / "models", height=HEIGHT, width=WIDTH)
    with TritonServer(tmp_path / "models", tmp_path / "log") as served:
        models = load_phrases(replace(settings, triton_url=served.url))
        folder = tmp_path / "models/exam_encoder"
        here = load_phrases(replace(settings, backend="openvino", model_folder=folder))
        texts = ["spiculated mass", "calcifications", "mass"]
        np.testing.assert_allclose(models.embed(texts), here.embed(texts), atol=1e-6)
        present = np.array([True, False, True, True])
        one, other = (each.ask(some_views(1), present, each.embed(texts)) for each in (models, here))
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
        np.testing.assert_allclose(one.heatmaps, other.heatmaps, atol=1e-5)
        assert models.query_variant == models.text_variant == "triton python f32"
        served.client.unload_model("exam_query")
        with pytest.raises(NotOfferedError, match="serves no model exam_query"):
            load_phrases(replace(settings, triton_url=served.url))


def test_labels_are_served(server: TritonServer) -> None:
    config = server.client.get_model_config("exam_encoder").config
    assert {tensor.name: tensor.label_filename for tensor in config.output}["finding_logits"] == "labels.txt"


def test_too_slow_for_the_deadline(settings: InferenceSettings) -> None:
    began = time.monotonic()
    with pytest.raises(InferenceUnavailableError, match=r"did not answer within 0\.5 s"):
        TritonModel(replace(settings, triton_model="slow", deadline_seconds=0.5))
    assert time.monotonic() - began < 1.5


def test_a_server_that_is_away_costs_no_more_than_the_deadline(settings: InferenceSettings) -> None:
    nowhere = replace(settings, triton_url=f"127.0.0.1:{free_port()}", deadline_seconds=1.0, attempts=100)
    began = time.monotonic()
    with pytest.raises(InferenceUnavailableError, match="is away"):
        load_model(nowhere)
    assert time.monotonic() - began < 2


def test_a_model_that_is_not_served(settings: InferenceSettings) -> None:
    with pytest.raises(InferenceUnavailableError, match="serves no model reader"):
        load_model(replace(settings, triton_model="reader"))


def test_a_contract_of_another_version_is_refused(settings: InferenceSettings) -> None:
    with pytest.raises(ContractError, match="contract_version: is 2; this node understands 1"):
        load_model(replace(settings, triton_model="other_version"))


def test_triton_refuses_a_config_that_is_not_the_model_s(server: TritonServer, repository: Path) -> None:
    folder = make_tiny_model(repository / "stale", height=HEIGHT, width=WIDTH)
    change(folder / "config.pbtxt", "0.0.1-tiny", "0.0.2-tiny")
    with pytest.raises(InferenceServerException, match="different contracts"):
        server.client.load_model("stale")


def test_a_dead_process_is_seen_and_a_reload_mends_it(server: TritonServer, settings: InferenceSettings) -> None:
    model = TritonModel(replace(settings, triton_model="fragile"))
    model.check_health()
    server.kill_stub("fragile")
    with pytest.raises(InferenceUnavailableError, match="process of model fragile has died; unload and load"):
        model.check_health()
    assert server.client.is_model_ready("fragile")
    server.client.unload_model("fragile")
    server.client.load_model("fragile")
    model.check_health()


def test_another_model_under_the_same_name_is_noticed(
    server: TritonServer, settings: InferenceSettings, repository: Path
) -> None:
    model = TritonModel(replace(settings, triton_model="replaced"))
    change_contract(repository / "replaced", "0.0.1-tiny", "0.0.2-tiny")
    server.client.load_model("replaced")
    with pytest.raises(InferenceUnavailableError, match="another model"):
        model.infer(some_views(1), EVERY)
    model.infer(some_views(1), EVERY)
    assert model.contract.version == "0.0.2-tiny"


def test_a_server_that_comes_back_is_used_again(settings: InferenceSettings, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models/exam_encoder", height=HEIGHT, width=WIDTH)
    with TritonServer(tmp_path / "models", tmp_path / "log") as first:
        model = TritonModel(replace(settings, triton_url=first.url, deadline_seconds=5.0))
        model.check_health()
    with pytest.raises(InferenceUnavailableError, match="is away"):
        model.check_health()
    with TritonServer(tmp_path / "models", tmp_path / "log", first.port):
        model.check_health()
    assert model.contract.name == "exam_encoder"
