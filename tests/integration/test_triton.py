"""The Triton backend of the seam against a real Triton server on the CPU."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node.cli import main
from node.doctor import examine
from node.errors import InferenceUnavailableError, NotOfferedError
from node.inference.load import load_model, load_phrases
from node.inference.openvino_model import OpenVinoModel
from node.inference.triton_model import TritonModel
from node.settings import InferenceSettings, load_settings
from tests.integration.triton_exams import EVERY, HEIGHT, WIDTH, change, differ, some_views
from tests.integration.triton_server import Repository, TritonServer
from tests.models import make_tiny_phrase_models
from tests.running_node import settings_text
from tests.servers import free_port

SHIPPED = Path(__file__).parents[2] / "triton_models/exam_encoder"
SLOW_EXECUTE = """
    def execute(self, requests):
        import time
        time.sleep(3)
        return self.execute_at_once(requests)

    def execute_at_once("""


@pytest.fixture(scope="module")
def settings(triton: TritonServer) -> InferenceSettings:
    return Repository(triton).serve("plain")


@pytest.fixture(scope="module")
def in_process(settings: InferenceSettings) -> OpenVinoModel:
    return OpenVinoModel(settings)


@pytest.mark.parametrize("present", [[True] * 4, [True, False, True, False], [False, False, False, True]])
def test_same_outputs_as_in_process(
    settings: InferenceSettings, in_process: OpenVinoModel, present: list[bool]
) -> None:
    model = load_model(settings)
    views = some_views(1)
    views[~np.array(present)] = np.nan
    assert model.contract == in_process.contract
    assert model.variant == "triton python f32 v1"
    assert differ(model.infer(views, np.array(present)), in_process.infer(views, np.array(present))) < 1e-5


def test_the_shipped_model_is_served_from_its_folder(repository: Repository) -> None:
    (repository.server.repository / "shipped").symlink_to(SHIPPED)
    settings = replace(repository.load("shipped"), deadline_seconds=60.0)
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


def test_phrases_have_the_same_answers_as_in_process(repository: Repository, settings: InferenceSettings) -> None:
    with pytest.raises(NotOfferedError, match="has no text space"):
        load_phrases(settings)
    make_tiny_phrase_models(repository.server.repository, height=HEIGHT, width=WIDTH)
    [served, *_] = [repository.load(name) for name in ("exam_encoder", "exam_query", "text_encoder")]
    models, here = load_phrases(served), load_phrases(replace(served, backend="openvino"))
    texts = ["spiculated mass", "calcifications", "mass"]
    np.testing.assert_allclose(models.embed(texts), here.embed(texts), atol=1e-6)
    present = np.array([True, False, True, True])
    one, other = (each.ask(some_views(1), present, each.embed(texts)) for each in (models, here))
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
    np.testing.assert_allclose(one.heatmaps, other.heatmaps, atol=1e-5)
    assert models.query_variant == models.text_variant == "triton python f32"
    repository.server.client.unload_model("exam_query")
    with pytest.raises(NotOfferedError, match="serves no model exam_query"):
        load_phrases(served)


def test_labels_are_served(triton: TritonServer, settings: InferenceSettings) -> None:
    config = triton.client.get_model_config(settings.triton_model).config
    assert {tensor.name: tensor.label_filename for tensor in config.output}["finding_logits"] == "labels.txt"


def test_too_slow_for_the_deadline(repository: Repository) -> None:
    slow = repository.serve("slow", lambda folder: change(folder / "1/model.py", "\n    def execute(", SLOW_EXECUTE))
    began = time.monotonic()
    with pytest.raises(InferenceUnavailableError, match=r"did not answer within 0\.5 s"):
        TritonModel(replace(slow, deadline_seconds=0.5))
    assert time.monotonic() - began < 1.5


def test_a_server_that_is_away_costs_no_more_than_the_deadline(settings: InferenceSettings) -> None:
    nowhere = replace(settings, triton_url=f"127.0.0.1:{free_port()}", deadline_seconds=1.0, attempts=100)
    began = time.monotonic()
    with pytest.raises(InferenceUnavailableError, match=r"is away|did not answer within 1 s"):
        load_model(nowhere)
    assert time.monotonic() - began < 2


@pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_status_and_doctor_tell_how_the_server_does(
    settings: InferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    TritonModel(settings).infer(some_views(1), EVERY)
    for name, value in (("BACKEND", "triton"), ("TRITON_URL", settings.triton_url)):
        monkeypatch.setenv(f"MAMMOCLIP_INFERENCE_{name}", value)
    text = settings_text(free_port(), "").replace("exam_encoder", "plain")
    (tmp_path / "settings.toml").write_text(text.replace("lease_seconds = 30.0", "lease_seconds = 300.0"))
    asked = ["status", "--server", "--settings", str(tmp_path / "settings.toml")]
    assert main(asked) == 0
    said, row = (line for line in capsys.readouterr().out.splitlines() if line.startswith(("triton", "plain")))
    assert said == f"triton 2.51.0 at {settings.triton_url} answers"
    name, version, state, exams, failed, queue, compute, *batches = row.split()
    assert (name, version, state, failed) == ("plain", "1", "ready", "0")
    assert int(exams) >= 3
    assert min(float(queue), float(compute)) > 0
    assert batches[:2] == ["1", "x"]
    assert main([*asked, "--json"]) == 0
    [told] = [model for model in json.loads(capsys.readouterr().out)["models"] if model["name"] == "plain"]
    assert sum(each["size"] * each["batches"] for each in told["batch_sizes"]) == told["exams"]
    checks = {check.name: check for check in examine(load_settings(tmp_path / "settings.toml", os.environ))}
    assert checks["model server"].works
    assert "plain version 1 ready; version 1: " in checks["model server"].seen
    assert "a real inference in" in checks["model"].seen


def test_a_node_that_computes_itself_has_no_server_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text(settings_text(free_port(), ""))
    assert main(["status", "--server", "--settings", str(tmp_path / "settings.toml")]) == 0
    assert "there is no server to ask" in capsys.readouterr().out
