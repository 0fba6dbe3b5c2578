"""Where a place of the stored image lies in a screenshot: by the outline of the breast, not by what the viewer says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BREAST_SHARE = 0.06
"""Share of the full display range from where on a pixel belongs to the breast."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Screenshot pixel = stored pixel * scale + offset, the same scale for x and y."""

    scale: float
    left: float
    top: float

    def mask(self, stored: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """A mask of stored pixels as pixels of the screenshot, (rows, columns)."""
        rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
        y = np.floor((rows - self.top) / self.scale).astype(int)
        x = np.floor((columns - self.left) / self.scale).astype(int)
        inside = (y >= 0) & (y < stored.shape[0]) & (x >= 0) & (x < stored.shape[1])
        return inside & stored[np.clip(y, 0, stored.shape[0] - 1), np.clip(x, 0, stored.shape[1] - 1)]


def fit(shown: NDArray[np.uint8], display: NDArray[np.float32]) -> Fit:
    """How a grey screenshot (rows, columns, 3) shows an image of display values (rows, columns) in [0, 1]."""
    grey = (shown.max(axis=2) > BREAST_SHARE * 255) & ~coloured(shown, 20)
    left, top, right, bottom = _box(_largest(grey))
    stored = _box(_largest(display > BREAST_SHARE))
    scale = (bottom - top) / (stored[3] - stored[1])
    wide = (right - left) / (stored[2] - stored[0])
    assert abs(wide / scale - 1.0) < 0.01, f"the picture is stretched: {wide} across, {scale} down"
    return Fit(scale, left - stored[0] * scale, top - stored[1] * scale)


def coloured(shown: NDArray[np.uint8], difference: int = 40) -> NDArray[np.bool_]:
    """Pixels that are no grey."""
    values = shown.astype(int)
    return np.asarray(values.max(axis=2) - values.min(axis=2) > difference)


def grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask and all pixels so near to it."""
    return np.asarray(ndimage.binary_dilation(mask, iterations=pixels))


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    assert count, "nothing is shown"
    return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
