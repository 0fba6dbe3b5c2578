"""Phantom exams rendered once: prepared views as 8-bit images with their truth, one file an exam."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from node.mammography.findings import FINDING_KINDS
from node.mammography.pixels import Placement, prepare_display, preset
from node.mammography.views import STANDARD_VIEWS
from training.phantoms import GENERATOR_VERSION, RenderedView, Truth, make_exam, render_view

PRESET = "fit-760x456"
"""Preprocessing of the first model."""

RENDER_MM = 0.28
"""Pixel size at which phantoms are rendered before they are prepared: 1024 x 832 pixels."""

NO_FINDING = -1
"""Kind of an object that looks like a lesion and is none."""


@dataclass(frozen=True, slots=True)
class TruthBox:
    """One object in one view: `kind` counts in FINDING_KINDS or is NO_FINDING; edges in model pixels, half-open."""

    view: int
    kind: int
    malignant: bool
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True, eq=False)
class CachedExam:
    """A prepared exam: `images` and `flags` uint8 (4, H, W); bit k of a flag: finding k is there, bit 7: malignant."""

    seed: int
    images: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    boxes: tuple[TruthBox, ...]
    malignant_breasts: tuple[bool, bool]
    density: int

    def mask(self, view: int, kind: int) -> npt.NDArray[np.bool_]:
        """Pixels of one view where a finding of this kind lies, bool (H, W)."""
        plane: npt.NDArray[np.bool_] = (self.flags[view] >> kind & 1).astype(np.bool_)
        return plane

    def finding_boxes(self, view: int, kind: int) -> list[tuple[float, float, float, float]]:
        """Left, top, right, bottom in model pixels of each lesion of this kind in one view."""
        return [(b.left, b.top, b.right, b.bottom) for b in self.boxes if (b.view, b.kind) == (view, kind)]

    def findings(self, count: int) -> npt.NDArray[np.bool_]:
        """Which of the first `count` kinds each view shows, bool (4, count)."""
        return np.array([[self.mask(view, kind).any() for kind in range(count)] for view in range(4)])


@dataclass(frozen=True, slots=True)
class ExamTruth:
    """What is known of a cached exam, without its images."""

    seed: int
    boxes: tuple[TruthBox, ...]
    malignant_breasts: tuple[bool, bool]
    density: int


def exam_path(folder: Path, seed: int) -> Path:
    """File of one exam; the generator's version is part of the name."""
    return folder / f"phantom-{GENERATOR_VERSION}-{seed:07d}.npz"


def prepare_exam(seed: int, *, pixel_mm: float = RENDER_MM, preset_name: str = PRESET) -> CachedExam:
    """Render and prepare the four views of one seed."""
    exam = make_exam(seed)
    images, flags, boxes = [], [], []
    for index, view in enumerate(STANDARD_VIEWS):
        rendered = render_view(exam, view, pixel_mm)
        prepared = prepare_display(rendered.pixels, view.laterality, preset(preset_name))
        images.append(np.round(prepared.pixels * 255.0).astype(np.uint8))
        plane, found = truth_in_model(rendered, prepared.placement, index)
        flags.append(plane)
        boxes += found
    return CachedExam(
        seed, np.stack(images), np.stack(flags), tuple(boxes), exam.malignant_breasts, "ABCD".index(exam.density)
    )


def truth_in_model(
    rendered: RenderedView, placement: Placement, view: int
) -> tuple[npt.NDArray[np.uint8], list[TruthBox]]:
    """Truth of one view in model pixels: the flag plane and a box for each object that the crop shows."""
    rows, columns = _stored_indices(placement)
    plane, boxes = np.zeros((placement.model_rows, placement.model_columns), np.uint8), []
    for truth in rendered.truth:
        mask = _sample(truth, rows, columns)
        if not mask.any():
            continue
        kind = NO_FINDING if truth.finding is None else FINDING_KINDS.index(truth.finding)
        if truth.finding is not None:
            plane[mask] |= np.uint8((1 << kind) | (128 if truth.malignant else 0))
        boxes.append(_box(mask, view, kind, truth.malignant))
    return plane, boxes


def _stored_indices(placement: Placement) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Stored row of each model row and stored column of each model column; -1 outside the stored image."""
    centres = np.arange(max(placement.model_rows, placement.model_columns)) + 0.5
    stored = np.floor(placement.to_stored(np.stack([centres, centres], axis=1))).astype(np.intp)
    columns, rows = stored[: placement.model_columns, 0], stored[: placement.model_rows, 1]
    rows = np.where((rows >= 0) & (rows < placement.stored_rows), rows, -1)
    columns = np.where((columns >= 0) & (columns < placement.stored_columns), columns, -1)
    return rows, columns


def _sample(truth: Truth, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """The object's mask at the model's pixels, read from its patch."""
    height, width = truth.patch.shape
    r, c = rows - truth.top, columns - truth.left
    inside = ((rows >= 0) & (r >= 0) & (r < height))[:, None] & ((columns >= 0) & (c >= 0) & (c < width))[None, :]
    values = truth.patch[np.clip(r, 0, height - 1)[:, None], np.clip(c, 0, width - 1)[None, :]]
    return np.asarray(values & inside, dtype=np.bool_)


def _box(mask: npt.NDArray[np.bool_], view: int, kind: int, malignant: bool) -> TruthBox:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return TruthBox(view, kind, malignant, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def save_exam(folder: Path, exam: CachedExam) -> Path:
    """Write one exam, whole or not at all."""
    path = exam_path(folder, exam.seed)
    table = [[b.view, b.kind, b.malignant, b.left, b.top, b.right, b.bottom] for b in exam.boxes]
    part = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        part,
        images=exam.images,
        flags=np.frombuffer(zlib.compress(exam.flags.tobytes(), 1), np.uint8),
        boxes=np.array(table, np.int32).reshape(-1, 7),
        exam=np.array([exam.seed, *exam.malignant_breasts, exam.density], np.int32),
    )
    part.replace(path)
    return path


def load_exam(path: Path) -> CachedExam:
    """Read one exam written by `save_exam`."""
    with np.load(path) as file:
        images: npt.NDArray[np.uint8] = file["images"]
        flags = np.frombuffer(zlib.decompress(file["flags"].tobytes()), np.uint8).reshape(images.shape)
        truth = _truth(file["boxes"], file["exam"])
    return CachedExam(truth.seed, images, flags, truth.boxes, truth.malignant_breasts, truth.density)


def load_truth(path: Path) -> ExamTruth:
    """The truth of an exam written by `save_exam`; its images are not read."""
    with np.load(path) as file:
        return _truth(file["boxes"], file["exam"])


def _truth(table: npt.NDArray[np.int32], exam: npt.NDArray[np.int32]) -> ExamTruth:
    boxes = tuple(TruthBox(row[0], row[1], bool(row[2]), *row[3:]) for row in table.tolist())
    seed, right, left, density = exam.tolist()
    return ExamTruth(seed, boxes, (bool(right), bool(left)), density)


def render_seeds(folder: Path, first: int, count: int, preset_name: str = PRESET) -> int:
    """Render the seeds first..first + count - 1 that are not there yet; returns how many were made.

    A folder holds exams of one preset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    for seed in range(first, first + count):
        if not exam_path(folder, seed).exists():
            save_exam(folder, prepare_exam(seed, preset_name=preset_name))
            made += 1
    return made


def cached_seeds(folder: Path, first: int, count: int) -> tuple[Path, ...]:
    """Files of those seeds that are there, in order."""
    return tuple(path for seed in range(first, first + count) if (path := exam_path(folder, seed)).exists())
