"""Figures with 95 % intervals: bootstrap by patient, or DeLong where each patient has one row.

Rows are (N); `patients` (N) names or numbers. A figure that does not exist (an empty class) is NaN and says so.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training import delong
from training.figures import resampling
from training.figures.resampling import DRAWS, BoolArray, FloatArray, Statistic

Patients = npt.NDArray[Any]
NO_INTERVAL = "no interval"


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; `n` rows of `patients` patients, `positives` among the rows, and the method."""

    value: float
    low: float
    high: float
    n: int
    positives: int
    patients: int
    method: str

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not defined"
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def as_table(self) -> dict[str, float | int | str | None]:
        """For JSON; a figure that does not exist is null."""
        return {
            "value": _rounded(self.value),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
            "n": self.n,
            "positives": self.positives,
            "patients": self.patients,
            "method": self.method,
        }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def interval_of(
    statistic: Statistic,
    patients: Patients,
    positive: npt.NDArray[Any],
    draws: int = DRAWS,
    seed: int = 0,
    width: int = 0,
) -> Interval:
    """Any statistic of `resampling` with its bootstrap interval by patient; `positive` is only counted.

    `width`: see `resampling.drawn`.
    """
    if patients.size == 0:
        return _nothing()
    limits = resampling.limits(statistic, patients, draws, seed, width)
    return _interval(limits, patients, positive, _words(patients, draws))


def _interval(limits: tuple[float, float, float], patients: Patients, positive: Any, method: str) -> Interval:
    return Interval(*limits, patients.size, int(np.sum(positive)), np.unique(patients).size, method)


def _words(patients: Patients, draws: int) -> str:
    return f"bootstrap by patient, {draws} draws" if np.unique(patients).size > 1 else f"{NO_INTERVAL}: one patient"


def _nothing() -> Interval:
    nan = float("nan")
    return Interval(nan, nan, nan, 0, 0, 0, f"{NO_INTERVAL}: no rows")


def auc_interval(
    logits: FloatArray, positive: BoolArray, patients: Patients, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Area under the ROC curve, ties counted half."""
    if patients.size == 0:
        return _nothing()
    return interval_of(resampling.auc(logits, positive), patients, positive, draws, seed)


def delong_interval(logits: FloatArray, positive: BoolArray, patients: Patients) -> Interval:
    """The same area with DeLong's interval. Raises ValueError where a patient has several rows or a class is empty."""
    if np.unique(patients).size != patients.size:
        raise ValueError("DeLong's variance takes rows as independent: one row a patient; take the bootstrap")
    return _interval(delong.interval(logits, positive), patients, positive, "DeLong, one row a patient")


def average_precision(
    logits: FloatArray, positive: BoolArray, patients: Patients, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Average precision: the share of positives is what chance gives."""
    if patients.size == 0:
        return _nothing()
    return interval_of(resampling.average_precision(logits, positive), patients, positive, draws, seed)


def share_interval(
    hits: FloatArray | BoolArray,
    patients: Patients,
    among: BoolArray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean of `hits` over the rows `among`; n counts those rows, positives the hits among them."""
    rows = np.ones(patients.size, np.bool_) if among is None else among
    if not rows.any():
        return _nothing()
    limits = resampling.limits(resampling.share(hits, among), patients, draws, seed)
    return _interval(limits, patients[rows], np.asarray(hits)[rows], _words(patients[rows], draws))


def balanced_accuracy(
    predicted: npt.NDArray[np.integer[Any]], truth: npt.NDArray[np.integer[Any]], patients: Patients
) -> Interval:
    """Mean recall over the classes that occur; `positives` counts the rows that are right."""
    if patients.size == 0:
        return _nothing()
    return interval_of(resampling.balanced_accuracy(predicted, truth), patients, predicted == truth)


def macro_auc(logits: FloatArray, truth: npt.NDArray[np.integer[Any]], patients: Patients) -> Interval:
    """Mean AUC of each class against the others; `positives` counts the rarest class. (N, classes) and (N)."""
    if patients.size == 0:
        return _nothing()
    limits = resampling.limits(resampling.macro_auc(logits, truth), patients)
    rarest = int(np.unique(truth, return_counts=True)[1].min())
    return _interval(limits, patients, rarest, _words(patients, DRAWS))


def paired_difference(first: Statistic, second: Statistic, patients: Patients, positive: BoolArray) -> Interval:
    """`first` less `second`, two models on the same rows, with the interval of the difference on the same draws."""
    if patients.size == 0:
        return _nothing()
    return interval_of(resampling.difference(first, second), patients, positive)


def auc_difference(first: FloatArray, second: FloatArray, positive: BoolArray, patients: Patients) -> Interval:
    """AUC of the first model's logits less the second's, on the same rows."""
    return paired_difference(resampling.auc(first, positive), resampling.auc(second, positive), patients, positive)
