"""What pretraining draws from: breasts, each with its pictures by view and with what is said of it.

A breast of an image-text table has a report; that of a phantom has sentences for each view.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from training.mammo_clip.images import Decoded, ImageFile, Picture, Plane
from training.mammo_clip.readers import TextRow
from training.mammo_clip.tables import Table
from training.mammo_clip.texts import Report, draw_texts, first_texts, report_of


class Said(Protocol):
    """What is said of one breast."""

    def draw(self, views: tuple[int, int], chance: random.Random, *, shuffle: bool) -> tuple[str, str]:
        """Two texts for two drawn views, in training."""
        ...

    def first(self, views: tuple[int, int]) -> tuple[str, str]:
        """Two texts, always the same ones, in validation."""
        ...


@dataclass(frozen=True, slots=True)
class Reported:
    """A breast with a report of one or more sections, whatever the view."""

    report: Report

    def draw(self, views: tuple[int, int], chance: random.Random, *, shuffle: bool) -> tuple[str, str]:
        """See `texts.draw_texts`."""
        return draw_texts(self.report, chance, shuffle=shuffle)

    def first(self, views: tuple[int, int]) -> tuple[str, str]:
        """See `texts.first_texts`."""
        return first_texts(self.report)


@dataclass(frozen=True, slots=True)
class Breast:
    """One row of training: `views` are the pictures of each view; `row` names it in messages and names no patient.

    `group` is what must not stand on both sides of a split: the patient.
    """

    row: str
    group: str
    views: tuple[tuple[Picture, ...], ...]
    said: Said
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class Numbered:
    """A breast whose pictures are numbers of decoded planes."""

    row: str
    views: tuple[tuple[int, ...], ...]
    said: Said


@dataclass(frozen=True, slots=True, eq=False)
class Breasts:
    """Breasts with their decoded pictures: what items are drawn from."""

    rows: tuple[Numbered, ...]
    decoded: Decoded

    def __len__(self) -> int:
        return len(self.rows)

    def plane(self, number: int) -> Plane:
        """Grey (H, W)."""
        plane: Plane = self.decoded.planes[number]
        return plane


class DataError(Exception):
    """Data that cannot be trained on. The message names the row or the file, and the cure."""


def reported_breasts(table: Table[TextRow]) -> tuple[list[Breast], list[str]]:
    """The breasts of an image-text table, and what is wrong with rows whose texts are empty once they are cleaned."""
    found, problems = [], []
    for number, row in enumerate(table.rows):
        name = f"line {table.lines[number]}" if table.lines else f"row {number}"
        try:
            said = Reported(report_of(row.texts, row.augmented))
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        views = tuple(tuple(ImageFile(path, row.laterality) for path in files) for _, files in row.views)
        found.append(Breast(name, row.patient, views, said, row.fold))
    return found, problems


def pictures_of(breasts: Sequence[Breast]) -> tuple[Picture, ...]:
    """Every picture once, in the order in which the breasts name them."""
    return tuple(dict.fromkeys(picture for breast in breasts for view in breast.views for picture in view))


def numbered(breasts: Sequence[Breast], pictures: Sequence[Picture], decoded: Decoded) -> Breasts:
    """Breasts by numbers of planes. Pictures that could not be read are left out, and breasts of which none is left.

    Raises DataError where no breast is left.
    """
    numbers = {picture: number for number, picture in enumerate(pictures)}
    rows = []
    for breast in breasts:
        views = tuple(
            kept
            for view in breast.views
            if (kept := tuple(numbers[picture] for picture in view if numbers[picture] not in decoded.problems))
        )
        if views:
            rows.append(Numbered(breast.row, views, breast.said))
    if not rows:
        first = next(iter(decoded.problems.values()), "there are no rows")
        raise DataError(f"no breast is left to train on: {first}")
    return Breasts(tuple(rows), decoded)


def split_by_fold(breasts: Sequence[Breast], fold: int) -> tuple[list[Breast], list[Breast]]:
    """Training and validation rows by the table's folds. Raises DataError where a patient would stand in both."""
    training = [breast for breast in breasts if breast.fold != fold]
    validation = [breast for breast in breasts if breast.fold == fold]
    shared = {breast.group for breast in training} & {breast.group for breast in validation}
    if shared:
        rows = [breast.row for breast in validation if breast.group in shared]
        raise DataError(
            f"{len(shared)} patients stand in fold {fold} and in another: {', '.join(rows[:5])}. Give all rows of a "
            "patient one fold"
        )
    if not training or not validation:
        raise DataError(f"fold {fold} has {len(validation)} rows and the others have {len(training)}: both need some")
    return training, validation
