"""The in-process backend on a tiny model that is made on the spot."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest

from node.errors import ContractError, InferenceError, SettingsError
from node.inference.load import load_model
from node.inference.openvino_graph import choose_precision, onnx_file
from node.inference.openvino_model import OpenVinoModel
from node.settings import InferenceSettings
from tests.models import make_tiny_model

HEIGHT, WIDTH = 152, 96
ABSENT = np.array([True, False, True, True])


def settings_for(folder: Path, precision: str = "f32") -> InferenceSettings:
    return InferenceSettings("openvino", folder, precision, 1, "", "exam_encoder", 10.0, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "exam_encoder", height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def model(folder: Path) -> OpenVinoModel:
    return OpenVinoModel(settings_for(folder))


def some_views(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((4, 1, HEIGHT, WIDTH), dtype=np.float32)


def a_blob() -> np.ndarray:
    """Four breasts of brightness 0.3; in the RCC a disc of 0.8 around (x, y) = (40, 64)."""
    views = np.full((4, 1, HEIGHT, WIDTH), 0.3, np.float32)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    views[0, 0][(x - 40.5) ** 2 + (y - 64.5) ** 2 < 10**2] = 0.8
    return views


def test_a_blob_is_found_in_its_view_where_it_lies(model: OpenVinoModel) -> None:
    prediction = model.infer(a_blob(), np.ones(4, dtype=np.bool_))
    assert prediction.finding_logits is not None
    assert prediction.heatmaps is not None
    assert prediction.finding_logits[0, 0] > 0
    assert (prediction.finding_logits[1:, 0] < 0).all()
    row, column = np.unravel_index(prediction.heatmaps[0, 0].argmax(), prediction.heatmaps.shape[2:])
    stride, offset = model.contract.heatmap_stride, model.contract.heatmap_offset
    assert (offset[0] + stride[0] * row, offset[1] + stride[1] * column) == (64.5, 40.5)


def test_prediction_has_the_shapes_and_norms_of_the_contract(model: OpenVinoModel) -> None:
    prediction = model.infer(some_views(), ABSENT)
    assert prediction.exam_embedding.shape == (8,)
    assert np.linalg.norm(prediction.exam_embedding) == pytest.approx(1, abs=1e-6)
    assert prediction.breast_logits is not None
    assert prediction.breast_logits.shape == (2,)
    assert prediction.heatmaps is not None
    assert prediction.heatmaps.shape == (4, 2, 19, 12)
    assert (prediction.heatmaps >= 0).all()
    assert prediction.density_logits is None


def test_absent_views_are_minus_30_and_0(model: OpenVinoModel) -> None:
    prediction = model.infer(some_views(), np.array([True, False, True, False]))
    assert prediction.finding_logits is not None
    assert prediction.breast_logits is not None
    assert prediction.heatmaps is not None
    assert prediction.view_embeddings is not None
    assert (prediction.finding_logits[[1, 3]] == -30).all()
    assert prediction.breast_logits[1] == -30
    assert prediction.breast_logits[0] > -30
    assert not prediction.heatmaps[[1, 3]].any()
    assert not prediction.view_embeddings[[1, 3]].any()


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("filling", ["noise", "nan", "infinite"])
def test_graph_never_sees_absent_pixels(folder: Path, precision: str, filling: str) -> None:
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") and precision == "bf16":
        pytest.skip("this CPU has no bf16")
    compiled = core.compile_model(str(onnx_file(folder)), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    clean = some_views()
    clean[1] = 0
    dirty = clean.copy()
    dirty[1] = {"noise": some_views(2)[1], "nan": np.float32(np.nan), "infinite": np.float32(np.inf)}[filling]
    first, second = (compiled({"views": views[None], "present": ABSENT[None]}) for views in (clean, dirty))
    assert all(np.array_equal(first[i], second[i]) for i in range(len(compiled.outputs)))


def test_infer_ignores_absent_pixels_bitwise(model: OpenVinoModel) -> None:
    clean = some_views()
    dirty = clean.copy()
    dirty[1] = np.nan
    first, second = model.infer(clean, ABSENT), model.infer(dirty, ABSENT)
    assert first.exam_logit == second.exam_logit
    assert np.array_equal(first.exam_embedding, second.exam_embedding)
    assert first.heatmaps is not None
    assert second.heatmaps is not None
    assert np.array_equal(first.heatmaps, second.heatmaps)


def test_a_batch_equals_its_exams(folder: Path) -> None:
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(onnx_file(folder)), "CPU", options)
    views = np.stack([some_views(seed) for seed in range(3)])
    present = np.array([[True] * 4, [True, False, True, False], [False, False, False, True]])
    together = compiled({"views": views, "present": present})
    alone = [compiled({"views": views[i : i + 1], "present": present[i : i + 1]}) for i in range(3)]
    for index in range(len(compiled.outputs)):
        one_by_one = np.concatenate([answer[index] for answer in alone])
        np.testing.assert_allclose(together[index], one_by_one, atol=1e-4, rtol=0)


def test_a_constant_view_gives_finite_outputs(model: OpenVinoModel) -> None:
    prediction = model.infer(np.zeros((4, 1, HEIGHT, WIDTH), np.float32), np.ones(4, dtype=np.bool_))
    assert np.isfinite(prediction.exam_logit)


@pytest.mark.parametrize(
    ("views", "present", "message"),
    [
        (np.zeros((4, 1, WIDTH, HEIGHT), np.float32), np.ones(4, np.bool_), "are not"),
        (some_views(), np.ones(4, np.int64), "are not"),
        (some_views(), np.zeros(4, np.bool_), "no view is present"),
        (some_views() * 2, np.ones(4, np.bool_), "outside"),
        (some_views() * np.float32(np.nan), np.ones(4, np.bool_), "outside"),
    ],
)
def test_wrong_input_is_refused(model: OpenVinoModel, views: np.ndarray, present: np.ndarray, message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        model.infer(views, present)


def test_health_check_and_load_model(folder: Path) -> None:
    model = load_model(settings_for(folder, "auto"))
    model.check_health()
    assert model.variant in ("openvino bf16", "openvino f32")
    assert model.contract.version == "0.0.1-tiny"


def test_unknown_backend_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"inference\.backend is tensorrt"):
        load_model(replace(settings_for(folder), backend="tensorrt"))


@pytest.mark.parametrize(
    ("wanted", "capabilities", "chosen"),
    [
        ("auto", ["FP32", "BF16"], "bf16"),
        ("auto", ["FP32"], "f32"),
        ("f32", ["BF16"], "f32"),
        ("bf16", ["BF16"], "bf16"),
    ],
)
def test_precision(wanted: str, capabilities: list[str], chosen: str) -> None:
    assert choose_precision(wanted, capabilities) == chosen


@pytest.mark.parametrize("wanted", ["bf16", "int4"])
def test_precision_that_cannot_be_had(wanted: str) -> None:
    with pytest.raises(SettingsError, match=r"inference\.precision"):
        choose_precision(wanted, ["FP32"])


def test_the_highest_version_is_taken(folder: Path, tmp_path: Path) -> None:
    for version in ("2", "10"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.onnx").write_bytes(onnx_file(folder).read_bytes())
    assert onnx_file(tmp_path).parent.name == "10"


def test_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no <version>/model\.onnx"):
        OpenVinoModel(settings_for(tmp_path))


def test_a_file_that_is_no_onnx(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/model.onnx").write_bytes(b"not a model")
    with pytest.raises(ContractError, match="cannot be read as ONNX"):
        OpenVinoModel(settings_for(tmp_path))


def test_a_model_that_sees_absent_pixels_is_refused(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, height=HEIGHT, width=WIDTH, leaky=True)
    with pytest.raises(ContractError, match="depends on the pixels of an absent view"):
        OpenVinoModel(settings_for(tmp_path))


def test_labels_must_agree(tmp_path: Path) -> None:
    make_tiny_model(tmp_path, height=HEIGHT, width=WIDTH)
    (tmp_path / "labels.txt").write_text("suspicious_calcification\nmass\n")
    with pytest.raises(ContractError, match=r"labels\.txt"):
        OpenVinoModel(settings_for(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmap_shape": [18, 12]}, r"tensor heatmaps has shape \(-1, 4, 2, 19, 12\); the contract says"),
        ({"embed_dim": 9}, "tensor exam_embedding has shape"),
        ({"wire_type": "float16"}, "tensor views is float32; the contract says float16"),
        (
            {"outputs": ["exam_logit", "exam_embedding", "finding_logits", "heatmaps"]},
            "is missing|is not in|calibration",
        ),
    ],
)
def test_graph_and_contract_must_agree(tmp_path: Path, change: dict[str, object], message: str) -> None:
    make_tiny_model(tmp_path, height=HEIGHT, width=WIDTH, contract=change)
    with pytest.raises(ContractError, match=message):
        OpenVinoModel(settings_for(tmp_path))


def test_loading_openvino_asks_no_network_and_leaves_nothing_at_home(folder: Path, tmp_path: Path) -> None:
    program = f"""
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print(event, arguments)
sys.addaudithook(refuse)
from pathlib import Path
from node.inference.load import load_model
from node.settings import InferenceSettings
load_model(InferenceSettings("openvino", Path({str(folder)!r}), "f32", 1, "", "exam_encoder", 10.0, 3)).check_health()
"""
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list(tmp_path.iterdir()) == []
