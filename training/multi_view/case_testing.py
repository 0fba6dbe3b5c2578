"""Figures of an external test set: AUC, average precision, and calibration before and after a stated step.

A set of another prevalence leaves AUCs comparable and nothing else (mammo-clip.md 10.7): 17 % malignant outside, 50 %
inside. So a line p = sigmoid(a * logit + b), fitted on the out-of-fold logits of the cross-validation, is moved by the
difference of log-odds of two prevalences that were known beforehand; the test labels fit nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.figures import resampling
from training.figures.intervals import auc_interval, average_precision, delong_interval, interval_of
from training.figures.report import Measured, Row
from training.mammo_clip.breasts import DataError
from training.multi_view.crossval import Judged
from training.statistics import auc, fit_platt


@dataclass(frozen=True, slots=True)
class Line:
    """p = sigmoid(a * logit + b), fitted where `prevalence` of the cases were malignant."""

    a: float
    b: float
    prevalence: float

    def moved(self, prevalence: float) -> "Line":
        """For cases of another prevalence, in (0, 1). Raises DataError."""
        if not 0.0 < prevalence < 1.0:
            raise DataError(f"a prevalence of {prevalence} is none; give a share between 0 and 1")
        shift = log_odds(prevalence) - log_odds(self.prevalence)
        return Line(self.a, self.b + shift, prevalence)

    def logits(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated logits."""
        return self.a * logits + self.b


def log_odds(share: float) -> float:
    """Of a share in (0, 1)."""
    return math.log(share / (1.0 - share))


def fit_line(judged: Judged) -> Line:
    """By maximum likelihood."""
    a, b = fit_platt(judged.logits, judged.malignant)
    return Line(a, b, float(judged.malignant.mean()))


def ensemble(parts: Sequence[Judged]) -> Judged:
    """The mean logit of several models on the same cases."""
    first = parts[0]
    logits = np.mean([part.logits for part in parts], axis=0)
    return Judged(first.rows, first.patients, first.malignant, first.fold, logits)


def external_figures(parts: Sequence[Judged], line: Line, prevalence: float | None) -> tuple[Row, ...]:
    """Of the mean logit of the folds' models, and the spread of the single models."""
    judged = ensemble(parts)
    aucs = [auc(part.logits, part.malignant) for part in parts]
    sd = f"; single models: mean {np.mean(aucs):.3f}, sd {np.std(aucs, ddof=1):.3f}" if len(aucs) > 1 else ""
    what = f"mean logit of {len(parts)} models"
    found = [_bootstrapped(judged, what, sd)]
    if judged.one_row_a_patient:
        interval = delong_interval(judged.logits, judged.malignant, judged.patients)
        found.append(Measured(what, "AUC", interval, "case"))
    share = float(judged.malignant.mean())
    precision = average_precision(judged.logits, judged.malignant, judged.patients)
    found.append(Measured(what, "average precision", precision, "case", f"chance: {share:.3f}", round(share, 4)))
    found += calibration_figures(judged, line, f"line of the cross-validation, prevalence {line.prevalence:.3f}")
    if prevalence is not None:
        found += calibration_figures(
            judged, line.moved(prevalence), f"the line moved to a prevalence of {prevalence:g}"
        )
    return tuple(one.as_table() for one in found)


def _bootstrapped(judged: Judged, what: str, note: str) -> Measured:
    interval = auc_interval(judged.logits, judged.malignant, judged.patients)
    return Measured(what, "AUC", interval, "case", f"{len(set(judged.patients.tolist()))} patients{note}")


def calibration_figures(judged: Judged, line: Line, what: str) -> list[Measured]:
    """Brier's score, the calibration error, and mean probability against the share that is malignant."""
    probabilities = 1.0 / (1.0 + np.exp(-np.clip(line.logits(judged.logits), -500, 500)))
    told = f"mean probability {probabilities.mean():.3f}, {judged.malignant.mean():.3f} are malignant"
    brier = resampling.squared_error(probabilities, judged.malignant)
    error = resampling.calibration_error(probabilities, judged.malignant)
    return [
        Measured(what, "Brier score", interval_of(brier, judged.patients, judged.malignant), "case", told),
        Measured(what, "calibration error", interval_of(error, judged.patients, judged.malignant), "case"),
    ]
