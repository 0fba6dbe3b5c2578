"""Every image of an evaluation through the frozen encoder once: what all parts of the report need of it, no maps.

Kept are pooled features, embeddings, and for some phrases the heat of each mapper as float16. The folder of a pass is
named by the weights, the mappers and the pictures; a pass that was stopped goes on where it was.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.mammo_clip.images import UNREADABLE, Picture, Plane, of_size
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.model import unit_length

Heater = Callable[[Tensor], Tensor]
"""Feature maps (B, C, h, w) to the heat of K phrases, (B, K, h, w) >= 0."""
_SAVE_EVERY = 25
"""Batches after which what is done is written down."""


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """Of N pictures: `pooled` float32 (N, C), `embeddings` float32 (N, D) of unit length or None without a projection,
    `heat` of each mapper by name, float16 (N, K, h, w). `problems`: why a picture could not be read; its rows are 0.
    """

    pooled: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    heat: Mapping[str, NDArray[np.float16]]
    problems: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What goes through: `size` (H, W) of the planes, `heaters` by name, `phrases` a word for what they are asked."""

    model: LoadedModel
    size: tuple[int, int]
    heaters: Mapping[str, Heater]
    phrases: str
    batch: int = 8
    precision: str = "float32"
    """Of the encoder, or "bfloat16"; pooled features, projection and heat are float32 in both."""


def pass_over(run: Pass, pictures: Sequence[Picture], folder: Path) -> Passed:
    """Encode all pictures, or read what an earlier pass over the same ones left in `folder`."""
    place = folder / f"pass-{_digest(run, pictures)}"
    place.mkdir(parents=True, exist_ok=True)
    arrays, done, problems = _opened(run, place, pictures)
    began = time.monotonic()
    starts = range(done, len(pictures), run.batch)
    batches = [pictures[start : start + run.batch] for start in starts]
    with ThreadPoolExecutor(1) as pool:
        read = pool.map(lambda batch: _read(batch, run.size), batches)
        for number, (start, planes) in enumerate(zip(starts, read, strict=True), start=1):
            problems.update({start + row: plane for row, plane in enumerate(planes) if isinstance(plane, str)})
            _encode(run, planes, arrays, start)
            if number % _SAVE_EVERY == 0 or number == len(batches):
                _save(place, arrays, min(start + run.batch, len(pictures)), problems)
                _report(start + len(planes), done, len(pictures), time.monotonic() - began)
    heat = {name: arrays[_heat(name)] for name in run.heaters}
    return Passed(arrays["pooled"], arrays.get("embeddings"), heat, problems)


def _digest(run: Pass, pictures: Sequence[Picture]) -> str:
    told = [run.model.weights_hash, repr(run.model.input), run.size, sorted(run.heaters), run.phrases, run.precision]
    names = "\n".join(picture.key() for picture in pictures)
    return hashlib.sha256(f"{json.dumps(told)}\n{names}".encode()).hexdigest()[:20]


def _heat(name: str) -> str:
    return f"heat-{name}"


def _opened(run: Pass, place: Path, pictures: Sequence[Picture]) -> tuple[dict[str, Any], int, dict[int, str]]:
    """The arrays in the folder, made if they are not there, how many rows are done, and what could not be read."""
    record = place / "done.json"
    if record.exists():
        table = json.loads(record.read_text(encoding="utf-8"))
        arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r+") for name in table["arrays"]}
        return arrays, int(table["done"]), {int(row): words for row, words in table["problems"].items()}
    shapes = _shapes(run)
    arrays = {
        name: np.lib.format.open_memmap(place / f"{name}.npy", "w+", dtype, (len(pictures), *shape))
        for name, (dtype, shape) in shapes.items()
    }
    return arrays, 0, {}


@torch.inference_mode()
def _shapes(run: Pass) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of one row of every array, by a black plane."""
    found = _answers(run, np.zeros((1, *run.size), np.uint8))
    return {
        name: (np.float16 if name.startswith("heat-") else np.float32, row.shape[1:]) for name, row in found.items()
    }


def _read(batch: Sequence[Picture], size: tuple[int, int]) -> list[Plane | str]:
    """Planes of the model's size; of a picture that holds no image, the reason."""
    found: list[Plane | str] = []
    for picture in batch:
        try:
            found.append(of_size(picture.read(), size))
        except UNREADABLE as error:
            found.append(f"{picture.path}: cannot be read as an image: {type(error).__name__}: {error}")
    return found


@torch.inference_mode()
def _encode(run: Pass, planes: Sequence[Plane | str], arrays: Mapping[str, Any], start: int) -> None:
    rows = [row for row, plane in enumerate(planes) if not isinstance(plane, str)]
    if not rows:
        return
    there = np.stack([plane for plane in planes if not isinstance(plane, str)])
    for name, values in _answers(run, there).items():
        arrays[name][[start + row for row in rows]] = values.numpy()


def _answers(run: Pass, planes: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Planes (B, H, W) to a row of every array for each."""
    images = run.model.input.normalise(planes).to(run.model.device).contiguous(memory_format=torch.channels_last)
    half = run.precision == "bfloat16"
    with torch.autocast(run.model.device.type, torch.bfloat16, enabled=half):
        pooled, maps = run.model.image_encoder.features(images)  # type: ignore[operator]
    maps = maps.float()
    found = {"pooled": pooled.float()}
    if run.model.dual is not None:
        found["embeddings"] = unit_length(run.model.dual.image_projection(pooled.float()))
    for name, heater in run.heaters.items():
        found[_heat(name)] = heater(maps).to(torch.float16)
    return {name: values.cpu() for name, values in found.items()}


def _save(place: Path, arrays: Mapping[str, Any], done: int, problems: Mapping[int, str]) -> None:
    for array in arrays.values():
        array.flush()
    part = place / "done.json.part"
    part.write_text(json.dumps({"done": done, "arrays": list(arrays), "problems": problems}), encoding="utf-8")
    part.replace(place / "done.json")


def _report(done: int, before: int, total: int, seconds: float) -> None:
    print(f"{done} of {total} images, {(done - before) / max(seconds, 1e-9):.1f} a second", flush=True)
