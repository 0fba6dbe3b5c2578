"""The part of a report to look at: views drawn by chance, with heat, what is there, and the marks."""

import random
from pathlib import Path

import numpy as np

from training.figures.heat_page import HeatView, write_heat_page
from training.figures.report import Section
from training.mammo_clip import localising
from training.mammo_clip.factor_views import labelled_views, truth_of
from training.mammo_clip.images import PhantomView
from training.mammo_clip.location_figures import Located
from training.mammo_clip.location_views import Found, plane_of
from training.mammo_clip.report_data import Rows
from training.mammo_clip.report_location import Heated, Points, full_heat
from training.mammo_clip.report_parts import Part


def page_section(part: Part, rows: Rows, found: Located, heated: Heated, points: Points | None) -> Section:
    """`SOURCE-heat/heatmaps.html` and the sheet of the same views."""
    settings = part.recipe.page
    chance = random.Random(settings.seed)
    chosen: list[Found] = []
    for label in found.logits:
        shown = [one for one in found.of(label) if one.truth]
        chosen += chance.sample(shown, min(settings.views_a_label, len(shown)))
    normal = [one for one in found.found if found.normal(one)] or [one for one in found.found if not one.truth]
    chosen += chance.sample(normal, min(settings.normal_views, len(normal)))
    views = [_view(part, rows, found, heated, points, one) for one in chosen]
    folder = part.folder / f"{part.data.source}-heat"
    folder.mkdir(exist_ok=True)
    words = f"{len(views)} views of {part.data.source}, drawn by chance (seed {settings.seed})."
    page, sheet = write_heat_page(folder, f"Heat: {part.data.source}", words, views)
    title = f"Heatmaps to look at: {part.data.source}"
    links = ((_below(part.folder, page), "the page of views"),)
    return Section(title, (words,), pictures=((_below(part.folder, sheet), title),), links=links)


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _view(part: Part, rows: Rows, found: Located, heated: Heated, points: Points | None, one: Found) -> HeatView:
    image = found.images[one.row]
    plane = plane_of(image.picture, part.data.size)
    inside = localising.breast_of(plane)
    cells = np.asarray(rows.heat[heated.chosen][one.row, heated.labels.index(one.label)], np.float32)
    heat = localising.registered(cells, heated.grid, inside)
    full = points.heat.get(one.label) if points else full_heat(found, one.label)
    truth = truth_of(labelled_views([image])[0], part.data.size)
    drawn = isinstance(image.picture, PhantomView)
    mask = truth.masks.get(one.label)
    logit = float(found.logits[one.label][one.row])
    marked = points is None or logit >= points.logits.get(one.label, np.inf)
    told = "shown" if one.truth else "not shown"
    return HeatView(
        image.row,
        f"{one.label}: {told}; logit {logit:.2f}, {_operating(points, marked)}",
        plane,
        heat / max(full or 1.0, 1e-9),
        mask if drawn else None,
        () if drawn else truth.boxes.get(one.label, ()),
        [box.box for box in one.boxes] if marked else (),
    )


def _operating(points: Points | None, marked: bool) -> str:
    if points is None:
        return "no operating point"
    return "marked" if marked else "below the operating point"
