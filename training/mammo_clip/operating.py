"""Operating points of several findings that share one quota of false marks, and the heat from which phrases mark.

A mark is a region as the node marks it: heat of its view above the operating value, the finding's probability too, and
by the rules of node.mammography.marking. A mark is false where it lies on no lesion of any kind, in a normal view or in
one that shows something. Axes: N exams, 4 views, K findings (FINDING_KINDS), L levels of heat.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import FINDING_KINDS
from node.mammography.marking import FURTHER_SHARE, MAXIMUM_REGIONS, marks_of
from node.mammography.regions import HeatGrid, Region, breast_mask, find_regions, register_heatmap
from training.cache import CachedExam, load_exam
from training.finish import MARKS_PER_NORMAL_VIEW, upper_rate

LEVELS = tuple(round(0.4 + 0.1 * step, 2) for step in range(10))
"""Heat that is tried; 1.0 is the median peak at true lesions."""
PROBABILITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_TRIES = 8
"""Of budgets: each costs a count of all marks."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class MarkTable:
    """What each level of heat would mark: `counts` int (N, 4, K, L) of marks, `hits` bool of a lesion of the kind met,
    `false` int of marks on no lesion.
    """

    counts: NDArray[np.int64]
    hits: NDArray[np.bool_]
    false: NDArray[np.int64]

    @classmethod
    def empty(cls, *shape: int) -> "MarkTable":
        """Nothing marked yet."""
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.int64))


def mark_table(paths: Sequence[Path], heat: FloatArray, grid: HeatGrid) -> MarkTable:
    """Marks of exams on heat (N, 4, K, h, w), cells, at every level.

    Regions are sought among the cells, a fifth of the work of seeking them among pixels, and each kind by itself;
    `marks_at` counts as the node does.
    """
    table = MarkTable.empty(*heat.shape[:3], len(LEVELS))
    for number, path in enumerate(paths):
        _add_marks(table, number, load_exam(path), heat[number], grid)
    return table


_CELLS = HeatGrid((1.0, 1.0), (0.5, 0.5))
"""Cells as pixels of their own."""


def _add_marks(table: MarkTable, number: int, exam: CachedExam, heat: FloatArray, grid: HeatGrid) -> None:
    for view in range(heat.shape[0]):
        inside = _breast(exam, view)
        rows, columns = _pixels_of_cells(grid, heat.shape[2:], inside.shape)
        cells_inside = inside[np.ix_(rows, columns)]
        masks = [exam.mask(view, kind)[np.ix_(rows, columns)] for kind in range(len(FINDING_KINDS))]
        lesions = np.logical_or.reduce(masks)
        for kind in range(heat.shape[1]):
            own = heat[view, kind]
            for at, level in enumerate(LEVELS):
                if own.max() < level:
                    break
                found = find_regions(own, own, _CELLS, cells_inside, level, MAXIMUM_REGIONS, FURTHER_SHARE)
                where = number, view, kind, at
                table.counts[where] = len(found)
                table.hits[where] = any(_on(masks[kind], region) for region in found)
                table.false[where] = sum(not _on(lesions, region) for region in found)


def _on(mask: NDArray[np.bool_], region: Region) -> bool:
    """Whether a region's centre lies on a mask on the same grid."""
    x, y = region.centre
    return bool(mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)])


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

    Only where `shown` (N, 4, K) a mark is allowed by the finding's probability. A kind that is named in the mark of
    another, beside it, counts as a hit of its own and not as a mark.
    """
    table = MarkTable.empty(*heat.shape[:3], 1)
    for number, path in enumerate(paths):
        hot = shown[number] & (heat[number].max((2, 3)) >= np.asarray(levels, np.float32))
        exam = load_exam(path) if hot.any() else None
        for view in np.flatnonzero(hot.any(1)).tolist():
            assert exam is not None
            _add_view(table, (number, view), exam, heat[number, view], grid, np.where(hot[view], levels, np.inf))
    return table


def _add_view(
    table: MarkTable,
    at: tuple[int, int],
    exam: CachedExam,
    heat: FloatArray,
    grid: HeatGrid,
    levels: NDArray[np.float64],
) -> None:
    """Marks of one view; a level of infinity marks nothing."""
    inside = _breast(exam, at[1])
    regions = {}
    for kind in np.flatnonzero(np.isfinite(levels)).tolist():
        seen = register_heatmap(heat[kind], grid, *inside.shape)
        level = float(levels[kind])
        found = find_regions(heat[kind], seen, grid, inside, level, MAXIMUM_REGIONS, FURTHER_SHARE)
        regions[FINDING_KINDS[kind]] = found
    masks = [exam.mask(at[1], kind) for kind in range(len(FINDING_KINDS))]
    lesions = np.logical_or.reduce(masks)
    for mark in marks_of(regions):
        kind = FINDING_KINDS.index(mark.kind)
        table.counts[*at, kind, 0] += 1
        table.false[*at, kind, 0] += not _on(lesions, mark.region)
        for each in (mark.kind, *mark.associated):
            table.hits[*at, FINDING_KINDS.index(each), 0] |= _on(masks[FINDING_KINDS.index(each)], mark.region)


@dataclass(frozen=True, slots=True)
class OperatingChoice:
    """One finding's operating point and what it does on validation. `false_marks`: in all views, `lesions`: views that
    show the finding and have a mark of it there.
    """

    probability: float
    heat: float
    false_marks: int
    lesions: int
    marks_per_normal_view: float
    lesions_marked: float
    false_marks_per_lesion_view: float = 0.0
    """In views that show any finding: marks of this one on no lesion."""

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
    """One point a finding: together they mark most lesion views while the upper end of their common rate of false marks
    a view stays below MARKS_PER_NORMAL_VIEW, in views without any finding and in all views. `probabilities`, `findings`
    (N, 4, K).

    Chosen on marks among cells, each kind by itself, and counted again as the node marks; the budget follows what that
    leaves of the quota or takes beyond it.
    """
    normal, table = np.asarray(~findings.any(2)), mark_table(paths, heat, grid)
    options = [
        _options(table, probabilities[..., kind], normal, findings[..., kind], kind)
        for kind in range(findings.shape[2])
    ]

    def counted(chosen: Sequence[OperatingChoice]) -> tuple[OperatingChoice, ...]:
        shown = probabilities >= np.array([one.probability for one in chosen], np.float32)
        marks = marks_at(paths, heat, grid, [one.heat for one in chosen], shown)
        return tuple(
            _counted((one.probability, one.heat), _Seen(marks, kind, 0, normal, findings[..., kind], 1))
            for kind, one in enumerate(chosen)
        )

    return _within(options, counted, normal)


def _within(
    options: Sequence[Sequence[OperatingChoice]],
    counted: Callable[[Sequence[OperatingChoice]], tuple[OperatingChoice, ...]],
    normal: NDArray[np.bool_],
) -> tuple[OperatingChoice, ...]:
    """The options that mark most, as `counted`, among those of the budgets tried whose counted marks keep the quota.

    The second budget takes off what the first one is over; from there on the gap between one that keeps the quota and
    one that does not is halved.
    """
    quotas = most_marks(normal.size), most_marks(int(normal.sum()))
    best, budget = (NEVER,) * len(options), quotas[0]
    low, high = -1, sum(own[-1].false_marks for own in options) + 1
    for tried in range(MOST_TRIES):
        exact = counted(share(options, budget))
        in_normal = sum(round(one.marks_per_normal_view * int(normal.sum())) for one in exact)
        over = max(sum(one.false_marks for one in exact) - quotas[0], in_normal - quotas[1])
        if over > 0:
            high = budget
        else:
            low = budget
            best = max(best, exact, key=_lesions)
        if high - low < 2:
            break
        budget = (low + high) // 2 if tried else min(max(budget - over, low + 1), high - 1)
    return best


def _lesions(chosen: Sequence[OperatingChoice]) -> int:
    return sum(one.lesions for one in chosen)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Marks of one kind at one level in the views where they are allowed, beside what the views show."""

    marks: MarkTable
    kind: int
    level: int
    normal: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    allowed: NDArray[np.bool_] | int


def _counted(at: tuple[float, float], seen: _Seen) -> OperatingChoice:
    """`at`: probability, heat."""
    where = (..., seen.kind, seen.level)
    false, hits = seen.marks.false[where] * seen.allowed, seen.marks.hits[where] * seen.allowed
    normal, beside = int(false[seen.normal].sum()), int(false[~seen.normal].sum())
    lesions = int((hits.astype(np.bool_) & seen.shown).sum())
    views = [max(int(rows.sum()), 1) for rows in (seen.normal, seen.shown, ~seen.normal)]
    rates = [round(count / among, 4) for count, among in zip((normal, lesions, beside), views, strict=True)]
    return OperatingChoice(*at, normal + beside, lesions, *rates)


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
    found = [
        _counted((probability, heat), _Seen(marks, kind, at, normal, shown, probabilities >= probability))
        for probability in PROBABILITIES
        for at, heat in enumerate(LEVELS)
    ]
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
