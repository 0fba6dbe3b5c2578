"""Exact area resize by sparse weights: one matrix for the rows, one for the columns."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def resize(image: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.float32]:
    """Image (h, w) to float32 (rows, columns): mean over each target pixel's area; bilinear along an enlarged axis.

    Pixel i spans [i, i + 1) in both frames, so a point at x lands at x * columns / w. A mirrored image gives the
    mirrored result.
    """
    return _apply(image, _weights(image.shape[0], rows), _weights(image.shape[1], columns))


def resize_as_opencv(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """uint8 (h, w) to uint8 (rows, columns) as OpenCV's INTER_AREA: area means, or its own blend where an axis grows.

    Within one grey level of OpenCV on 99.9 % of pixels and two on all (exam-encoder preset `mammo-clip`).
    """
    shrinks = rows <= image.shape[0] and columns <= image.shape[1]
    weights = _area_weights if shrinks else _area_linear_weights
    resized = _apply(image, weights(image.shape[0], rows), weights(image.shape[1], columns))
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _apply(
    image: NDArray[np.generic], row_weights: sparse.csr_array, column_weights: sparse.csr_array
) -> NDArray[np.float32]:
    """Rows first: the pass over the full image runs along contiguous memory."""
    fewer_rows = row_weights @ np.ascontiguousarray(image, dtype=np.float32)
    resized = column_weights @ np.ascontiguousarray(fewer_rows.T)
    return np.ascontiguousarray(resized.T, dtype=np.float32)


def _weights(size: int, target: int) -> sparse.csr_array:
    return _area_weights(size, target) if target <= size else _linear_weights(size, target)


@lru_cache(maxsize=64)
def _area_weights(size: int, target: int) -> sparse.csr_array:
    """(target, size): the share of each source pixel in each target pixel; every row sums to one."""
    edges = np.union1d(np.arange(size + 1) / size, np.arange(target + 1) / target)
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-12])]
    middle = (edges[:-1] + edges[1:]) / 2
    row = np.minimum((middle * target).astype(np.intp), target - 1)
    column = np.minimum((middle * size).astype(np.intp), size - 1)
    return _matrix(np.diff(edges) * target, row, column, (target, size))


@lru_cache(maxsize=64)
def _linear_weights(size: int, target: int) -> sparse.csr_array:
    """(target, size): bilinear between pixel centres, the edge pixel held beyond the last centre."""
    source = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    return _two_taps(source, target, size)


@lru_cache(maxsize=64)
def _area_linear_weights(size: int, target: int) -> sparse.csr_array:
    """(target, size): what OpenCV does for INTER_AREA once one axis is enlarged: blend only where pixels change.

    In its order of operations: a fraction that should be 0 or 1 and comes out beside it takes a pixel too far.
    """
    growth = target / size
    first = np.floor(np.arange(target) * (1.0 / growth))
    fraction = ((np.arange(target) + 1) - (first + 1) * growth).astype(np.float32)
    fraction = np.where(fraction <= 0, 0.0, fraction - np.floor(fraction))
    return _two_taps(np.clip(first + fraction, 0, size - 1), target, size)


def _two_taps(source: NDArray[np.float64], target: int, size: int) -> sparse.csr_array:
    first = np.floor(source).astype(np.intp)
    fraction = source - first
    rows = np.arange(target)
    second = np.minimum(first + 1, size - 1)
    return _matrix(
        np.concatenate([1 - fraction, fraction]),
        np.concatenate([rows, rows]),
        np.concatenate([first, second]),
        (target, size),
    )


def _matrix(
    values: NDArray[np.float64], rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]
) -> sparse.csr_array:
    """Duplicates are summed; float32, as the images are."""
    return sparse.coo_array((values, (rows, columns)), shape=shape).tocsr().astype(np.float32)
