"""Heat to points and boxes, and where it could at best and at worst lie, for any encoder whose cells have known places.

Heat is registered by the cells' stride and offset, never stretched onto the image, and counts inside the breast alone.
Boxes are left, top, right, bottom in continuous model pixels. Axes: h, w cells, H, W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from node.mammography.regions import HeatGrid, breast_mask, register_heatmap
from training.localisation import Box, FloatImage, log_response, overlap

BoolImage = NDArray[np.bool_]

BOX_LIMIT = 2
"""Boxes of one phrase in one view, at most."""
SMALLEST_SHARE = 0.0005
"""A region that covers less of the canvas is no box (section 5A.3 of the paper's description: ~0.05 %)."""
PERCENTILE = 95.0
"""Published: regions above this percentile of the heat, inside the breast."""
HALF = 0.5
SUPPRESSED_OVERLAP = 0.5
OVERLAPS = (0.25, 0.5)
"""Intersections over union at which boxes are judged."""

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
_PROBED = ((0.35, 0.35), (0.35, 0.65), (0.5, 0.5), (0.65, 0.35), (0.65, 0.65))
"""Cells whose gradients tell where cells lie, as shares of the map."""
_PROBED_SIZE = (384, 256)
"""Pixels at most of the image on which they are measured: cells lie alike in any size."""
_PROBED_STRIDE = 16.0
"""For coarser cells the image is twice as large, or its edges would draw all centroids to the middle."""


@dataclass(frozen=True, slots=True)
class HeatBox:
    """One region of heat: its box, its greatest heat and where that lies, (row, column)."""

    box: Box
    peak_heat: float
    peak: tuple[int, int]


def heat_grid(encoder: torch.nn.Module, features: Callable[[Tensor], Tensor], images: Tensor) -> HeatGrid:
    """Where the cells of an encoder lie: by its own `stride` and `offset` in model pixels, else measured."""
    stride, offset = getattr(encoder, "stride", None), getattr(encoder, "offset", None)
    known = stride if isinstance(stride, float) else None
    if known is not None and isinstance(offset, float):
        return HeatGrid((known, known), (offset, offset))
    return measured_grid(features, images, known)


def measured_grid(features: Callable[[Tensor], Tensor], images: Tensor, known_stride: float | None = None) -> HeatGrid:
    """Stride and offset by the centroid of the absolute gradient of cells, over the images given.

    `features`: (1, channels, H, W), as the encoder takes it -> (1, C, h, w); its offset depends on its padding. The
    stride, where it is not known, is the whole number nearest to the slope of the centroids. A few images of noise do.
    """
    factor = 2 if known_stride is not None and known_stride > _PROBED_STRIDE else 1
    height, width = (factor * side for side in _PROBED_SIZE)
    found = [_centroids(features, image[None, :, :height, :width], trial) for trial, image in enumerate(images)]
    rows = np.concatenate(found)
    strides, offsets = [], []
    for axis in range(2):
        cell, pixel = rows[:, axis], rows[:, 2 + axis]
        stride = known_stride or float(max(1, round(float(np.polyfit(cell, pixel, 1)[0]))))
        strides.append(stride)
        offsets.append(float(np.mean(pixel - stride * cell)))
    return HeatGrid((strides[0], strides[1]), (offsets[0], offsets[1]))


def _centroids(features: Callable[[Tensor], Tensor], image: Tensor, trial: int) -> NDArray[np.float64]:
    """Rows of (row, column, y, x): a cell and its gradient's centroid in continuous pixels."""
    generator = torch.Generator().manual_seed(trial)
    wanted = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        maps = features(wanted)
    height, width = maps.shape[2:]
    rows = []
    for down, across in _PROBED:
        row, column = round(down * (height - 1)), round(across * (width - 1))
        mixed = (maps[0, :, row, column] * torch.randn(maps.shape[1], generator=generator)).sum()
        (gradient,) = torch.autograd.grad(mixed, wanted, retain_graph=True)
        weight = gradient[0].abs().sum(0).double()
        total = weight.sum().clamp_min(1e-30)
        ys, xs = (torch.arange(side, dtype=torch.float64) + 0.5 for side in weight.shape)
        rows.append((row, column, float((weight.sum(1) * ys).sum() / total), float((weight.sum(0) * xs).sum() / total)))
    return np.array(rows, np.float64)


def breast_of(plane: NDArray[np.uint8]) -> BoolImage:
    """Pixels of the breast in a grey plane (H, W)."""
    return breast_mask(plane.astype(np.float32) / np.float32(255.0))


def registered(heat: FloatImage, grid: HeatGrid, inside: BoolImage) -> FloatImage:
    """Heat (h, w) on the pixels of `inside` (H, W), 0 outside of it."""
    return np.where(inside, register_heatmap(heat, grid, *inside.shape), np.float32(0.0))


def scaled_per_image(heat: FloatImage, inside: BoolImage) -> FloatImage:
    """Published: the least heat inside the breast to 0, the greatest to 1. Heat that is the same everywhere is 0."""
    low, high = (float(heat[inside].min()), float(heat[inside].max())) if inside.any() else (0.0, 0.0)
    scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    return np.where(inside, scaled, np.float32(0.0)).astype(np.float32)


def points_at(heat: FloatImage, inside: BoolImage, mask: BoolImage) -> bool:
    """Whether the greatest heat (H, W) inside the breast lies on the mask. Heat that is 0 throughout points nowhere."""
    seen = np.where(inside, heat, -np.inf)
    at = np.unravel_index(int(np.argmax(seen)), mask.shape)
    return bool(seen[at] > 0.0 and mask[at])


def area_chance(inside: BoolImage, mask: BoolImage) -> float:
    """The chance that a point anywhere in the breast lies on the mask."""
    return float((mask & inside).sum() / max(int(inside.sum()), 1))


def half_maximum_boxes(heat: FloatImage, inside: BoolImage, limit: int = BOX_LIMIT) -> tuple[HeatBox, ...]:
    """Boxes of what reaches half of the view's greatest heat (H, W); the hottest first."""
    peak = float(heat[inside].max()) if inside.any() else 0.0
    return boxes_above(heat, inside, HALF * peak, limit) if peak > 0.0 else ()


def percentile_boxes(
    heat: FloatImage, inside: BoolImage, limit: int = BOX_LIMIT, percentile: float = PERCENTILE
) -> tuple[HeatBox, ...]:
    """Boxes of what lies above a percentile of the heat inside the breast, as published; the hottest first."""
    level = float(np.percentile(heat[inside], percentile)) if inside.any() else 0.0
    return boxes_above(heat, inside & (heat > level), max(level, 1e-12), limit)


def boxes_above(heat: FloatImage, inside: BoolImage, level: float, limit: int = BOX_LIMIT) -> tuple[HeatBox, ...]:
    """Boxes of the 8-connected regions of heat (H, W) that reach `level`, specks left out, overlapping ones suppressed
    by hotter ones. A region whose peak is alone large enough to be seen but smaller than SMALLEST_SHARE is no box.
    """
    labels, count = ndimage.label(inside & (heat >= level), structure=_EIGHT_CONNECTED)
    if not count:
        return ()
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    found = []
    for number, part in enumerate(ndimage.find_objects(labels), start=1):
        if sizes[number] >= SMALLEST_SHARE * heat.size:
            found.append(_box(heat, labels, number, part))
    found.sort(key=lambda box: -box.peak_heat)
    return suppressed(found)[:limit]


def _box(heat: FloatImage, labels: NDArray[np.int32], number: int, part: tuple[slice, slice]) -> HeatBox:
    own = np.where(labels[part] == number, heat[part], np.float32(-1.0))
    row, column = np.unravel_index(int(own.argmax()), own.shape)
    rows, columns = part
    box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
    return HeatBox(box, float(own.max()), (int(rows.start + row), int(columns.start + column)))


def suppressed(boxes: Sequence[HeatBox]) -> tuple[HeatBox, ...]:
    """Of boxes, the hottest first, those that overlap no kept one by more than SUPPRESSED_OVERLAP."""
    kept: list[HeatBox] = []
    for box in boxes:
        if all(overlap(box.box, other.box) <= SUPPRESSED_OVERLAP for other in kept):
            kept.append(box)
    return tuple(kept)


def hits(boxes: Sequence[HeatBox], truth: Sequence[Box], least: float) -> bool:
    """Whether any box meets any lesion's with this intersection over union: the hit rate's unit is the view."""
    return any(overlap(box.box, lesion) >= least for box in boxes for lesion in truth)


def mask_heat(mask: BoolImage, grid: HeatGrid, cells: tuple[int, int]) -> FloatImage:
    """The heat (h, w) that a perfect map could show: the share of each cell's pixels that the mask (H, W) covers."""
    spread = ndimage.uniform_filter(mask.astype(np.float32), [round(side) for side in grid.stride], mode="constant")
    return np.asarray(at_cells(spread, grid, cells), dtype=np.float32)


def at_cells(plane: NDArray[Any], grid: HeatGrid, cells: tuple[int, int]) -> NDArray[Any]:
    """A plane (H, W) at the centres of cells, (h, w)."""
    rows, columns = (
        np.clip(np.floor(offset + stride * np.arange(count)).astype(np.intp), 0, size - 1)
        for offset, stride, count, size in zip(grid.offset, grid.stride, cells, plane.shape, strict=True)
    )
    return np.asarray(plane[np.ix_(rows, columns)])


LOG_NAMES = {"Mass": "mass", "Suspicious_Calcification": "suspicious_calcification"}
"""Findings for which the filter of `training.localisation` has scales; others are sought as masses are."""


def log_heat(plane: NDArray[np.uint8], name: str) -> FloatImage:
    """What a Laplacian of Gaussian without a network answers on a grey plane (H, W), none below 0."""
    image = plane.astype(np.float32) / np.float32(255.0)
    return np.maximum(log_response(image, LOG_NAMES.get(name, "mass")), np.float32(0.0))
