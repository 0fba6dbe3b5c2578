"""Shapes in millimetres of a view, and how they are added to its opacity at any pixel size."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Table = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Star:
    """A closed shape seen from its centre: an ellipse whose radius varies by harmonics (order, amplitude, phase)."""

    x_mm: float
    y_mm: float
    radius_mm: float
    aspect: float = 1.0
    angle: float = 0.0
    harmonics: tuple[tuple[int, float, float], ...] = ()

    @property
    def reach_mm(self) -> float:
        """No point of the shape is farther from its centre."""
        return self.radius_mm * max(self.aspect, 1.0) * (1.0 + sum(abs(a) for _, a, _ in self.harmonics))

    def radius_in(self, direction: FloatArray) -> FloatArray:
        """Radius in each direction (radians), in mm."""
        turned = direction - np.float32(self.angle)
        stretch = 1.0 / np.sqrt((np.cos(turned) / self.aspect) ** 2 + (np.sin(turned)) ** 2)
        wave = np.ones_like(direction)
        for order, amplitude, phase in self.harmonics:
            wave += np.float32(amplitude) * np.cos(order * turned + np.float32(phase))
        return np.asarray(self.radius_mm * stretch * wave, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Blob:
    """A star filled with opacity: `dome` 0 is a flat disc, 1 the projection of a ball; `edge_mm` softens its margin."""

    star: Star
    opacity: float
    edge_mm: float
    dome: float


def _no_rows(width: int) -> Table:
    return np.zeros((0, width))


@dataclass(frozen=True, slots=True)
class Shapes:
    """All that one object adds to one view, and the region that counts as the object.

    specks: rows of (x, y, size, opacity), size the full width at half maximum in mm.
    lines: rows of (x0, y0, x1, y1, width, opacity at the start, opacity at the end).
    """

    region: Star
    blobs: tuple[Blob, ...] = ()
    specks: Table = field(default_factory=lambda: _no_rows(4))
    lines: Table = field(default_factory=lambda: _no_rows(7))


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels of the view, and the coordinates of their centres in mm."""

    top: int
    left: int
    bottom: int
    right: int
    pixel_mm: float

    @property
    def x_mm(self) -> FloatArray:
        """Column centres, shape (1, columns)."""
        return ((np.arange(self.left, self.right, dtype=np.float32) + 0.5) * np.float32(self.pixel_mm))[None, :]

    @property
    def y_mm(self) -> FloatArray:
        """Row centres, shape (rows, 1)."""
        return ((np.arange(self.top, self.bottom, dtype=np.float32) + 0.5) * np.float32(self.pixel_mm))[:, None]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def empty(self) -> bool:
        """No pixel of the view lies inside."""
        return self.bottom <= self.top or self.right <= self.left


def window(box_mm: tuple[float, float, float, float], pixel_mm: float, rows: int, columns: int) -> Window:
    """Pixels that a box (left, top, right, bottom in mm) touches, cut at the view's edges."""
    left, top, right, bottom = box_mm
    return Window(
        top=int(np.clip(np.floor(top / pixel_mm), 0, rows)),
        left=int(np.clip(np.floor(left / pixel_mm), 0, columns)),
        bottom=int(np.clip(np.ceil(bottom / pixel_mm), 0, rows)),
        right=int(np.clip(np.ceil(right / pixel_mm), 0, columns)),
        pixel_mm=pixel_mm,
    )


def region_mask(star: Star, pixel_mm: float, rows: int, columns: int) -> tuple[Window, npt.NDArray[np.bool_]]:
    """The pixels whose centres lie inside a star."""
    frame = _around(star.x_mm, star.y_mm, star.reach_mm, pixel_mm, rows, columns)
    dx, dy = frame.x_mm - np.float32(star.x_mm), frame.y_mm - np.float32(star.y_mm)
    return frame, np.hypot(dx, dy) <= star.radius_in(np.arctan2(dy, dx))


def add_shapes(layer: FloatArray, shapes: Shapes, pixel_mm: float) -> None:
    """Adds blobs, lines and specks to `layer` (rows, columns), in place."""
    for blob in shapes.blobs:
        _add_blob(layer, blob, pixel_mm)
    _add_lines(layer, shapes.lines, pixel_mm)
    for x, y, size, opacity in shapes.specks:
        _add_speck(layer, x, y, size, opacity, pixel_mm)


def _around(x: float, y: float, reach: float, pixel_mm: float, rows: int, columns: int) -> Window:
    return window((x - reach, y - reach, x + reach, y + reach), pixel_mm, rows, columns)


def _add_blob(layer: FloatArray, blob: Blob, pixel_mm: float) -> None:
    star = blob.star
    frame = _around(star.x_mm, star.y_mm, star.reach_mm + 2.0 * blob.edge_mm, pixel_mm, *layer.shape)
    if frame.empty:
        return
    dx, dy = frame.x_mm - np.float32(star.x_mm), frame.y_mm - np.float32(star.y_mm)
    distance = np.hypot(dx, dy)
    radius = star.radius_in(np.arctan2(dy, dx))
    inside = np.clip(1.0 - (distance / np.maximum(radius, 1e-3)) ** 2, 0.0, 1.0)
    ball = (1.0 - blob.dome) + blob.dome * np.sqrt(inside)
    edge = max(blob.edge_mm, 0.6 * pixel_mm)
    t = np.clip((radius - distance) / (2.0 * edge) + 0.5, 0.0, 1.0)
    layer[frame.slices] += np.float32(blob.opacity) * (t * t * (3.0 - 2.0 * t)) * ball


def _add_lines(layer: FloatArray, lines: Table, pixel_mm: float) -> None:
    """Lines of one object are joined by the maximum, then added, so that crossings do not shine."""
    if not len(lines):
        return
    reach = 2.0 * float(lines[:, 4].max())
    xs, ys = lines[:, [0, 2]], lines[:, [1, 3]]
    box = (xs.min() - reach, ys.min() - reach, xs.max() + reach, ys.max() + reach)
    frame = window(box, pixel_mm, *layer.shape)
    if frame.empty:
        return
    scratch = np.zeros(layer[frame.slices].shape, dtype=np.float32)
    for line in lines:
        _join_line(scratch, frame, line)
    layer[frame.slices] += scratch


def _join_line(scratch: FloatArray, frame: Window, line: Table) -> None:
    x0, y0, x1, y1, width, start, end = (float(value) for value in line)
    reach = 2.0 * width
    box = (min(x0, x1) - reach, min(y0, y1) - reach, max(x0, x1) + reach, max(y0, y1) + reach)
    part = window(box, frame.pixel_mm, frame.bottom, frame.right)
    part = Window(max(part.top, frame.top), max(part.left, frame.left), part.bottom, part.right, frame.pixel_mm)
    if part.empty:
        return
    length2 = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-6)
    dx, dy = part.x_mm - np.float32(x0), part.y_mm - np.float32(y0)
    t = np.clip((dx * (x1 - x0) + dy * (y1 - y0)) / np.float32(length2), 0.0, 1.0)
    away2 = (dx - t * np.float32(x1 - x0)) ** 2 + (dy - t * np.float32(y1 - y0)) ** 2
    sigma2 = (width / 2.355) ** 2
    blurred = sigma2 + _blur2(frame.pixel_mm)
    peak = np.float32(np.sqrt(sigma2 / blurred))
    drawn = (start + (end - start) * t) * peak * np.exp(away2 * np.float32(-0.5 / blurred))
    view = scratch[part.top - frame.top : part.bottom - frame.top, part.left - frame.left : part.right - frame.left]
    np.maximum(view, drawn, out=view)


def _blur2(pixel_mm: float) -> float:
    """Variance of the detector's blur and of the pixel's width, mm squared."""
    return 0.06**2 + pixel_mm**2 / 12.0


def _add_speck(layer: FloatArray, x: float, y: float, size: float, opacity: float, pixel_mm: float) -> None:
    """A Gaussian grain whose integral does not depend on the pixel."""
    sigma2 = (size / 2.355) ** 2
    blurred = sigma2 + _blur2(pixel_mm)
    frame = _around(x, y, 3.2 * float(np.sqrt(blurred)) + pixel_mm, pixel_mm, *layer.shape)
    if frame.empty:
        return
    away2 = (frame.x_mm - np.float32(x)) ** 2 + (frame.y_mm - np.float32(y)) ** 2
    layer[frame.slices] += np.float32(opacity * sigma2 / blurred) * np.exp(away2 * np.float32(-0.5 / blurred))
