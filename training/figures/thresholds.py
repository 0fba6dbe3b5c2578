"""Sensitivity and specificity at operating points that were chosen on other patients, and the ROC curve."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.figures.intervals import Interval, Patients, share_interval
from training.figures.resampling import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """What calling rows of at least `threshold` positive does."""

    threshold: float
    sensitivity: Interval
    specificity: Interval


def threshold_for_specificity(logits: FloatArray, positive: BoolArray, wanted: float) -> float:
    """The lowest of the values seen at which at least `wanted` of the negatives stay below; for validation rows.

    Above every value where ties forbid it. Raises ValueError without negatives.
    """
    negatives = np.sort(np.asarray(logits, np.float64)[~positive])
    if negatives.size == 0:
        raise ValueError("a threshold for a specificity needs negatives")
    candidates = np.append(np.unique(np.asarray(logits, np.float64)), np.inf)
    below = np.searchsorted(negatives, candidates, side="left") / negatives.size
    return float(candidates[np.argmax(below >= wanted)])


def threshold_for_sensitivity(logits: FloatArray, positive: BoolArray, wanted: float) -> float:
    """The highest of the values seen that at least `wanted` of the positives reach. Raises ValueError without any."""
    positives = np.sort(np.asarray(logits, np.float64)[positive])[::-1]
    if positives.size == 0:
        raise ValueError("a threshold for a sensitivity needs positives")
    needed = max(1, int(np.ceil(wanted * positives.size - 1e-9)))
    return float(positives[needed - 1])


def at_threshold(logits: FloatArray, positive: BoolArray, patients: Patients, threshold: float) -> AtThreshold:
    """Sensitivity and specificity with their intervals."""
    called = np.asarray(logits) >= threshold
    return AtThreshold(
        threshold,
        share_interval(called, patients, among=positive),
        share_interval(~called, patients, among=~positive),
    )


def roc_points(logits: FloatArray, positive: BoolArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """False and true positive rates, from (0, 0) to (1, 1): a point for each value seen. Needs both classes."""
    order = np.argsort(-np.asarray(logits, np.float64), kind="stable")
    ordered, hits = np.asarray(logits)[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), ordered.size - 1)
    true, false = np.cumsum(hits)[last] / hits.sum(), np.cumsum(~hits)[last] / (~hits).sum()
    return np.append(0.0, false), np.append(0.0, true)
