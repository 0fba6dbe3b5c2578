"""The plain calls of the protocol against a second server of it, MLServer 1.7.1: it is not only Triton that we speak.

`scripts/test --servers` installs it (326 MB) into build/mlserver and runs this.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node.errors import ContractError, InferenceUnavailableError, NotServedError
from node.inference import triton_statistics
from node.inference.load import load_model
from node.inference.triton_served import ServedModel
from node.settings import InferenceSettings
from tests.integration.triton_exams import some_views
from tests.servers import free_port, listens, process

pytestmark = pytest.mark.servers
VENV = Path(__file__).parents[2] / "build/mlserver"
SIGNATURE = {"exam_logit": ("float32", (-1,)), "heatmaps": ("float32", (-1, 4, 19, 12))}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceSettings]:
    """Of a node that asks MLServer for `brightness`."""
    if not (VENV / "installed").exists():
        pytest.skip("not installed: MLServer; scripts/test --servers does it")
    folder, port, others = tmp_path_factory.mktemp("mlserver"), free_port(), [free_port(), free_port()]
    ports = {"http_port": others[0], "grpc_port": port, "metrics_port": others[1]}
    written = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (folder / "settings.json").write_text(json.dumps(written))
    (folder / "brightness").mkdir()
    model = {"name": "brightness", "implementation": "mlserver_model.Brightness"}
    (folder / "brightness/model-settings.json").write_text(json.dumps(model))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [str(VENV / "bin/mlserver"), "start", str(folder)]
    with process(command, lambda: listens(port), folder=folder, environment=environment, seconds=120.0):
        yield InferenceSettings("triton", folder, "f32", 1, f"127.0.0.1:{port}", "brightness", 20.0, 3)


@pytest.fixture
def served(settings: InferenceSettings) -> Iterator[ServedModel]:
    model = ServedModel(settings, "brightness")
    yield model
    model.close()


def inputs(present: list[bool]) -> dict[str, np.ndarray]:
    return {"views": some_views(1)[None], "present": np.array([present])}


def test_it_lives_and_says_what_it_is(served: ServedModel) -> None:
    assert served.ask(lambda client, seconds: client.is_server_live(client_timeout=seconds))
    assert served.ask(lambda client, seconds: client.is_server_ready(client_timeout=seconds))
    assert served.ask(lambda client, seconds: client.is_model_ready("brightness", client_timeout=seconds))
    assert served.server() == "mlserver 1.7.1"


@pytest.mark.parametrize("present", [[True] * 4, [True, False, False, True]])
def test_an_inference_has_the_right_numbers(served: ServedModel, present: list[bool]) -> None:
    outputs = served.run(inputs(present), SIGNATURE).outputs
    views = some_views(1)
    assert outputs["exam_logit"].ravel() == pytest.approx(views[present].mean(), abs=1e-5)
    wanted = np.where(np.array(present)[:, None, None], views[:, 0, ::8, ::8], 0)
    np.testing.assert_array_equal(outputs["heatmaps"][0], wanted)
    assert not served.uses_shared_memory  # it has none: the tensors travel


def test_a_model_is_unloaded_and_loaded(served: ServedModel) -> None:
    assert served.reload()
    assert served.run(inputs([True] * 4), SIGNATURE).outputs


def test_a_model_that_it_has_not(settings: InferenceSettings) -> None:
    nobody = ServedModel(settings, "nobody")
    with pytest.raises(NotServedError, match="serves no model nobody"):
        nobody.run(inputs([True] * 4), SIGNATURE)


def test_a_contract_that_cannot_be_read_is_refused(settings: InferenceSettings) -> None:
    with pytest.raises(ContractError, match="cannot do what the node asks"):
        load_model(settings)


def test_what_it_does_not_tell_is_said(settings: InferenceSettings) -> None:
    state = triton_statistics.server_state(settings)
    assert (state.name, state.version) == ("mlserver", "1.7.1")
    assert [(each.name, each.state) for each in state.models] == [("brightness", "ready")]
    assert [words.partition(":")[0] for words in state.missing] == ["metrics"]
    assert "metrics: not told: " in triton_statistics.as_words(state)


def test_a_server_that_is_away(settings: InferenceSettings) -> None:
    away = ServedModel(replace(settings, triton_url=f"127.0.0.1:{free_port()}", deadline_seconds=1.0), "brightness")
    with pytest.raises(InferenceUnavailableError, match="is away"):
        away.run(inputs([True] * 4), SIGNATURE)
