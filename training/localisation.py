"""Where heat lies against where lesions lie: pointing, boxes, marks, and what a filter without a network reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from node.mammography.regions import HeatGrid, breast_mask, find_regions, register_heatmap
from training.cache import CachedExam
from training.maps import OFFSET, STRIDE

GRID = HeatGrid((float(STRIDE), float(STRIDE)), (OFFSET, OFFSET))
"""Where this model's cells lie."""

HIT_OVERLAP = 0.25
"""Intersection over union from which a box counts as a hit."""

LOG_SIGMAS_PX = {"mass": (6.0, 9.0, 13.0), "suspicious_calcification": (1.0, 1.5)}
"""Scales of the Laplacian of Gaussian; calcification sums its strongest answers over a neighbourhood."""

_CLUSTER_PX = 15

FloatImage = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Pointing:
    """One view that shows a finding: whether the maximum falls on it, by heat and by filter, and the chance of that."""

    seed: int
    kind: int
    heat: bool
    log_filter: bool
    area: float
    box: bool


def point(exam: CachedExam, heat: FloatImage, kind: int, name: str) -> list[Pointing]:
    """Pointing in each view of an exam that shows the finding. `heat` (4, h, w) of this kind, cells."""
    found = []
    for view in range(4):
        mask = exam.mask(view, kind)
        if not mask.any():
            continue
        image = exam.images[view].astype(np.float32) / 255.0
        inside = breast_mask(image)
        registered = np.where(inside, register_heatmap(heat[view], GRID, *mask.shape), -1.0)
        filtered = np.where(inside, log_response(image, name), -np.inf)
        boxes = exam.finding_boxes(view, kind)
        found.append(
            Pointing(
                exam.seed,
                kind,
                _on(mask, registered),
                _on(mask, filtered),
                float((mask & inside).sum() / inside.sum()),
                box_hit(heat[view], inside, boxes),
            )
        )
    return found


def _on(mask: npt.NDArray[np.bool_], values: npt.NDArray[np.floating]) -> bool:
    """Whether the maximum lies on the mask."""
    return bool(mask[np.unravel_index(int(np.argmax(values)), mask.shape)])


def log_response(image: FloatImage, name: str) -> FloatImage:
    """Bright blobs by Laplacian of Gaussian at the scales of a finding, normalised by scale, largest over scales."""
    answers = [-(sigma**2) * ndimage.gaussian_laplace(image, sigma) for sigma in LOG_SIGMAS_PX[name]]
    strongest = np.max(answers, axis=0)
    if name == "mass":
        return np.asarray(strongest, dtype=np.float32)
    specks = np.clip(strongest, 0.0, None) ** 2
    return np.asarray(ndimage.uniform_filter(specks, _CLUSTER_PX), dtype=np.float32)


def box_hit(heat: FloatImage, inside: npt.NDArray[np.bool_], boxes: Sequence[Box]) -> bool:
    """Whether the box of the hottest region, down to half of its maximum, meets a lesion's box with IoU .25."""
    peak = float(heat.max())
    if peak <= 0.0:
        return False
    regions = find_regions(heat, register_heatmap(heat, GRID, *inside.shape), GRID, inside, 0.98 * peak, 1)
    return any(overlap(contour_box(region.contour), box) >= HIT_OVERLAP for region in regions for box in boxes)


def contour_box(contour: npt.NDArray[np.float64]) -> Box:
    """Left, top, right, bottom of a contour (N, 2)."""
    (left, top), (right, bottom) = contour.min(axis=0), contour.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@dataclass(frozen=True, slots=True)
class Mark:
    """A region in one view: its peak heat, and whether its centre lies on a lesion of its kind."""

    seed: int
    view: int
    kind: int
    peak_heat: float
    on_lesion: bool


def marks(exam: CachedExam, heat: FloatImage, kind: int, threshold: float, limit: int = 3) -> list[Mark]:
    """Regions of one kind (heat (4, h, w) of cells) in the four views, as the node marks them."""
    found = []
    for view in range(4):
        if heat[view].max() < threshold:
            continue
        mask, inside = exam.mask(view, kind), breast_mask(exam.images[view].astype(np.float32) / 255.0)
        registered = register_heatmap(heat[view], GRID, *inside.shape)
        for region in find_regions(heat[view], registered, GRID, inside, threshold, limit):
            column, row = (int(value) for value in region.centre)
            found.append(Mark(exam.seed, view, kind, region.peak_heat, bool(mask[row, column])))
    return found
