"""Where the breast lies in a mammogram, and on which edge its chest wall is, by the pixels alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.mammography.resize import resize
from node.mammography.views import Laterality

WORKING_SIZE_PX = 320
"""Long side of the copy on which the breast is sought."""
OPENING_SHARE = 0.03
"""Radius, as a share of the long side, below which bright things (lines, film edges, letters) fall off the breast."""
CORE_SHARES = (0.08, 0.2)
"""The core of the breast is brighter than a share of the way from background to tissue, between these two."""
FADED_SHARE = 0.01
"""The background's peak in the histogram has died away where a bin holds less than this share of the peak."""
SKIN_SHARE = 0.4
"""The dim skin around the core is brighter than this share of the core's level above the background,"""
SKIN_REACH_SHARE = 0.03
"""and no farther from the core than this share of the long side."""
MARGIN_SHARE = 0.01
"""Background kept around the breast, as a share of the long side."""
SMALLEST_SHARE = 0.01
"""A region that covers less of the image is no breast."""


@dataclass(frozen=True, slots=True, eq=False)
class Breast:
    """The breast in one image.

    The crop is in whole stored pixels, half-open. `mask` (h, w) covers the crop at a low resolution: True where the
    breast and a narrow margin lie. `chest_wall` is the image side: LEFT = left edge of the stored image.
    `chest_wall_certain` is False where the outline is as wide on both sides.
    """

    left: int
    top: int
    right: int
    bottom: int
    mask: NDArray[np.bool_]
    chest_wall: Laterality
    chest_wall_certain: bool


def find_breast(display: NDArray[np.float32]) -> Breast | None:
    """The breast in `display` (rows, cols), [0, 1], bright = dense; None where nothing stands out of the background.

    On a small copy: white film borders are cut off, what lies above the background is opened (labels, lines and
    borders fall off), the largest region is the breast; each of its rows is filled from end to end.
    """
    small = _small_copy(display)
    frame = _without_white_borders(small)
    region = _largest_region(small[frame])
    if region is None or region.mean() < SMALLEST_SHARE:
        return None
    mask = np.zeros(small.shape, bool)
    mask[frame] = region
    chest_wall, certain = _chest_wall(mask)
    margin = max(1, round(MARGIN_SHARE * max(mask.shape)))
    return _crop(mask, frame, margin, display.shape, chest_wall, certain)


def _small_copy(display: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most WORKING_SIZE_PX on the long side; every n-th pixel first: a full pass costs more than it tells."""
    step = max(1, max(display.shape) // (2 * WORKING_SIZE_PX))
    sampled = display[::step, ::step]
    factor = min(1.0, WORKING_SIZE_PX / max(sampled.shape))
    rows, columns = (max(1, round(side * factor)) for side in sampled.shape)
    return resize(sampled, rows, columns)


def _without_white_borders(small: NDArray[np.float32]) -> tuple[slice, slice]:
    """Cut off outer rows and columns of which nine tenths are near the image's white: the rim of a scanned film."""
    white = small > 0.85 * float(np.quantile(small, 0.999))
    rows, columns = white.mean(axis=1) > 0.9, white.mean(axis=0) > 0.9
    return _inner(rows), _inner(columns)


def _inner(is_border: NDArray[np.bool_]) -> slice:
    """The span that is left when the border lines of the outermost tenth on each side are cut off."""
    size = len(is_border)
    reach = size // 10
    first = int(np.flatnonzero(is_border[:reach])[-1]) + 1 if is_border[:reach].any() else 0
    last = int(np.flatnonzero(is_border[size - reach :])[0]) if reach and is_border[size - reach :].any() else reach
    return slice(first, size - reach + last)


def _largest_region(small: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    levels = _levels(small)
    if levels is None:
        return None
    radius = OPENING_SHARE * max(small.shape)
    opened = _dilated(_eroded(small > levels.core, radius), radius)
    labels, count = ndimage.label(_eroded(ndimage.binary_fill_holes(opened), radius))
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    core = _dilated(labels == 1 + int(np.argmax(sizes)), radius)
    skin = (small > levels.skin) & _dilated(core, SKIN_REACH_SHARE * max(small.shape))
    return _rows_filled(core | skin) & _up_to_chest_wall(core, _chest_wall(core)[0])


@dataclass(frozen=True, slots=True)
class _Levels:
    """Greys above which lie the core of the breast, and its dim skin."""

    core: float
    skin: float


def _levels(small: NDArray[np.float32]) -> _Levels | None:
    """From the background's commonest grey towards the median of what Otsu calls bright; None for a constant image.

    The core begins where the background's peak in the histogram has died away: at once in a digital image, whose
    fatty tissue is little brighter than air, and far up in a scanned film, whose background is lit unevenly.
    """
    low, high = float(small.min()), float(small.max())
    if high - low < 1e-6:
        return None
    counts, edges = np.histogram(small, bins=256, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    split = _otsu(counts, centres)
    peak = int(np.argmax(counts[: split + 1]))
    background, tissue = float(centres[peak]), float(np.median(small[small > edges[split + 1]]))
    faded = peak + int(np.argmax(counts[peak:] < FADED_SHARE * counts[peak]))
    share = (float(centres[faded]) - background) / (tissue - background)
    core = min(max(share, CORE_SHARES[0]), CORE_SHARES[1])
    return _Levels(background + core * (tissue - background), background + SKIN_SHARE * core * (tissue - background))


def _otsu(counts: NDArray[np.intp], centres: NDArray[np.float64]) -> int:
    """The bin after which the variance between the two classes is largest; never the last."""
    weight = np.cumsum(counts)[:-1].astype(np.float64)
    total = float(counts.sum())
    mean = np.cumsum(counts * centres)
    below = mean[:-1] / np.maximum(weight, 1)
    above = (mean[-1] - mean[:-1]) / np.maximum(total - weight, 1)
    return int(np.argmax(weight * (total - weight) * (below - above) ** 2))


def _eroded(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """By a disc; what lies outside the image counts as background, so that a rim along the edge is eroded too."""
    padded = np.pad(mask, 1)
    return np.asarray(ndimage.distance_transform_edt(padded) > radius, dtype=bool)[1:-1, 1:-1]


def _dilated(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius + 0.5, dtype=bool)


def _rows_filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Each row from its first to its last pixel: from the chest wall outwards a breast has no gaps."""
    from_left = np.logical_or.accumulate(mask, axis=1)
    from_right = np.logical_or.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(from_left & from_right, dtype=bool)


def _chest_wall(mask: NDArray[np.bool_]) -> tuple[Laterality, bool]:
    """The side on which the outline is taller: outer sixth against outer sixth of its columns."""
    columns = np.flatnonzero(mask.any(axis=0))
    heights = mask[:, columns[0] : columns[-1] + 1].sum(axis=0)
    sixth = max(1, len(heights) // 6)
    left, right = float(heights[:sixth].mean()), float(heights[-sixth:].mean())
    side = Laterality.LEFT if left >= right else Laterality.RIGHT
    return side, max(left, right) > 1.15 * min(left, right)


def _up_to_chest_wall(mask: NDArray[np.bool_], chest_wall: Laterality) -> NDArray[np.bool_]:
    """(columns,): no margin beyond the chest wall; it is to lie on the model image's edge."""
    columns = np.flatnonzero(mask.any(axis=0))
    position = np.arange(mask.shape[1])
    kept = position >= columns[0] if chest_wall is Laterality.LEFT else position <= columns[-1]
    return np.asarray(kept, dtype=bool)


def _crop(
    mask: NDArray[np.bool_],
    frame: tuple[slice, slice],
    margin: int,
    shape: tuple[int, ...],
    chest_wall: Laterality,
    certain: bool,
) -> Breast:
    """The bounding box with its margin, never beyond the film's frame, in stored pixels."""
    grown = _dilated(mask, margin)
    allowed = np.zeros_like(mask)
    allowed[frame] = True
    grown &= allowed & _up_to_chest_wall(mask, chest_wall)
    rows, columns = np.flatnonzero(grown.any(axis=1)), np.flatnonzero(grown.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    scale_y, scale_x = shape[0] / mask.shape[0], shape[1] / mask.shape[1]
    return Breast(
        left=int(np.floor(left * scale_x)),
        top=int(np.floor(top * scale_y)),
        right=min(shape[1], int(np.ceil(right * scale_x))),
        bottom=min(shape[0], int(np.ceil(bottom * scale_y))),
        mask=grown[top:bottom, left:right],
        chest_wall=chest_wall,
        chest_wall_certain=certain,
    )
