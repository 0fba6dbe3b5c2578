"""Where words stand in an image: inside it, beside the lesion and never on one, rather over air than over tissue."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import Box
from node.results.reading import ViewReading

_GRID = 12
_TISSUE_COST = 0.6
"""A text over nothing but tissue may be this share of the image's diagonal nearer to its lesion than one over air."""
_TISSUE_LEVEL = 0.02
"""Display value above which a pixel is no air."""


def text_box(
    view: ViewReading, size: tuple[float, float], taken: Sequence[Box], lesion: Box | None, gap_px: float
) -> Box:
    """A box of `size` (width, height) in stored pixels; a larger one than the image is cut to it.

    It overlaps as little of `taken` as can be (nothing where there is room). Beside `lesion`, or in a corner.
    """
    width, height = min(size[0], float(view.columns)), min(size[1], float(view.rows))
    spots = _corners(view, width, height, gap_px) if lesion is None else _around(view, width, height, lesion, gap_px)
    boxes = [Box(left, top, left + width, top + height) for left, top in spots]
    return min(boxes, key=lambda box: (_overlap(box, taken), _cost(view, box, lesion)))


def _corners(view: ViewReading, width: float, height: float, gap_px: float) -> list[tuple[float, float]]:
    right, bottom = view.columns - width, view.rows - height
    edge = min(gap_px, max(right, 0.0) / 2, max(bottom, 0.0) / 2)
    return [(x, y) for y in (edge, bottom - edge) for x in (edge, right - edge)]


def _around(view: ViewReading, width: float, height: float, lesion: Box, gap_px: float) -> list[tuple[float, float]]:
    """Right, left, below and above the lesion, and a grid over the whole image; all of them inside it."""
    right, bottom = view.columns - width, view.rows - height
    x, y = (lesion.left + lesion.right - width) / 2, (lesion.top + lesion.bottom - height) / 2
    beside = [(lesion.right + gap_px, y), (lesion.left - gap_px - width, y)]
    beside += [(x, lesion.bottom + gap_px), (x, lesion.top - gap_px - height)]
    inside = [(min(max(left, 0.0), right), min(max(top, 0.0), bottom)) for left, top in beside]
    grid = [(right * across / _GRID, bottom * down / _GRID) for down in range(_GRID + 1) for across in range(_GRID + 1)]
    return inside + grid


def _overlap(box: Box, taken: Sequence[Box]) -> float:
    """Area in square pixels that the box shares with others."""
    total = 0.0
    for other in taken:
        across = min(box.right, other.right) - max(box.left, other.left)
        down = min(box.bottom, other.bottom) - max(box.top, other.top)
        total += max(across, 0.0) * max(down, 0.0)
    return total


def _cost(view: ViewReading, box: Box, lesion: Box | None) -> float:
    """How much tissue the box hides, and how far it stands from its lesion: shares of the image's diagonal."""
    tissue = _TISSUE_COST * _tissue_share(view, box)
    if lesion is None:
        return tissue
    across = max(lesion.left - box.right, box.left - lesion.right, 0.0)
    down = max(lesion.top - box.bottom, box.top - lesion.bottom, 0.0)
    return tissue + float(np.hypot(across, down) / np.hypot(view.columns, view.rows))


def _tissue_share(view: ViewReading, box: Box) -> float:
    """Share of the box, in [0, 1], that lies on what the model saw and is no air."""
    x = np.linspace(box.left, box.right, 9)
    y = np.linspace(box.top, box.bottom, 5)
    stored = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return float(_is_tissue(view, view.placement.to_model(stored)).mean())


def _is_tissue(view: ViewReading, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For model points (N, 2) of (x, y)."""
    rows, columns = view.display.shape
    at = np.floor(points).astype(int)
    inside = (at >= 0).all(axis=1) & (at[:, 0] < columns) & (at[:, 1] < rows)
    found = np.zeros(len(points), dtype=bool)
    found[inside] = view.display[at[inside, 1], at[inside, 0]] > _TISSUE_LEVEL
    return found
