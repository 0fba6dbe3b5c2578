"""The square that CLIP sees of a view: the breast's crop, 8 bit, padded to a square, bicubic to its size.

Crop, mirror and chest wall on the left edge are those of `node.mammography.pixels`, whose preset of the crop's own
size changes no pixel's size; the bicubic filter is the one CLIP was trained with (the paper is silent, 10.6).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from node.mammography.breast import find_breast
from node.mammography.pixels import (
    LONGEST_SIDE_PX,
    Placement,
    PreparedView,
    display_values,
    prepare_display,
    preset,
)
from node.mammography.views import Laterality

Plane = NDArray[np.uint8]


def prepare_square(dataset: Dataset, laterality: Laterality, size: int) -> PreparedView:
    """One image to (size, size) pixels in [0, 1], multiples of 1/255, and where they lie in it. Raises PixelError."""
    return square_of_display(display_values(dataset), laterality, size)


def square_of_display(display: NDArray[np.float32], laterality: Laterality, size: int) -> PreparedView:
    """As `prepare_square`, of display values (rows, cols) in [0, 1], bright = dense."""
    side = _crop_side(display)
    prepared = prepare_display(display, laterality, preset(f"fit-{side}x{side}"))
    plane = np.round(prepared.pixels * 255).astype(np.uint8)
    pixels = bicubic(plane, size).astype(np.float32) / np.float32(255)
    return replace(prepared, pixels=pixels, placement=_shrunk(prepared.placement, size))


def square_of_plane(plane: Plane, size: int) -> Plane:
    """A prepared grey plane (rows, cols), chest wall on the left edge, to (size, size): zeros on the right or, evenly,
    above and below, then bicubic.
    """
    rows, columns = plane.shape
    side = max(rows, columns)
    padded = np.zeros((side, side), np.uint8)
    top = (side - rows) // 2
    padded[top : top + rows, :columns] = plane
    return bicubic(padded, size)


def bicubic(plane: Plane, size: int) -> Plane:
    """A square plane to (size, size) as PIL does it, with a wider filter where it shrinks."""
    if plane.shape == (size, size):
        return plane
    resized: Plane = np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))
    return resized


def _crop_side(display: NDArray[np.float32]) -> int:
    """The longer side of the breast's crop, of the whole image where no breast is found."""
    breast = find_breast(display)
    rows, columns = display.shape
    if breast is not None:
        rows, columns = breast.bottom - breast.top, breast.right - breast.left
    return min(max(int(rows), int(columns)), LONGEST_SIDE_PX)


def _shrunk(placement: Placement, size: int) -> Placement:
    """The placement after the square has become `size` pixels a side."""
    scale = size / placement.model_rows
    return replace(
        placement,
        scale_x=placement.scale_x * scale,
        scale_y=placement.scale_y * scale,
        shift_x=placement.shift_x * scale,
        shift_y=placement.shift_y * scale,
        model_rows=size,
        model_columns=size,
    )
