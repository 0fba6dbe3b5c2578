"""One image with what is known of it, whatever set it comes from; see labelled.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from node.mammography.views import Laterality, ViewPosition
from training.mammo_clip.images import Picture
from training.mammo_clip.readers import Box

SPLITS = ("training", "validation", "calibration", "test")
"""Calibration is a split of phantoms alone; elsewhere validation serves for it."""
ROW_UNITS = ("image", "row")


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image, or one row of its table, with what is known of it.

    `row` names it in messages ("line 12") and tells nothing of the patient. `labels`: None is not known. `density` 0 to
    3 for A to D. `boxes` by label: (left, top, right, bottom), half-open, in pixels of `picture.read()`.
    """

    picture: Picture
    row: str
    patient: str
    exam: str
    laterality: Laterality | None
    position: ViewPosition | None
    labels: Mapping[str, bool | None]
    density: int | None = None
    vendor: str | None = None
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    split: str = "training"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows of one source. `unit`: "image", each picture once with its labels joined by OR, or "row", as the table has
    them. `problems`: what was left out and why. `contradictory`: images whose rows disagree, by label.
    """

    source: str
    unit: str
    images: tuple[LabelledImage, ...]
    problems: tuple[str, ...] = ()
    contradictory: Mapping[str, int] = field(default_factory=dict)

    def of(self, split: str) -> tuple[LabelledImage, ...]:
        """The rows of one split."""
        return tuple(image for image in self.images if image.split == split)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read.

    `unit`: see `Labelled`. `preset` prepares DICOM files and films; pictures of published tables count as prepared.
    `splits` are those to read. `validation_share`: part of the training patients that validates, where the source has
    no fold for it. `phantom_exams`: exams by split, the first seeds; all that the cache holds where a split is not
    named; training begins at `phantom_first_training_exam`. `strict` stops at a row that does not hold.
    """

    unit: str = "image"
    preset: str = "mammo-clip"
    splits: tuple[str, ...] = SPLITS
    validation_share: float = 0.1
    phantom_exams: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False
    phantom_first_training_exam: int = 0
