"""Whether probabilities are what they say: expected error, Brier's score, the calibration line, a table to plot."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.figures import resampling
from training.figures.intervals import Interval, Patients, interval_of
from training.figures.resampling import DRAWS, BoolArray, FloatArray

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of neighbouring probabilities: their mean, and the share that is positive with its Wilson interval."""

    n: int
    positives: int
    probability: float
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Figures of calibrated probabilities against the truth; intercept 0 and slope 1 are perfect."""

    error: Interval
    brier: Interval
    intercept: Interval
    slope: Interval
    table: tuple[Bin, ...]

    def as_table(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: getattr(self, name).as_table() for name in ("error", "brier", "intercept", "slope")}
        return {**figures, "table": [asdict(row) for row in self.table]}


def calibration(probabilities: FloatArray, positive: BoolArray, patients: Patients, draws: int = DRAWS) -> Calibration:
    """Of probabilities (N) that were fitted on other patients. The error's interval is of bins of equal numbers."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1.0 - 1e-6)
    logits = np.log(clipped / (1.0 - clipped))
    error = interval_of(resampling.calibration_error(clipped, positive, BINS), patients, positive, draws)
    brier = interval_of(resampling.squared_error(clipped, positive), patients, positive, draws)
    lines = resampling.limits_of_each(resampling.calibration_line(logits, positive), patients, draws)
    intercept, slope = (Interval(*limits, error.n, error.positives, error.patients, error.method) for limits in lines)
    return Calibration(error, brier, intercept, slope, reliability(clipped, positive))


def reliability(probabilities: FloatArray, positive: BoolArray, bins: int = BINS) -> tuple[Bin, ...]:
    """A row for each bin of equal numbers, from the lowest probability."""
    return tuple(_bin(probabilities[part], positive[part]) for part in resampling.equal_bins(probabilities, bins))


def _bin(probabilities: FloatArray, positive: BoolArray) -> Bin:
    n, hits = positive.size, int(positive.sum())
    return Bin(n, hits, float(probabilities.mean()), hits / n, *wilson(hits, n))


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, tail = hits / n, z * z / n
    centre, half = (share + tail / 2), z * np.sqrt(share * (1 - share) / n + tail / (4 * n))
    return float((centre - half) / (1 + tail)), float((centre + half) / (1 + tail))
