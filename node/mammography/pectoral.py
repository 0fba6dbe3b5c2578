"""The edge of the pectoral muscle in a mediolateral oblique view: one straight line, or none that can be trusted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WIDTHS, HEIGHTS = np.linspace(0.12, 0.95, 36), np.linspace(0.25, 1.2, 36)
"""Where lines are tried: they leave the breast's top at these shares of its width, and its chest wall at these shares
of its height."""
ANGLES_DEGREES = (8.0, 45.0)
"""Against the chest wall's edge; flatter lines turn out to be folds of the armpit."""
SAMPLES = 48
SMOOTHING_CELLS, ASIDE_CELLS = 1.5, 2.5
"""Grey levels are compared this far to either side of the line, after this much smoothing."""
GREATEST_STEP = 0.3
"""A step counts up to this much of the breast's median grey: a film's border is no better edge than the muscle's."""
FEWEST_SAMPLES = 16

LEAST_STEP, LEAST_QUANTILE, LEAST_SHARE, FAINTEST_STEP = 0.12, 0.05, 0.85, 0.02
"""A line is trusted where its mean step, the step that four fifths of it exceed, and the share of it with more than
the faintest step reach these; docs/quality.md has how often."""


@dataclass(frozen=True, slots=True)
class PectoralEdge:
    """The line in cells of the outline, (x, y): from the breast's top to the chest wall's edge, x = 0."""

    top: tuple[float, float]
    bottom: tuple[float, float]


def find_pectoral_edge(grey: NDArray[np.float32], outline: NDArray[np.bool_]) -> PectoralEdge | None:
    """The edge in `grey` (h, w), whose breast is `outline` (h, w): chest wall on the left, head up. None if no line
    can be trusted.

    Of all lines that cut off the corner of head and chest wall, the one along which it is brightest towards the corner
    and darkest away from it; longer ones are preferred.
    """
    rows, columns = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    top, bottom, width = int(rows[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    x, y = (grid.ravel() for grid in np.meshgrid(WIDTHS * width, HEIGHTS * (bottom - top), indexing="ij"))
    angles = np.degrees(np.arctan2(x, y))
    tried = (angles >= ANGLES_DEGREES[0]) & (angles <= ANGLES_DEGREES[1])
    x, y = x[tried], y[tried]
    median = float(np.median(grey[outline]))
    if not x.size or median <= 0.0:
        return None
    steps = _steps(ndimage.gaussian_filter(grey, SMOOTHING_CELLS), x, y, top, bottom) / median
    length = np.hypot(x, np.minimum(y, bottom - top)) / (bottom - top)
    mean = _mean(np.clip(steps, -GREATEST_STEP, GREATEST_STEP))
    best = int(np.argmax(mean * np.sqrt(np.minimum(length, 0.6))))
    if not _trusted(steps[best][np.isfinite(steps[best])], float(mean[best])):
        return None
    return PectoralEdge((float(x[best]), float(top)), (0.0, float(top + y[best])))


def _steps(
    grey: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64], top: int, bottom: int
) -> NDArray[np.float64]:
    """(lines, SAMPLES): grey on the corner's side less grey on the other; nan beyond the breast's rows and columns."""
    share = (np.arange(SAMPLES) + 0.5) / SAMPLES
    on_x, on_y = x[:, None] * (1.0 - share), top + y[:, None] * share
    aside_x, aside_y = ASIDE_CELLS * np.array([y, x])[:, :, None] / np.hypot(x, y)[:, None]

    def at(sign: float) -> NDArray[np.float64]:
        here_x, here_y = on_x + sign * aside_x, on_y + sign * aside_y
        values = ndimage.map_coordinates(grey, [here_y - 0.5, here_x - 0.5], order=1, mode="nearest")
        return np.where((here_x >= 0) & (here_y >= top) & (here_y < bottom), values, np.nan)

    return np.asarray(at(-1.0) - at(1.0))


def _mean(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each line, -1 where too little of it lies in the breast."""
    known = np.isfinite(steps)
    counts = known.sum(axis=1)
    return np.where(counts >= FEWEST_SAMPLES, np.where(known, steps, 0.0).sum(axis=1) / np.maximum(counts, 1), -1.0)


def _trusted(steps: NDArray[np.float64], mean: float) -> bool:
    return (
        len(steps) >= FEWEST_SAMPLES
        and mean >= LEAST_STEP
        and float(np.quantile(steps, 0.2)) >= LEAST_QUANTILE
        and float((steps > FAINTEST_STEP).mean()) >= LEAST_SHARE
    )
