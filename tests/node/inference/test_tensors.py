"""Raw outputs -> Prediction: rounding is mended, a broken rule is an error that names the output."""

import numpy as np
import pytest

from node.errors import InferenceError
from node.inference.tensors import prediction_of, wire_inputs
from node.mammography.contract import Calibration, ModelContract, OperatingPoint
from node.mammography.findings import FindingKind

KINDS = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
PRESENT = np.array([True, False, True, False])


def contract(wire_type: str = "float32", outputs: tuple[str, ...] | None = None) -> ModelContract:
    calibration = Calibration(1.0, 0.0, "none", 0.5)
    return ModelContract(
        contract_version=1,
        name="exam_encoder",
        version="1",
        preset="fit-16x8",
        views=("RCC", "LCC", "RMLO", "LMLO"),
        findings=KINDS,
        outputs=outputs or tuple(valid()),
        input_shape=(16, 8),
        wire_type=wire_type,
        embed_dim=2,
        heatmap_shape=(2, 1),
        heatmap_stride=(8.0, 8.0),
        heatmap_offset=(4.0, 4.0),
        calibration={"exam_logit": calibration},
        operating_points={kind: OperatingPoint(0.5, 0.5) for kind in KINDS},
        calibrated_on_patients=False,
        weights_hash="0" * 64,
        text_space=None,
        variant="fp32 onnx",
    )


def valid() -> dict[str, np.ndarray]:
    return {
        "exam_logit": np.array([0.5], np.float32),
        "exam_embedding": np.array([[0.6, 0.8]], np.float32),
        "breast_logits": np.array([[0.5, -30]], np.float32),
        "finding_logits": np.array([[[1, 2], [-30, -30], [3, 4], [-30, -30]]], np.float32),
        "heatmaps": np.array([1, 0, 1, 0], np.float32)[None, :, None, None, None]
        * np.ones((1, 4, 2, 2, 1), np.float32),
        "view_embeddings": np.array([[[1, 0], [0, 0], [0, 1], [0, 0]]], np.float32),
        "density_logits": np.array([[0, 1, 2, 3]], np.float32),
    }


def test_valid_outputs_pass_unchanged() -> None:
    prediction = prediction_of(valid(), contract(), PRESENT)
    assert prediction.exam_logit == 0.5
    assert prediction.finding_logits is not None
    assert prediction.finding_logits.tolist() == [[1, 2], [-30, -30], [3, 4], [-30, -30]]
    assert prediction.density_logits is not None
    assert prediction.density_logits.tolist() == [0, 1, 2, 3]


def test_rounding_is_mended() -> None:
    outputs = valid()
    outputs["exam_embedding"] *= np.float32(1.01)
    outputs["breast_logits"][0, 1] = -29.98
    outputs["heatmaps"][0, 0, 0, 0, 0] = -1e-5
    outputs["view_embeddings"][0, 3] = 1e-3
    prediction = prediction_of(outputs, contract(), PRESENT)
    assert np.linalg.norm(prediction.exam_embedding) == pytest.approx(1, abs=1e-6)
    assert prediction.breast_logits is not None
    assert prediction.breast_logits[1] == -30
    assert prediction.heatmaps is not None
    assert prediction.heatmaps.min() == 0
    assert prediction.view_embeddings is not None
    assert not prediction.view_embeddings[3].any()


def test_what_is_not_given_is_none() -> None:
    prediction = prediction_of(valid(), contract(outputs=("exam_logit", "exam_embedding")), PRESENT)
    assert prediction.finding_logits is None
    assert prediction.heatmaps is None
    assert prediction.breast_logits is None
    assert prediction.view_embeddings is None


@pytest.mark.parametrize("name", list(valid()))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    outputs = valid()
    outputs[name].flat[0] = value
    with pytest.raises(InferenceError, match=f"output {name} is not finite"):
        prediction_of(outputs, contract(), PRESENT)


@pytest.mark.parametrize("name", list(valid()))
def test_missing_or_misshapen_outputs_are_refused_by_name(name: str) -> None:
    outputs = valid()
    outputs[name] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(InferenceError, match=f"output {name} has shape"):
        prediction_of(outputs, contract(), PRESENT)
    del outputs[name]
    with pytest.raises(InferenceError, match=f"output {name} is missing"):
        prediction_of(outputs, contract(), PRESENT)


@pytest.mark.parametrize(
    ("name", "position", "value", "message"),
    [
        ("finding_logits", (0, 1, 0), 0.0, "is not -30 for an absent view"),
        ("breast_logits", (0, 1), -5.0, "is not -30"),
        ("heatmaps", (0, 3, 1, 1, 0), 0.5, "is not 0"),
        ("heatmaps", (0, 0, 0, 0, 0), -0.5, "negative heat"),
        ("view_embeddings", (0, 1, 0), 1.0, "is not 0"),
        ("view_embeddings", (0, 0, 0), 0.5, "no unit length"),
        ("exam_embedding", (0, 0), 2.0, "no unit length"),
    ],
)
def test_a_broken_rule_names_the_output(name: str, position: tuple[int, ...], value: float, message: str) -> None:
    outputs = valid()
    outputs[name][position] = value
    with pytest.raises(InferenceError, match=f"output {name} .*{message}"):
        prediction_of(outputs, contract(), PRESENT)


@pytest.mark.parametrize(("wire_type", "wanted"), [("float32", 0.2), ("float16", np.float16(0.2)), ("uint8", 51)])
def test_wire_type(wire_type: str, wanted: float) -> None:
    views = np.full((4, 1, 16, 8), 0.2, np.float32)
    inputs = wire_inputs(views, PRESENT, contract(wire_type))
    assert inputs["views"].dtype == np.dtype(wire_type)
    assert inputs["views"].shape == (1, 4, 1, 16, 8)
    assert (inputs["views"][0, PRESENT] == np.float32(wanted).astype(wire_type)).all()
    assert not inputs["views"][0, ~PRESENT].any()
    assert inputs["present"].tolist() == [[True, False, True, False]]


def test_a_pixel_that_rounding_put_outside_is_clipped() -> None:
    views = np.zeros((4, 1, 16, 8), np.float32)
    views[0, 0, 0, :2] = 1.000001, -0.000001
    inputs = wire_inputs(views, PRESENT, contract())
    assert (inputs["views"].min(), inputs["views"].max()) == (0, 1)
