"""Where heat lies against where lesions lie, with intervals, beside chance, ceiling, filter and pooling.

One pass over the maps of the views gives the heat of every mapper and phrase that is asked; nothing here trains. The
unit is the view; intervals are by bootstrap over patients.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.mammography.regions import HeatGrid
from training.figures.detection import ViewMarks, froc, view_marks, voc_average_precision
from training.figures.intervals import share_interval
from training.localisation import FloatImage
from training.mammo_clip.factor import HeatSettings, PaperMapper, SharedMapper, heatmaps, image_scores, phrase_heat
from training.mammo_clip.factor_features import ViewSet, maps_of
from training.mammo_clip.factor_views import FactorView, Truth, truth_of
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.localising import (
    OVERLAPS,
    BoolImage,
    HeatBox,
    area_chance,
    breast_of,
    half_maximum_boxes,
    hits,
    log_heat,
    mask_heat,
    percentile_boxes,
    points_at,
    registered,
)

Table = dict[str, Any]
CEILING, FILTER = "true mask in the same cells", "Laplacian of Gaussian"


@dataclass(frozen=True, slots=True, eq=False)
class HeatSource:
    """Something that gives heat for K findings: a mapper with its phrases (K, D), or fixed weights (C, K)."""

    name: str
    mapper: SharedMapper | PaperMapper | None = None
    phrases: Tensor | None = None
    settings: HeatSettings = field(default_factory=HeatSettings)
    weights: Tensor | None = None

    @torch.inference_mode()
    def heat(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> heat (B, K, h, w), and (B, K) how sure it is that the view shows it: the score of its
        cosines, or the greatest heat of fixed weights.
        """
        if self.weights is not None:
            heat = heatmaps(maps, self.weights)
            return heat, heat.amax((2, 3))
        assert self.mapper is not None
        assert self.phrases is not None
        cosines = self.mapper(maps, self.phrases)
        return phrase_heat(maps, cosines, self.settings), image_scores(cosines, self.settings)


@dataclass(frozen=True, slots=True, eq=False)
class ViewHeat:
    """One view with its heat by source: `heat` (K, h, w) and `presence` (K,)."""

    number: int
    view: FactorView
    plane: NDArray[np.uint8]
    heat: Mapping[str, FloatImage]
    presence: Mapping[str, NDArray[np.float32]]


def heat_of_views(model: LoadedModel, views: ViewSet, sources: Sequence[HeatSource]) -> Iterator[ViewHeat]:
    """One pass over the views, in float32."""
    for first, maps in maps_of(model, views):
        yield from heat_of_maps(views, range(first, first + len(maps)), maps.cpu(), sources)


def heat_of_maps(
    views: ViewSet, numbers: Sequence[int], maps: Tensor, sources: Sequence[HeatSource]
) -> Iterator[ViewHeat]:
    """The same of maps (B, C, h, w) of numbered views that are there."""
    found = {source.name: source.heat(maps) for source in sources}
    for row, number in enumerate(numbers):
        yield ViewHeat(
            number,
            views.views[number],
            views.plane(number),
            {name: heat[row].numpy() for name, (heat, _) in found.items()},
            {name: presence[row].numpy() for name, (_, presence) in found.items()},
        )


@dataclass(slots=True, eq=False)
class Located:
    """What one source's heat of one finding did, view by view that shows it."""

    patients: list[str] = field(default_factory=list)
    points: list[bool] = field(default_factory=list)
    area: list[float] = field(default_factory=list)
    half: dict[float, list[bool]] = field(default_factory=dict)
    percentile: dict[float, list[bool]] = field(default_factory=dict)
    boxes: int = 0

    def add(self, patient: str, heat: FloatImage, inside: BoolImage, truth: Truth, name: str) -> None:
        """Heat (H, W) on the pixels of a view that shows the finding."""
        mask, lesions = truth.masks[name], truth.boxes[name]
        self.patients.append(patient)
        self.points.append(points_at(heat, inside, mask))
        self.area.append(area_chance(inside, mask))
        half, percentile = half_maximum_boxes(heat, inside), percentile_boxes(heat, inside)
        self.boxes += len(half)
        for least in OVERLAPS:
            self.half.setdefault(least, []).append(hits(half, lesions, least))
            self.percentile.setdefault(least, []).append(hits(percentile, lesions, least))

    def as_table(self) -> Table:
        """Shares with their intervals."""
        patients = np.array(self.patients)
        table: Table = {
            "views": len(self.points),
            "pointing": share_interval(np.array(self.points), patients).as_table(),
            "area_chance": round(float(np.mean(self.area)), 4) if self.area else None,
            "boxes_a_view": round(self.boxes / max(len(self.points), 1), 2),
        }
        for least in OVERLAPS:
            table[f"box_hit_{least:g}"] = share_interval(np.array(self.half.get(least, [])), patients).as_table()
            table[f"box_hit_percentile_{least:g}"] = share_interval(
                np.array(self.percentile.get(least, [])), patients
            ).as_table()
        return table


def locate(
    heats: Iterable[ViewHeat], names: Sequence[str], grid: HeatGrid, detailed: str, *, beside: bool = True
) -> Table:
    """Figures by source and finding. `detailed` is the source for which FROC and average precision are told too;
    `beside` adds ceiling and filter. K of the heat are `names`.
    """
    found: dict[str, dict[str, Located]] = {}
    marks: dict[str, dict[float, list[ViewMarks]]] = {name: {least: [] for least in OVERLAPS} for name in names}
    for at in heats:
        inside = breast_of(at.plane)
        truth = truth_of(at.view, at.plane.shape) if at.view.seen else Truth({}, {})
        for column, name in enumerate(names):
            if name in truth.masks:
                sources = {key: registered(heat[column], grid, inside) for key, heat in at.heat.items()}
                if beside:
                    cells = next(iter(at.heat.values())).shape[1:]
                    sources[CEILING] = registered(mask_heat(truth.masks[name], grid, cells), grid, inside)
                    sources[FILTER] = np.where(inside, log_heat(at.plane, name), np.float32(0.0))
                for key, heat in sources.items():
                    found.setdefault(key, {}).setdefault(name, Located()).add(
                        at.view.patient, heat, inside, truth, name
                    )
            _mark(marks[name], at, column, name, truth, inside, grid, detailed)
    table: Table = {key: {name: one.as_table() for name, one in by.items()} for key, by in found.items()}
    return {"sources": table, "marks": {name: _mark_table(found) for name, found in marks.items()}}


def _mark(
    marks: dict[float, list[ViewMarks]],
    at: ViewHeat,
    column: int,
    name: str,
    truth: Truth,
    inside: BoolImage,
    grid: HeatGrid,
    detailed: str,
) -> None:
    """Boxes of one finding in one view, each as sure as its heat times the view's presence."""
    boxes = half_maximum_boxes(registered(at.heat[detailed][column], grid, inside), inside)
    sure = [float(at.presence[detailed][column]) * box.peak_heat for box in boxes]
    for least, found in marks.items():
        found.append(
            view_marks(
                at.view.patient, _edges(boxes), sure, truth.boxes.get(name, ()), iou=least, normal=not at.view.seen
            )
        )


def _edges(boxes: Sequence[HeatBox]) -> list[tuple[float, float, float, float]]:
    return [box.box for box in boxes]


def _mark_table(marks: Mapping[float, Sequence[ViewMarks]]) -> Table:
    return {
        **{f"average_precision_{least:g}": voc_average_precision(found).as_table() for least, found in marks.items()},
        "froc": froc(marks[OVERLAPS[0]]).as_table(),
    }


def pointing(heats: Iterable[ViewHeat], names: Sequence[str], grid: HeatGrid) -> dict[str, dict[str, float]]:
    """The share of views whose greatest heat lies on a lesion, by source and finding; views that show it alone."""
    hit: dict[str, dict[str, list[bool]]] = {}
    for at in heats:
        if not at.view.seen:
            continue
        inside, truth = breast_of(at.plane), truth_of(at.view, at.plane.shape)
        for column, name in enumerate(names):
            if name in truth.masks:
                for key, heat in at.heat.items():
                    placed = registered(heat[column], grid, inside)
                    hit.setdefault(key, {}).setdefault(name, []).append(points_at(placed, inside, truth.masks[name]))
    return {key: {name: float(np.mean(found)) for name, found in by.items()} for key, by in hit.items()}
