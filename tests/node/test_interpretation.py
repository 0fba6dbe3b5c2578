"""Logits to probabilities, heat to regions in stored pixels: the mark comes back where the lesion was."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import ContractError
from node.interpretation import calibrate, interpret, prior_shift
from node.mammography.contract import Calibration, ModelContract, OperatingPoint, Prediction
from node.mammography.findings import BreastDensity, Correspondence, Depth, FindingKind, Sector
from node.mammography.marking import MAXIMUM_REGIONS
from node.mammography.pixels import Placement, PreparedView
from node.mammography.regions import (
    HeatGrid,
    Region,
    breast_mask,
    contains,
    find_regions,
    register_heatmap,
    signed_area,
    simplify,
)
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality, View
from node.settings import ReadingSettings

H, W = 190, 114
STRIDE, OFFSET = (8.0, 8.0), (5.0, 3.5)
CELLS = (23, 14)
KINDS = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
SITE = ReadingSettings(site_prevalence=None, allow_probability_from_phantoms=False)


def contract(**changes) -> ModelContract:
    values = {
        "contract_version": 1,
        "name": "exam_encoder",
        "version": "1",
        "preset": f"fit-{H}x{W}",
        "views": ("RCC", "LCC", "RMLO", "LMLO"),
        "findings": KINDS,
        "outputs": ("exam_logit", "exam_embedding", "breast_logits", "finding_logits", "heatmaps"),
        "input_shape": (H, W),
        "wire_type": "float32",
        "embed_dim": 8,
        "heatmap_shape": CELLS,
        "heatmap_stride": STRIDE,
        "heatmap_offset": OFFSET,
        "calibration": {
            "exam_logit": Calibration(1.5, -0.25, "phantoms", 0.5),
            "breast_logits": Calibration(1.2, 0.1, "phantoms", 0.3),
            "finding_logits.mass": Calibration(1.0, 0.0, "phantoms", 0.3),
            "finding_logits.suspicious_calcification": Calibration(1.0, 0.0, "phantoms", 0.3),
        },
        "operating_points": {kind: OperatingPoint(probability=0.5, heat=0.5) for kind in KINDS},
        "calibrated_on_patients": False,
        "weights_hash": "ab" * 32,
        "text_space": None,
        "variant": "fp32",
    }
    return ModelContract(**(values | changes))


def prediction(heat: dict[View, np.ndarray] | None = None, **changes) -> Prediction:
    heatmaps = np.zeros((4, 2, *CELLS), np.float32)
    for view, cells in (heat or {}).items():
        heatmaps[STANDARD_VIEWS.index(view), 0] = cells
    values = {
        "exam_logit": -1.0,
        "exam_embedding": np.zeros(8, np.float32),
        "breast_logits": np.array([-3.0, -3.0], np.float32),
        "finding_logits": np.full((4, 2), 2.0, np.float32),
        "heatmaps": heatmaps,
        "view_embeddings": None,
        "density_logits": None,
    }
    return Prediction(**(values | changes))


def placement(mirrored: bool, crop=(100, 40, 800, 1240), stored=(1400, 900)) -> Placement:
    left, top, right, bottom = crop
    scale = min(H / (bottom - top), W / (right - left))
    return Placement(stored[0], stored[1], left, top, right, bottom, scale, scale, 0.0, 0.0, mirrored, H, W)


def prepared(view: View, place: Placement | None = None, flags: tuple[str, ...] = ()) -> PreparedView:
    place = place or placement(view.laterality is Laterality.RIGHT)
    wall = Laterality.RIGHT if place.mirrored else Laterality.LEFT
    return PreparedView(np.full((H, W), 0.6, np.float32), place, wall, flags)


def blob(x: float, y: float, sigma_px: float = 10.0, peak: float = 1.2) -> np.ndarray:
    """Cells that see a Gaussian at (x, y) in model pixels."""
    rows, columns = np.mgrid[: CELLS[0], : CELLS[1]].astype(np.float64)
    cy, cx = OFFSET[0] + STRIDE[0] * rows, OFFSET[1] + STRIDE[1] * columns
    return (peak * np.exp(-((cx - x) ** 2 + (cy - y) ** 2) / (2 * sigma_px**2))).astype(np.float32)


def read(heat: dict[View, np.ndarray], views=STANDARD_VIEWS, rules=(), **changes):
    exam = {view: prepared(view) for view in views}
    return interpret(prediction(heat, **changes), contract(), exam, rules, SITE)


def regions_of(heat: np.ndarray, threshold: float, inside: np.ndarray | None = None) -> tuple[Region, ...]:
    grid = HeatGrid(STRIDE, OFFSET)
    inside = np.ones((H, W), bool) if inside is None else inside
    return find_regions(heat, register_heatmap(heat, grid, H, W), grid, inside, threshold, 3)


# --- probabilities ---------------------------------------------------------------------------------------------------


def test_probability_is_the_calibrated_sigmoid():
    assert calibrate(0.7, "exam_logit", contract()) == pytest.approx(1 / (1 + math.exp(-(1.5 * 0.7 - 0.25))))


def test_extreme_logits_stay_finite():
    assert [calibrate(x, "exam_logit", contract()) for x in (-1e4, 1e4)] == [0.0, 1.0]


def test_missing_calibration_is_named():
    with pytest.raises(ContractError, match=r"finding_logits\.asymmetry"):
        calibrate(0.0, "finding_logits.asymmetry", contract())


def test_site_prevalence_moves_the_odds():
    shift = prior_shift(contract(), 0.005)
    before, after = calibrate(1.0, "exam_logit", contract()), calibrate(1.0, "exam_logit", contract(), shift)
    assert (after / (1 - after)) / (before / (1 - before)) == pytest.approx(0.005 / 0.995)


def test_exam_is_never_below_the_larger_breast():
    result = read({}, breast_logits=np.array([-2.0, 4.0], np.float32))
    left = result.breasts[1].probability
    assert result.exam_probability == left == pytest.approx(1 / (1 + math.exp(-(1.2 * 4.0 + 0.1))))


def test_absent_views_and_breasts_are_not_assessed_and_never_zero():
    result = read({}, views=(RCC, RMLO), breast_logits=np.array([1.0, -30.0], np.float32))
    assert result.breasts[1].laterality is Laterality.LEFT
    assert result.breasts[1].probability is None
    assert set(result.finding_probabilities) == {RCC, RMLO}
    assert {"LCC: no image", "LMLO: no image", "left breast: no image"} <= set(result.not_assessed)


def test_outputs_that_the_model_does_not_give_are_not_assessed():
    bare = prediction({}, breast_logits=None, finding_logits=None, heatmaps=None)
    exam = {view: prepared(view) for view in STANDARD_VIEWS}
    result = interpret(bare, contract(operating_points={}), exam, (), SITE)
    assert [breast.probability for breast in result.breasts] == [None, None]
    assert result.findings == ()
    assert result.finding_probabilities[RCC] == ()
    assert result.heatmaps[RCC] is None
    assert set(result.not_assessed) == {
        "malignancy by breast: not given by this model",
        "findings by view: not given by this model",
        "location of findings: not given by this model",
        "breast density: not given by this model",
        "architectural distortion: not looked for by this model",
        "asymmetry: not looked for by this model",
    }


# --- where it lies, and what belongs together ------------------------------------------------------------------------


def breasts() -> dict[View, PreparedView]:
    """Half an ellipse in every view, its chest wall on the left edge of the model image."""
    y, x = np.mgrid[:H, :W] + 0.5
    picture = np.where((x / 90.0) ** 2 + ((y - 95.0) / 80.0) ** 2 < 1.0, 0.5, 0.0).astype(np.float32)
    return {view: replace(prepared(view), pixels=picture) for view in STANDARD_VIEWS}


ORIENTATIONS = {RCC: ("P", "L"), LCC: ("A", "R"), RMLO: ("P", "FL"), LMLO: ("A", "FR")}


def located(heat: dict[View, np.ndarray], **known):
    return interpret(prediction(heat), contract(), breasts(), (), SITE, **known)


def test_a_finding_has_its_place():
    spacings = dict.fromkeys(STANDARD_VIEWS, (0.1, 0.1))
    result = located({RCC: blob(45.0, 60.0)}, orientations=ORIENTATIONS, spacings=spacings)
    place = result.findings[0].place
    assert place.nipple_distance == pytest.approx(0.5, abs=0.05)
    assert (place.depth, place.sector) == (Depth.MIDDLE, Sector.OUTER)
    assert place.nipple_distance_mm == pytest.approx(45.0 / placement(True).scale_x * 0.1, abs=4.0)


def test_a_place_without_orientation_and_spacing_has_no_sector_and_no_millimetres():
    place = located({LMLO: blob(45.0, 60.0)}).findings[0].place
    assert (place.sector, place.nipple_distance_mm, place.depth) == (None, None, Depth.MIDDLE)


def test_a_finding_in_an_image_whose_breast_does_not_stand_out_has_no_place():
    grey_all_over = read({LCC: blob(40.0, 90.0)})
    assert [finding.place for finding in grey_all_over.findings] == [None]
    assert grey_all_over.correspondences == ()


def test_one_lesion_in_two_views():
    heat = {RCC: blob(45.0, 60.0), RMLO: blob(48.0, 120.0), LCC: blob(45.0, 60.0), LMLO: blob(8.0, 120.0)}
    result = located(heat)
    assert [finding.view for finding in result.findings] == [RCC, LCC, RMLO, LMLO]
    assert result.correspondences == (Correspondence(0, 2),)


def test_density_is_the_likeliest_category():
    logits = np.array([0.5, 2.0, 1.0, -1.0], np.float32)
    known = prediction({}, density_logits=logits)
    density = interpret(known, contract(), breasts(), (), SITE).density
    assert density.category == "B"
    assert density.probability == pytest.approx(math.exp(2.0) / sum(math.exp(float(x)) for x in logits))
    assert located({}).density is None


def test_extreme_density_logits_stay_finite():
    known = prediction({}, density_logits=np.array([-1e4, 0.0, 0.0, 1e4], np.float32))
    assert interpret(known, contract(), breasts(), (), SITE).density == BreastDensity("D", 1.0)


# --- what is marked --------------------------------------------------------------------------------------------------


def test_a_region_needs_heat_and_probability():
    hot = {LCC: blob(40.0, 90.0)}
    assert len(read(hot).findings) == 1
    assert read({LCC: blob(40.0, 90.0, peak=0.45)}).findings == ()
    assert read(hot, finding_logits=np.full((4, 2), -0.1, np.float32)).findings == ()


def test_a_rule_overrides_the_probability():
    hot = {LCC: blob(40.0, 90.0)}
    assert read(hot, rules=(("mass", 0.9),)).findings == ()
    low = np.full((4, 2), -1.0, np.float32)
    assert len(read(hot, rules=(("mass", 0.2),), finding_logits=low).findings) == 1


def test_a_constant_view_has_no_findings():
    exam = {view: prepared(view, flags=("constant image",) if view == LCC else ()) for view in STANDARD_VIEWS}
    result = interpret(prediction({LCC: blob(40.0, 90.0)}), contract(), exam, (), SITE)
    assert result.findings == ()
    assert "LCC: constant image" in result.not_assessed


def test_a_missing_operating_point_is_named():
    bare = contract(operating_points={})
    with pytest.raises(ContractError, match="operating point of mass"):
        interpret(prediction({}), bare, {LCC: prepared(LCC)}, (), SITE)


def test_an_operating_heat_of_nothing_is_refused():
    cold = contract(operating_points={kind: OperatingPoint(0.5, 0.0) for kind in KINDS})
    with pytest.raises(ContractError, match="not above 0"):
        interpret(prediction({}), cold, {LCC: prepared(LCC)}, (), SITE)


def test_at_most_so_many_regions_the_hottest():
    heat = sum(blob(30.0 + 50.0 * (i % 2), 25.0 + 60.0 * (i // 2), 7.0, 1.0 + 0.1 * i) for i in range(5))
    findings = read({LMLO: heat}).findings
    assert len(findings) == MAXIMUM_REGIONS == 3
    peaks = [finding.peak_heat for finding in findings]
    assert peaks == sorted(peaks, reverse=True)
    assert min(peaks) > 0.8


def test_a_mass_with_distortion_is_one_finding_that_names_both_values():
    kinds = tuple(FindingKind)
    lines = {name: Calibration(1.0, 0.0, "phantoms", 0.3) for name in ("exam_logit", "breast_logits")}
    lines |= {f"finding_logits.{kind.value}": Calibration(1.0, 0.0, "phantoms", 0.3) for kind in kinds}
    four = contract(
        findings=kinds, calibration=lines, operating_points={kind: OperatingPoint(0.5, 0.5) for kind in kinds}
    )
    heatmaps = np.zeros((4, 4, *CELLS), np.float32)
    heatmaps[STANDARD_VIEWS.index(LCC)] = blob(40.0, 90.0)
    made = prediction(finding_logits=np.full((4, 4), 2.0, np.float32), heatmaps=heatmaps)
    result = interpret(made, four, {LCC: prepared(LCC)}, (), SITE)
    assert [(finding.kind, finding.associated) for finding in result.findings] == [
        (FindingKind.MASS, (FindingKind.ARCHITECTURAL_DISTORTION,)),
        (FindingKind.SUSPICIOUS_CALCIFICATION, ()),
    ]
    assert [kind for kind, _ in result.finding_probabilities[LCC]] == list(kinds)
    off = interpret(made, four, {LCC: prepared(LCC)}, (("mass", 1.0),), SITE)
    assert off.findings[-1].kind is FindingKind.ARCHITECTURAL_DISTORTION


# --- where it is marked ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    mirrored=st.booleans(),
    left=st.integers(0, 400),
    top=st.integers(0, 400),
    width=st.integers(500, 2000),
    height=st.integers(800, 3000),
    at=st.tuples(st.floats(0.15, 0.85), st.floats(0.15, 0.85)),
    sigma_px=st.floats(7.0, 14.0),
)
def test_a_blob_comes_back_where_it_was(mirrored, left, top, width, height, at, sigma_px):
    place = placement(mirrored, (left, top, left + width, top + height), (top + height + 31, left + width + 77))
    inside = place.to_model(np.array([[left + at[0] * width, top + at[1] * height]]))[0]
    stored = place.to_stored(inside[None])[0]
    view = RMLO if mirrored else LMLO
    exam = {view: prepared(view, place)}
    (finding,) = interpret(prediction({view: blob(*inside, sigma_px)}), contract(), exam, (), SITE).findings
    model_px = 1.0 / place.scale_x
    assert np.hypot(*(np.array(finding.centre) - stored)) < model_px
    middle = left + width / 2
    if abs(stored[0] - middle) > model_px:
        assert (finding.centre[0] > middle) == (stored[0] > middle)
    contour = np.array(finding.contour)
    assert contains(contour, finding.centre)
    assert (contour[0] == contour[-1]).all()
    assert len(contour) <= 500
    assert (contour >= 0).all()
    assert (contour <= [place.stored_columns, place.stored_rows]).all()
    assert finding.box.left <= finding.centre[0] <= finding.box.right
    assert finding.box.top <= finding.centre[1] <= finding.box.bottom


def test_contour_runs_at_half_of_the_peak():
    (finding,) = read({LCC: blob(45.0, 93.5, sigma_px=14.0)}).findings
    full_width = (finding.box.right - finding.box.left) * prepared(LCC).placement.scale_x
    assert full_width == pytest.approx(2.3548 * 14.0, abs=2.0)


def test_coordinates_are_exact_in_32_bits():
    (finding,) = read({RCC: blob(45.3, 93.1)}).findings
    contour = np.array(finding.contour)
    assert (contour.astype(np.float32) == contour).all()


def test_heat_lies_at_the_cells_and_is_not_stretched():
    cells = np.zeros(CELLS, np.float32)
    cells[10, 6] = 1.0
    registered = register_heatmap(cells, HeatGrid((8.0, 8.0), (4.5, 2.5)), H, W)
    assert registered.shape == (H, W)
    assert np.unravel_index(registered.argmax(), registered.shape) == (84, 50)
    assert registered.max() == 1.0


def test_heat_outside_the_breast_is_not_marked():
    pixels = np.zeros((H, W), np.float32)
    pixels[20:170, :60] = 0.5
    mask = breast_mask(pixels)
    assert mask[20:170, :60].all()
    assert not mask[:, 70:].any()
    assert regions_of(blob(90.0, 90.0, 6.0), 0.5, mask) == ()


def test_background_labels_are_no_breast():
    pixels = np.full((H, W), 0.04, np.float32)
    pixels[20:170, :70] = 0.4
    pixels[5:15, 90:110] = 1.0
    assert not breast_mask(pixels)[5:15, 92:110].any()


@pytest.mark.parametrize("pixels", [np.zeros((H, W)), np.ones((H, W)), np.eye(H, W) * 0 + 0.5])
def test_an_image_without_contrast_is_all_breast(pixels):
    assert breast_mask(pixels.astype(np.float32)).all()


def test_a_saddle_joins_and_a_gap_parts():
    joined = np.maximum(blob(40.0, 60.0, 10.0, 1.0), blob(40.0, 84.0, 10.0, 0.9))
    parted = np.maximum(blob(40.0, 40.0, 10.0, 1.0), blob(40.0, 140.0, 10.0, 0.9))
    assert len(regions_of(joined, 0.8)) == 1
    assert len(regions_of(parted, 0.8)) == 2


def test_regions_never_overlap():
    heat = np.maximum(blob(40.0, 60.0, 9.0, 2.0), blob(40.0, 92.0, 9.0, 0.7))
    strong, weak = regions_of(heat, 0.6)
    assert strong.contour[:, 1].max() < weak.contour[:, 1].min() + 0.5


def test_a_threshold_of_nothing_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        regions_of(blob(40.0, 60.0), 0.0)


# --- contours --------------------------------------------------------------------------------------------------------


def _circle(points: int, radius: float, wobble: float = 0.0) -> np.ndarray:
    angle = np.linspace(0.0, 2 * np.pi, points)
    r = radius + wobble * np.sin(97 * angle)
    line = 300 + np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
    line[-1] = line[0]
    return line


def test_simplified_contour_is_near_closed_and_short():
    before = _circle(4000, 200.0)
    after = simplify(before)
    assert (after[0] == after[-1]).all()
    assert 20 < len(after) <= 500
    assert abs(np.hypot(*(after - 300).T) - 200.0).max() <= 0.5
    assert abs(signed_area(after)) == pytest.approx(abs(signed_area(before)), rel=0.01)


def test_the_limit_of_points_wins_over_the_tolerance():
    after = simplify(_circle(4000, 250.0, wobble=30.0), tolerance_px=0.02)
    assert len(after) <= 500
    assert (after[0] == after[-1]).all()


def test_inside_is_even_odd():
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [0.0, 0.0]])
    assert contains(square, (2.0, 1.0))
    assert not contains(square, (5.0, 1.0))
    assert not contains(square, (2.0, -1.0))
