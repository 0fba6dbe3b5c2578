"""Heat on the model's grid of cells, put where it lies in the image, and the regions in it.

All coordinates are continuous model pixels, (x, y) = (column, row), pixel i spans [i, i + 1).
"""

from dataclasses import dataclass

import contourpy
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

HALF_MAXIMUM = 0.5
"""A region reaches down to this share of its own peak."""
SIMPLIFY_PX = 0.5
"""A simplified contour stays within this distance, in model pixels, of the one that was found."""
MAXIMUM_CONTOUR_POINTS = 500
"""The closing point included. Longer Graphic Data may not fit into an explicit-VR length of 16 bits."""

MASK_STEP = 4
"""The breast's mask is found on every fourth pixel: it needs a margin of several pixels anyway."""

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class HeatGrid:
    """Where the cells of a heatmap lie: the centre of cell (r, c) is at offset + stride * (r, c); both (y, x)."""

    stride: tuple[float, float]
    offset: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One region of heat. `contour` (N, 2) of (x, y), closed, N <= 500; `centre` (x, y) lies inside it."""

    peak_heat: float
    centre: tuple[float, float]
    contour: NDArray[np.float64]


def register_heatmap(heat: NDArray[np.float32], grid: HeatGrid, rows: int, columns: int) -> NDArray[np.float32]:
    """Heat (..., h, w) of cells to heat (..., rows, columns) at the centres of the model's pixels.

    Bilinear between the centres of the cells' receptive fields, constant beyond the outermost ones: h x w is never
    stretched onto the image, which would shift marks.
    """
    lower, upper, share = _neighbours(heat.shape[-2], rows, grid.stride[0], grid.offset[0])
    share = share[:, None]
    tall = heat[..., lower, :] * (1 - share) + heat[..., upper, :] * share
    lower, upper, share = _neighbours(heat.shape[-1], columns, grid.stride[1], grid.offset[1])
    return np.asarray(tall[..., lower] * (1 - share) + tall[..., upper] * share, dtype=np.float32)


def _neighbours(
    cells: int, pixels: int, stride: float, offset: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For the centre of each pixel: the cells before and after it, and how far it lies between them, in [0, 1]."""
    position = np.clip((np.arange(pixels) + 0.5 - offset) / stride, 0.0, cells - 1.0)
    lower = np.minimum(position.astype(np.intp), max(cells - 2, 0))
    return lower, np.minimum(lower + 1, cells - 1), (position - lower).astype(np.float32)


def breast_mask(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (H, W) of the breast in a model image: the largest bright component, filled, and a margin around it.

    Generous by design: it only keeps marks off the background, labels and padding. An image without contrast, or one
    whose component is a speck, is all breast.
    """
    core = breast_core(pixels)
    if core is None:
        return np.ones(pixels.shape, dtype=bool)
    margin = max(1.0, 0.012 * max(core.shape))
    grown = ndimage.distance_transform_edt(~core) <= margin
    whole = grown.repeat(MASK_STEP, axis=0).repeat(MASK_STEP, axis=1)
    return np.asarray(whole[: pixels.shape[0], : pixels.shape[1]])


def breast_core(pixels: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The largest bright component of a model image, filled, on every MASK_STEP-th pixel from the first; no margin.

    None for an image without contrast, or one whose component is a speck.
    """
    small = pixels[::MASK_STEP, ::MASK_STEP]
    level = max(0.2 * _otsu(small), 0.01)
    labels, count = ndimage.label(small > level, structure=_EIGHT_CONNECTED)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < 0.02 * small.size:
        return None
    return np.asarray(ndimage.binary_fill_holes(labels == int(sizes.argmax())), dtype=bool)


def _otsu(pixels: NDArray[np.float32]) -> float:
    """The threshold in [0, 1] that separates two classes best (Otsu 1979), over 128 bins."""
    counts, edges = np.histogram(pixels, bins=128, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between = np.where(np.isfinite(between), between, 0.0)
    return float(centres[between >= between.max() * (1.0 - 1e-9)].mean())


def find_regions(
    heat: NDArray[np.float32],
    registered: NDArray[np.float32],
    grid: HeatGrid,
    inside: NDArray[np.bool_],
    threshold: float,
    limit: int,
    share: float = 0.0,
) -> tuple[Region, ...]:
    """Regions of cell heat (h, w), `registered` (H, W) on the image whose breast is `inside` (H, W); hottest first.

    A region is marked where heat inside the breast reaches `threshold`: one for each 8-connected component. Its
    contour runs at half of its own peak (as boxes are scored), which may lie below the threshold. Where that would
    swallow a weaker component, the two become one region; where it would touch a stronger region, the contour runs at
    the threshold instead. At most `limit` regions, none whose peak is below `share` of the hottest one's.
    """
    if threshold <= 0.0:
        raise ValueError(f"a threshold of heat is above 0, not {threshold}")
    seen = np.where(inside, registered, np.float32(0.0))
    taken = np.zeros(inside.shape, dtype=bool)
    regions: list[Region] = []
    for peak in _peaks(seen, threshold):
        if regions and (len(regions) == limit or seen[peak] < share * regions[0].peak_heat):
            break
        if taken[peak]:
            continue
        level = HALF_MAXIMUM * float(seen[peak])
        members = _component(seen >= level, peak)
        if level < threshold and (members & taken).any():
            level = threshold
            members = _component(seen >= level, peak)
        taken |= members
        contour = simplify(_outline(seen, members, level, peak))
        centre = _inner_point(contour, _peak_centre(heat, grid, peak), peak)
        regions.append(Region(float(seen[peak]), centre, contour))
    return tuple(regions)


def _peaks(heat: NDArray[np.float32], threshold: float) -> list[tuple[int, int]]:
    """The hottest pixel (row, column) of each component that reaches `threshold`, the hottest first."""
    labels, _ = ndimage.label(heat >= threshold, structure=_EIGHT_CONNECTED)
    peaks = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        own = np.where(labels[rows, columns] == label, heat[rows, columns], np.float32(-1.0))
        row, column = np.unravel_index(int(own.argmax()), own.shape)
        peaks.append((int(rows.start + row), int(columns.start + column)))
    return sorted(peaks, key=lambda at: (-heat[at], at))


def _component(above: NDArray[np.bool_], at: tuple[int, int]) -> NDArray[np.bool_]:
    """The 8-connected component of `above` that holds the pixel `at` (row, column)."""
    labels, _ = ndimage.label(above, structure=_EIGHT_CONNECTED)
    return np.asarray(labels == labels[at])


def _outline(
    heat: NDArray[np.float32], members: NDArray[np.bool_], level: float, peak: tuple[int, int]
) -> NDArray[np.float64]:
    """Outer contour (N, 2) of the members at `level`, closed, by marching squares on the pixels' centres."""
    rows, columns = np.nonzero(members.any(axis=1))[0], np.nonzero(members.any(axis=0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    padded_heat = np.pad(heat, 1)[top : bottom + 2, left : right + 2]
    padded_members = np.pad(members, 1)[top : bottom + 2, left : right + 2]
    near = np.asarray(ndimage.binary_dilation(padded_members, structure=_EIGHT_CONNECTED))
    field = np.where(padded_members, padded_heat, np.where(near, np.minimum(padded_heat, 0.999 * level), 0.0))
    x = np.arange(left - 1, right + 1) + 0.5
    y = np.arange(top - 1, bottom + 1) + 0.5
    lines = contourpy.contour_generator(x, y, field.astype(np.float64)).lines(level * (1.0 - 1e-6))
    closed = [np.asarray(line) for line in lines if len(line) > 3]
    around = [line for line in closed if contains(line, (peak[1] + 0.5, peak[0] + 0.5))]
    outline = max(around or closed, key=lambda line: abs(signed_area(line)))
    return np.asarray(np.clip(outline, 0.0, np.array([heat.shape[1], heat.shape[0]], dtype=np.float64)))


def _peak_centre(heat: NDArray[np.float32], grid: HeatGrid, peak: tuple[int, int]) -> tuple[float, float]:
    """The maximum (x, y) between cells: a parabola through the logarithm of the peak cell and its neighbours.

    Exact for a Gaussian; never further than half a cell from the hottest cell's centre.
    """
    row, column = (
        int(np.clip(round((at + 0.5 - offset) / stride), 0, cells - 1))
        for at, offset, stride, cells in zip(peak, grid.offset, grid.stride, heat.shape, strict=True)
    )
    y = grid.offset[0] + grid.stride[0] * (row + _vertex(heat[:, column], row))
    x = grid.offset[1] + grid.stride[1] * (column + _vertex(heat[row, :], column))
    return x, y


def _vertex(line: NDArray[np.float32], at: int) -> float:
    """Where the parabola through the logarithms of `at` and its neighbours (at an end, the next two) has its top."""
    if len(line) < 3:
        return 0.0
    middle = min(max(at, 1), len(line) - 2)
    floor = max(1e-3 * float(line[at]), 1e-12)
    before, here, after = np.log(np.maximum(line[middle - 1 : middle + 2].astype(np.float64), floor))
    curvature = before - 2.0 * here + after
    top = middle + 0.5 * (before - after) / curvature if curvature < 0.0 else float(at)
    return float(np.clip(top - at, -0.5, 0.5))


def _inner_point(
    contour: NDArray[np.float64], wanted: tuple[float, float], peak: tuple[int, int]
) -> tuple[float, float]:
    """`wanted` where it lies inside the contour, else the peak's pixel, else the middle of the widest chord there."""
    at_pixel = (peak[1] + 0.5, peak[0] + 0.5)
    for point in (wanted, at_pixel):
        if contains(contour, point):
            return point
    y = float(np.clip(at_pixel[1], contour[:, 1].min() + 1e-3, contour[:, 1].max() - 1e-3))
    crossings = np.sort(_crossings(contour, y))
    widths = crossings[1::2] - crossings[0::2]
    widest = int(widths.argmax())
    return float(crossings[2 * widest] + widths[widest] / 2), y


def _crossings(contour: NDArray[np.float64], y: float) -> NDArray[np.float64]:
    """The x at which a closed contour crosses the horizontal line y; an even number of them."""
    start, end = contour[:-1], contour[1:]
    crossing = (start[:, 1] > y) != (end[:, 1] > y)
    start, end = start[crossing], end[crossing]
    return np.asarray(start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0]))


def contains(contour: NDArray[np.float64], point: tuple[float, float]) -> bool:
    """Whether the point (x, y) lies inside a closed contour (even-odd rule)."""
    return int((_crossings(contour, point[1]) > point[0]).sum()) % 2 == 1


def signed_area(contour: NDArray[np.float64]) -> float:
    """Area inside a closed contour, in square pixels; the sign tells its direction."""
    x, y = contour[:, 0], contour[:, 1]
    return float(0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def simplify(
    contour: NDArray[np.float64], tolerance_px: float = SIMPLIFY_PX, limit: int = MAXIMUM_CONTOUR_POINTS
) -> NDArray[np.float64]:
    """A closed contour with fewer points, each point left out within `tolerance_px` of it (Douglas and Peucker 1973).

    Where more than `limit` points would stay, the tolerance is raised by half until they do not: the limit wins.
    """
    far = int(np.argmax(((contour - contour[0]) ** 2).sum(axis=1)))
    if far in (0, len(contour) - 1):
        return contour
    while True:
        there = _simplify_open(contour[: far + 1], tolerance_px)
        back = _simplify_open(contour[far:], tolerance_px)
        kept = np.concatenate([there, back[1:]])
        if len(kept) <= limit:
            return kept if len(kept) > 3 else contour[:limit]
        tolerance_px *= 1.5


def _simplify_open(line: NDArray[np.float64], tolerance_px: float) -> NDArray[np.float64]:
    """Douglas and Peucker on an open line; both ends stay."""
    keep = np.zeros(len(line), dtype=bool)
    keep[[0, -1]] = True
    stack = [(0, len(line) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        distance = _distance(line[first + 1 : last], line[first], line[last])
        worst = int(distance.argmax())
        if distance[worst] > tolerance_px:
            middle = first + 1 + worst
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return line[keep]


def _distance(points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances of points (N, 2) from the segment between start and end."""
    along = end - start
    length_squared = float(along @ along)
    share = (
        np.clip((points - start) @ along / length_squared, 0.0, 1.0) if length_squared > 0.0 else np.zeros(len(points))
    )
    return np.asarray(np.linalg.norm(points - start - share[:, None] * along, axis=1))
