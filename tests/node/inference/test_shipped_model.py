"""The model that is committed: it keeps the contract, and what stands beside it for Triton was written from it."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import numpy_helper

from node.inference.load import load_phrases
from node.inference.openvino_graph import onnx_file
from node.inference.openvino_model import OpenVinoModel, read_graph
from node.inference.triton_config import triton_config, write_config
from node.mammography.contract import ModelContract
from node.settings import InferenceSettings
from training.weights import weights_hash

FOLDER = Path(__file__).parents[3] / "triton_models/exam_encoder"
ABSENT = np.array([True, True, False, True])


@pytest.fixture(scope="module")
def contract() -> ModelContract:
    return read_graph(onnx_file(FOLDER))[1]


@pytest.fixture(scope="module")
def compiled() -> openvino.CompiledModel:
    return openvino.Core().compile_model(str(onnx_file(FOLDER)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def some_views(contract: ModelContract, seed: int) -> np.ndarray:
    """Two soft discs on a soft breast, elsewhere for each seed, with grain."""
    generator = np.random.default_rng(seed)
    height, width = contract.input_shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    views = np.zeros((4, 1, height, width), np.float32)
    for view in views[:, 0]:
        view += 0.4 * ((y / height - 0.5) ** 2 * 4 + (x / width) ** 2 < 0.8)
        for _ in range(2):
            top, left = generator.uniform(0.3, 0.7) * height, generator.uniform(0.1, 0.6) * width
            view += 0.3 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 400)
        view += generator.normal(0, 0.02, view.shape) * (view > 0)
    return views.clip(0, 1)


def test_config_and_labels_were_written_from_the_onnx(contract: ModelContract) -> None:
    assert (FOLDER / "config.pbtxt").read_text() == triton_config(contract)
    assert (FOLDER / "labels.txt").read_text().split() == [kind.value for kind in contract.findings]


PHRASES = ("exam_query", "text_encoder")
needs_phrases = pytest.mark.skipif(
    not all((FOLDER.parent / name).is_dir() for name in PHRASES), reason="this version ships no models of phrases"
)


def test_models_and_vocabulary_take_25_megabytes_at_most() -> None:
    files = [file for file in FOLDER.parent.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) <= 25_000_000


@needs_phrases
@pytest.mark.parametrize("name", PHRASES)
def test_config_of_the_models_of_phrases_was_written_from_the_onnx(name: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER.parent / name, tmp_path / name)
    write_config(tmp_path / name)
    assert (FOLDER.parent / name / "config.pbtxt").read_text() == (tmp_path / name / "config.pbtxt").read_text()
    assert (FOLDER.parent / name / "1/model.py").read_text() == (FOLDER / "1/model.py").read_text()


@needs_phrases
def test_phrases_are_answered_by_what_is_shipped(contract: ModelContract) -> None:
    models = load_phrases(InferenceSettings("openvino", FOLDER, "f32", 0, "", "", 120.0, 1))
    answer = models.ask(some_views(contract, 1), np.ones(4, np.bool_), models.embed(["mass", "calcifications"]))
    assert answer.logits.shape == (4, 2)
    assert np.isfinite(answer.logits).all()
    assert models.text.text_space == contract.text_space


def test_what_is_promised(contract: ModelContract) -> None:
    assert contract.name == FOLDER.name
    assert set(contract.outputs) == {
        *("exam_logit", "exam_embedding", "breast_logits", "finding_logits", "heatmaps", "view_embeddings")
    }
    assert not contract.calibrated_on_patients


def test_weights_hash_is_that_of_the_weights(contract: ModelContract) -> None:
    initialisers = onnx.load(onnx_file(FOLDER)).graph.initializer
    values = {tensor.name.removesuffix(".half"): numpy_helper.to_array(tensor) for tensor in initialisers}
    assert weights_hash(values) == contract.weights_hash


def test_size() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 20e6


def test_loads_and_is_healthy() -> None:
    model = OpenVinoModel(InferenceSettings("openvino", FOLDER, "auto", 0, "", "exam_encoder", 60.0, 3))
    model.check_health()
    assert model.contract.name == "exam_encoder"


@pytest.mark.parametrize("filling", ["noise", "nan"])
def test_absent_pixels_change_no_bit(contract: ModelContract, compiled: openvino.CompiledModel, filling: str) -> None:
    clean = some_views(contract, 1)
    dirty = clean.copy()
    clean[2] = 0
    dirty[2] = {"noise": some_views(contract, 2)[2], "nan": np.float32(np.nan)}[filling]
    first, second = (compiled({"views": views[None], "present": ABSENT[None]}) for views in (clean, dirty))
    for port in compiled.outputs:
        np.testing.assert_array_equal(first[port], second[port], err_msg=port.any_name)


def test_a_batch_equals_its_exams(contract: ModelContract, compiled: openvino.CompiledModel) -> None:
    views = np.stack([some_views(contract, seed) for seed in (3, 4)])
    present = np.array([[True] * 4, ABSENT])
    together = compiled({"views": views, "present": present})
    for row in range(2):
        alone = compiled({"views": views[row : row + 1], "present": present[row : row + 1]})
        for port in compiled.outputs:
            np.testing.assert_allclose(together[port][row], alone[port][0], atol=1e-4, rtol=0, err_msg=port.any_name)


def test_a_constant_view_gives_finite_outputs(contract: ModelContract, compiled: openvino.CompiledModel) -> None:
    views = some_views(contract, 5)
    views[1] = 0.5
    outputs = compiled({"views": views[None], "present": np.ones((1, 4), np.bool_)})
    assert all(np.isfinite(outputs[port]).all() for port in compiled.outputs)
