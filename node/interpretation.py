"""Logits and heatmaps to calibrated probabilities and findings in stored pixels, at one operating point. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError
from node.mammography.anatomy import correspondences, find_landmarks, place
from node.mammography.contract import Calibration, ModelContract, OperatingPoint, Prediction, QueryContract
from node.mammography.findings import (
    FINDING_KINDS,
    Box,
    BreastAssessment,
    BreastDensity,
    Correspondence,
    Finding,
    FindingKind,
)
from node.mammography.marking import FURTHER_SHARE, MAXIMUM_REGIONS, Mark, marks_of
from node.mammography.pixels import CONSTANT_IMAGE, Placement, PreparedView
from node.mammography.regions import HeatGrid, Region, breast_mask, find_regions, register_heatmap
from node.mammography.views import BREASTS, STANDARD_VIEWS, Laterality, View
from node.settings import ReadingSettings

DENSITY_CATEGORIES = "ABCD"
"""The axis of `density_logits`: ACR BI-RADS composition."""

_COORDINATE_STEPS = 64.0
"""Coordinates are rounded to 1/64 pixel, which SCOORD's 32-bit floats hold exactly: one contour in every object."""


@dataclass(frozen=True, slots=True, eq=False)
class Interpretation:
    """What the model's numbers mean. Probabilities are calibrated, in [0, 1]; what is absent was not assessed.

    `heatmaps`: by view, float32 (K, H, W), heat registered on the model's pixels, kinds in the order of
    `finding_probabilities`.
    """

    exam_probability: float
    """Never below the larger breast's."""
    breasts: tuple[BreastAssessment, BreastAssessment]
    """Right, left."""
    finding_probabilities: Mapping[View, tuple[tuple[FindingKind, float], ...]]
    """By view read; no entry where the view is missing, empty where the model gives none."""
    heatmaps: Mapping[View, NDArray[np.float32] | None]
    findings: tuple[Finding, ...]
    """In the order of STANDARD_VIEWS, then of the contract's findings, then the hottest first."""
    not_assessed: tuple[str, ...]
    """In words: "LMLO: no image", "breast density: not given by this model"."""
    correspondences: tuple[Correspondence, ...] = ()
    """Findings of CC and MLO that are taken for the same lesion."""
    density: BreastDensity | None = None
    """None where the model gives none."""


def interpret(
    prediction: Prediction,
    contract: ModelContract,
    prepared: Mapping[View, PreparedView],
    rule_thresholds: tuple[tuple[str, float], ...],
    settings: ReadingSettings,
    *,
    orientations: Mapping[View, tuple[str, ...]] = MappingProxyType({}),
    spacings: Mapping[View, tuple[float, float] | None] = MappingProxyType({}),
) -> Interpretation:
    """Interpret one exam. `prepared` has the views that were read, at least one; `rule_thresholds` are pairs of a
    finding's name and a probability that overrides the model's operating value. `orientations` and `spacings` are
    those of anatomy.place; without them a place has no sector and no millimetres. Raises ContractError where the
    contract lacks the calibration or the operating point of an output that it promises.
    """
    shift = prior_shift(contract, settings.site_prevalence)
    breasts = _assess_breasts(prediction, contract, prepared, shift)
    exam = calibrate(prediction.exam_logit, "exam_logit", contract, shift)
    assessed = [breast.probability for breast in breasts if breast.probability is not None]
    probabilities = {view: _view_probabilities(prediction, contract, view) for view in _in_order(prepared)}
    heatmaps = {view: _registered(prediction, contract, view, prepared[view]) for view in probabilities}
    thresholds = {} if prediction.heatmaps is None else _thresholds(contract, dict(rule_thresholds))
    findings = tuple(
        placed
        for view, registered in heatmaps.items()
        if registered is not None and prediction.heatmaps is not None and CONSTANT_IMAGE not in prepared[view].flags
        for placed in _placed(
            _view_findings(
                _Heat(prediction.heatmaps[STANDARD_VIEWS.index(view)], registered, heat_grid(contract)),
                view,
                prepared[view],
                probabilities[view],
                thresholds,
            ),
            prepared[view],
            orientations.get(view, ()),
            spacings.get(view),
        )
    )
    return Interpretation(
        exam_probability=max([exam, *assessed]),
        breasts=breasts,
        finding_probabilities=probabilities,
        heatmaps=heatmaps,
        findings=findings,
        not_assessed=_not_assessed(prediction, contract, prepared),
        correspondences=correspondences(findings),
        density=_density(prediction),
    )


def calibrate(logit: float, output: str, contract: ModelContract, shift: float = 0.0) -> float:
    """sigmoid(a * logit + b + shift) with a and b that the contract has for `output`."""
    try:
        calibration = contract.calibration[output]
    except KeyError as error:
        raise ContractError(f"calibration of {output} is missing in model {contract.name}") from error
    return calibrated(logit, calibration, shift)


def calibrated(logit: float, calibration: Calibration, shift: float = 0.0) -> float:
    """sigmoid(a * logit + b + shift)."""
    return _sigmoid(calibration.a * float(logit) + calibration.b + shift)


def prior_shift(contract: ModelContract, site_prevalence: float | None) -> float:
    """Log-odds of the site's share of exams with a malignancy less those of the set that `exam_logit` was fitted on.

    The same shift goes to each breast: prior odds scale alike. Finding probabilities take benign findings in and are
    not shifted.
    """
    if site_prevalence is None or "exam_logit" not in contract.calibration:
        return 0.0
    return _log_odds(site_prevalence) - _log_odds(contract.calibration["exam_logit"].prevalence)


def _sigmoid(value: float) -> float:
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-value))
    return math.exp(value) / (1.0 + math.exp(value))


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share))


def _in_order(prepared: Mapping[View, PreparedView]) -> tuple[View, ...]:
    return tuple(view for view in STANDARD_VIEWS if view in prepared)


def _assess_breasts(
    prediction: Prediction, contract: ModelContract, prepared: Mapping[View, PreparedView], shift: float
) -> tuple[BreastAssessment, BreastAssessment]:
    """Right, left; None, never 0, for a breast without a view."""
    logits = prediction.breast_logits
    sides = {view.laterality for view in prepared}

    def probability(index: int, side: Laterality) -> float | None:
        if logits is None or side not in sides:
            return None
        return calibrate(float(logits[index]), "breast_logits", contract, shift)

    right, left = (BreastAssessment(side, probability(index, side)) for index, side in enumerate(BREASTS))
    return right, left


def _view_probabilities(
    prediction: Prediction, contract: ModelContract, view: View
) -> tuple[tuple[FindingKind, float], ...]:
    if prediction.finding_logits is None:
        return ()
    logits = prediction.finding_logits[STANDARD_VIEWS.index(view)]
    return tuple(
        (kind, calibrate(float(logit), f"finding_logits.{kind.value}", contract))
        for kind, logit in zip(contract.findings, logits, strict=True)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Heat:
    """Heat of one view: cells (K, h, w), and (K, H, W) on the model's pixels."""

    cells: NDArray[np.float32]
    registered: NDArray[np.float32]
    grid: HeatGrid


def _thresholds(contract: ModelContract, overrides: Mapping[str, float]) -> Mapping[FindingKind, OperatingPoint]:
    """The contract's operating points, with the probabilities that a rule sets instead."""
    points = {}
    for kind in contract.findings:
        point = contract.operating_points.get(kind)
        if point is None:
            raise ContractError(f"operating point of {kind.value} is missing in model {contract.name}")
        if point.heat <= 0.0:
            raise ContractError(f"operating heat of {kind.value} is not above 0 in model {contract.name}")
        points[kind] = OperatingPoint(overrides.get(kind.value, point.probability), point.heat)
    return points


def _view_findings(
    heat: _Heat,
    view: View,
    prepared: PreparedView,
    probabilities: tuple[tuple[FindingKind, float], ...],
    thresholds: Mapping[FindingKind, OperatingPoint],
) -> tuple[Finding, ...]:
    """The findings of one view: both probability and heat must reach their operating values, see also marking.py."""
    hot = [
        (index, kind)
        for index, (kind, probability) in enumerate(probabilities)
        if probability >= thresholds[kind].probability and heat.cells[index].max() >= thresholds[kind].heat
    ]
    if not hot:
        return ()
    inside, known = breast_mask(prepared.pixels), dict(probabilities)
    regions = {
        kind: find_regions(
            heat.cells[index],
            heat.registered[index],
            heat.grid,
            inside,
            thresholds[kind].heat,
            MAXIMUM_REGIONS,
            FURTHER_SHARE,
        )
        for index, kind in hot
    }
    return tuple(_finding(mark, view, known[mark.kind], prepared.placement) for mark in marks_of(regions))


def _placed(
    findings: tuple[Finding, ...],
    prepared: PreparedView,
    orientation: tuple[str, ...],
    spacing_mm: tuple[float, float] | None,
) -> tuple[Finding, ...]:
    """The findings of one view with their places; the breast is sought only where there are any."""
    landmarks = find_landmarks(prepared, findings[0].view, orientation, spacing_mm) if findings else None
    return tuple(
        replace(finding, place=place(finding.centre, finding.view, landmarks, orientation, spacing_mm))
        for finding in findings
    )


def _density(prediction: Prediction) -> BreastDensity | None:
    """The likeliest category, by softmax over A to D; the contract has no calibration of density."""
    if prediction.density_logits is None:
        return None
    logits = prediction.density_logits.astype(np.float64)
    shares = np.exp(logits - logits.max())
    best = int(shares.argmax())
    return BreastDensity(DENSITY_CATEGORIES[best], float(shares[best] / shares.sum()))


def heat_grid(contract: ModelContract | QueryContract) -> HeatGrid:
    """Where the contract's heatmap cells lie in the model image."""
    return HeatGrid(contract.heatmap_stride, contract.heatmap_offset)


def _registered(
    prediction: Prediction, contract: ModelContract, view: View, prepared: PreparedView
) -> NDArray[np.float32] | None:
    if prediction.heatmaps is None:
        return None
    heat = prediction.heatmaps[STANDARD_VIEWS.index(view)]
    return register_heatmap(heat, heat_grid(contract), *prepared.pixels.shape)


def _finding(mark: Mark, view: View, probability: float, placement: Placement) -> Finding:
    outline, heat = outline_of(mark.region, placement), mark.region.peak_heat
    where = (outline.centre, outline.contour, outline.box)
    return Finding(mark.kind, view, probability, heat, *where, associated=mark.associated)


@dataclass(frozen=True, slots=True)
class Outline:
    """A region in stored pixels; centre, contour and box as in Finding."""

    centre: tuple[float, float]
    contour: tuple[tuple[float, float], ...]
    box: Box


def outline_of(region: Region, placement: Placement) -> Outline:
    """Where a region of the model image lies in the stored image."""
    contour = _to_stored(region.contour, placement)
    (left, top), (right, bottom) = contour.min(axis=0), contour.max(axis=0)
    centre = _to_stored(np.array([region.centre]), placement)[0]
    return Outline(
        centre=(float(centre[0]), float(centre[1])),
        contour=tuple((float(x), float(y)) for x, y in contour),
        box=Box(float(left), float(top), float(right), float(bottom)),
    )


def _to_stored(points: NDArray[np.float64], placement: Placement) -> NDArray[np.float64]:
    """Model points (N, 2) to stored pixels, inside the stored image, rounded to 1/64 pixel."""
    stored = np.round(placement.to_stored(points) * _COORDINATE_STEPS) / _COORDINATE_STEPS
    return np.clip(stored, 0.0, np.array([placement.stored_columns, placement.stored_rows], dtype=np.float64))


def _not_assessed(
    prediction: Prediction, contract: ModelContract, prepared: Mapping[View, PreparedView]
) -> tuple[str, ...]:
    """What nobody may take for "nothing found", in words."""
    words = [f"{view.name}: no image" for view in STANDARD_VIEWS if view not in prepared]
    constant = [view for view in _in_order(prepared) if CONSTANT_IMAGE in prepared[view].flags]
    words += [f"{view.name}: {CONSTANT_IMAGE}" for view in constant]
    sides = {view.laterality for view in prepared}
    words += [f"{_SIDE_WORDS[side]} breast: no image" for side in BREASTS if side not in sides]
    missing_outputs = {
        "malignancy by breast": prediction.breast_logits is None,
        "findings by view": prediction.finding_logits is None,
        "location of findings": prediction.heatmaps is None,
        "breast density": prediction.density_logits is None,
    }
    words += [f"{words_of}: not given by this model" for words_of, missing in missing_outputs.items() if missing]
    unknown = [kind for kind in FINDING_KINDS if kind not in contract.findings]
    words += [f"{kind.value.replace('_', ' ')}: not looked for by this model" for kind in unknown]
    return tuple(words)


_SIDE_WORDS = {Laterality.RIGHT: "right", Laterality.LEFT: "left"}
