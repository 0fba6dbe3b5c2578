"""Figures of logits of single images, by unit: calibrated on rows that are not reported, then AUC, precision, error.

A unit's value is joined from calibrated probabilities (units.py) and calibrated once more, since a mean and a maximum
of calibrated values are not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from training.figures import calibration as calibrations
from training.figures.intervals import (
    Interval,
    auc_interval,
    average_precision,
    balanced_accuracy,
    delong_interval,
    macro_auc,
    share_interval,
)
from training.figures.report import Measured, of_group
from training.figures.subgroups import subgroups
from training.figures.thresholds import at_threshold, threshold_for_specificity
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.units import Grouped, grouped, grouped_density
from training.statistics import fit_platt

PUBLISHED = "softmax of raw cosines"
SPECIFICITY = 0.9
"""At which sensitivity is told; its threshold is chosen on the calibration rows."""
_LEAST_SLOPE = 1e-4
"""For a standard deviation of the logits."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Rows with their logits: (N) for a finding, (N, 4) for density."""

    images: tuple[LabelledImage, ...]
    logits: Numbers


@dataclass(frozen=True, slots=True)
class Platt:
    """p = sigmoid(a * logit + b), fitted on `n` units with `positives` among them; n 0: not fitted."""

    a: float = 1.0
    b: float = 0.0
    n: int = 0
    positives: int = 0

    def __call__(self, logits: Numbers) -> Numbers:
        """Probabilities of logits."""
        return np.asarray(expit(self.a * logits + self.b), np.float64)


def platt_of(logits: Numbers, truth: NDArray[np.int64]) -> Platt:
    """Fitted where both classes occur, else the plain sigmoid. A slope near 0 keeps a trace, so that ranks stay."""
    positive = truth > 0
    if positive.all() or not positive.any():
        return Platt()
    a, b = fit_platt(logits, positive)
    return Platt(max(a, _LEAST_SLOPE / max(float(logits.std()), 1e-9)), b, positive.size, int(positive.sum()))


def of_known(scored: Scored, label: str) -> tuple[Numbers, NDArray[np.int64]]:
    """Logits and truth of the rows that tell the label."""
    rows = [row for row, image in enumerate(scored.images) if image.labels.get(label) is not None]
    truth = [int(bool(scored.images[row].labels[label])) for row in rows]
    return scored.logits[rows], np.array(truth, np.int64)


def finding_measures(
    label: str, reported: Scored, held_out: Scored, units: Sequence[str], *, whole: bool
) -> tuple[list[Measured], Platt]:
    """Figures of one finding in each unit, and the calibration of single images. `held_out` rows calibrate and choose
    the threshold. `whole` adds calibration, sensitivity and subgroups to AUC and precision.
    """
    platt = platt_of(*of_known(held_out, label))
    measures: list[Measured] = []
    for unit in units:
        ours, others = (grouped(platt(scored.logits), scored.images, label, unit) for scored in (reported, held_out))
        if not ours.truth.any() or ours.truth.all():
            continue
        measures += _ranks(label, ours)
        if whole:
            measures += _probabilities(label, ours, others) + _subgroups(label, ours, reported.images)
    return measures, platt


def published_measures(label: str, reported: Scored, units: Sequence[str]) -> list[Measured]:
    """The same ranks of probabilities as the published scoring gives them, and how far they are from being any."""
    measures: list[Measured] = []
    for unit in units:
        ours = grouped(reported.logits, reported.images, label, unit)
        if ours.truth.any() and not ours.truth.all():
            positive = ours.truth > 0
            found = calibrations.calibration(ours.values, positive, ours.patients)
            measures += _ranks(label, ours, PUBLISHED)
            measures.append(Measured(label, "calibration error", found.error, unit, PUBLISHED))
    return measures


def _ranks(label: str, units: Grouped, note: str = "") -> list[Measured]:
    positive = units.truth > 0
    values = logit(np.clip(units.values, 1e-9, 1 - 1e-9))
    once = np.unique(units.patients).size == units.patients.size
    area = delong_interval(values, positive, units.patients) if once else auc_interval(values, positive, units.patients)
    precision = average_precision(values, positive, units.patients)
    chance = "; ".join(words for words in (f"chance {positive.mean():.3f}", note) if words)
    return [
        Measured(label, "AUC", area, units.unit, note),
        Measured(label, "average precision", precision, units.unit, chance),
    ]


def _probabilities(label: str, units: Grouped, held_out: Grouped) -> list[Measured]:
    """Calibration, and sensitivity at a threshold: both from the held-out units."""
    values, others = (logit(np.clip(one.values, 1e-9, 1 - 1e-9)) for one in (units, held_out))
    platt = platt_of(others, held_out.truth)
    if platt.n == 0:
        return []
    positive = units.truth > 0
    found = calibrations.calibration(platt(values), positive, units.patients)
    note = f"calibrated on {platt.n} units, {platt.positives} positive"
    point = at_threshold(
        values, positive, units.patients, threshold_for_specificity(others, held_out.truth > 0, SPECIFICITY)
    )
    chosen = f"threshold for specificity {SPECIFICITY} on the calibration rows"
    return [
        Measured(label, "calibration error", found.error, units.unit, note),
        Measured(label, "Brier score", found.brier, units.unit, note),
        Measured(label, "calibration slope", found.slope, units.unit, note),
        Measured(label, "sensitivity", point.sensitivity, units.unit, chosen),
        Measured(label, "specificity", point.specificity, units.unit, chosen),
    ]


def _subgroups(label: str, units: Grouped, images: Sequence[LabelledImage]) -> list[Measured]:
    """AUC by density, view and vendor, where a unit has one of it."""
    positive = units.truth > 0

    def figure(rows: NDArray[np.intp]) -> Interval:
        return auc_interval(units.values[rows], positive[rows], units.patients[rows])

    told = {
        "density": [_only(_density(images[row]) for row in rows) for rows in units.members],
        "view": [_only(_view(images[row]) for row in rows) for rows in units.members],
        "vendor": [_only(images[row].vendor for row in rows) for rows in units.members],
    }
    return [
        of_group(label, "AUC", units.unit, group)
        for name, groups in told.items()
        if len(set(groups)) > 1
        for group in subgroups(name, groups, figure)
    ]


def _density(image: LabelledImage) -> str | None:
    return None if image.density is None else "ABCD"[image.density]


def _view(image: LabelledImage) -> str | None:
    return image.position.value if image.position else None


def _only(values: Iterable[str | None]) -> str | None:
    """The one value of all, None where they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def temperature_of(logits: Numbers, truth: NDArray[np.int64]) -> float:
    """The T by which logits (N, K) are divided for the least cross-entropy with the truth (N)."""
    rows = np.arange(truth.size)

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[rows, truth].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x))


def density_measures(reported: Scored, held_out: Scored, units: Sequence[str]) -> tuple[list[Measured], float]:
    """Accuracy, balanced accuracy, macro F1 and macro AUC of density, and the temperature. Plain accuracy must be read
    against the share of the commonest class.
    """
    known = grouped_density(held_out.logits, held_out.images, "row")
    temperature = temperature_of(known.values, known.truth) if known.truth.size else 1.0
    measures: list[Measured] = []
    for unit in units:
        ours = grouped_density(softmax(reported.logits / temperature, axis=1), reported.images, unit)
        if ours.truth.size:
            measures += _of_density(ours)
    return measures, temperature


def published_density(reported: Scored, units: Sequence[str]) -> list[Measured]:
    """The same of probabilities (N, 4) as the published scoring gives them."""
    found = (grouped_density(reported.logits, reported.images, unit) for unit in units)
    return [measured for ours in found if ours.truth.size for measured in _of_density(ours, PUBLISHED)]


def _of_density(units: Grouped, note: str = "") -> list[Measured]:
    predicted = units.values.argmax(1)
    common = np.bincount(units.truth).max() / units.truth.size
    right = share_interval(predicted == units.truth, units.patients)
    macro = replace(right, value=macro_f1(predicted, units.truth), low=float("nan"), high=float("nan"))
    balanced = balanced_accuracy(predicted, units.truth, units.patients)
    macro_area = macro_auc(units.values, units.truth, units.patients)
    common_words = f"commonest class {common:.3f}; positive: right"
    return [
        Measured("density", "accuracy", right, units.unit, "; ".join(filter(None, (common_words, note)))),
        Measured("density", "balanced accuracy", balanced, units.unit, note),
        Measured("density", "macro F1", replace(macro, method="no interval"), units.unit, note),
        Measured("density", "macro AUC", macro_area, units.unit, note),
    ]


def macro_f1(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur."""
    scores = []
    for index in np.unique(truth):
        hits = int(((predicted == index) & (truth == index)).sum())
        scores.append(2 * hits / (int((predicted == index).sum()) + int((truth == index).sum())))
    return float(np.mean(scores))
