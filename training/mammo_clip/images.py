"""Images decoded once: 8-bit grey planes of one size in a file that every process maps.

A plane is made as the model will see it, before augmentation. PNG and JPEG files count as preprocessed already; DICOM
goes through `node.mammography.pixels`, preset `mammo-clip`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

from node.errors import NodeError
from node.mammography.pixels import PreparedView, prepare, prepare_display, preset
from node.mammography.resize import resize_as_opencv
from node.mammography.views import Laterality
from training.cache import CachedExam, load_exam
from training.data import cut

Plane = NDArray[np.uint8]
DICOM_ENDINGS = ("", ".dcm", ".dicom", ".ima")
_WAIT_SECONDS = 0.5
UNREADABLE = (OSError, UnidentifiedImageError, InvalidDicomError, NodeError, ValueError, KeyError, AttributeError)
"""What reading a picture raises where the file holds none."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of one side."""

    path: Path
    laterality: Laterality

    def key(self) -> str:
        """Changes when the file does."""
        status = self.path.stat()
        return f"{self.path}|{status.st_size}|{status.st_mtime_ns}|{self.laterality.value}"

    def read(self) -> Plane:
        """Grey (rows, cols). Raises OSError, ValueError or NodeError where the file holds no such image."""
        if self.path.suffix.lower() in DICOM_ENDINGS:
            prepared = prepare(pydicom.dcmread(self.path), self.laterality, preset("mammo-clip"))
            plane: Plane = np.round(prepared.pixels * 255.0).astype(np.uint8)
            return plane
        with Image.open(self.path) as picture:
            return _grey(picture)


def _grey(picture: Image.Image) -> Plane:
    """8-bit grey; values of more bits are stretched from the least to the greatest, as the published step does."""
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture, np.float64)
        low, high = float(values.min()), float(values.max())
        return ((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    grey: Plane = np.asarray(picture.convert("L"))
    return grey


@dataclass(frozen=True, slots=True)
class PhantomView:
    """One of the four views of a cached phantom exam."""

    path: Path
    view: int

    def key(self) -> str:
        """The file's name carries the generator's version and the seed."""
        return f"{self.path.name}|{self.view}"

    def read(self) -> Plane:
        """Grey (rows, cols), chest wall on the left edge."""
        plane: Plane = latest_exam(self.path).images[self.view]
        return plane


@dataclass(frozen=True, slots=True)
class WholeImage:
    """A whole mammogram, DICOM or 8-bit picture, that a named preset of `node.mammography.pixels` prepares.

    `laterality` None: not known; the chest wall is then found in the pixels alone.
    """

    path: Path
    laterality: Laterality | None
    preset: str

    def key(self) -> str:
        """Changes when the file does."""
        status = self.path.stat()
        side = self.laterality.value if self.laterality else ""
        return f"{self.path}|{status.st_size}|{status.st_mtime_ns}|{side}|{self.preset}"

    def read(self) -> Plane:
        """Grey (rows, cols) of the preset. Raises OSError, ValueError or NodeError where the file is no such image."""
        plane: Plane = np.round(self.prepared().pixels * 255.0).astype(np.uint8)
        return plane

    def prepared(self) -> PreparedView:
        """The model input and where it lies in the file's pixels."""
        side = self.laterality or Laterality.LEFT
        if self.path.suffix.lower() in DICOM_ENDINGS:
            return prepare(pydicom.dcmread(self.path), side, preset(self.preset))
        return prepare_display(picture_display(self.path), side, preset(self.preset))


def picture_display(path: Path) -> NDArray[np.float32]:
    """Display values (rows, cols) in [0, 1] of a PNG or JPEG. Raises OSError where the file is none."""
    with Image.open(path) as picture:
        return _grey(picture).astype(np.float32) / np.float32(255.0)


@dataclass(frozen=True, slots=True)
class PhantomTile:
    """A square of one view of a cached phantom exam, `size` pixels a side around (x, y); 0 outside the view."""

    path: Path
    view: int
    x: int
    y: int
    size: int

    def key(self) -> str:
        """The file's name carries the generator's version and the seed."""
        return f"{self.path.name}|{self.view}|{self.x}|{self.y}|{self.size}"

    def read(self) -> Plane:
        """Grey (size, size), moved inside the view where it can be."""
        return cut(latest_exam(self.path).images[self.view], self.x, self.y, self.size)


@lru_cache(4)
def latest_exam(path: Path) -> CachedExam:
    """Views and tiles of one exam are asked for one after the other."""
    return load_exam(path)


Picture = ImageFile | PhantomView | WholeImage | PhantomTile


class Readable(Protocol):
    """What `decode` takes: `key` changes when the picture does, `read` gives its plane."""

    @property
    def path(self) -> Path:
        """The file."""

    def key(self) -> str:
        """Its name, which changes when it does."""

    def read(self) -> Plane:
        """Grey (rows, cols)."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """`planes` uint8 (N, H, W); `problems` says of the number of a picture why it could not be read: its plane is 0."""

    planes: Plane
    problems: dict[int, str]


def decode(
    pictures: Sequence[Readable], size: tuple[int, int], folder: Path, *, threads: int = 1, first: bool = True
) -> Decoded:
    """Decode pictures to planes of `size` (H, W) in `folder`, or map what an earlier run decoded there.

    Of the processes of one machine one is the `first` and decodes; the others wait for its file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = "\n".join(picture.key() for picture in pictures)
    digest = hashlib.sha256(f"{size}\n{names}".encode()).hexdigest()[:24]
    planes, record = folder / f"decoded-{digest}.u8", folder / f"decoded-{digest}.json"
    shape = (len(pictures), *size)
    if first and not record.exists():
        problems = _decode_into(planes, pictures, shape, threads)
        _write_whole(record, json.dumps(problems))
    while not record.exists():
        time.sleep(_WAIT_SECONDS)
    problems = {int(number): words for number, words in json.loads(record.read_text(encoding="utf-8")).items()}
    return Decoded(np.memmap(planes, np.uint8, "r", shape=shape), problems)


def _decode_into(path: Path, pictures: Sequence[Readable], shape: tuple[int, int, int], threads: int) -> dict[int, str]:
    part = path.with_suffix(".part")
    planes = np.memmap(part, np.uint8, "w+", shape=shape)

    def one(number: int) -> str:
        try:
            planes[number] = of_size(pictures[number].read(), shape[1:])
        except UNREADABLE as error:
            return f"{pictures[number].path}: cannot be read as an image: {type(error).__name__}: {error}"
        return ""

    report: Callable[[int], None] = _progress(len(pictures))
    problems = {}
    with ThreadPoolExecutor(threads) as pool:
        for number, words in enumerate(pool.map(one, range(len(pictures)))):
            report(number + 1)
            if words:
                problems[number] = words
    planes.flush()
    part.replace(path)
    return problems


def of_size(plane: Plane, size: tuple[int, int]) -> Plane:
    """The plane at `size` (H, W), by area means where it shrinks."""
    return plane if plane.shape == size else resize_as_opencv(plane, *size)


def _progress(total: int) -> Callable[[int], None]:
    """A line for every twentieth of the images."""
    step = max(1, total // 20)

    def report(done: int) -> None:
        if done == total or (total >= 200 and done % step == 0):
            print(f"decoded {done} of {total} images", flush=True)

    return report


def _write_whole(path: Path, text: str) -> None:
    part = path.with_suffix(".json.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
