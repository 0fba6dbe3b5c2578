"""What a classifier learns from: labelled images of one size, their targets, fractions of them, and views of them.

A target is 0 or 1 for a finding, 0 to 3 for density, -1 where it is not known. Every draw follows from seed, epoch and
row alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.data import change_brightness
from training.mammo_clip.augmentation import Augmentation, augment
from training.mammo_clip.breasts import DataError
from training.mammo_clip.finetuning_recipe import FinetuningRecipe
from training.mammo_clip.images import Plane, decode
from training.mammo_clip.labelled import Labelled, LabelledImage, Reading, load_labelled
from training.mammo_clip.loading import Input
from training.mammo_clip.probing import DENSITY, sampled_patients
from training.phantoms import GENERATOR_VERSION

UNKNOWN = -1
FRACTION_SEED = 1
"""Of the published draws: pandas' sample with random_state 1."""


@dataclass(frozen=True, slots=True, eq=False)
class TargetImages:
    """N images of one split with their targets, int64 (N, T): `numbers` of theirs among the `planes` of all splits."""

    planes: Plane
    numbers: tuple[int, ...]
    images: tuple[LabelledImage, ...]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def only(self, rows: Sequence[int]) -> "TargetImages":
        """Some of them."""
        numbers, images = (tuple(values[row] for row in rows) for values in (self.numbers, self.images))
        return TargetImages(self.planes, numbers, images, self.targets[list(rows)])  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class TuningImages:
    """Images by split, `facts` of them for the run's record, and `problems`: what was left out."""

    splits: Mapping[str, TargetImages]
    facts: dict[str, Any]
    problems: list[str]


def load_tuning_images(
    recipe: FinetuningRecipe,
    sources: Sequence[str],
    splits: Sequence[str],
    cache: Path,
    *,
    strict: bool = False,
    threads: int = 1,
    first: bool = True,
) -> TuningImages:
    """Read these splits of the sources and decode their images in `cache`. Raises TableError, DataError.

    Images that tell none of the targets are left out.
    """
    found = [load_labelled(source, _reading(recipe, splits, strict=strict)) for source in sources]
    names = recipe.data.targets
    images = [image for one in found for image in one.images if any(t != UNKNOWN for t in targets_of(image, names))]
    problems = [problem for one in found for problem in one.problems]
    pictures = list(dict.fromkeys(image.picture for image in images))
    size = (recipe.data.height, recipe.data.width)
    decoded = decode(pictures, size, cache, threads=threads, first=first)
    problems += decoded.problems.values()
    if strict and problems:
        raise DataError(f"{problems[0]}. Mend it, or leave --strict out to go on without it")
    numbers = {picture: number for number, picture in enumerate(pictures)}
    kept = [image for image in images if numbers[image.picture] not in decoded.problems]
    made = {
        split: TargetImages(
            decoded.planes,
            tuple(numbers[image.picture] for image in kept if image.split == split),
            tuple(image for image in kept if image.split == split),
            torch.tensor([targets_of(image, names) for image in kept if image.split == split]).view(-1, len(names)),
        )
        for split in splits
    }
    _check_classes(made, names)
    return TuningImages(made, _facts(found, made, names), problems)


def _reading(recipe: FinetuningRecipe, splits: Sequence[str], *, strict: bool) -> Reading:
    data = recipe.data
    exams = {
        "training": data.phantom_exams,
        "validation": data.phantom_validation_exams,
        "test": data.phantom_test_exams,
    }
    return Reading(data.rows, data.preset, tuple(splits), data.validation_share, exams, strict)


def targets_of(image: LabelledImage, names: Sequence[str]) -> list[int]:
    """What an image tells of each target."""
    told = {**image.labels, DENSITY: image.density}
    return [UNKNOWN if (value := told.get(name)) is None else int(value) for name in names]


def _check_classes(splits: Mapping[str, TargetImages], names: Sequence[str]) -> None:
    """Raises DataError for a split without two classes of a target."""
    for split, images in splits.items():
        for column, name in enumerate(names):
            classes = set(images.targets[:, column].tolist()) - {UNKNOWN}
            if len(classes) < 2:
                raise DataError(
                    f"{len(images)} {split} images tell {len(classes)} classes of {name}; it takes two: give more "
                    "data, or leave the target out"
                )


def fraction_of(images: TargetImages, fraction: float, what: str) -> TargetImages:
    """A part of training images: by patients, or by rows as published. The same part for every seed of a run."""
    if fraction == 1.0:
        return images
    if what == "patients":
        kept = sampled_patients([image.patient for image in images.images], fraction, FRACTION_SEED)
        return images.only([row for row, image in enumerate(images.images) if image.patient in kept])
    count = max(1, round(fraction * len(images)))
    drawn = np.random.RandomState(FRACTION_SEED).choice(len(images), size=count, replace=False)
    return images.only(sorted(int(row) for row in drawn))


def _facts(sources: Sequence[Labelled], splits: Mapping[str, TargetImages], names: Sequence[str]) -> dict[str, Any]:
    """Counts and a hash of rows and targets, by which a run that goes on knows its data again."""
    digest = hashlib.sha256()
    facts: dict[str, Any] = {"sources": ", ".join(source.source for source in sources)}
    facts |= {"phantom generator": GENERATOR_VERSION} if "phantoms" in facts["sources"] else {}
    for split, images in splits.items():
        for image, targets in zip(images.images, images.targets.tolist(), strict=True):
            digest.update(f"{split} {image.row} {targets}\n".encode())
        facts[f"{split} images"] = len(images)
        for column, name in enumerate(names):
            counts = np.bincount(images.targets[:, column].clamp(min=UNKNOWN).numpy() + 1, minlength=3)[1:].tolist()
            facts[f"{split} {name}"] = f"{counts} by class"
    return {**facts, "hash": digest.hexdigest()[:16]}


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """`image` float32 (channels, H, W), normalised; `targets` int64; `row` names it."""

    image: Tensor
    targets: Tensor
    row: str


class TrainingItems(torch.utils.data.Dataset[Item]):
    """One epoch's views."""

    def __init__(
        self, images: TargetImages, made_into: Input, augmentation: Augmentation, seed: int, epoch: int
    ) -> None:
        self.images, self.made_into, self.augmentation = images, made_into, augmentation
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        words = f"{self.seed} {self.epoch} {index}".encode()
        number = int.from_bytes(hashlib.sha256(words).digest()[:7], "big")
        plane = torch.tensor(self.images.planes[self.images.numbers[index]], dtype=torch.float32)[None] / 255.0
        made = augment(plane, self.augmentation, torch.Generator().manual_seed(number)).image
        chance = np.random.default_rng(number)
        if self.augmentation.tone and chance.random() < self.augmentation.tone:
            made = change_brightness(made, chance)
        return Item(self.made_into.normalise(made)[0], self.images.targets[index], self.images.images[index].row)


class PlainItems(torch.utils.data.Dataset[Item]):
    """The images as they are."""

    def __init__(self, images: TargetImages, made_into: Input) -> None:
        self.images, self.made_into = images, made_into

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        image = self.made_into.normalise(self.images.planes[self.images.numbers[index]][None])[0]
        return Item(image, self.images.targets[index], self.images.images[index].row)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`images` float32 (B, channels, H, W), `targets` int64 (B, targets), and each row's name."""

    images: Tensor
    targets: Tensor
    rows: tuple[str, ...]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The same on a device, the images in another type and with their channels last."""
        images = self.images.to(device, dtype, non_blocking=True, memory_format=torch.channels_last)
        return Batch(images, self.targets.to(device, non_blocking=True), self.rows)


def collate(items: Sequence[Item]) -> Batch:
    """Join items to a batch."""
    images, targets = torch.stack([item.image for item in items]), torch.stack([item.targets for item in items])
    return Batch(images, targets, tuple(item.row for item in items))
