"""Cases as a network takes them: decoded squares, augmented views with their flip in common, view dropout.

Every draw follows from seed, epoch and case alone, so that a run that goes on draws what it would have drawn.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.mammography.views import STANDARD_VIEWS
from training.data import change_brightness
from training.mammo_clip.augmentation import Augmentation, augment
from training.mammo_clip.breasts import DataError
from training.mammo_clip.images import Plane, decode
from training.multi_view.cases import Case, Cases, Picture, pictures_of
from training.multi_view.exam_model import drop_views

ABSENT = -1
VIEWS = len(STANDARD_VIEWS)


@dataclass(frozen=True, slots=True, eq=False)
class CaseImages:
    """N cases: `planes` uint8 (pictures, S, S), `numbers` int64 (N, 4) among them, ABSENT where a view is missing."""

    cases: tuple[Case, ...]
    planes: Plane
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def malignant(self) -> NDArray[np.bool_]:
        """The labels, (N)."""
        return np.array([case.malignant for case in self.cases], np.bool_)

    @property
    def patients(self) -> NDArray[np.str_]:
        """Whose exam it is, (N)."""
        return np.array([case.patient for case in self.cases])

    def only(self, rows: Sequence[int]) -> "CaseImages":
        """Some of them."""
        return CaseImages(tuple(self.cases[row] for row in rows), self.planes, self.numbers[list(rows)])


def decode_cases(
    found: Cases, size: int, cache: Path, *, threads: int = 1, strict: bool = False
) -> tuple[CaseImages, list[str]]:
    """Decode in `cache`, and what was left out: a view that cannot be read is missing, a case without views is out.

    Raises DataError with `strict` for the first of these, and where no case is left.
    """
    pictures = pictures_of(found.cases)
    decoded = decode(pictures, (size, size), cache, threads=threads)
    numbers = {picture: number for number, picture in enumerate(pictures)}
    problems, kept, rows = list(found.problems), [], []
    for case in found.cases:
        row, wrong = _numbers(case, numbers, decoded.problems)
        problems += wrong
        if any(number != ABSENT for number in row):
            kept.append(case)
            rows.append(row)
        else:
            problems.append(f"{case.row}: no view can be read; the case is left out")
    if strict and problems:
        raise DataError(f"{problems[0]}. Mend it, or leave --strict out to go on without it")
    if not kept:
        raise DataError(f"{found.source}: no case is left; the first problem: {problems[0]}")
    return CaseImages(tuple(kept), decoded.planes, np.array(rows, np.int64)), problems


def _numbers(case: Case, numbers: dict[Picture, int], unread: dict[int, str]) -> tuple[list[int], list[str]]:
    row, wrong = [], []
    for view, picture in zip(STANDARD_VIEWS, case.pictures, strict=True):
        number = ABSENT if picture is None else numbers[picture]
        if number in unread:
            wrong.append(f"{case.row}: {view}: {unread[number]}; the view counts as missing")
            number = ABSENT
        row.append(number)
    return row, wrong


@dataclass(frozen=True, slots=True, eq=False)
class CaseBatch:
    """`inputs` (B, 4, ...): views float32 (1, S, S) in [0, 1], or tokens; `present` bool (B, 4), `malignant` float (B).

    A missing view's input is 0.
    """

    inputs: Tensor
    present: Tensor
    malignant: Tensor
    rows: tuple[str, ...]

    def to(self, device: torch.device) -> "CaseBatch":
        """The same on a device."""
        return CaseBatch(self.inputs.to(device), self.present.to(device), self.malignant.to(device), self.rows)


class CaseItems(torch.utils.data.Dataset[CaseBatch]):
    """Batches of one case; `augmentation` None: as they are, and every view that is there is seen."""

    def __init__(
        self, images: CaseImages, augmentation: Augmentation | None, view_dropout: float, seed: int, epoch: int
    ) -> None:
        self.images, self.augmentation = images, augmentation
        self.view_dropout, self.seed, self.epoch = view_dropout, seed, epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> CaseBatch:
        numbers = self.images.numbers[index]
        generator = torch.Generator().manual_seed(drawn_number(self.seed, self.epoch, index))
        size = self.images.planes.shape[1:]
        planes = [
            torch.zeros(1, *size) if n == ABSENT else torch.tensor(self.images.planes[n]).float()[None] / 255.0
            for n in numbers
        ]
        present = torch.from_numpy(numbers != ABSENT)
        if self.augmentation is not None:
            planes = augmented(planes, self.augmentation, generator)
            present = drop_views(present, self.view_dropout, generator)
        case = self.images.cases[index]
        views = torch.stack(planes) * present.view(-1, 1, 1, 1)
        return CaseBatch(views, present, torch.tensor(float(case.malignant)), (case.row,))


def drawn_number(*words: int) -> int:
    """A number that follows from others, for the seed of a generator."""
    joined = " ".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(joined).digest()[:7], "big")


def augmented(planes: list[Tensor], settings: Augmentation, generator: torch.Generator) -> list[Tensor]:
    """All views flipped or none; each turned, moved, scaled and lit by itself (mammo-clip.md 10.6). (1, S, S) each."""
    flips = settings.horizontal_flip and float(torch.rand((), generator=generator)) < settings.probability
    own = replace(settings, horizontal_flip=False, vertical_flip=False)
    made = [augment(plane.flip(2) if flips else plane, own, generator).image for plane in planes]
    if not settings.tone:
        return made
    chance = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    return [change_brightness(plane, chance) if chance.random() < settings.tone else plane for plane in made]


def collate_cases(items: Sequence[CaseBatch]) -> CaseBatch:
    """Join cases to a batch."""
    return CaseBatch(
        torch.stack([item.inputs for item in items]),
        torch.stack([item.present for item in items]),
        torch.stack([item.malignant for item in items]),
        tuple(row for item in items for row in item.rows),
    )
