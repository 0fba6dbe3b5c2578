"""One look-up per pixel."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Entry = TypeVar("Entry", bound=np.generic)
BLOCK_PX = 262_144
"""Pixels per block: the index copy that numpy makes of a block stays in the cache."""


def look_up(stored: NDArray[np.integer], table: NDArray[Entry], first: int) -> NDArray[Entry]:
    """table[stored - first] for every pixel of (rows, cols); values outside the table take its nearest entry."""
    looked_up = np.empty(stored.shape, table.dtype)
    rows = max(1, BLOCK_PX // max(stored.shape[1], 1))
    for start in range(0, stored.shape[0], rows):
        index = stored[start : start + rows].astype(np.intp)
        index -= first
        np.take(table, index, out=looked_up[start : start + rows], mode="clip")
    return looked_up
