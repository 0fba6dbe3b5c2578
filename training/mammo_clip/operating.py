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

LEVELS = tuple(round(0.4 + 0.1 * step, 2) for step in range(10))
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
    """Marks of exams on heat (N, 4, K, h, w), cells, at every level.

    Regions are sought among the cells, a fifth of the work of seeking them among pixels; `marks_at` counts as the node
    does.
    """
    rows = [_marks_of(load_exam(path), cells, grid) for path, cells in zip(paths, heat, strict=True)]
    return MarkTable(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))


_CELLS = HeatGrid((1.0, 1.0), (0.5, 0.5))
"""Cells as pixels of their own."""


def _marks_of(exam: CachedExam, heat: FloatArray, grid: HeatGrid) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    counts = np.zeros((*heat.shape[:2], len(LEVELS)), np.int64)
    hits = np.zeros(counts.shape, np.bool_)
    for view in range(heat.shape[0]):
        inside = _breast(exam, view)
        rows, columns = _pixels_of_cells(grid, heat.shape[2:], inside.shape)
        cells_inside = inside[np.ix_(rows, columns)]
        for kind in range(heat.shape[1]):
            own, mask = heat[view, kind], exam.mask(view, kind)
            for at, level in enumerate(LEVELS):
                if own.max() < level:
                    break
                found = find_regions(own, own, _CELLS, cells_inside, level, MARKS_PER_VIEW)
                counts[view, kind, at] = len(found)
                hits[view, kind, at] = any(
                    mask[rows[int(region.centre[1])], columns[int(region.centre[0])]] for region in found
                )
    return counts, hits


def _breast(exam: CachedExam, view: int) -> NDArray[np.bool_]:
    return breast_mask(exam.images[view].astype(np.float32) / np.float32(255.0))


def _pixels_of_cells(
    grid: HeatGrid, cells: tuple[int, ...], size: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pixel row of each row of cells and the pixel column of each of their columns, kept inside the image."""
    rows, columns = (
        np.clip(np.floor(offset + stride * np.arange(count)).astype(np.intp), 0, side - 1)
        for offset, stride, count, side in zip(grid.offset, grid.stride, cells, size, strict=True)
    )
    return rows, columns


def marks_at(
    paths: Sequence[Path], heat: FloatArray, grid: HeatGrid, levels: Sequence[float], shown: NDArray[np.bool_]
) -> MarkTable:
    """Marks as the node makes them, among pixels, at one level of heat for each finding: L is 1.

    Only where `shown` (N, 4, K) a mark is allowed by the finding's probability.
    """
    counts = np.zeros((*heat.shape[:3], 1), np.int64)
    hits = np.zeros(counts.shape, np.bool_)
    for number, path in enumerate(paths):
        exam = load_exam(path)
        for view, kind in np.argwhere(shown[number]):
            own = heat[number, view, kind]
            if own.max() < levels[kind]:
                continue
            inside, mask = _breast(exam, view), exam.mask(view, kind)
            seen = register_heatmap(own, grid, *inside.shape)
            found = find_regions(own, seen, grid, inside, levels[kind], MARKS_PER_VIEW)
            counts[number, view, kind, 0] = len(found)
            hits[number, view, kind, 0] = any(mask[int(one.centre[1]), int(one.centre[0])] for one in found)
    return MarkTable(counts, hits)


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
    paths: Sequence[Path],
    heat: FloatArray,
    grid: HeatGrid,
    probabilities: FloatArray,
    findings: NDArray[np.bool_],
) -> tuple[OperatingChoice, ...]:
    """One point a finding: together they mark most lesion views while the upper end of their common rate of marks in
    views without any finding stays below MARKS_PER_NORMAL_VIEW. `probabilities`, `findings` (N, 4, K).

    Chosen on marks among cells, counted again as the node marks; where that is too many, the quota shrinks by as many.
    """
    normal, table = np.asarray(~findings.any(2)), mark_table(paths, heat, grid)
    options = [
        _options(table, probabilities[..., kind], normal, findings[..., kind], kind)
        for kind in range(findings.shape[2])
    ]
    quota = budget = most_marks(int(normal.sum()))
    while True:
        chosen = share(options, budget)
        shown = probabilities >= np.array([one.probability for one in chosen], np.float32)
        counted = marks_at(paths, heat, grid, [one.heat for one in chosen], shown)
        exact = tuple(_counted(one, counted, normal, findings, kind) for kind, one in enumerate(chosen))
        over = sum(one.false_marks for one in exact) - quota
        if over <= 0 or budget == 0:
            return exact
        budget = max(0, budget - over)


def _counted(
    chosen: OperatingChoice,
    marks: MarkTable,
    normal: NDArray[np.bool_],
    findings: NDArray[np.bool_],
    kind: int,
) -> OperatingChoice:
    shown = findings[..., kind]
    false = int(marks.counts[..., kind, 0][normal].sum())
    hit = int((marks.hits[..., kind, 0] & shown).sum())
    return _choice((chosen.probability, chosen.heat), (false, hit), (normal, shown))


def _choice(
    at: tuple[float, float], marked: tuple[int, int], among: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> OperatingChoice:
    """`at`: probability, heat; `marked`: false marks, lesion views; `among`: normal views, those that show it."""
    normal, shown = (max(int(rows.sum()), 1) for rows in among)
    return OperatingChoice(*at, *marked, round(marked[0] / normal, 4), round(marked[1] / shown, 4))


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
    found = []
    for probability in PROBABILITIES:
        chosen = probabilities >= probability
        for at, heat in enumerate(LEVELS):
            false = int((marks.counts[..., kind, at] * (chosen & normal)).sum())
            hit = int((marks.hits[..., kind, at] & chosen & shown).sum())
            found.append(_choice((probability, heat), (false, hit), (normal, shown)))
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
