"""A full-size exam made by hand: four views of 4096 x 3328, a lesion in each, read by a model of 760 x 456."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pydicom import Dataset
from scipy import ndimage

from node.interpretation import interpret
from node.mammography.contract import ModelContract, Prediction
from node.mammography.findings import FindingKind
from node.mammography.pixels import Placement, PreparedView
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality, View
from node.results.reading import Reading, ViewReading
from node.settings import ReadingSettings
from tests.node.results import exams

ROWS, COLUMNS = 4096, 3328
H, W = 760, 456
CELLS = (48, 29)
SPACING = (0.07, 0.07)
LESIONS: dict[View, tuple[FindingKind, float, float]] = {
    RCC: (FindingKind.MASS, 2200.0, 1500.0),
    LCC: (FindingKind.SUSPICIOUS_CALCIFICATION, 900.0, 2600.0),
    RMLO: (FindingKind.MASS, 2300.0, 1800.0),
    LMLO: (FindingKind.SUSPICIOUS_CALCIFICATION, 1000.0, 2300.0),
}
"""Centres in stored pixels."""


def full_size_exam() -> tuple[Reading, Mapping[View, Dataset]]:
    """The reading, with one finding in each view and heat of both kinds in all, and the headers of the images."""
    headers = {view: exams.source(view, Rows=ROWS, Columns=COLUMNS) for view in STANDARD_VIEWS}
    frame = exams.reading(headers=headers)
    prepared = {view.view: _prepared(view) for view in frame.views}
    meaning = interpret(_prediction(), _contract(), prepared, (), ReadingSettings(None, False))
    views = tuple(
        replace(
            view,
            rows=ROWS,
            columns=COLUMNS,
            placement=prepared[view.view].placement,
            display=prepared[view.view].pixels,
            heatmap=meaning.heatmaps[view.view],
            finding_probabilities=meaning.finding_probabilities[view.view],
            spacing_mm=SPACING,
        )
        for view in frame.views
    )
    found = replace(frame, views=views, findings=meaning.findings, correspondences=meaning.correspondences)
    return found, headers


def _prepared(view: ViewReading) -> PreparedView:
    display = np.clip(ndimage.zoom(view.display, (H / exams.H, W / exams.W), order=1), 0.0, 1.0)
    return PreparedView(display.astype(np.float32), _placement(view.view), view.view.laterality, ())


def _placement(view: View) -> Placement:
    scale = H / ROWS
    width = round(W / scale)
    left = COLUMNS - width if view.laterality is Laterality.RIGHT else 0
    mirrored = view.laterality is Laterality.RIGHT
    return Placement(ROWS, COLUMNS, left, 0, left + width, ROWS, W / width, scale, 0.0, 0.0, mirrored, H, W)


def _contract() -> ModelContract:
    return replace(exams.contract(), preset=f"fit-{H}x{W}", input_shape=(H, W), heatmap_shape=CELLS)


def _prediction() -> Prediction:
    """A hot spot at each lesion, and faint spots of both kinds in the breast, as the shipped model has them."""
    rng = np.random.default_rng(11)
    faint = ndimage.gaussian_filter(rng.random((4, len(exams.KINDS), *CELLS)), (0, 0, 1, 1))
    heatmaps = np.clip((faint - faint.mean()) * 2.5, 0.0, 0.3).astype(np.float32)
    logits = np.full((4, len(exams.KINDS)), -3.0, np.float32)
    rows, columns = np.mgrid[: CELLS[0], : CELLS[1]]
    y, x = exams.OFFSET[0] + exams.STRIDE[0] * rows, exams.OFFSET[1] + exams.STRIDE[1] * columns
    for view, (kind, stored_x, stored_y) in LESIONS.items():
        (lesion_x, lesion_y), *_ = _placement(view).to_model(np.array([[stored_x, stored_y]]))
        at = (STANDARD_VIEWS.index(view), exams.KINDS.index(kind))
        heatmaps[at] += 1.3 * np.exp(-((x - lesion_x) ** 2 + (y - lesion_y) ** 2) / (2 * 20.0**2))
        logits[at] = 1.9
    return Prediction(1.5, np.zeros(8, np.float32), np.array([1.5, 1.5], np.float32), logits, heatmaps, None, None)
