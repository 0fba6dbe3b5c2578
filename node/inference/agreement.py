"""How far a variant of a model is from the model: probabilities, heatmaps and areas under the curve, exam by exam."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
SERIOUS_LOGIT = -25.0
"""Logits below this say "not assessed" and are not compared."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant must keep."""

    mean: float
    """Mean difference in probability."""
    high: float
    """Its 99th percentile."""
    auc: float
    heat: float
    """Least correlation of heatmaps."""


LIMITS = {
    "f32": Limits(0.001, 0.001, 0.001, 0.9999),
    "f16": Limits(0.01, 0.05, 0.003, 0.995),
    "bf16": Limits(0.01, 0.05, 0.003, 0.995),
    "int8": Limits(0.01, 0.05, 0.003, 0.995),
}
"""By precision of the variant: exam-encoder's rules for half precision; int8 is held to the same."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """p = sigmoid(a * logit + b)."""

    a: float
    b: float


@dataclass(frozen=True, slots=True, eq=False)
class ExamOutputs:
    """Outputs of N exams: logits (N), (N, 2), (N, 4, K), heat (N, 4, K, h, w); None: the model has no such output."""

    exam: Floats
    breasts: Floats | None
    findings: Floats | None
    heat: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is known of N exams: malignant (N), (N, 2) right, left, and findings seen (N, 4, K)."""

    exam: Flags
    breasts: Flags
    findings: Flags


@dataclass(frozen=True, slots=True)
class Agreement:
    """A variant beside its model, on the same exams."""

    exams: int
    mean: float
    """Mean absolute difference of all calibrated probabilities."""
    high: float
    """Their 99th percentile."""
    largest: float
    heat: float
    """Least correlation over the findings; NaN without heatmaps."""
    auc: dict[str, float]
    """By output: area of the variant less that of the model; only where both classes are there."""

    def as_table(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the report."""

    passed: bool
    words: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.words}"


def agreement(
    model: ExamOutputs,
    variant: ExamOutputs,
    calibration: Mapping[str, Calibrated],
    names: tuple[str, ...],
    truth: Truth,
) -> Agreement:
    """`calibration` by output as in the contract, `names`: the finding axis."""
    differences, areas = [], {}
    for name, ours, theirs, positive in _pairs(model, variant, names, truth):
        first, second = (_probability(logits, calibration[name]) for logits in (ours, theirs))
        assessed = ours > SERIOUS_LOGIT
        differences.append(np.abs(first - second)[assessed])
        if 0 < int(positive[assessed].sum()) < int(assessed.sum()):
            areas[name] = area(theirs[assessed], positive[assessed]) - area(ours[assessed], positive[assessed])
    every = np.concatenate(differences)
    every = np.where(np.isfinite(every), every, np.float32(1))  # what is no number differs by all there is
    return Agreement(
        len(model.exam),
        float(every.mean()),
        float(np.percentile(every, 99)),
        float(every.max()),
        _heat_correlation(model.heat, variant.heat),
        areas,
    )


def verdicts(found: Agreement, limits: Limits) -> list[Verdict]:
    """The figures against their limits, a line each."""
    lines = [
        Verdict(found.mean <= limits.mean, f"mean change of probability {found.mean:.6f} (at most {limits.mean:g})"),
        Verdict(found.high <= limits.high, f"99th percentile of it {found.high:.6f} (at most {limits.high:g})"),
        Verdict(found.heat >= limits.heat, f"correlation of heatmaps {found.heat:.6f} (at least {limits.heat:g})"),
    ]
    for name, change in found.auc.items():
        words = f"area under the curve of {name} {change:+.4f} (within {limits.auc:g})"
        lines.append(Verdict(abs(change) <= limits.auc, words))
    return lines


def area(logits: Floats, positive: Flags) -> float:
    """Area under the ROC curve, ties counted half."""
    order = np.sort(logits[~positive])
    below = np.searchsorted(order, logits[positive], "left") + np.searchsorted(order, logits[positive], "right")
    return float(below.mean() / (2 * len(order)))


def _pairs(
    model: ExamOutputs, variant: ExamOutputs, names: tuple[str, ...], truth: Truth
) -> list[tuple[str, Floats, Floats, Flags]]:
    """Each calibrated output: its name, logits of both, truth."""
    rows: list[tuple[str, Floats, Floats, Flags]] = [("exam_logit", model.exam, variant.exam, truth.exam)]
    if model.breasts is not None and variant.breasts is not None:
        rows.append(("breast_logits", model.breasts.ravel(), variant.breasts.ravel(), truth.breasts.ravel()))
    if model.findings is not None and variant.findings is not None:
        for at, name in enumerate(names):
            ours, theirs = model.findings[..., at].ravel(), variant.findings[..., at].ravel()
            rows.append((f"finding_logits.{name}", ours, theirs, truth.findings[..., at].ravel()))
    return rows


def _probability(logits: Floats, calibrated: Calibrated) -> Floats:
    with np.errstate(over="ignore"):
        found: Floats = (1 / (1 + np.exp(-(calibrated.a * logits + calibrated.b)))).astype(np.float32)
    return found


def _heat_correlation(model: Floats | None, variant: Floats | None) -> float:
    """The least Pearson correlation over the findings, of all cells of all exams; 1 where both are 0 everywhere."""
    if model is None or variant is None:
        return float("nan")
    return min(_correlation(model[:, :, at].ravel(), variant[:, :, at].ravel()) for at in range(model.shape[2]))


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(dtype=np.float64), second - second.mean(dtype=np.float64)
    length = np.sqrt((a * a).sum() * (b * b).sum())
    if length == 0:
        return float(np.array_equal(first, second))
    found = float((a * b).sum() / length)
    return found if np.isfinite(found) else 0.0
