"""Images encoded once through a frozen encoder in eval mode: what heads learn from, and what prompts are compared with.

Features are kept by content: a folder for each encoder and way of encoding, in it files of some hundred images each,
found again by the hash of the picture file's bytes. A run that was stopped goes on where it was.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.mammo_clip.breasts import DataError
from training.mammo_clip.images import UNREADABLE, Picture, Plane, of_size
from training.mammo_clip.loading import Input, LoadedModel
from training.mammo_clip.model import unit_length
from training.mammo_clip.pretraining_recipe import RecipeError

PRECISIONS = ("float32", "bfloat16")
_SHARD = 256
"""Images in one file of the cache."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How images are encoded. `image_size`: height and width, (0, 0) for the model's own. `precision` is the encoder's;
    pooling, projection and norm are float32 in both.
    """

    image_size: tuple[float, float]
    batch: int
    precision: str

    def input_of(self, model: LoadedModel) -> Input:
        """What an image is made into for this model. Raises RecipeError."""
        if self.precision not in PRECISIONS:
            raise RecipeError(f"encoding: precision is {self.precision!r}; there are {', '.join(PRECISIONS)}")
        height, width = map(int, self.image_size)
        if bool(height) != bool(width) or min(height, width) < 0:
            raise RecipeError(f"encoding: image_size is {height} x {width}; give both sides, or [0, 0] for the model's")
        own = model.input
        height, width = height or own.height, width or own.width
        preset = f"fit-{height}x{width}" if own.preset.startswith("fit-") else own.preset
        return Input(preset, height, width, own.normalisation, own.channels)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Of N pictures: `pooled` float32 (N, C), before the projection; `embeddings` float32 (N, D) of unit length, None
    without a projection. `constant` bool (N): the picture has one value throughout. `problems` says of a picture's
    number why it could not be read: its rows are 0.
    """

    pooled: Tensor
    embeddings: Tensor | None
    constant: Tensor
    problems: dict[int, str]


def encode(
    model: LoadedModel, pictures: Sequence[Picture], cache: Path, encoding: Encoding, *, strict: bool = False
) -> Features:
    """The features of every picture, in order; pictures that several rows name are encoded once. Raises RecipeError,
    and DataError where no picture can be read or, with `strict`, one cannot.
    """
    sees = encoding.input_of(model)
    folder = cache / f"features-{_identity(model, sees, encoding)}"
    folder.mkdir(parents=True, exist_ok=True)
    names, problems = _content_names(pictures)
    known = _known(folder)
    wanted = {name: picture for name, picture in zip(names, pictures, strict=True) if name and name not in known}
    for done, shard in _encoded(model, sees, encoding, list(wanted.items())):
        _save(folder, shard)
        known.update(shard)
        _report(done, len(wanted))
    found = _in_order(known, names, problems)
    if found.problems and (strict or len(found.problems) == len(pictures)):
        cure = "Mend it, or leave --strict out to go on without it" if strict else "No picture could be read"
        raise DataError(f"{next(iter(found.problems.values()))}. {cure}")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """One picture's features; `problem` where it holds no image."""

    pooled: Tensor
    embedding: Tensor | None
    constant: bool
    problem: str = ""


def _identity(model: LoadedModel, sees: Input, encoding: Encoding) -> str:
    words = json.dumps([model.weights_hash, repr(sees), encoding.precision, model.dual is None])
    return hashlib.sha256(words.encode()).hexdigest()[:24]


def _content_names(pictures: Sequence[Picture]) -> tuple[list[str], dict[int, str]]:
    """A name for each picture by its file's bytes and by what is read of it; "" where the file cannot be read."""
    names, problems = [], {}
    for number, picture in enumerate(pictures):
        try:
            told = repr(picture).replace(repr(picture.path), "")
            names.append(hashlib.sha256(f"{_bytes_hash(picture.path)} {told}".encode()).hexdigest())
        except OSError as error:
            names.append("")
            problems[number] = f"{picture.path}: cannot be read: {error}"
    return names, problems


@lru_cache(1 << 16)
def _bytes_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encoded(
    model: LoadedModel, sees: Input, encoding: Encoding, wanted: list[tuple[str, Picture]]
) -> Iterator[tuple[int, dict[str, _Encoded]]]:
    """Shards of encoded pictures, with the number done. The next batch is read while one is encoded."""
    batches = [wanted[start : start + encoding.batch] for start in range(0, len(wanted), encoding.batch)]
    shard: dict[str, _Encoded] = {}
    done = 0
    with ThreadPoolExecutor(1) as pool:
        for batch, planes in zip(batches, pool.map(lambda batch: _read(batch, sees), batches), strict=True):
            shard.update(_encode_batch(model, sees, encoding, batch, planes))
            done += len(batch)
            if len(shard) >= _SHARD or done == len(wanted):
                yield done, shard
                shard = {}


def _read(batch: list[tuple[str, Picture]], sees: Input) -> list[Plane | str]:
    """Planes of the model's size; of a picture that holds no image, the reason."""
    found: list[Plane | str] = []
    for _, picture in batch:
        try:
            found.append(of_size(picture.read(), (sees.height, sees.width)))
        except UNREADABLE as error:
            found.append(f"{picture.path}: cannot be read as an image: {type(error).__name__}: {error}")
    return found


@torch.inference_mode()
def _encode_batch(
    model: LoadedModel,
    sees: Input,
    encoding: Encoding,
    batch: list[tuple[str, Picture]],
    planes: list[Plane | str],
) -> dict[str, _Encoded]:
    blank = np.zeros((sees.height, sees.width), np.uint8)
    there = np.stack([blank if isinstance(plane, str) else plane for plane in planes])
    images = sees.normalise(there).to(model.device).contiguous(memory_format=torch.channels_last)
    with _precision(encoding.precision, model.device.type):
        pooled = model.image_encoder.features(images).pooled  # type: ignore[operator]
    pooled = pooled.float()
    rows = unit_length(model.dual.image_projection(pooled)).cpu() if model.dual is not None else None
    found = {}
    for number, ((name, _), plane) in enumerate(zip(batch, planes, strict=True)):
        row = None if rows is None else rows[number].clone()
        if isinstance(plane, str):
            none = None if row is None else torch.zeros_like(row)
            found[name] = _Encoded(torch.zeros_like(pooled[number]).cpu(), none, False, plane)
        else:
            found[name] = _Encoded(pooled[number].cpu().clone(), row, bool(plane.min() == plane.max()))
    return found


def _precision(name: str, device: str) -> AbstractContextManager[object]:
    return torch.autocast(device, torch.bfloat16) if name == "bfloat16" else nullcontext()


def _save(folder: Path, shard: dict[str, _Encoded]) -> None:
    """One file, there whole or not at all. What could not be read is not kept: the file may be mended."""
    good = {name: one for name, one in shard.items() if not one.problem}
    if not good:
        return
    tensors = {
        "pooled": torch.stack([one.pooled for one in good.values()]),
        "constant": torch.tensor([one.constant for one in good.values()]),
    }
    rows = [one.embedding for one in good.values() if one.embedding is not None]
    if rows:
        tensors["embeddings"] = torch.stack(rows)
    path = folder / f"part-{hashlib.sha256(''.join(good).encode()).hexdigest()[:24]}.safetensors"
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"names": " ".join(good)})
    part.replace(path)


def _known(folder: Path) -> dict[str, _Encoded]:
    found: dict[str, _Encoded] = {}
    for path in sorted(folder.glob("part-*.safetensors")):
        with safe_open(path, "pt") as file:
            names = file.metadata()["names"].split()
            pooled, constant = file.get_tensor("pooled"), file.get_tensor("constant").tolist()
            rows = file.get_tensor("embeddings") if "embeddings" in file.keys() else None  # noqa: SIM118
        for number, name in enumerate(names):
            row = None if rows is None else rows[number]
            found[name] = _Encoded(pooled[number], row, constant[number])
    return found


def _in_order(known: dict[str, _Encoded], names: list[str], problems: dict[int, str]) -> Features:
    first = next(iter(known.values()), None)
    if first is None:
        return Features(torch.zeros(len(names), 0), None, torch.zeros(len(names), dtype=torch.bool), problems)
    absent = None if first.embedding is None else torch.zeros_like(first.embedding)
    blank = _Encoded(torch.zeros_like(first.pooled), absent, False)
    rows = [known.get(name, blank) for name in names]
    found = {number: row.problem for number, row in enumerate(rows) if row.problem}
    embeddings = [row.embedding for row in rows if row.embedding is not None]
    return Features(
        torch.stack([row.pooled for row in rows]),
        torch.stack(embeddings) if embeddings else None,
        torch.tensor([row.constant for row in rows], dtype=torch.bool),
        {**problems, **found},
    )


def _report(done: int, total: int) -> None:
    print(f"encoded {done} of {total} images", flush=True)
