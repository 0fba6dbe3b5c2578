"""How far the answers of two engines are apart: probabilities, AUC on the same exams, heatmaps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from node.mammography.contract import Calibration, ModelContract, Prediction
from training.statistics import auc


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Of N exams: calibrated probabilities (N), and of all that results show (N, P); heat (N, 4, K, h, w)."""

    exam: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    heat: NDArray[np.float32]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], contract: ModelContract) -> "Answers":
        rows, heat = [], []
        for one in predictions:
            assert one.breast_logits is not None
            assert one.finding_logits is not None
            assert one.heatmaps is not None
            said = [_probability(np.array([one.exam_logit]), contract.calibration["exam_logit"])]
            said.append(_probability(one.breast_logits, contract.calibration["breast_logits"]))
            for at, kind in enumerate(contract.findings):
                line = contract.calibration[f"finding_logits.{kind.value}"]
                said.append(_probability(one.finding_logits[:, at], line))
            rows.append(np.concatenate(said))
            heat.append(one.heatmaps)
        return cls(np.array([row[0] for row in rows]), np.array(rows), np.stack(heat))


def _probability(logits: NDArray[np.floating], line: Calibration) -> NDArray[np.float64]:
    said: NDArray[np.float64] = expit(line.a * logits.astype(np.float64) + line.b)
    return said


def heat_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson's, over all cells of all views, of the finding where it is least."""
    by_kind = [(first[:, :, kind].ravel(), second[:, :, kind].ravel()) for kind in range(first.shape[2])]
    return float(min(np.corrcoef(one, other)[0, 1] for one, other in by_kind if one.std() > 0 and other.std() > 0))


def print_accuracy(name: str, wanted: Answers, found: Answers, malignant: NDArray[np.bool_]) -> None:
    """A Markdown row; AUC is of the exams' malignancy, empty where all are of one kind."""
    apart = np.abs(wanted.probabilities - found.probabilities)
    shift = ""
    if 0 < malignant.sum() < len(malignant):
        before, after = (auc(each.exam, malignant) for each in (wanted, found))
        shift = f"{before:.4f}, {after - before:+.4f}"
    said = f"{apart.mean():.5f}, {np.quantile(apart, 0.99):.5f}, {apart.max():.5f}"
    print(
        f"| {name} | {len(malignant)} | {said} | {shift} | {heat_correlation(wanted.heat, found.heat):.5f} |",
        flush=True,
    )
