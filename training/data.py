"""Training batches: square tiles cut from cached phantom views, and tiles of four real lesion crops."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from training.cache import NO_FINDING, CachedExam, load_exam
from training.crops import CROP_PX, Crop, load_crop
from training.maps import TARGETS, coverage

TILE_PX = 2 * CROP_PX
"""Side of a training tile in model pixels: about 68 mm of a phantom, or two by two crops."""

_TARGET_BITS = (0, 1, 7, 2, 3)
"""Bit of `CachedExam.flags` for each entry of TARGETS."""


class TileBatch(NamedTuple):
    """Tiles (N, 1, S, S) in [0, 1] and, for the first `phantoms` of them, covered parts of cells (P, T, s, s).

    For the crops in the remaining tiles, four a tile, row by row: `kinds` (C, 2) mass, calcification; `malignant` (C).
    """

    tiles: Tensor
    targets: Tensor
    kinds: Tensor
    malignant: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PhantomTiles:
    """Draws tiles from cached exams: on lesions, on what looks like one, and anywhere in a breast."""

    exams: tuple[CachedExam, ...]
    on_lesion: float = 0.55
    on_lookalike: float = 0.15

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One tile (1, S, S) and its truth (T, S, S), changed in scale and brightness."""
        exam = self.exams[int(rng.integers(len(self.exams)))]
        view, x, y = self._centre(exam, rng)
        size = int(rng.integers(round(0.85 * TILE_PX), round(1.2 * TILE_PX)))
        image = cut(exam.images[view], x, y, size)
        flags = cut(exam.flags[view], x, y, size)
        if rng.random() < 0.5:
            image, flags = image[::-1], flags[::-1]
        tile = _resize(torch.from_numpy(image.astype(np.float32) / 255.0)[None])
        truth = torch.from_numpy(np.stack([(flags >> bit & 1).astype(np.float32) for bit in _TARGET_BITS]))
        return change_brightness(tile, rng), _resize(truth)

    def _centre(self, exam: CachedExam, rng: np.random.Generator) -> tuple[int, int, int]:
        """View and tile centre (x, y) in model pixels."""
        chance = rng.random()
        wanted = [b for b in exam.boxes if (b.kind != NO_FINDING) == (chance < self.on_lesion)]
        if wanted and chance < self.on_lesion + self.on_lookalike:
            box = wanted[int(rng.integers(len(wanted)))]
            shift = rng.integers(-TILE_PX // 3, TILE_PX // 3 + 1, 2)
            return box.view, (box.left + box.right) // 2 + int(shift[0]), (box.top + box.bottom) // 2 + int(shift[1])
        view = int(rng.integers(4))
        rows, columns = np.nonzero(exam.images[view, ::8, ::8] > 20)
        if rows.size == 0:
            return view, 0, 0
        pick = int(rng.integers(rows.size))
        return view, int(columns[pick]) * 8, int(rows[pick]) * 8


def cut(plane: npt.NDArray[np.uint8], x: int, y: int, size: int) -> npt.NDArray[np.uint8]:
    """A square around (x, y), moved inside the plane where it can be."""
    height, width = plane.shape
    left = int(np.clip(x - size // 2, 0, max(width - size, 0)))
    top = int(np.clip(y - size // 2, 0, max(height - size, 0)))
    out = np.zeros((size, size), np.uint8)
    part = plane[top : top + size, left : left + size]
    out[: part.shape[0], : part.shape[1]] = part
    return out


def _resize(planes: Tensor) -> Tensor:
    return functional.interpolate(planes[None], size=(TILE_PX, TILE_PX), mode="bilinear", align_corners=False)[0]


def change_brightness(tile: Tensor, rng: np.random.Generator) -> Tensor:
    """Gamma, gain and offset inside the breast, and at times noise; black stays black."""
    gamma, gain, offset = rng.uniform(0.75, 1.35), rng.uniform(0.85, 1.15), rng.uniform(-0.05, 0.05)
    changed = tile.clamp_min(0.0).pow(float(gamma)) * float(gain) + float(offset)
    if rng.random() < 0.3:
        noise = rng.standard_normal(tuple(tile.shape), dtype=np.float32) * float(rng.uniform(0.0, 0.03))
        changed = changed + torch.from_numpy(noise)
    return torch.where(tile > 0.01, changed, tile).clamp(0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class CropTiles:
    """Draws tiles of two by two crops; `images` uint8 (N, s, s), `kinds` and `malignant` (N)."""

    images: npt.NDArray[np.uint8]
    kinds: npt.NDArray[np.int64]
    malignant: npt.NDArray[np.bool_]

    @classmethod
    def load(cls, crops: tuple[Crop, ...]) -> "CropTiles":
        """Read all crops into memory."""
        images = np.stack([load_crop(crop) for crop in crops])
        kinds = np.array([crop.kind for crop in crops], np.int64)
        return cls(images, kinds, np.array([crop.malignant for crop in crops], np.bool_))

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """One tile (1, S, S), kinds (4, 2) and malignant (4) of its crops, row by row."""
        chosen = rng.integers(len(self.images), size=4)
        quarters = [_turn(self.images[index], rng).astype(np.float32) / 255.0 for index in chosen]
        tile = np.vstack([np.hstack(quarters[:2]), np.hstack(quarters[2:])])
        kinds = functional.one_hot(torch.from_numpy(self.kinds[chosen]), 2).to(torch.float32)
        malignant = torch.from_numpy(self.malignant[chosen].astype(np.float32))
        return change_brightness(torch.from_numpy(tile)[None], rng), kinds, malignant


def _turn(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    turned = np.rot90(image, int(rng.integers(4)))
    return turned[::-1] if rng.random() < 0.5 else turned


@dataclass(frozen=True, slots=True, eq=False)
class TileSources:
    """Where tiles come from; None where a phase has none of a kind."""

    phantoms: PhantomTiles | None
    crops: CropTiles | None

    def draw(self, counts: tuple[int, int], rng: np.random.Generator) -> TileBatch:
        """`counts` tiles of phantoms and of crops."""
        pairs = [self.phantoms.draw(rng) for _ in range(counts[0])] if self.phantoms else []
        tiles, truth = [tile for tile, _ in pairs], [mask for _, mask in pairs]
        kinds, malignant = [torch.zeros(0, 2)], [torch.zeros(0)]
        for tile, kind, bad in (self.crops.draw(rng) for _ in range(counts[1])) if self.crops else ():
            tiles.append(tile)
            kinds.append(kind)
            malignant.append(bad)
        targets = torch.stack(truth) if truth else torch.zeros(0, len(TARGETS), TILE_PX, TILE_PX)
        return TileBatch(torch.stack(tiles), coverage(targets), torch.cat(kinds), torch.cat(malignant))


def load_exams(paths: tuple[Path, ...]) -> tuple[CachedExam, ...]:
    """Cached exams into memory: 2.8 MB each at 760 x 456."""
    return tuple(load_exam(path) for path in paths)


assert len(_TARGET_BITS) == len(TARGETS)
