"""Figures with their intervals: areas under the curve, bootstrap by patient, Platt's calibration."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import rankdata

from training.figures import resampling
from training.figures.resampling import DRAWS, BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval by bootstrap over patients; `n` rows, `positives` among them."""

    value: float
    low: float
    high: float
    n: int
    positives: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def as_table(self) -> dict[str, float]:
        """For JSON."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def auc(logits: FloatArray, positive: BoolArray) -> float:
    """Area under the ROC curve, ties counted half; NaN where a class is empty."""
    count = int(positive.sum())
    others = positive.size - count
    if count == 0 or others == 0:
        return float("nan")
    ranks = rankdata(logits)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def bootstrap(
    figure: Callable[[npt.NDArray[np.intp]], float], patients: npt.NDArray[np.int64], draws: int = DRAWS
) -> tuple[float, float]:
    """2.5 and 97.5 percentiles of `figure` over rows drawn with replacement, a patient's rows together."""
    order = np.argsort(patients, kind="stable")
    starts = np.flatnonzero(np.diff(patients[order], prepend=patients[order][:1] - 1))
    groups = np.split(order, starts[1:])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        chosen = rng.integers(len(groups), size=len(groups))
        values.append(figure(np.concatenate([groups[index] for index in chosen])))
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def auc_estimate(logits: FloatArray, positive: BoolArray, patients: npt.NDArray[np.int64]) -> Estimate:
    """AUC with its interval."""
    value, low, high = resampling.limits(resampling.auc(logits, positive), patients)
    return Estimate(value, low, high, positive.size, int(positive.sum()))


def share_estimate(hits: BoolArray, patients: npt.NDArray[np.int64]) -> Estimate:
    """Share of rows that are hits, with its interval."""
    if hits.size == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    value, low, high = resampling.limits(resampling.share(hits), patients)
    return Estimate(value, low, high, hits.size, int(hits.sum()))


def fit_platt(logits: FloatArray, positive: BoolArray) -> tuple[float, float]:
    """a > 0 and b of p = sigmoid(a * logit + b) by maximum likelihood (Platt 1999)."""
    sign = np.where(positive, 1.0, -1.0)

    def loss(point: FloatArray) -> float:
        margin = sign * (np.exp(point[0]) * logits + point[1])
        return float(np.logaddexp(0.0, -margin).mean())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-8, "maxiter": 2000})
    return float(np.exp(found.x[0])), float(found.x[1])


def calibration_error(probabilities: FloatArray, positive: BoolArray, bins: int = 10) -> float:
    """Expected calibration error over bins of equal numbers."""
    order = np.argsort(probabilities)
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = [part.size * abs(float(probabilities[part].mean()) - float(positive[part].mean())) for part in parts]
    return float(sum(gaps) / positive.size)
