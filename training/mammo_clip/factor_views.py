"""The views that FActOR is trained and judged on: what each shows, in which words, and where the truth lies."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import FINDING_KINDS
from node.mammography.views import STANDARD_VIEWS, View
from training.localisation import Box
from training.mammo_clip.breasts import DataError
from training.mammo_clip.grammar import ATTRIBUTES, Location
from training.mammo_clip.images import PhantomView, Picture, latest_exam
from training.mammo_clip.labelled import Reading, load_labelled
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES, phantom_breasts
from training.mammo_clip.seen import Seen, SeenViews
from training.phantoms import TRAIN_SEED, VALIDATION_SEED

FINDINGS: tuple[str, ...] = tuple(GRAMMAR_NAMES[kind] for kind in FINDING_KINDS)
"""The grammar's names, in the order of the finding axis."""


@dataclass(frozen=True, slots=True)
class FactorView:
    """One image: `seen` is what it shows, `known` the findings that it would show if they were there.

    `boxes` by finding in pixels of `picture.read()`; a phantom's truth is read from its exam. `view` None: not known.
    """

    picture: Picture
    row: str
    patient: str
    seen: tuple[Seen, ...]
    known: tuple[str, ...]
    view: View | None = None
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Where findings lie in one view: by the grammar's name, masks bool (H, W) and boxes, in model pixels."""

    masks: Mapping[str, NDArray[np.bool_]]
    boxes: Mapping[str, tuple[Box, ...]]


def phantom_views(cache: Path, first: int, count: int, *, render: bool = True) -> tuple[FactorView, ...]:
    """The views of phantom exams, rendered into the cache where they are not there."""
    found = []
    for breast in phantom_breasts(cache, first, count, render=render):
        assert isinstance(breast.said, SeenViews)
        for pictures, seen in zip(breast.views, breast.said.views, strict=True):
            (picture,) = pictures
            assert isinstance(picture, PhantomView)
            found.append(FactorView(picture, breast.row, breast.group, seen, FINDINGS, STANDARD_VIEWS[picture.view]))
    return tuple(found)


def labelled_views(images: Sequence[LabelledImage]) -> tuple[FactorView, ...]:
    """Images that are labelled and boxed: what they show has no subtype and no place."""
    return tuple(
        FactorView(
            image.picture,
            image.row,
            image.patient,
            tuple(Seen(name, _plain(name), Location()) for name, shown in image.labels.items() if _is(name, shown)),
            tuple(name for name, shown in image.labels.items() if name in ATTRIBUTES and shown is not None),
            View(image.laterality, image.position) if image.laterality and image.position else None,
            image.boxes,
        )
        for image in images
    )


def _is(name: str, shown: bool | None) -> bool:
    return name in ATTRIBUTES and bool(shown)


def _plain(name: str) -> tuple[str, ...]:
    """What a label that says no more may be called."""
    return ("suspicious",) if name == "Suspicious_Calcification" else ("",)


@dataclass(frozen=True, slots=True)
class FactorSets:
    """Views that train and views that choose."""

    training: tuple[FactorView, ...]
    validation: tuple[FactorView, ...]
    problems: tuple[str, ...] = ()


def load_views(source: str, exams: tuple[int, int, int], *, preset: str, strict: bool = False) -> FactorSets:
    """The views of `phantoms=CACHE` (first and number of the training exams, number of those
    of validation) or of a set of labelled.py.

    Raises DataError, TableError.
    """
    kind, _, rest = source.partition("=")
    if kind == "phantoms":
        training = phantom_views(Path(rest), TRAIN_SEED + exams[0], exams[1])
        return FactorSets(training, phantom_views(Path(rest), VALIDATION_SEED, exams[2]))
    labelled = load_labelled(source, Reading(preset=preset, splits=("training", "validation"), strict=strict))
    training, validation = (labelled_views(labelled.of(split)) for split in ("training", "validation"))
    if not any(view.seen for view in training) or not any(view.seen for view in validation):
        raise DataError(f"--data {source}: no image of the training or of the validation split shows a finding")
    return FactorSets(training, validation, tuple(labelled.problems))


def balanced(views: Sequence[FactorView], normal_views: float, seed: int) -> tuple[FactorView, ...]:
    """All views with a finding, and so many without for each, drawn by the seed; in the order given."""
    having = [number for number, view in enumerate(views) if view.seen]
    lacking = [number for number, view in enumerate(views) if not view.seen]
    count = min(len(lacking), round(normal_views * len(having)))
    chosen = random.Random(seed).sample(lacking, count)
    return tuple(views[number] for number in sorted([*having, *chosen]))


def truth_of(view: FactorView, size: tuple[int, int]) -> Truth:
    """Masks and boxes at the model's size (H, W). Of boxed images a mask is the boxes, filled."""
    if isinstance(view.picture, PhantomView):
        return _phantom_truth(view.picture, size)
    read = view.picture.read().shape if view.boxes else size
    down, across = size[0] / read[0], size[1] / read[1]
    boxes = {
        name: tuple((left * across, top * down, right * across, bottom * down) for left, top, right, bottom in found)
        for name, found in view.boxes.items()
    }
    return Truth({name: _filled(found, size) for name, found in boxes.items() if found}, boxes)


def _phantom_truth(picture: PhantomView, size: tuple[int, int]) -> Truth:
    exam = latest_exam(picture.path)
    if exam.images.shape[1:] != size:
        raise DataError(
            f"{picture.path.name}: was rendered at {exam.images.shape[1:]}, the model sees {size}: masks would not fit"
        )
    masks, boxes = {}, {}
    for kind, name in enumerate(FINDINGS):
        found = exam.finding_boxes(picture.view, kind)
        if found:
            masks[name], boxes[name] = exam.mask(picture.view, kind), tuple(found)
    return Truth(masks, boxes)


def _filled(boxes: Sequence[Box], size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    for left, top, right, bottom in boxes:
        mask[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    return mask
