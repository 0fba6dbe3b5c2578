"""A view of a phantom exam at any pixel size: display values and truth masks."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from node.mammography.findings import FindingKind
from node.mammography.views import Laterality, View
from training.phantoms.anatomy import FIELD_HEIGHT_MM, FIELD_WIDTH_MM, FloatArray, Projection
from training.phantoms.appearance import distractor_shapes, lesion_shapes
from training.phantoms.draw import Shapes, add_shapes, region_mask
from training.phantoms.exam import PhantomExam
from training.phantoms.lesions import Distractor, Lesion
from training.phantoms.texture import COARSE, GRID_COLUMNS, GRID_MM, grow_tissue, resample, stream

_FAT = 0.30
_NOISE_AT_GRID = 0.014
"""Standard deviation of the x-ray noise in display values, at pixels of 0.28 mm."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Truth:
    """Where one object lies in one view. `finding` is None for what is no lesion; `index` counts in the exam's tuple.

    The mask is kept as a patch whose top-left pixel is (top, left) of the stored image.
    """

    finding: FindingKind | None
    malignant: bool
    index: int
    patch: BoolArray
    top: int
    left: int
    shape: tuple[int, int]

    @property
    def mask(self) -> BoolArray:
        """The object's pixels, bool (rows, columns)."""
        full = np.zeros(self.shape, dtype=np.bool_)
        full[self.top : self.top + self.patch.shape[0], self.left : self.left + self.patch.shape[1]] = self.patch
        return full


@dataclass(frozen=True, slots=True)
class RenderedView:
    """Display values in [0, 1], float32 (rows, columns): dense tissue is bright, air is 0. Pixels are square."""

    view: View
    pixels: FloatArray
    pixel_mm: float
    truth: tuple[Truth, ...]

    def finding_mask(self, finding: FindingKind) -> BoolArray:
        """All lesions of one kind together, bool (rows, columns)."""
        masks = [truth.mask for truth in self.truth if truth.finding is finding]
        empty = np.zeros(self.pixels.shape, dtype=np.bool_)
        return np.asarray(np.logical_or.reduce([empty, *masks]), dtype=np.bool_)


def render_view(
    exam: PhantomExam, view: View, pixel_mm: float, *, rows: int | None = None, columns: int | None = None
) -> RenderedView:
    """One of the four standard views on the whole detector, about 287 x 233 mm unless rows and columns say otherwise.

    The chest wall stands on the right edge for right breasts, on the left edge for left ones.
    """
    rows = rows or round(FIELD_HEIGHT_MM / pixel_mm)
    columns = columns or round(FIELD_WIDTH_MM / pixel_mm)
    projection = exam.projection(view)
    tissue = grow_tissue(exam.seed, exam.woman, view, projection)
    width = min(columns, round(GRID_COLUMNS * GRID_MM / pixel_mm))
    opacity = resample(tissue.opacity, GRID_MM, rows, width, pixel_mm).copy()
    depth = resample(tissue.depth, GRID_MM * COARSE, rows, width, pixel_mm)
    objects = _objects(exam, view, projection)
    for _, shapes in objects:
        add_shapes(opacity, shapes, pixel_mm)
    _raise_nipple(depth, opacity, projection, pixel_mm)
    breast = _expose(opacity, depth, projection, exam, pixel_mm)
    breast += _noise(exam, view, pixel_mm, breast)
    pixels = np.zeros((rows, columns), dtype=np.float32)
    pixels[:, :width] = np.clip(breast, 0.0, 1.0)
    truth = tuple(_truth(thing, shapes, exam, pixel_mm, depth, rows, columns) for thing, shapes in objects)
    seen = tuple(t for t in truth if t is not None)
    if view.laterality is Laterality.RIGHT:
        pixels, seen = np.ascontiguousarray(pixels[:, ::-1]), tuple(_mirror(t) for t in seen)
    return RenderedView(view, pixels, pixel_mm, seen)


def _objects(exam: PhantomExam, view: View, projection: Projection) -> list[tuple[Lesion | Distractor, Shapes]]:
    """What this view shows, with its shapes in the view's millimetres."""
    found: list[tuple[Lesion | Distractor, Shapes]] = []
    for lesion in exam.lesions:
        if lesion.laterality is view.laterality:
            centre = projection.locate(lesion.site.nipple_distance_mm, lesion.site.angle_in(view.position))
            found.append((lesion, lesion_shapes(lesion, view.position, centre)))
    for thing in exam.distractors:
        if thing.laterality is view.laterality and view.position in thing.positions:
            centre = projection.locate(thing.site.nipple_distance_mm, thing.site.angle_in(view.position))
            found.append((thing, distractor_shapes(thing, view.position, centre, projection.nipple)))
    return found


def _raise_nipple(depth: FloatArray, opacity: FloatArray, projection: Projection, pixel_mm: float) -> None:
    """Joins a disc to the outline at the nipple, in place."""
    radius = projection.nipple_radius_mm
    x, y = projection.depth_mm - 0.6 * radius, projection.nipple_y_mm
    top, bottom = int((y - 2 * radius) / pixel_mm), int((y + 2 * radius) / pixel_mm)
    left, right = int((x - 2 * radius) / pixel_mm), int((x + 2 * radius) / pixel_mm)
    part = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
    if 0 in depth[part].shape:
        return
    rows = (np.arange(part[0].start, part[0].start + depth[part].shape[0], dtype=np.float32) + 0.5) * pixel_mm
    columns = (np.arange(part[1].start, part[1].start + depth[part].shape[1], dtype=np.float32) + 0.5) * pixel_mm
    disc = np.float32(radius) - np.hypot(columns[None, :] - np.float32(x), rows[:, None] - np.float32(y))
    disc = disc.astype(np.float32)
    opacity[part] += 0.10 * np.clip(disc / 2.0, 0.0, 1.0)
    depth[part] = np.maximum(depth[part], disc)


def _expose(
    opacity: FloatArray, depth: FloatArray, projection: Projection, exam: PhantomExam, pixel_mm: float
) -> FloatArray:
    """From opacity to display values: thinner towards the skin, a skin line, soft shoulder at the bright end."""
    t = np.clip(depth / np.float32(projection.falloff_mm), 0.0, 1.0)
    thickness = np.sqrt(t * (2.0 - t))
    skin = np.exp(-(((depth - 0.8) / 0.7) ** 2))
    light = (np.float32(_FAT + exam.woman.brightness) * thickness + opacity * np.sqrt(thickness) + 0.10 * skin) * (
        np.float32(projection.gain)
    )
    light = np.maximum(light, 0.0)
    inside = np.clip(depth / np.float32(pixel_mm) + 0.5, 0.0, 1.0)
    return np.asarray(np.tanh(light * np.float32(1.15)) * inside, dtype=np.float32)


def _noise(exam: PhantomExam, view: View, pixel_mm: float, breast: FloatArray) -> FloatArray:
    """X-ray noise: white, its variance inverse to the pixel's area, more where the image is bright; none in air."""
    side = (1 if view.laterality is Laterality.RIGHT else 2, 1 if view.position.value == "CC" else 2)
    white = stream(exam.seed, 21, *side, round(pixel_mm * 10_000)).standard_normal(breast.shape, dtype=np.float32)
    strength = np.float32(_NOISE_AT_GRID * GRID_MM / pixel_mm)
    return np.asarray(white * strength * np.sqrt(breast + 0.15) * (breast > 0.01), dtype=np.float32)


def _truth(
    thing: Lesion | Distractor,
    shapes: Shapes,
    exam: PhantomExam,
    pixel_mm: float,
    depth: FloatArray,
    rows: int,
    columns: int,
) -> Truth | None:
    """The object's mask inside the breast, or None where the view does not reach it."""
    frame, patch = region_mask(shapes.region, pixel_mm, *depth.shape)
    patch = patch & (depth[frame.slices] > 0)
    if not patch.any():
        return None
    index = exam.lesions.index(thing) if isinstance(thing, Lesion) else exam.distractors.index(thing)
    return Truth(
        finding=thing.finding if isinstance(thing, Lesion) else None,
        malignant=isinstance(thing, Lesion) and thing.malignant,
        index=index,
        patch=patch,
        top=frame.top,
        left=frame.left,
        shape=(rows, columns),
    )


def _mirror(truth: Truth) -> Truth:
    left = truth.shape[1] - truth.left - truth.patch.shape[1]
    patch = np.ascontiguousarray(truth.patch[:, ::-1])
    return Truth(truth.finding, truth.malignant, truth.index, patch, truth.top, left, truth.shape)
