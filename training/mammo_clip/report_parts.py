"""Parts of a report on one source: what prompts or a probe tell, and what a detector finds. Each gives one section."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.figures import plots
from training.figures.calibration import Bin, reliability
from training.figures.detection import Froc, ViewMarks, froc, view_marks, voc_average_precision
from training.figures.intervals import auc_interval
from training.figures.report import Measured, Section
from training.mammo_clip.detection import Detections
from training.mammo_clip.detection_figures import FROC_OVERLAP, boxes_of
from training.mammo_clip.detection_model import LoadedDetector
from training.mammo_clip.images import of_size
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.localising import OVERLAPS
from training.mammo_clip.location_figures import shows_nothing
from training.mammo_clip.prompts import DENSITY
from training.mammo_clip.report_data import ReportData, Rows
from training.mammo_clip.report_recipe import ReportRecipe
from training.mammo_clip.unit_figures import Numbers, Platt, Scored, density_measures, finding_measures, of_known

Logits = Mapping[str, Numbers]
"""By label: (N), of density (N, 4)."""
Scorer = Callable[[Rows], Logits]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part on one source, and the folder of its plots."""

    data: ReportData
    recipe: ReportRecipe
    folder: Path

    def picture(self, name: str) -> Path:
        """A plot's file."""
        return self.folder / f"{self.data.source}-{name}.png"


def class_section(part: Part, name: str, how: str, score: Scorer, words: str) -> Section:
    """Figures of every label that the rows tell, a ROC plot and, where they are calibrated, a reliability plot."""
    tested, chosen = score(part.data.test), score(part.data.held_out)
    rows: list[Measured] = []
    curves: list[plots.Roc] = []
    bins: list[tuple[str, Sequence[Bin]]] = []
    paragraphs = [words]
    for label in [label for label in part.recipe.labels if label in tested and label != DENSITY]:
        test, held_out = Scored(part.data.test.images, tested[label]), Scored(part.data.held_out.images, chosen[label])
        values, truth = of_known(test, label)
        if not truth.size:
            continue
        if truth.all() or not truth.any():
            paragraphs.append(f"{label}: all {truth.size} images are {'with' if truth.all() else 'without'}; no area.")
            continue
        found, platt = finding_measures(label, test, held_out, part.recipe.units, whole=True)
        rows += found
        curves.append(_curve(label, test, values, truth))
        bins += _bins(label, platt, values, truth)
    if DENSITY in tested:
        pair = [Scored(rows.images, told[DENSITY]) for rows, told in _pairs(part, tested, chosen)]
        rows += density_measures(pair[0], pair[1], part.recipe.units[:1])[0]
    title = f"{how[0].upper()}{how[1:]}: {part.data.source}, test"
    told = tuple(replace(row, what=f"{row.what}, {how}").as_table() for row in rows)
    return Section(
        title,
        tuple(paragraphs),
        told,
        tuple(_class_plots(part, name, title, curves, bins)),
        source=part.data.source,
    )


def _pairs(part: Part, tested: Logits, chosen: Logits) -> tuple[tuple[Rows, Logits], tuple[Rows, Logits]]:
    return (part.data.test, tested), (part.data.held_out, chosen)


def _curve(label: str, test: Scored, values: Numbers, truth: NDArray[np.int64]) -> plots.Roc:
    patients = np.array([image.patient for image in test.images if image.labels.get(label) is not None])
    return plots.Roc(label, values, truth > 0, auc_interval(values, truth > 0, patients))


def _bins(label: str, platt: Platt, values: Numbers, truth: NDArray[np.int64]) -> list[tuple[str, Sequence[Bin]]]:
    return [(label, reliability(platt(values), truth > 0))] if platt.n else []


def _class_plots(
    part: Part, name: str, title: str, curves: Sequence[plots.Roc], bins: Sequence[tuple[str, Sequence[Bin]]]
) -> list[tuple[str, str]]:
    by = f"{title}, by {part.recipe.units[0]}"
    pictures = []
    if curves:
        path = plots.roc_plot(part.picture(f"{name}-roc"), by, curves)
        pictures.append((path.name, f"ROC, {by}"))
    if bins:
        path = plots.reliability_plot(part.picture(f"{name}-reliability"), by, bins)
        pictures.append((path.name, f"Reliability, {by}; calibrated on {part.data.held_out.split} rows"))
    return pictures


def detection_section(part: Part, detector: LoadedDetector, batch: int) -> Section:
    """Boxes of a trained detector on the test images: average precision and FROC of each of its classes."""
    images = part.data.test.images
    found = _detected(detector, images, batch)
    rows: list[Measured] = []
    curves: list[tuple[str, Froc]] = []
    for number, label in enumerate(detector.classes):
        what = f"{label}, detector"
        for least in OVERLAPS:
            precision = voc_average_precision(_detector_marks(found, images, label, number, least))
            rows.append(Measured(what, f"VOC AP at IoU {least:g}", precision, "image, lesions counted"))
        marks = _detector_marks(found, images, label, number, FROC_OVERLAP)
        if any(mark.lesions for mark in marks) and any(mark.normal for mark in marks):
            curve = froc(marks)
            curves.append((label, curve))
            rows += [
                Measured(what, f"lesions found at {rate:g} false marks a normal image", value, "lesions of images")
                for rate, value in curve.at
            ]
    title = f"Detector: {part.data.source}, test"
    pictures = []
    if curves:
        path = plots.froc_plot(part.picture("detection-froc"), title, curves)
        pictures.append((path.name, f"FROC, {title}, IoU {FROC_OVERLAP:g}"))
    words = f"RetinaNet-style detector on the encoder's levels; {len(images)} images."
    return Section(title, (words,), tuple(row.as_table() for row in rows), tuple(pictures), source=part.data.source)


def _detected(detector: LoadedDetector, images: Sequence[LabelledImage], batch: int) -> list[Detections]:
    """A batch of planes at a time, never all of them."""
    size = (detector.input.height, detector.input.width)
    found: list[Detections] = []
    for start in range(0, len(images), batch):
        planes = np.stack([of_size(image.picture.read(), size) for image in images[start : start + batch]])
        found += detector.find(planes)
    return found


def _detector_marks(
    found: Sequence[Detections], images: Sequence[LabelledImage], label: str, number: int, least: float
) -> list[ViewMarks]:
    marks = []
    for one, image in zip(found, images, strict=True):
        sure = one.probabilities[one.classes == number].double().clamp(1e-6, 1 - 1e-6).logit().tolist()
        normal = shows_nothing(image)
        marks.append(
            view_marks(image.patient, boxes_of(one, number), sure, image.boxes.get(label, ()), iou=least, normal=normal)
        )
    return marks
