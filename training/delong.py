"""AUC with DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988), by ranks (Sun and Xu 2014).

Only where each patient has one row; elsewhere the bootstrap of `training.figures.intervals`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from training.figures.resampling import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Difference:
    """AUC of two sets of logits on the same rows, their difference with its 95 % interval, and the two-sided p."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


def interval(logits: FloatArray, positive: BoolArray) -> tuple[float, float, float]:
    """AUC and its 95 % interval, cut to [0, 1]. Raises ValueError where a class is empty."""
    areas, covariance = _placements(logits[None], positive)
    half = norm.ppf(0.975) * np.sqrt(covariance[0, 0])
    return float(areas[0]), float(max(0.0, areas[0] - half)), float(min(1.0, areas[0] + half))


def compare(first: FloatArray, second: FloatArray, positive: BoolArray) -> Difference:
    """Whether two models differ on the same patients. Raises ValueError where a class is empty."""
    areas, covariance = _placements(np.stack([first, second]), positive)
    difference = float(areas[0] - areas[1])
    spread = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1], 0.0)))
    half = float(norm.ppf(0.975)) * spread
    p = 1.0 if spread == 0.0 else float(2.0 * norm.sf(abs(difference) / spread))
    return Difference(float(areas[0]), float(areas[1]), difference, difference - half, difference + half, p)


def _placements(logits: FloatArray, positive: BoolArray) -> tuple[FloatArray, npt.NDArray[np.float64]]:
    """Areas (M,) and their covariance (M, M) for logits (M, N)."""
    count = int(positive.sum())
    others = positive.size - count
    if count == 0 or others == 0:
        raise ValueError("an area under the curve needs positives and negatives")
    all_ranks = np.stack([rankdata(row) for row in logits])
    own = np.stack([rankdata(row[positive]) for row in logits])
    other = np.stack([rankdata(row[~positive]) for row in logits])
    above = (all_ranks[:, positive] - own) / others
    below = 1.0 - (all_ranks[:, ~positive] - other) / count
    covariance = _covariance(above) / count + _covariance(below) / others
    return above.mean(axis=1), covariance


def _covariance(rows: FloatArray) -> npt.NDArray[np.float64]:
    """Covariance of (M, n), 0 where there is a single column."""
    if rows.shape[1] < 2:
        return np.zeros((len(rows), len(rows)))
    return np.atleast_2d(np.cov(rows))
