"""Pixel Data to stored values, by the fastest exact decoder of each transfer syntax."""

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import PixelError

LARGEST_IMAGE_PX = 200_000_000


def check_pixel_header(dataset: Dataset) -> None:
    """Refuse absurd Rows and Columns before anything is decoded. Raises PixelError."""
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not isinstance(rows, int) or not isinstance(columns, int) or rows < 1 or columns < 1:
        raise PixelError("Rows or Columns is missing")
    if rows * columns > LARGEST_IMAGE_PX:
        raise PixelError(f"{rows} x {columns} pixels are no mammogram")


def decode(dataset: Dataset) -> NDArray[np.integer]:
    """Stored values."""
    check_pixel_header(dataset)
    return np.asarray(dataset.pixel_array)
