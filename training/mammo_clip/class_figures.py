"""Figures of what tells a class, prompts or a probe, in every unit: areas, precision, operating points, calibration.

Whatever is chosen (the calibration's line, the operating points) comes from rows of `fit`, never from those reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.figures import intervals
from training.figures.calibration import Bin, calibration
from training.figures.intervals import Interval
from training.figures.plots import Roc
from training.figures.report import Measured, of_group
from training.figures.subgroups import subgroups
from training.figures.thresholds import at_threshold, threshold_for_sensitivity, threshold_for_specificity
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.units import Grouped, grouped, grouped_density
from training.statistics import fit_platt

Logits = NDArray[np.float64]
WANTED_SPECIFICITY, WANTED_SENSITIVITY = 0.9, 0.8
FEWEST_TO_FIT = 20
"""Positives and negatives that a calibration or an operating point is chosen on, at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Images, and the logits of one label for each of them (N)."""

    images: Sequence[LabelledImage]
    logits: Logits
    split: str


@dataclass(frozen=True, slots=True, eq=False)
class ClassFigures:
    """What one label gives: rows of the report, a ROC line, the reliability table where there is one."""

    measured: tuple[Measured, ...]
    roc: Roc
    reliability: tuple[Bin, ...]


def figures_of_label(label: str, how: str, test: Rows, fit: Rows | None, units: Sequence[str]) -> ClassFigures | None:
    """Every figure of one label; the first of `units` is the one of plot, calibration and subgroups.

    None where the label is not known of any row.
    """
    what = f"{label}, {how}"
    found = [grouped(test.logits, test.images, label, unit) for unit in units]
    if not found[0].truth.size:
        return None
    rows = [row for group in found for row in _ranking(what, group)]
    first = found[0]
    area = intervals.auc_interval(first.values, first.truth.astype(bool), first.patients)
    chosen = grouped(fit.logits, fit.images, label, units[0]) if fit is not None else None
    table: tuple[Bin, ...] = ()
    if fit is not None and chosen is not None and _enough(chosen):
        rows += _operating(what, first, chosen, fit.split)
        calibrated, table = _calibrated(what, first, chosen, fit.split)
        rows += calibrated
    rows += _groups(what, first, test.images)
    return ClassFigures(tuple(rows), Roc(what, first.values, first.truth.astype(bool), area), table)


def _ranking(what: str, group: Grouped) -> list[Measured]:
    """Area and average precision in one unit; DeLong's interval beside the bootstrap where a patient has one row."""
    truth = group.truth.astype(bool)
    area = intervals.auc_interval(group.values, truth, group.patients)
    precision = intervals.average_precision(group.values, truth, group.patients)
    share = f"chance gives {truth.mean():.3f}" if truth.size else ""
    rows = [Measured(what, "AUC", area, group.unit), Measured(what, "average precision", precision, group.unit, share)]
    one_each = np.unique(group.patients).size == group.patients.size
    if one_each and truth.any() and not truth.all():
        rows.append(Measured(what, "AUC", intervals.delong_interval(group.values, truth, group.patients), group.unit))
    return rows


def _enough(chosen: Grouped) -> bool:
    return min(int(chosen.truth.sum()), int((1 - chosen.truth).sum())) >= FEWEST_TO_FIT


def _operating(what: str, group: Grouped, chosen: Grouped, split: str) -> list[Measured]:
    truth, fit_truth = group.truth.astype(bool), chosen.truth.astype(bool)
    points = {
        f"specificity {WANTED_SPECIFICITY:g}": threshold_for_specificity(chosen.values, fit_truth, WANTED_SPECIFICITY),
        f"sensitivity {WANTED_SENSITIVITY:g}": threshold_for_sensitivity(chosen.values, fit_truth, WANTED_SENSITIVITY),
    }
    rows = []
    for name, threshold in points.items():
        found = at_threshold(group.values, truth, group.patients, threshold)
        note = f"threshold {threshold:.3f}: {name} on {split}"
        rows += [
            Measured(what, "sensitivity", found.sensitivity, group.unit, note),
            Measured(what, "specificity", found.specificity, group.unit, note),
        ]
    return rows


def _calibrated(what: str, group: Grouped, chosen: Grouped, split: str) -> tuple[list[Measured], tuple[Bin, ...]]:
    slope, shift = fit_platt(chosen.values, chosen.truth.astype(bool))
    probabilities = 1.0 / (1.0 + np.exp(-(slope * group.values + shift)))
    found = calibration(probabilities, group.truth.astype(bool), group.patients)
    note = f"line fitted on {split}"
    names = {
        "expected calibration error": found.error,
        "Brier score": found.brier,
        "calibration slope": found.slope,
        "calibration intercept": found.intercept,
    }
    return [Measured(what, name, value, group.unit, note) for name, value in names.items()], found.table


def _groups(what: str, group: Grouped, images: Sequence[LabelledImage]) -> list[Measured]:
    """The area for each density, view and vendor that is told; not where all rows are of one group."""
    first = [images[members[0]] for members in group.members]
    told: dict[str, list[str | None]] = {
        "density": [None if image.density is None else "ABCD"[image.density] for image in first],
        "view": [image.position.value if image.position else None for image in first],
        "vendor": [image.vendor for image in first],
    }
    if group.unit not in ("row", "image"):
        del told["view"]
    truth = group.truth.astype(bool)

    def area(rows: NDArray[np.intp]) -> Interval:
        return intervals.auc_interval(group.values[rows], truth[rows], group.patients[rows])

    return [
        of_group(what, "AUC", group.unit, one)
        for name, groups in told.items()
        if len(set(groups)) > 1
        for one in subgroups(name, groups, area)
    ]


def density_figures(how: str, probabilities: Logits, images: Sequence[LabelledImage], unit: str) -> list[Measured]:
    """Balanced accuracy and macro-AUC of density (N, 4), and plain accuracy beside the largest class's share."""
    group = grouped_density(probabilities, images, unit)
    if not group.truth.size:
        return []
    predicted = group.values.argmax(1)
    what, right = f"density, {how}", predicted == group.truth
    classes, counts = np.unique(group.truth, return_counts=True)
    largest = f"always {'ABCD'[int(classes[counts.argmax()])]} gives {counts.max() / counts.sum():.3f}"
    accuracy = intervals.share_interval(right, group.patients)
    balanced = intervals.balanced_accuracy(predicted, group.truth, group.patients)
    area = intervals.macro_auc(group.values, group.truth, group.patients)
    chance = f"chance gives {1 / classes.size:.3f}"
    return [
        Measured(what, "balanced accuracy", balanced, unit, f"{chance}; positive: the rows that are right"),
        Measured(what, "macro-AUC", area, unit, "positive: rows of the rarest class"),
        Measured(what, "accuracy", accuracy, unit, largest),
    ]
