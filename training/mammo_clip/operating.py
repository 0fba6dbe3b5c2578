"""Operating points of several findings that share one quota of false marks, and the heat from which phrases mark.

A mark is a region as the node marks it: heat of its view above the operating value, and the finding's probability too.
Axes: N exams, 4 views, K findings, L levels of heat.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.mammography.regions import HeatGrid, breast_mask, find_regions, register_heatmap
from training.cache import CachedExam, load_exam
from training.finish import MARKS_PER_NORMAL_VIEW, upper_rate

LEVELS = tuple(round(0.3 + 0.1 * step, 2) for step in range(13))
"""Heat that is tried; 1.0 is the median peak at true lesions."""
PROBABILITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MARKS_PER_VIEW = 3
"""Regions of one finding in one view, at most."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class MarkTable:
    """What each level of heat would mark: `counts` int (N, 4, K, L) of regions, `hits` bool of a lesion met."""

    counts: NDArray[np.int64]
    hits: NDArray[np.bool_]


def mark_table(paths: Sequence[Path], heat: FloatArray, grid: HeatGrid) -> MarkTable:
    """Marks of exams on heat (N, 4, K, h, w), cells."""
    rows = [_marks_of(load_exam(path), cells, grid) for path, cells in zip(paths, heat, strict=True)]
    return MarkTable(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))


def _marks_of(exam: CachedExam, heat: FloatArray, grid: HeatGrid) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    counts = np.zeros((*heat.shape[:2], len(LEVELS)), np.int64)
    hits = np.zeros(counts.shape, np.bool_)
    for view in range(heat.shape[0]):
        inside = breast_mask(exam.images[view].astype(np.float32) / np.float32(255.0))
        registered = register_heatmap(heat[view], grid, *inside.shape)
        for kind in range(heat.shape[1]):
            for at, level in enumerate(LEVELS):
                if heat[view, kind].max() < level:
                    break
                found = find_regions(heat[view, kind], registered[kind], grid, inside, level, MARKS_PER_VIEW)
                counts[view, kind, at] = len(found)
                mask = exam.mask(view, kind)
                hits[view, kind, at] = any(mask[int(region.centre[1]), int(region.centre[0])] for region in found)
    return counts, hits


@dataclass(frozen=True, slots=True)
class OperatingChoice:
    """One finding's operating point and what it does on validation."""

    probability: float
    heat: float
    false_marks: int
    lesions: int
    marks_per_normal_view: float
    lesions_marked: float

    def as_table(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


NEVER = OperatingChoice(1.0, 9.0, 0, 0, 0.0, 0.0)
"""Marks nothing."""


def operating_points(
    marks: MarkTable, probabilities: FloatArray, findings: NDArray[np.bool_]
) -> tuple[OperatingChoice, ...]:
    """One point a finding: together they mark most lesion views while the upper end of their common rate of marks in
    views without any finding stays below MARKS_PER_NORMAL_VIEW. `probabilities`, `findings` (N, 4, K).
    """
    normal = np.asarray(~findings.any(2))
    options = [
        _options(marks, probabilities[..., kind], normal, findings[..., kind], kind)
        for kind in range(findings.shape[2])
    ]
    return share(options, most_marks(int(normal.sum())))


def most_marks(views: int) -> int:
    """False marks on so many normal views that keep the margin of `finish.upper_rate`."""
    count = math.floor(MARKS_PER_NORMAL_VIEW * views)
    while count > 0 and upper_rate(count / max(views, 1), views) > MARKS_PER_NORMAL_VIEW:
        count -= 1
    return count


def _options(
    marks: MarkTable,
    probabilities: FloatArray,
    normal: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    kind: int,
) -> list[OperatingChoice]:
    """Every pair that no other beats in both marks and lesions, by rising number of false marks."""
    views, lesions, found = max(int(normal.sum()), 1), max(int(shown.sum()), 1), []
    for probability in PROBABILITIES:
        chosen = probabilities >= probability
        for at, heat in enumerate(LEVELS):
            false = int((marks.counts[..., kind, at] * (chosen & normal)).sum())
            hit = int((marks.hits[..., kind, at] & chosen & shown).sum())
            found.append(
                OperatingChoice(probability, heat, false, hit, round(false / views, 4), round(hit / lesions, 4))
            )
    found.sort(key=lambda one: (one.false_marks, -one.lesions, -one.heat))
    kept = [NEVER]
    for one in found:
        if one.lesions > kept[-1].lesions:
            kept.append(one)
    return kept


def share(options: Sequence[Sequence[OperatingChoice]], budget: int) -> tuple[OperatingChoice, ...]:
    """One option of each finding, within `budget` false marks together, that mark most lesion views."""
    best: dict[int, tuple[int, tuple[OperatingChoice, ...]]] = {0: (0, ())}
    for own in options:
        grown: dict[int, tuple[int, tuple[OperatingChoice, ...]]] = {}
        for spent, (lesions, chosen) in best.items():
            for one in own:
                total = spent + one.false_marks
                reached = (lesions + one.lesions, (*chosen, one))
                if total <= budget and reached[0] > grown.get(total, (-1, ()))[0]:
                    grown[total] = reached
        best = grown
    return max(best.items(), key=lambda entry: (entry[1][0], -entry[0]))[1][1]


def phrase_heat_level(marks: MarkTable, findings: NDArray[np.bool_]) -> float:
    """The least heat at which a phrase alone marks a normal view at most MARKS_PER_NORMAL_VIEW times, on average over
    the findings' own phrases, with the same margin; the greatest of LEVELS where none does.
    """
    normal = np.asarray(~findings.any(2))
    views = int(normal.sum())
    rates = marks.counts[normal].mean(axis=(0, 1)) if views else np.zeros(len(LEVELS))
    kept = [
        level
        for level, rate in zip(LEVELS, rates, strict=True)
        if upper_rate(float(rate), views) <= MARKS_PER_NORMAL_VIEW
    ]
    return min(kept, default=LEVELS[-1])
