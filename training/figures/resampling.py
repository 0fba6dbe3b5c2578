"""The bootstrap by patient, vectorised: a draw is how often each row counts, and a statistic takes many draws at once.

A patient's rows are drawn together. The statistics here take `counts` float64 (draws, N), one row a draw, and give
(draws): with counts of 1 throughout, the figure itself. So every figure and every difference of two figures on the same
cases has its interval by one function. NaN where a draw has no figure (a class is empty).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.float64]
Statistic = Callable[[Counts], npt.NDArray[np.float64]]

DRAWS = 2000
"""Bootstrap draws behind an interval."""
_CELLS = 1 << 20
"""Entries of `counts` at a time: 8 MB."""


def drawn(patients: npt.NDArray[Any], draws: int = DRAWS, seed: int = 0, width: int = 0) -> Iterator[Counts]:
    """How often each row counts in each draw, some draws at a time. `patients` (N): names or numbers.

    `width`: values that the statistic makes of each draw where they are more than N; fewer draws come at a time then.
    """
    names, rows = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(1, rows.size, width))
    for first in range(0, draws, step):
        some = min(step, draws - first)
        chosen = rng.integers(len(names), size=(some, len(names)))
        flat = (chosen + len(names) * np.arange(some)[:, None]).ravel()
        times = np.bincount(flat, minlength=some * len(names)).reshape(some, len(names))
        yield times[:, rows].astype(np.float64)


def once(rows: int) -> Counts:
    """Each row counts once: (1, rows)."""
    return np.ones((1, rows))


def limits(
    statistic: Statistic, patients: npt.NDArray[Any], draws: int = DRAWS, seed: int = 0, width: int = 0
) -> tuple[float, float, float]:
    """The figure and its 2.5 and 97.5 percentiles; no limits (NaN) with fewer than two patients."""
    ((value, low, high),) = limits_of_each(lambda counts: statistic(counts)[:, None], patients, draws, seed, width)
    return value, low, high


def limits_of_each(
    statistics: Statistic, patients: npt.NDArray[Any], draws: int = DRAWS, seed: int = 0, width: int = 0
) -> list[tuple[float, float, float]]:
    """The same for statistics that share their work: (draws, N) -> (draws, K)."""
    values = statistics(once(patients.size))[0]
    if np.unique(patients).size < 2:
        return [(float(value), float("nan"), float("nan")) for value in values]
    samples = np.concatenate([statistics(counts) for counts in drawn(patients, draws, seed, width)])
    return [(float(value), *_percentiles(column)) for value, column in zip(values, samples.T, strict=True)]


def _percentiles(samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    known = samples[~np.isnan(samples)]
    if known.size == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def difference(first: Statistic, second: Statistic) -> Statistic:
    """`first` less `second` on the same draws of the same rows."""
    return lambda counts: first(counts) - second(counts)


def mean(statistics: list[Statistic]) -> Statistic:
    """Their mean."""
    return lambda counts: np.mean([statistic(counts) for statistic in statistics], axis=0)


def share(hits: FloatArray | BoolArray, among: BoolArray | None = None) -> Statistic:
    """Mean of `hits` (N) over the rows `among` (N), all rows if None."""
    values = np.asarray(hits, np.float64)
    weights = np.ones(values.size) if among is None else np.asarray(among, np.float64)
    return lambda counts: ratio(counts @ (values * weights), counts @ weights)


def auc(logits: FloatArray, positive: BoolArray) -> Statistic:
    """Area under the ROC curve: the share of pairs in which the positive ranks higher, ties counted half."""
    order, starts = _tied(logits)
    marks = positive[order].astype(np.float64)

    def statistic(counts: Counts) -> npt.NDArray[np.float64]:
        sorted_counts = counts[:, order]
        ours = np.add.reduceat(sorted_counts * marks, starts, axis=1)
        others = np.add.reduceat(sorted_counts * (1.0 - marks), starts, axis=1)
        below = np.cumsum(others, axis=1) - 0.5 * others
        return ratio((ours * below).sum(1), ours.sum(1) * others.sum(1))

    return statistic


def average_precision(logits: FloatArray, positive: BoolArray) -> Statistic:
    """Sum over thresholds of the gain in recall times the precision there; tied rows are one threshold."""
    order, starts = _tied(-np.asarray(logits, np.float64))
    marks = positive[order].astype(np.float64)

    def statistic(counts: Counts) -> npt.NDArray[np.float64]:
        sorted_counts = counts[:, order]
        ours = np.add.reduceat(sorted_counts * marks, starts, axis=1)
        everyone = np.cumsum(np.add.reduceat(sorted_counts, starts, axis=1), axis=1)
        precision = np.cumsum(ours, axis=1) / np.maximum(everyone, 1.0)
        return ratio((ours * precision).sum(1), ours.sum(1))

    return statistic


def balanced_accuracy(predicted: npt.NDArray[np.integer[Any]], truth: npt.NDArray[np.integer[Any]]) -> Statistic:
    """Mean recall over the classes that occur in `truth` (N); a draw without one of them has the mean of the others."""
    recalls = [share(predicted == index, truth == index) for index in np.unique(truth)]

    def statistic(counts: Counts) -> npt.NDArray[np.float64]:
        values = np.stack([recall(counts) for recall in recalls])
        known = ~np.isnan(values)
        return ratio(np.where(known, values, 0.0).sum(0), known.sum(0).astype(np.float64))

    return statistic


def macro_auc(logits: FloatArray, truth: npt.NDArray[np.integer[Any]]) -> Statistic:
    """Mean over the classes that occur of the AUC of a class against the others. (N, classes) and (N)."""
    return mean([auc(logits[:, index], truth == index) for index in np.unique(truth)])


def squared_error(probabilities: FloatArray, positive: BoolArray) -> Statistic:
    """Brier's score: mean squared distance of probability and truth."""
    return share((probabilities - positive) ** 2)


def calibration_error(probabilities: FloatArray, positive: BoolArray, bins: int = 10) -> Statistic:
    """Expected calibration error over bins of equal numbers, cut on the rows as they are."""
    parts = equal_bins(probabilities, bins)
    gap = np.asarray(probabilities, np.float64) - positive

    def statistic(counts: Counts) -> npt.NDArray[np.float64]:
        apart = np.stack([np.abs(counts[:, part] @ gap[part]) for part in parts])
        return ratio(apart.sum(0), counts.sum(1))

    return statistic


def equal_bins(values: FloatArray, bins: int) -> list[npt.NDArray[np.intp]]:
    """Rows by value in bins of equal numbers, empty ones left out."""
    return [part for part in np.array_split(np.argsort(values), bins) if part.size]


def calibration_line(logits: FloatArray, positive: BoolArray) -> Statistic:
    """Intercept and slope (draws, 2) of the logistic regression of the truth on the logit: 0 and 1 if calibrated.

    Newton's steps on all draws together, from the line of all rows; NaN where they do not settle (a draw whose classes
    a threshold separates).
    """
    design = np.stack([np.ones(logits.size), np.asarray(logits, np.float64)], axis=1)
    truth = positive.astype(np.float64)
    start = np.nan_to_num(_settle(np.zeros((1, 2)), design, truth, once(logits.size)))
    return lambda counts: _settle(np.repeat(start, len(counts), axis=0), design, truth, counts)


def _settle(line: Counts, design: Counts, truth: Counts, counts: Counts) -> Counts:
    step = np.full(line.shape, np.inf)
    for _ in range(25):
        step = _newton(line, design, truth, counts)
        line = np.clip(line + step, -50.0, 50.0)
        if np.abs(step).max() < 1e-3:  # quadratic from here: the next step would be some 1e-6
            break
    settled = (np.abs(step).max(1) < 1e-2) & (np.abs(line).max(1) < 50.0)
    return np.where(settled[:, None], line, np.nan)


def _newton(line: Counts, design: Counts, truth: Counts, counts: Counts) -> Counts:
    """One damped step of every draw's regression, (draws, 2)."""
    fitted = 1.0 / (1.0 + np.exp(-np.clip(line @ design.T, -500, 500)))
    slope = (counts * (truth - fitted)) @ design
    weights = counts * fitted * (1.0 - fitted)
    products = np.stack([np.ones(len(design)), design[:, 1], design[:, 1] ** 2], axis=1)
    curve = (weights @ products)[:, [0, 1, 1, 2]].reshape(-1, 2, 2) + 1e-9 * np.eye(2)
    return np.clip(np.linalg.solve(curve, slope[..., None])[..., 0], -2.0, 2.0)


def _tied(values: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows in rising order, and where each group of equal values starts among them."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values)[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: ordered.size])


def ratio(over: npt.NDArray[np.float64], under: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`over` / `under`, NaN where `under` is 0."""
    quotient = np.full(np.shape(over), np.nan)
    np.divide(over, under, out=quotient, where=np.asarray(under) > 0)
    return quotient
