"""What a figure counts: rows of the table, images, breasts or exams. The same values give other figures in each.

A breast's value is the mean over its images (RSNA's protocol), an exam's the largest of its breasts'. A unit is
positive if one of its images is; it is left out where none is and one is not known.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.mammo_clip.embed_clinical import any_known
from training.mammo_clip.labelled_images import LabelledImage

UNITS = ("row", "image", "breast", "exam")
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """G units: `values` (G) or (G, K), `truth` (G) bool, or the class 0 to 3 of density; `patients` (G) numbers that
    are equal where patients are; `members`: the rows behind each unit.
    """

    unit: str
    values: Values
    truth: NDArray[np.int64]
    patients: NDArray[np.int64]
    members: tuple[tuple[int, ...], ...]


def grouped(values: Values, images: Sequence[LabelledImage], label: str, unit: str) -> Grouped:
    """Values (N) of rows, one for each of `images`, by unit, with the truth of `label`. Raises ValueError."""
    groups = _groups(images, unit)
    truths = [any_known([images[row].labels.get(label) for row in rows]) for rows in groups]
    known = [rows for rows, truth in zip(groups, truths, strict=True) if truth is not None]
    joined = _exam_values if unit == "exam" else _mean_values
    return _made(
        unit, joined(values, images, known), [int(truth) for truth in truths if truth is not None], known, images
    )


def grouped_density(values: Values, images: Sequence[LabelledImage], unit: str) -> Grouped:
    """Class probabilities (N, 4) by unit, their mean in each, with the density that its first known image tells."""
    known, truths = [], []
    for rows in _groups(images, unit):
        told = [density for row in rows if (density := images[row].density) is not None]
        if told:
            known.append(rows)
            truths.append(told[0])
    return _made(unit, _mean_values(values, images, known), truths, known, images)


def unit_key(image: LabelledImage, unit: str, row: int) -> Hashable:
    """What is equal for rows of one unit. A film whose side is not known is a breast of its own."""
    keys: dict[str, Callable[[], Hashable]] = {
        "row": lambda: row,
        "image": lambda: image.picture,
        "breast": lambda: (image.patient, image.exam, image.laterality or image.picture),
        "exam": lambda: (image.patient, image.exam),
    }
    if unit not in keys:
        raise ValueError(f"unit is {unit!r}; there are {', '.join(UNITS)}")
    return keys[unit]()


def _groups(images: Sequence[LabelledImage], unit: str) -> list[tuple[int, ...]]:
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows[unit_key(image, unit, row)].append(row)
    return [tuple(group) for group in rows.values()]


def _mean_values(values: Values, images: Sequence[LabelledImage], groups: Sequence[tuple[int, ...]]) -> Values:
    return np.array([values[list(rows)].mean(axis=0) for rows in groups], np.float64)


def _exam_values(values: Values, images: Sequence[LabelledImage], groups: Sequence[tuple[int, ...]]) -> Values:
    found = []
    for rows in groups:
        breasts = _groups([images[row] for row in rows], "breast")
        found.append(max(float(values[[rows[at] for at in breast]].mean()) for breast in breasts))
    return np.array(found, np.float64)


def _made(
    unit: str,
    values: Values,
    truths: Sequence[int],
    groups: Sequence[tuple[int, ...]],
    images: Sequence[LabelledImage],
) -> Grouped:
    numbers: dict[str, int] = {}
    patients = [numbers.setdefault(images[rows[0]].patient, len(numbers)) for rows in groups]
    return Grouped(unit, values, np.array(truths, np.int64), np.array(patients, np.int64), tuple(groups))
