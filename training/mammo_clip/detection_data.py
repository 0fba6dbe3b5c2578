"""What a detector trains on: labelled images of one size with their boxes, and views of them whose boxes move along."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from node.mammography.pixels import preset
from training.cache import PRESET
from training.mammo_clip.augmentation import Drawn, augment
from training.mammo_clip.breasts import DataError
from training.mammo_clip.detection_losses import Target
from training.mammo_clip.detection_recipe import DetectionRecipe
from training.mammo_clip.images import ImageFile, PhantomTile, PhantomView, Picture, Plane, decode
from training.mammo_clip.labelled import Labelled, LabelledImage, Reading, load_labelled
from training.mammo_clip.loading import Input
from training.mammo_clip.readers import CANVAS, Box

_LEAST_SIDE_PX = 2.0
"""A box of which less is left in the image is none."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxedImages:
    """Images of one split: `planes` uint8 (N, H, W), a target each, and `rows` that name them without a patient.

    `normal`: the image has no finding at all, looked for or not.
    """

    planes: Sequence[Plane]
    targets: tuple[Target, ...]
    rows: tuple[str, ...]
    patients: tuple[str, ...]
    normal: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class DetectionImages:
    """Images by split, `facts` of them for the run's record, and `problems`: what was left out."""

    splits: Mapping[str, BoxedImages]
    facts: dict[str, Any]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images: with labels for these classes, of this size (H, W), see `DetectionData`. `phantom_exams` by split,
    all that are rendered where a split is not named.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    positive_images_only: bool
    phantom_exams: Mapping[str, int] = field(default_factory=dict)
    validation_share: float = 0.1


def wanted_by(recipe: DetectionRecipe) -> Wanted:
    """The images that a recipe trains on and chooses by."""
    data = recipe.data
    exams = {"training": data.phantom_exams, "validation": data.phantom_validation_exams}
    return Wanted(data.classes, recipe.size, data.positive_images_only, exams, data.validation_share)


def read_detection_images(
    wanted: Wanted,
    sources: Sequence[str],
    splits: Sequence[str],
    cache: Path,
    *,
    strict: bool = False,
    threads: int = 1,
) -> DetectionImages:
    """Read these splits of the sources and decode their images in `cache`. Raises TableError, DataError."""
    reading = Reading(
        splits=tuple(splits),
        validation_share=wanted.validation_share,
        phantom_exams=wanted.phantom_exams,
        strict=strict,
    )
    found = [load_labelled(source, reading) for source in sources]
    check_labels(found, wanted.classes)
    images = [image for one in found for image in one.images if _is_wanted(image, wanted)]
    problems = [problem for one in found for problem in one.problems]
    decoded = decode([image.picture for image in images], wanted.size, cache, threads=threads)
    problems += decoded.problems.values()
    if strict and problems:
        raise DataError(f"{problems[0]}. Mend it, or leave --strict out to go on without it")
    numbers = [number for number in range(len(images)) if number not in decoded.problems]
    made = {split: _of_split(wanted, images, numbers, decoded.planes, split) for split in splits}
    for split, those in made.items():
        if not any(len(target.boxes) for target in those.targets):
            raise DataError(f"{', '.join(sources)}: no {split} image has a box of {', '.join(wanted.classes)}")
    return DetectionImages(made, _facts(sources, made), problems)


def check_labels(found: Sequence[Labelled], classes: Sequence[str]) -> None:
    """Raises DataError for a class that no source labels, naming those that there are."""
    known = {label for one in found for image in one.images for label in image.labels}
    if missing := [name for name in classes if name not in known]:
        raise DataError(f"data.classes: {', '.join(missing)}: no such label; there are {', '.join(sorted(known))}")


def _is_wanted(image: LabelledImage, wanted: Wanted) -> bool:
    """An image that says it shows a class but has no box of it teaches a detector that nothing is there: left out."""
    classes = wanted.classes
    if any(image.labels.get(name) is not False and not image.boxes.get(name) for name in classes):
        return False
    return not wanted.positive_images_only or any(image.boxes.get(name) for name in classes)


def _of_split(
    wanted: Wanted, images: Sequence[LabelledImage], numbers: Sequence[int], planes: Plane, split: str
) -> BoxedImages:
    mine = [number for number in numbers if images[number].split == split]
    return BoxedImages(
        [planes[number] for number in mine],
        tuple(target_of(images[number], wanted.classes, wanted.size) for number in mine),
        tuple(images[number].row for number in mine),
        tuple(images[number].patient for number in mine),
        tuple(_is_normal(images[number]) for number in mine),
    )


def _is_normal(image: LabelledImage) -> bool:
    return not any(image.boxes.values()) and not any(
        there for name, there in image.labels.items() if name != "No_Finding"
    )


def target_of(image: LabelledImage, classes: Sequence[str], size: tuple[int, int]) -> Target:
    """Boxes of these labels on a canvas of `size` (H, W), clipped to it; one box of several labels counts once."""
    height, width = canvas_of(image.picture)
    scale = (size[1] / width, size[0] / height)
    labels: dict[Box, list[bool]] = {}
    for number, name in enumerate(classes):
        for left, top, right, bottom in image.boxes.get(name, ()):
            edges = (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])
            box = (max(edges[0], 0.0), max(edges[1], 0.0), min(edges[2], size[1]), min(edges[3], size[0]))
            if box[2] > box[0] and box[3] > box[1]:
                labels.setdefault(box, [False] * len(classes))[number] = True
    boxes = torch.tensor(list(labels), dtype=torch.float32).view(-1, 4)
    return Target(boxes, torch.tensor(list(labels.values()), dtype=torch.bool).view(-1, len(classes)))


def canvas_of(picture: Picture) -> tuple[int, int]:
    """Height and width in whose pixels a picture's boxes are given."""
    if isinstance(picture, PhantomTile):
        return picture.size, picture.size
    if isinstance(picture, ImageFile):
        return int(CANVAS[1]), int(CANVAS[0])
    made = preset(PRESET if isinstance(picture, PhantomView) else picture.preset)
    return made.height, made.width


def _facts(sources: Sequence[str], splits: Mapping[str, BoxedImages]) -> dict[str, Any]:
    """Counts and a hash of rows and boxes, by which a run that goes on knows its data again."""
    digest = hashlib.sha256()
    facts: dict[str, Any] = {"sources": ", ".join(source.partition("=")[0] for source in sources)}
    for split, images in splits.items():
        for row, target in zip(images.rows, images.targets, strict=True):
            digest.update(f"{split} {row} {target.boxes.tolist()} {target.classes.tolist()}\n".encode())
        facts[f"{split} images"] = len(images)
        facts[f"{split} boxes"] = sum(len(target.boxes) for target in images.targets)
    return {**facts, "hash": digest.hexdigest()[:16]}


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """`image` float32 (channels, H, W), normalised, its target, and the name of its row."""

    image: Tensor
    target: Target
    row: str


class TrainingItems(torch.utils.data.Dataset[Item]):
    """One epoch's views. Every draw follows from seed, epoch and row."""

    def __init__(self, images: BoxedImages, recipe: DetectionRecipe, epoch: int) -> None:
        self.images, self.recipe, self.epoch = images, recipe, epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        plane = torch.tensor(self.images.planes[index], dtype=torch.float32)[None] / 255.0
        words = f"{self.recipe.seed} {self.epoch} {index}".encode()
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(words).digest()[:7], "big"))
        drawn = augment(plane, self.recipe.augmentation, generator)
        target = moved(self.images.targets[index], drawn, self.recipe.data.box_shape)
        return Item(self.recipe.input.normalise(drawn.image)[0], target, self.images.rows[index])


class PlainItems(torch.utils.data.Dataset[Item]):
    """The images as they are."""

    def __init__(self, images: BoxedImages, made_into: Input) -> None:
        self.images, self.made_into = images, made_into

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        image = self.made_into.normalise(self.images.planes[index][None])[0]
        return Item(image, self.images.targets[index], self.images.rows[index])


def moved(target: Target, drawn: Drawn, shape: str) -> Target:
    """Boxes of a view: around all of its pixels that come from inside a box, or from the "ellipse" in it.

    Elastic maps are followed too. What lies outside the view is cut off; a box of which nothing is left is left out.
    """
    if not len(target.boxes):
        return target
    sources = drawn.sources()
    boxes = [_moved(box, sources, shape) for box in target.boxes]
    kept = [number for number, box in enumerate(boxes) if box is not None]
    found = [box for box in boxes if box is not None]
    return Target(torch.tensor(found, dtype=torch.float32).view(-1, 4), target.classes[kept])


def _moved(box: Tensor, sources: Tensor, shape: str) -> Box | None:
    middle, half = (box[2:] + box[:2]) / 2, (box[2:] - box[:2]) / 2
    away = (sources - middle).abs() / half
    inside = away.square().sum(2) <= 1.0 if shape == "ellipse" else away.amax(2) <= 1.0
    rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
    if len(rows) < _LEAST_SIDE_PX or len(columns) < _LEAST_SIDE_PX:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1.0, float(rows[-1]) + 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`images` float32 (B, channels, H, W), a target and a row's name each."""

    images: Tensor
    targets: tuple[Target, ...]
    rows: tuple[str, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        images = self.images.to(device, non_blocking=True, memory_format=torch.channels_last)
        return Batch(images, tuple(target.to(device) for target in self.targets), self.rows)


def collate(items: Sequence[Item]) -> Batch:
    """Join items to a batch."""
    return Batch(
        torch.stack([item.image for item in items]),
        tuple(item.target for item in items),
        tuple(item.row for item in items),
    )
