"""Preset `mammo-clip`: the published preprocessing of System A (arXiv 2405.12255), step by step.

Trim 5 px on each side, invert MONOCHROME1, stretch the whole frame to 0..255, crop to the columns and rows in which
something varies above grey 40, resize to 1520 x 912 whatever the aspect. No VOI LUT, no modality LUT, no mirror.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from node.mammography.lookup import look_up

NAME = "mammo-clip"
ROWS = 1520
COLUMNS = 912
TRIMMED_PX = 5
Number = TypeVar("Number", bound=np.generic)
BACKGROUND_GREY = 40
"""Greys up to this one count as background where the crop is sought; the crop itself keeps them."""


@dataclass(frozen=True, slots=True)
class Crop:
    """In pixels of the trimmed image, half-open. `tied`: another run of columns or rows was as long."""

    left: int
    top: int
    right: int
    bottom: int
    tied: bool


def trimmed_px(shape: tuple[int, ...]) -> int:
    """Pixels cut off each side: 5, or none from an image too small for it."""
    return TRIMMED_PX if min(shape) > 4 * TRIMMED_PX else 0


def eight_bit(stored: NDArray[np.integer], *, inverted: bool) -> NDArray[np.uint8]:
    """Stored values (rows, cols) to uint8, trimmed: (x - min) / (max - min) * 255, cut off to whole greys."""
    trimmed = _trimmed(stored)
    low, high = int(trimmed.min()), int(trimmed.max())
    values = np.arange(low, high + 1, dtype=np.float64)
    rising = high - values if inverted else values - low
    table = (rising / max(high - low, 1) * 255).astype(np.uint8)
    return look_up(trimmed, table, low)


def eight_bit_of_display(display: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Display values (rows, cols) in [0, 1] to uint8, trimmed; a 1/256 grey makes up for float32's rounding."""
    trimmed = _trimmed(display)
    low, high = float(trimmed.min()), float(trimmed.max())
    grey = (trimmed - low) * (255 / (high - low) if high > low else 0.0) + 1 / 256
    return np.asarray(np.minimum(grey, 255), dtype=np.uint8)


def find_crop(grey: NDArray[np.uint8]) -> Crop:
    """The longest run of columns that vary over the central four fifths of the rows; then the same for the rows.

    Where runs tie, the published code keeps them all, and what it then crops is no rectangle of the image; here the
    first is kept. Where nothing varies, the whole image.
    """
    working = np.where(grey > BACKGROUND_GREY, grey, 0)
    left, right, tied_columns = _longest_run(_varies(working[_central(grey.shape[0])], axis=0))
    columns = working[:, left:right]
    top, bottom, tied_rows = _longest_run(_varies(columns[:, _central(columns.shape[1])], axis=1))
    return Crop(left, top, right, bottom, tied_columns or tied_rows)


def _trimmed(image: NDArray[Number]) -> NDArray[Number]:
    cut = trimmed_px(image.shape)
    return image[cut : image.shape[0] - cut, cut : image.shape[1] - cut]


def _varies(image: NDArray[np.uint8], *, axis: int) -> NDArray[np.bool_]:
    """Standard deviation other than zero, told without computing it."""
    if image.shape[axis] == 0:
        return np.zeros(image.shape[1 - axis], bool)
    return np.asarray(image.max(axis=axis) != image.min(axis=axis), dtype=bool)


def _central(size: int) -> slice:
    reach = int(size * 0.4)
    return slice(size // 2 - reach, size // 2 + reach)


def _longest_run(varies: NDArray[np.bool_]) -> tuple[int, int, bool]:
    """First and end of the longest run of True, and whether another is as long; everything where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], varies, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if len(starts) == 0:
        return 0, len(varies), False
    lengths = ends - starts
    longest = int(np.argmax(lengths))
    return int(starts[longest]), int(ends[longest]), int((lengths == lengths[longest]).sum()) > 1
