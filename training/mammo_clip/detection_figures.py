"""How good a detector's boxes are: average precision at IoU .25 and .50, FROC, each with intervals by patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.figures.detection import Froc, ViewMarks, froc, view_marks, voc_area, voc_average_precision
from training.figures.heat_page import HeatView, write_heat_page
from training.figures.intervals import Interval
from training.figures.plots import froc_plot
from training.figures.report import Measured, Section, write_report
from training.localisation import Box
from training.mammo_clip.detection import Detections
from training.mammo_clip.detection_data import BoxedImages

OVERLAPS = (0.25, 0.5)
FROC_OVERLAP = 0.25
SHOWN_VIEWS = 24
_SHOWN_MARKS = 3


def marks_of(found: Sequence[Detections], images: BoxedImages, number: int, least_overlap: float) -> list[ViewMarks]:
    """One class's boxes given to the lesions of that class, an entry an image."""
    return [
        view_marks(
            patient,
            boxes_of(one, number),
            torch.logit(one.probabilities[one.classes == number].double(), eps=1e-6).tolist(),
            truth_of(images, row, number),
            iou=least_overlap,
            normal=normal,
        )
        for row, (one, patient, normal) in enumerate(zip(found, images.patients, images.normal, strict=True))
    ]


def boxes_of(found: Detections, number: int) -> list[Box]:
    """Boxes of one class, the most probable first."""
    return [_box(row) for row in found.boxes[found.classes == number].tolist()]


def truth_of(images: BoxedImages, row: int, number: int) -> list[Box]:
    """What one image shows of a class."""
    target = images.targets[row]
    return [_box(edges) for edges in target.boxes[target.classes[:, number]].tolist()]


def _box(edges: Sequence[float]) -> Box:
    left, top, right, bottom = edges
    return left, top, right, bottom


def mean_precision(found: Sequence[Detections], images: BoxedImages, classes: int, least_overlap: float) -> float:
    """Average precision at one overlap, the mean over classes that the images show; 0 where it is not defined."""
    areas = [voc_area(marks_of(found, images, number, least_overlap)) for number in range(classes)]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else 0.0


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of one class. `precision` by least overlap; `curve` at FROC_OVERLAP, None without normal images."""

    name: str
    precision: Mapping[float, Interval]
    curve: Froc | None


def figures_of(found: Sequence[Detections], images: BoxedImages, classes: Sequence[str]) -> list[ClassFigures]:
    """Figures of each class. The unit is the image; patients are drawn whole."""
    made = []
    for number, name in enumerate(classes):
        precision = {least: voc_average_precision(marks_of(found, images, number, least)) for least in OVERLAPS}
        curve = froc(marks_of(found, images, number, FROC_OVERLAP)) if any(images.normal) else None
        made.append(ClassFigures(name, precision, curve))
    return made


def write_figures(
    folder: Path,
    found: Sequence[Detections],
    images: BoxedImages,
    classes: Sequence[str],
    facts: Mapping[str, Any],
    split: str,
) -> list[ClassFigures]:
    """report.md, report.json, a FROC plot and a page of images with boxes, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = figures_of(found, images, classes)
    curves = [(one.name, one.curve) for one in figures if one.curve is not None]
    pictures = (("froc.png", f"FROC, {split} images, IoU {FROC_OVERLAP}"),) if curves else ()
    if curves:
        froc_plot(folder / "froc.png", f"FROC on {split} images", curves)
    page, _ = write_heat_page(
        folder, f"Boxes on {split} images", "The most probable boxes of a detector.", _shown(found, images, classes)
    )
    rows = tuple(row for one in figures for row in _rows(one))
    links = ((page.name, "images with boxes"),)
    write_report(folder, "Detection", facts, [Section(f"Boxes, {split}", _words(images), rows, pictures, links)])
    return figures


def _words(images: BoxedImages) -> tuple[str, ...]:
    return (
        f"{len(images)} images, {sum(images.normal)} of them normal. A box is right where it overlaps a lesion of its "
        "class and no better box does. Average precision counts false boxes in all images, FROC in normal ones. The "
        "number of positives is that of lesions.",
    )


def _rows(figures: ClassFigures) -> list[dict[str, Any]]:
    made = [
        Measured(figures.name, f"average precision (VOC, continuous), IoU {least:g}", interval, "image")
        for least, interval in figures.precision.items()
    ]
    if figures.curve is not None:
        made += [
            Measured(figures.name, f"sensitivity at {rate:g} false boxes a normal image", interval, "image")
            for rate, interval in figures.curve.at
        ]
    return [one.as_table() for one in made]


def _shown(found: Sequence[Detections], images: BoxedImages, classes: Sequence[str]) -> list[HeatView]:
    """For each class the first images that show it."""
    each, views = max(1, SHOWN_VIEWS // len(classes)), []
    for number, name in enumerate(classes):
        rows = [row for row in range(len(images)) if truth_of(images, row, number)][:each]
        for row in rows:
            of_class = found[row].probabilities[found[row].classes == number]
            best = f"most probable {float(of_class[0]):.2f}" if len(of_class) else "no box"
            views.append(
                HeatView(
                    f"{name}, {images.rows[row]}",
                    best,
                    np.asarray(images.planes[row]),
                    np.zeros(images.planes[row].shape, np.float32),
                    truth_boxes=truth_of(images, row, number),
                    marks=boxes_of(found[row], number)[:_SHOWN_MARKS],
                )
            )
    return views
