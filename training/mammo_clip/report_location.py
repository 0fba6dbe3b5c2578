"""The part of a report that says where: FActOR's heat against the truth, on one source.

Operating points of marks are chosen on validation rows where the source has enough of them; a source without takes
those of one that came before, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from node.mammography.regions import HeatGrid
from training.figures.detection import Froc
from training.figures.intervals import share_interval
from training.figures.plots import froc_plot
from training.figures.report import Measured, Section
from training.mammo_clip import location_figures as figures
from training.mammo_clip.location_figures import Located
from training.mammo_clip.location_views import Asked, found_in_views
from training.mammo_clip.report_data import Rows
from training.mammo_clip.report_parts import Logits, Part

_ROUND = "mini-mias"
_VIEWS_AN_EXAM = 4


@dataclass(frozen=True, slots=True)
class Points:
    """The logit of each label from which on marks are set, the median greatest heat on true lesions of each label, and
    the rows on which both were found.
    """

    logits: Mapping[str, float]
    heat: Mapping[str, float]
    chosen_on: str


@dataclass(frozen=True, slots=True, eq=False)
class Heated:
    """What the heat of a pass is of: `labels` in the order of its axis, the `chosen` one of its mappers, its cells."""

    labels: tuple[str, ...]
    chosen: str
    grid: HeatGrid


def located(part: Part, rows: Rows, heated: Heated, logits: Logits, *, test: bool) -> Located:
    """Points and boxes in every view. Baselines of test views alone."""
    baselines = part.recipe.location.baseline_exams * _VIEWS_AN_EXAM if test else 0
    chosen = rows.heat if test else {heated.chosen: rows.heat[heated.chosen]}
    told = tuple(label for label in heated.labels if label in logits)
    asked = Asked(
        rows.images,
        {name: _of_labels(heat, [heated.labels.index(label) for label in told]) for name, heat in chosen.items()},
        heated.chosen,
        told,
        heated.grid,
        part.data.size,
        baselines,
        part.data.source == _ROUND,
    )
    found = found_in_views(asked, max(1, torch.get_num_threads()))
    return Located(rows.images, found, {label: logits[label] for label in told})


def _of_labels(heat: NDArray[np.float16], at: list[int]) -> NDArray[np.float16]:
    """Heat (N, K, h, w) of some labels; all of them stay on the disk."""
    return heat if at == list(range(heat.shape[1])) else heat[:, at]


def points_of(part: Part, heated: Heated, logits: Logits) -> Points | None:
    """Chosen on this source's validation rows; None where normal views are too few."""
    rows = part.data.validation
    if not rows.images:
        return None
    found = located(part, rows, heated, logits, test=False)
    chosen = figures.operating_points(found, tuple(found.logits))
    if chosen is None:
        return None
    return Points(chosen, {label: full_heat(found, label) for label in chosen}, f"{part.data.source}, {rows.split}")


def full_heat(found: Located, label: str) -> float:
    """The median of the greatest heat on true lesions; of any view where there are none."""
    there = [one.lesion_heat for one in found.of(label) if one.truth]
    peaks = there or [one.boxes[0].peak_heat for one in found.of(label) if one.boxes]
    return float(np.nanmedian(peaks)) if peaks else 1.0


def location_section(part: Part, found: Located, heated: Heated, points: Points | None) -> Section:
    """Every figure of where, and the FROC plot."""
    measured: list[Measured] = []
    curves: list[tuple[str, Froc]] = []
    where = points.chosen_on if points else ""
    for label in found.logits:
        measured += figures.pointing_figures(label, found, heated.chosen)
        measured += figures.box_figures(label, found, points.logits.get(label) if points else None, where)
        curve = figures.froc_of(label, found)
        if curve is not None:
            curves.append((label, curve))
            measured += figures.froc_figures(label, curve)
    if points:
        measured += figures.normal_view_figures(found, points.logits, where)
        measured += _called(found, points)
    title = f"Where (FActOR): {part.data.source}, test"
    pictures: list[tuple[str, str]] = []
    if curves:
        path = froc_plot(part.picture("froc"), title, curves)
        pictures.append((path.name, f"FROC, {title}, box IoU .25"))
    return Section(
        title,
        _words(part, found, points),
        tuple(row.as_table() for row in measured),
        tuple(pictures),
        source=part.data.source,
    )


def _called(found: Located, points: Points) -> list[Measured]:
    """Normal views that the operating point calls positive."""
    rows = []
    for label, threshold in points.logits.items():
        if label not in found.logits:
            continue
        normal = [at for at, image in enumerate(found.images) if image.labels.get(label) is False]
        if normal:
            called = found.logits[label][normal] >= threshold
            patients = np.array([found.images[at].patient for at in normal])
            note = f"at the operating point of {points.chosen_on}; positive: the views called so"
            share = share_interval(called, patients)
            rows.append(Measured(label, "share called positive", share, "view without the finding", note))
    return rows


def _words(part: Part, found: Located, points: Points | None) -> tuple[str, ...]:
    shown = sum(bool(one.truth) for one in found.found)
    normal = sum(found.normal(one) for one in found.found) // max(1, len(found.logits))
    lines = [f"{len(found.images)} views, {shown} pairs of view and finding with a known place, {normal} normal views."]
    if points is None:
        lines.append("No operating point: too few normal views to choose one on. Marks are not counted.")
    elif not points.chosen_on.startswith(part.data.source):
        lines.append(f"Operating points are those of {points.chosen_on}: this source has no rows to choose on.")
    return tuple(lines)
