"""After training: heat scale, calibration and operating points, each on the split that is theirs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from node.mammography.regions import breast_mask
from training.cache import CachedExam, load_exam
from training.exam_encoder import FINDINGS, ExamHeads
from training.localisation import Mark, box_hit, marks
from training.statistics import fit_platt
from training.summaries import ExamSummaries

MARKS_PER_NORMAL_VIEW = 0.30
"""At most so many marks, of all findings together, in a view that shows none."""

SMALLEST_SLOPE = 1e-3
"""A calibration never turns an output round."""

HEAT_SHIFTS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)

CALIBRATION_SET = "phantoms, calibration split"

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class HeadLogits:
    """Logits of N exams: (N), (N, 2), (N, 4, K)."""

    exam: FloatArray
    breasts: FloatArray
    findings: FloatArray


@torch.inference_mode()
def head_logits(heads: ExamHeads, data: ExamSummaries) -> HeadLogits:
    """What the heads say of whole exams."""
    present = torch.ones(len(data.seeds), 4, dtype=torch.bool)
    exam, _, breasts, findings, _ = heads.eval()(data.views(torch.arange(len(data.seeds))), present)
    return HeadLogits(exam.numpy(), breasts.numpy(), findings.numpy())


class Finishing(Protocol):
    """What finishing reads of N exams: maps (N, 4, K, h, w), and the truth (N, 4, K), (N, 2)."""

    @property
    def maps(self) -> Tensor:
        """Values of cells."""

    @property
    def findings(self) -> Tensor:
        """The view shows the finding."""

    @property
    def breasts(self) -> Tensor:
        """The breast is malignant."""


def calibration_table(
    logits: HeadLogits, data: Finishing, names: Sequence[str] = FINDINGS
) -> dict[str, dict[str, Any]]:
    """Platt's a and b for each output, as the contract has them; `names` of the finding axis."""
    breasts = data.breasts.numpy()
    rows = {"exam_logit": (logits.exam, breasts.any(1)), "breast_logits": (logits.breasts, breasts)}
    for index, name in enumerate(names):
        rows[f"finding_logits.{name}"] = (logits.findings[:, :, index], data.findings[:, :, index].numpy())
    table = {}
    for name, (values, positive) in rows.items():
        a, b = fit_platt(values.ravel().astype(np.float64), positive.ravel())
        share = round(float(positive.mean()), 4)
        table[name] = {
            "a": max(round(a, 5), SMALLEST_SLOPE),
            "b": round(b, 5),
            "dataset": CALIBRATION_SET,
            "prevalence": share,
        }
    return table


def heat_scales(data: Finishing, shift: float) -> list[float]:
    """Per finding, the median over lesion views of relu(largest map logit + shift): heat 1.0 of the contract."""
    peaks = data.maps.float().amax((3, 4)) + shift
    return [
        float(peaks[:, :, k][data.findings[:, :, k]].clamp_min(0.0).median()) for k in range(data.findings.shape[2])
    ]


def best_shift(data: ExamSummaries, paths: tuple[Path, ...]) -> float:
    """The shift of HEAT_SHIFTS whose half-maximum boxes hit most lesions of validation."""
    exams = [load_exam(path) for path in paths]
    return max(HEAT_SHIFTS, key=lambda shift: _box_share(data, exams, shift))


def _box_share(data: ExamSummaries, exams: list[CachedExam], shift: float) -> float:
    heat, hits = torch.relu(data.maps.float() + shift).numpy(), []
    for row, view, kind in np.argwhere(data.findings.numpy()):
        inside = breast_mask(exams[row].images[view].astype(np.float32) / np.float32(255.0))
        boxes = exams[row].finding_boxes(int(view), int(kind))
        hits.append(box_hit(heat[row, view, kind], inside, boxes))
    return float(np.mean(hits))


def heat_of(data: ExamSummaries, shift: float, scales: list[float]) -> FloatArray:
    """Heat (N, 4, K, h, w) of cells."""
    scale = torch.tensor(scales)[:, None, None]
    heat: FloatArray = (torch.relu(data.maps.float() + shift) / scale).numpy()
    return heat


@dataclass(frozen=True, slots=True)
class Operating:
    """One finding's operating point and what it does on validation."""

    probability: float
    heat: float
    marks_per_normal_view: float
    lesions_marked: float

    def as_table(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def operating_point(
    kind: int, probabilities: FloatArray, data: ExamSummaries, heat: FloatArray, paths: tuple[Path, ...]
) -> Operating:
    """The pair that marks most lesion views while its share of MARKS_PER_NORMAL_VIEW stays above `upper_rate`.

    `probabilities` (N, 4).
    """
    found = [mark for path, cells in zip(paths, heat, strict=True) for mark in marks(load_exam(path), cells, kind, 0.3)]
    seeds = {int(seed): row for row, seed in enumerate(data.seeds)}
    findings: npt.NDArray[np.bool_] = data.findings.numpy()
    normal, shown = np.asarray(~findings.any(2)), findings[:, :, kind]
    best, views = Operating(1.0, 9.0, 0.0, 0.0), int(normal.sum())
    for heat_value in np.arange(0.3, 1.3, 0.05):
        for probability in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7):
            at = (float(probability), float(heat_value))
            point = _try(at, found, seeds, probabilities, normal, shown)
            allowed = upper_rate(point.marks_per_normal_view, views) <= MARKS_PER_NORMAL_VIEW / len(FINDINGS)
            if allowed and point.lesions_marked > best.lesions_marked:
                best = point
    return best


def upper_rate(rate: float, views: int) -> float:
    """Upper end of the one-sided 95 % interval of a rate of marks seen on so many views, marks being rare (Poisson).

    A rate that just meets a limit on a few hundred views is above it on others half of the time.
    """
    return rate + 1.645 * math.sqrt(rate / max(views, 1))


def _try(
    at: tuple[float, float],
    found: list[Mark],
    seeds: dict[int, int],
    probabilities: FloatArray,
    normal: npt.NDArray[np.bool_],
    shown: npt.NDArray[np.bool_],
) -> Operating:
    probability, heat = at
    false_marks, hit = 0, set()
    for mark in found:
        row = seeds[mark.seed]
        if mark.peak_heat < heat or probabilities[row, mark.view] < probability:
            continue
        false_marks += int(normal[row, mark.view])
        if mark.on_lesion:
            hit.add((row, mark.view))
    rate, share = false_marks / max(int(normal.sum()), 1), len(hit) / max(int(shown.sum()), 1)
    return Operating(probability, round(heat, 3), round(rate, 4), round(share, 4))


def probability_of(logits: FloatArray, calibration: dict[str, Any]) -> FloatArray:
    """sigmoid(a * logit + b)."""
    values = calibration["a"] * logits.astype(np.float64) + calibration["b"]
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0))), dtype=np.float32)
