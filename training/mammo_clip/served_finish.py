"""After the heads: heat scale, calibration, operating points, and the one line and point of all phrases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.mammography.findings import FINDING_KINDS
from node.mammography.regions import HeatGrid
from training.cache import cached_seeds
from training.finish import CALIBRATION_SET, SMALLEST_SLOPE, HeadLogits, calibration_table, heat_scales, probability_of
from training.mammo_clip.factor_views import phantom_views
from training.mammo_clip.images import PhantomView
from training.mammo_clip.operating import OperatingChoice, mark_table, operating_points, phrase_heat_level
from training.mammo_clip.phrases import phrases, truth_table
from training.mammo_clip.served_heads import ServedHeads
from training.mammo_clip.served_summaries import ClipSummaries
from training.mammo_clip.served_training import inputs_of
from training.statistics import fit_platt

NAMES = tuple(kind.value for kind in FINDING_KINDS)
"""The finding axis (K)."""


def heat_scale(data: ClipSummaries) -> Tensor:
    """(K,): the median peak at true lesions, as float16 holds it; 1 for a finding that no view shows."""
    shown = data.findings.flatten(0, 1).any(0)
    scales = [scale if there else 1.0 for scale, there in zip(heat_scales(data, 0.0), shown.tolist(), strict=True)]
    return torch.tensor(scales).clamp_min(1e-3).half().float()


@torch.inference_mode()
def logits_of(heads: ServedHeads, data: ClipSummaries, scale: Tensor) -> HeadLogits:
    """What the heads say of whole exams."""
    present = torch.ones(len(data.seeds), 4, dtype=torch.bool)
    exam, breasts, findings = heads(inputs_of(data, heads, scale), present)
    return HeadLogits(exam.numpy(), breasts.numpy(), findings.numpy())


def scaled_heat(data: ClipSummaries, scale: Tensor) -> NDArray[np.float32]:
    """Heat (N, 4, K, h, w) of cells."""
    heat: NDArray[np.float32] = (data.maps.float() / scale[:, None, None]).numpy()
    return heat


@dataclass(frozen=True, slots=True)
class Finished:
    """What validation and calibration decided: `calibration` and `operating_points` as the contract has them; the heat
    of all phrases: its scale, line and point.
    """

    calibration: dict[str, dict[str, Any]]
    operating_points: tuple[OperatingChoice, ...]
    phrase_scale: float
    phrase_calibration: dict[str, Any]
    phrase_point: dict[str, float]


def finish(
    judged: tuple[HeadLogits, HeadLogits],
    splits: tuple[ClipSummaries, ClipSummaries],
    phrase_vectors: tuple[Tensor, float],
    grid: HeatGrid,
    cache: Path,
) -> Finished:
    """`splits`: validation, calibration; `judged`: their logits. `phrase_vectors`: embeddings (P, D) of `phrases()`,
    and the logit scale.
    """
    validation, calibrating = splits
    scale = heat_scale(validation)
    calibration = calibration_table(judged[1], calibrating, NAMES)
    probabilities = _probabilities(judged[0].findings, calibration)
    paths, findings = _paths(cache, validation), validation.findings.numpy()
    points = operating_points(paths, scaled_heat(validation, scale), grid, probabilities, findings)
    phrase_scale = _median_peak(validation)
    line, truth = _phrase_line(calibrating, phrase_vectors, cache)
    common = scaled_heat(validation, torch.full_like(scale, phrase_scale))
    seen = probability_of(_phrase_logits(validation, phrase_vectors), line)
    level = phrase_heat_level(mark_table(paths, common, grid), findings)
    point = {"probability": _balanced(seen, phrase_truth(validation, cache)), "heat": level}
    return Finished(calibration, points, phrase_scale, line | {"prevalence": round(float(truth), 4)}, point)


def _probabilities(logits: NDArray[np.float32], calibration: dict[str, dict[str, Any]]) -> NDArray[np.float32]:
    by_kind = [probability_of(logits[..., k], calibration[f"finding_logits.{name}"]) for k, name in enumerate(NAMES)]
    return np.stack(by_kind, axis=2)


def _paths(cache: Path, data: ClipSummaries) -> list[Path]:
    return [path for seed in data.seeds.tolist() for path in cached_seeds(cache, seed, 1)]


def _median_peak(data: ClipSummaries) -> float:
    """The median peak at true lesions of all findings together, as float16 holds it."""
    peaks = data.maps.float().amax((3, 4))[data.findings]
    return float(peaks.median().clamp_min(1e-3).half()) if len(peaks) else 1.0


def phrase_truth(data: ClipSummaries, cache: Path) -> NDArray[np.bool_]:
    """(N, 4, P): which of `phrases()` each view shows."""
    rows = {int(seed): row for row, seed in enumerate(data.seeds.tolist())}
    truth = np.zeros((len(rows), 4, len(phrases())), np.bool_)
    for seed, row in rows.items():
        views = phantom_views(cache, seed, 1, render=False)
        for view, told in zip(views, truth_table(phrases(), [one.seen for one in views]), strict=True):
            assert isinstance(view.picture, PhantomView)
            truth[row, view.picture.view] = told
    return truth


def _phrase_logits(data: ClipSummaries, vectors: tuple[Tensor, float]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = (vectors[1] * data.embeddings @ vectors[0].T).numpy()
    return logits


def _phrase_line(data: ClipSummaries, vectors: tuple[Tensor, float], cache: Path) -> tuple[dict[str, Any], float]:
    """One line for all phrases together, and the share of pairs that are true."""
    logits, truth = _phrase_logits(data, vectors), phrase_truth(data, cache)
    a, b = fit_platt(logits.ravel().astype(np.float64), truth.ravel())
    line = {"a": max(round(a, 5), SMALLEST_SLOPE), "b": round(b, 5), "dataset": CALIBRATION_SET}
    return line, float(truth.mean())


def _balanced(probabilities: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """The probability at which sensitivity and specificity, over all phrases and views, add up to most."""
    levels = np.unique(np.quantile(probabilities, np.linspace(0.01, 0.99, 99)))
    positive, negative = probabilities[truth], probabilities[~truth]
    reached = [float((positive >= level).mean() + (negative < level).mean()) for level in levels]
    return round(float(levels[int(np.argmax(reached))]), 5)
