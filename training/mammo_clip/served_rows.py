"""What served models say of test exams, view by view: the rows from which the figures are counted.

A row is one view and one finding. The same rows of two models pair their figures.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import FINDING_KINDS, FindingKind
from node.mammography.marking import FURTHER_SHARE, MAXIMUM_REGIONS, Mark, marks_of
from node.mammography.regions import HeatGrid, Region, find_regions, register_heatmap
from training.cache import CachedExam, load_exam
from training.finish import probability_of
from training.localisation import Box
from training.mammo_clip.localising import (
    area_chance,
    breast_of,
    half_maximum_boxes,
    hits,
    log_heat,
    mask_heat,
    points_at,
    registered,
)
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES
from training.served_model import ServedModel, read_contract

IOU = 0.25
LOWEST_HEAT = 0.5
"""Marks of the FROC curve reach down to this heat."""

FloatArray = NDArray[np.float32]
BoolImage = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A served model's contract and what it said of N exams: (N), (N, 2), (N, 4, K), and heat (N, 4, K, h, w)."""

    contract: dict[str, Any]
    exam: FloatArray
    breasts: FloatArray
    findings: FloatArray
    heat: NDArray[np.float16]

    @property
    def names(self) -> tuple[str, ...]:
        """The finding axis."""
        return tuple(self.contract["findings"])

    @property
    def grid(self) -> HeatGrid:
        """Where its cells lie."""
        stride, offset = self.contract["heatmap_stride"], self.contract["heatmap_offset"]
        return HeatGrid((stride[0], stride[1]), (offset[0], offset[1]))

    def probabilities(self, name: str) -> FloatArray:
        """(N, 4): calibrated, that the view shows the finding."""
        at = self.names.index(name)
        return probability_of(self.findings[..., at], self.contract["calibration"][f"finding_logits.{name}"])


def answered(model: Path, paths: Sequence[Path], work: Path, threads: int) -> Answered:
    """Answers to cached exams by a served model's folder, kept in `work` so that they are asked for once."""
    file = model / "1" / "model.onnx"
    contract = read_contract(file)
    kept = work / f"answers-{contract['weights_hash'][:16]}-{paths[0].stem}-{len(paths)}.npz"
    if not kept.exists():
        said = ServedModel(file, threads).answers([load_exam(path).images for path in paths])
        part = kept.with_suffix(".part.npz")
        np.savez(part, exam=said.exam, breasts=said.breasts, findings=said.findings, heat=said.heat.astype(np.float16))
        part.replace(kept)
    with np.load(kept) as table:
        return Answered(contract, *(table[name] for name in ("exam", "breasts", "findings", "heat")))


@dataclass(frozen=True, slots=True)
class Located:
    """What heat does in one view that shows the finding: the greatest heat on it; boxes of half of the maximum."""

    pointing: bool
    box: bool
    box_where_probable: bool
    """The same, with boxes only where the finding's probability is above its operating value."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The same view without a model: chance, a filter, and the true mask in the cells of the model."""

    area: float
    filter_points: bool
    filter_box: bool
    mask_points: bool
    mask_box: bool


@dataclass(frozen=True, slots=True)
class MarkRow:
    """A region that might be marked: its heat, its finding's probability, the number of the lesion it is on or -1."""

    heat: float
    probability: float
    lesion: int


@dataclass(frozen=True, slots=True)
class Row:
    """One finding in one view. `normal`: the view shows none of any kind. `located`, `bounds`: None where it is not."""

    exam: int
    view: int
    lesions: int
    normal: bool
    located: Located | None
    bounds: Bounds | None
    marks: tuple[MarkRow, ...]
    """From LOWEST_HEAT on, whatever else is marked."""
    marked: int
    """Marks at the operating point, as the node makes them."""
    found: bool
    """One of them is on a lesion of this kind, or the finding is named in another kind's mark on it."""
    false: int = 0
    """Of the marks, those on no lesion of any kind."""
    mistaken: int = 0
    """Of the marks, those on lesions of other kinds alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What the rows of one exam are made of: its file, heat (4, K, h, w), probabilities (4, K), and the model's own."""

    path: Path
    number: int
    names: tuple[str, ...]
    heat: NDArray[np.float16]
    probabilities: FloatArray
    grid: HeatGrid
    points: tuple[dict[str, float], ...]
    bounds: bool


def rows_of(said: Answered, paths: Sequence[Path], *, bounds: bool, threads: int) -> dict[str, list[Row]]:
    """The rows (N * 4) of each finding; `bounds` also reckons what needs no model."""
    probabilities = np.stack([said.probabilities(name) for name in said.names], axis=2)
    points = tuple(said.contract["operating_points"][name] for name in said.names)
    asked = [
        Asked(path, number, said.names, said.heat[number], probabilities[number], said.grid, points, bounds)
        for number, path in enumerate(paths)
    ]
    if threads < 2:
        found = [exam_rows(one) for one in asked]
    else:
        with ProcessPoolExecutor(threads, get_context("spawn")) as pool:
            found = list(pool.map(exam_rows, asked, chunksize=8))
    return {name: [row for rows in found for row in rows[at]] for at, name in enumerate(said.names)}


def kind_of(name: str) -> int:
    """Where a finding stands in FINDING_KINDS, whatever a model's own list is."""
    return FINDING_KINDS.index(FindingKind(name))


KINDS = len(FINDING_KINDS)
"""Findings that make a view no normal one, whatever a model looks for."""


def exam_rows(asked: Asked) -> list[list[Row]]:
    """The four rows of one exam for each finding."""
    exam = load_exam(asked.path)
    rows: list[list[Row]] = [[] for _ in asked.names]
    for view, plane in enumerate(exam.images):
        for number, row in enumerate(_view_rows(asked, exam, view, breast_of(plane))):
            rows[number].append(row)
    return rows


def _view_rows(asked: Asked, exam: CachedExam, view: int, inside: BoolImage) -> list[Row]:
    """The rows of one view, one for each finding."""
    truth = {kind: exam.finding_boxes(view, kind) for kind in range(KINDS)}
    seeking = []
    for number, name in enumerate(asked.names):
        heat = asked.heat[view, number].astype(np.float32)
        seen = register_heatmap(heat, asked.grid, *inside.shape)
        probability = float(asked.probabilities[view, number])
        seeking.append(_Seeking(heat, seen, asked.grid, inside, truth[kind_of(name)], probability))
    probable = [one.probability >= point["probability"] for one, point in zip(seeking, asked.points, strict=True)]
    marks = marks_of(
        {
            FindingKind(name): one.regions(point["heat"], FURTHER_SHARE)
            for name, one, point, sure in zip(asked.names, seeking, asked.points, probable, strict=True)
            if sure
        }
    )
    return [
        _row(asked, exam, (view, number), seeking[number], _Marked(marks, truth), probable=probable[number])
        for number in range(len(asked.names))
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Marked:
    """The marks of a view, and the boxes of lesions by kind (KINDS)."""

    marks: tuple[Mark, ...]
    truth: dict[int, list[Box]]

    def counts(self, kind: int) -> tuple[int, bool, int, int]:
        """`marked`, `found`, `false` and `mistaken` of a kind's row."""
        own = [mark for mark in self.marks if mark.kind is FINDING_KINDS[kind]]
        named = [mark for mark in self.marks if FINDING_KINDS[kind] in (mark.kind, *mark.associated)]
        found = any(_lesion_at(mark.region.centre, self.truth[kind]) >= 0 for mark in named)
        false = sum(not self._kinds_at(mark) for mark in own)
        right = sum(bool(self._kinds_at(mark) & {mark.kind, *mark.associated}) for mark in own)
        return len(own), found, false, len(own) - false - right

    def _kinds_at(self, mark: Mark) -> set[FindingKind]:
        """What lies where a mark is."""
        there = (kind for kind, boxes in self.truth.items() if _lesion_at(mark.region.centre, boxes) >= 0)
        return {FINDING_KINDS[kind] for kind in there}


def _row(
    asked: Asked, exam: CachedExam, at: tuple[int, int], seeking: "_Seeking", marked: _Marked, *, probable: bool
) -> Row:
    view, number = at
    kind, inside, truth = kind_of(asked.names[number]), seeking.inside, seeking.truth
    located = bounds = None
    if truth:
        mask, here = exam.mask(view, kind), np.where(inside, seeking.registered, np.float32(0.0))
        box = hits(half_maximum_boxes(here, inside), truth, IOU)
        located = Located(points_at(here, inside, mask), box, box and probable)
        bounds = _bounds(asked, exam.images[view], mask, inside, truth, kind) if asked.bounds else None
    normal = not any(marked.truth.values())
    marks = seeking.marks(LOWEST_HEAT)
    return Row(asked.number, view, len(truth), normal, located, bounds, marks, *marked.counts(kind))


@dataclass(frozen=True, slots=True, eq=False)
class _Seeking:
    """Regions of one finding in one view."""

    heat: FloatArray
    registered: FloatArray
    grid: HeatGrid
    inside: BoolImage
    truth: Sequence[Box]
    probability: float

    def regions(self, level: float, share: float = 0.0) -> tuple[Region, ...]:
        """Those that reach a level of heat, and a share of that of the hottest."""
        if self.heat.max() < level:
            return ()
        return find_regions(self.heat, self.registered, self.grid, self.inside, level, MAXIMUM_REGIONS, share)

    def marks(self, level: float) -> tuple[MarkRow, ...]:
        """All that reach a level of heat."""
        return tuple(
            MarkRow(region.peak_heat, self.probability, _lesion_at(region.centre, self.truth))
            for region in self.regions(level)
        )


def _lesion_at(centre: tuple[float, float], truth: Sequence[Box]) -> int:
    """The number of the lesion whose box holds the point, -1 for none."""
    x, y = centre
    return next((at for at, box in enumerate(truth) if box[0] <= x <= box[2] and box[1] <= y <= box[3]), -1)


def _bounds(
    asked: Asked,
    plane: NDArray[np.uint8],
    mask: BoolImage,
    inside: BoolImage,
    truth: Sequence[Box],
    kind: int,
) -> Bounds:
    filtered = log_heat(plane, GRAMMAR_NAMES[FINDING_KINDS[kind]])
    best = registered(mask_heat(mask, asked.grid, (asked.heat.shape[2], asked.heat.shape[3])), asked.grid, inside)
    return Bounds(
        area_chance(inside, mask),
        points_at(filtered, inside, mask),
        hits(half_maximum_boxes(filtered, inside), truth, IOU),
        points_at(best, inside, mask),
        hits(half_maximum_boxes(best, inside), truth, IOU),
    )
