"""The same figure for each density, view or vendor. A small group is shown with its numbers and the word small."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.figures.intervals import Interval

SMALL = 10
"""Fewer positives or fewer negatives than this: small."""
NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Subgroup:
    """One group of one attribute (`name`: "density", "view", "vendor") and its figure."""

    name: str
    group: str
    figure: Interval

    @property
    def small(self) -> bool:
        """Whether the figure stands on too few rows to compare groups by it."""
        return min(self.figure.positives, self.figure.n - self.figure.positives) < SMALL

    def as_table(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "group": self.group, "small": self.small, **self.figure.as_table()}


def subgroups(
    name: str, groups: Sequence[str | None], figure: Callable[[npt.NDArray[np.intp]], Interval]
) -> tuple[Subgroup, ...]:
    """`figure` takes the numbers of a group's rows; None in `groups` (N) is a group of its own, the last."""
    labels = np.array([NOT_KNOWN if group is None else group for group in groups])
    names = sorted(set(labels.tolist()), key=lambda group: (group == NOT_KNOWN, group))
    return tuple(Subgroup(name, group, figure(np.flatnonzero(labels == group))) for group in names)
