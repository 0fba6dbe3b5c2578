"""What FActOR needs of the frozen encoder, computed once: statistics of each channel, and maps of a few views.

The encoder is in eval mode and nothing of it learns. Files are named by a hash of the weights and the pictures, so
another model or other pictures never meet old files. Axes: N views, C channels, h, w cells.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.mammography.regions import HeatGrid
from training.mammo_clip.breasts import DataError
from training.mammo_clip.factor import STATISTICS, channel_statistics
from training.mammo_clip.factor_views import FactorView
from training.mammo_clip.images import Decoded, Plane, decode
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.localising import heat_grid

ENCODED_BATCH = 8
_GREATEST_HALF = 6.0e4
"""float16 holds what is below."""
_NOISE_IMAGES = 3


@dataclass(frozen=True, slots=True, eq=False)
class ViewSet:
    """Views with their decoded planes uint8 (N, H, W), in one order; `problems`: pictures that were left out."""

    views: tuple[FactorView, ...]
    planes: Plane
    numbers: NDArray[np.intp]
    """Of each view the number of its plane."""
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.views)

    def plane(self, number: int) -> Plane:
        """Grey (H, W) of a view."""
        plane: Plane = self.planes[self.numbers[number]]
        return plane


def view_set(views: Sequence[FactorView], size: tuple[int, int], folder: Path) -> ViewSet:
    """Decode the views' pictures to `size` in `folder`; those that cannot be read are left out and said."""
    decoded: Decoded = decode([view.picture for view in views], size, folder)
    kept = [number for number in range(len(views)) if number not in decoded.problems]
    problems = tuple(f"{views[number].row}: {words}" for number, words in decoded.problems.items())
    return ViewSet(tuple(views[number] for number in kept), decoded.planes, np.array(kept, np.intp), problems)


@torch.inference_mode()
def maps_of(
    model: LoadedModel, views: ViewSet, batch: int = ENCODED_BATCH, *, coarse: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """The number of a batch's first view, and its feature maps (B, C, h, w), float32, on the model's device.

    `coarse`: the encoder runs in bfloat16, twice as fast on CPUs: good enough to train on, not for figures.
    """
    encoder = model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for first in range(0, len(views), batch):
        planes = np.stack([views.plane(number) for number in range(first, min(first + batch, len(views)))])
        images = model.input.normalise(planes).to(model.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=coarse):
            found = encoder.features(images).feature_map
        yield first, found.float().contiguous()


def grid_of(model: LoadedModel) -> HeatGrid:
    """Where the cells of the model's encoder lie, in pixels of its input."""
    noise = torch.rand(_NOISE_IMAGES, model.input.height, model.input.width, generator=torch.Generator().manual_seed(0))

    def features(images: Tensor) -> Tensor:
        found: Tensor = model.image_encoder.features(images).feature_map  # type: ignore[operator]
        return found

    return heat_grid(model.image_encoder, features, model.input.normalise(noise).to(model.device))


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """`statistics` float16 (N, C, STATISTICS); `maps` float16 (M, C, h, w) of the first M views."""

    statistics: NDArray[np.float16]
    maps: NDArray[np.float16]

    def tensor(self) -> Tensor:
        """The statistics in memory, float32."""
        return torch.from_numpy(np.asarray(self.statistics, np.float32))

    def maps_of(self, numbers: Sequence[int]) -> Tensor:
        """(B, C, h, w) float32 of views among the first M."""
        return torch.from_numpy(np.asarray(self.maps[list(numbers)], np.float32))


def encode(model: LoadedModel, views: ViewSet, folder: Path, *, maps: int = 0, coarse: bool = False) -> Encoded:
    """Statistics of all views, and maps of the first `maps` (-1: of all), from `folder` where an earlier run left them
    there. `coarse`: see `maps_of`. Raises DataError where there is no view.
    """
    if not len(views):
        raise DataError("no view to encode: none of these exams shows a finding; give more exams")
    kept = len(views) if maps < 0 else min(maps, len(views))
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"factor-{_digest(model, views)}-{kept}{'-coarse' if coarse else ''}"
    paths = folder / f"{stem}.statistics.npy", folder / f"{stem}.maps.npy"
    if not all(path.exists() for path in paths):
        _encode_into(model, views, kept, paths, coarse)
    return Encoded(np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r"))


def _digest(model: LoadedModel, views: ViewSet) -> str:
    keys = "\n".join(view.picture.key() for view in views.views)
    return hashlib.sha256(f"{model.weights_hash}\n{model.input}\n{keys}".encode()).hexdigest()[:20]


def _encode_into(model: LoadedModel, views: ViewSet, kept: int, paths: tuple[Path, Path], coarse: bool) -> None:
    started, arrays = time.monotonic(), list[NDArray[np.float16]]()
    parts = [path.with_suffix(".part") for path in paths]
    for first, found in maps_of(model, views, coarse=coarse):
        if not arrays:
            shapes = ((len(views), found.shape[1], STATISTICS), (kept, *found.shape[1:]))
            arrays = [
                np.lib.format.open_memmap(part, "w+", np.float16, shape)
                for part, shape in zip(parts, shapes, strict=True)
            ]
        statistics = channel_statistics(found).clamp(max=_GREATEST_HALF)
        arrays[0][first : first + len(found)] = statistics.cpu().numpy()
        if first < kept:
            some = found[: kept - first].clamp(-_GREATEST_HALF, _GREATEST_HALF)
            arrays[1][first : first + len(some)] = some.cpu().numpy()
        _report(first + len(found), len(views), started)
    for array, part, path in zip(arrays, parts, paths, strict=True):
        array.flush()  # type: ignore[attr-defined]
        part.replace(path)


def _report(done: int, total: int, started: float) -> None:
    """A line for every tenth."""
    if done == total or done * 10 // total > (done - ENCODED_BATCH) * 10 // total:
        rate = done / max(time.monotonic() - started, 1e-9)
        print(f"encoded {done} of {total} views, {rate:.1f} a second, {(total - done) / rate:.0f} s left", flush=True)
