"""What recipes of evaluation share: which rows are read, how they are encoded, which units are reported."""

from collections.abc import Iterable
from dataclasses import dataclass

from training.mammo_clip.breasts import DataError
from training.mammo_clip.labelled import Labelled, Reading, load_labelled
from training.mammo_clip.labelled_images import ROW_UNITS
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.units import UNITS


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Rows of a source. `rows`: "image", or "row" for the published unit of VinDr-Mammo. The numbers of phantom exams
    are the first seeds of each split; 0 takes none.
    """

    rows: str
    validation_share: float
    phantom_training_exams: int
    phantom_validation_exams: int
    phantom_calibration_exams: int
    phantom_test_exams: int

    def reading(self, preset: str, splits: tuple[str, ...], *, strict: bool, first_training_exam: int = 0) -> Reading:
        """How `load_labelled` reads a source; `preset` prepares whole images."""
        exams = {
            "training": self.phantom_training_exams,
            "validation": self.phantom_validation_exams,
            "calibration": self.phantom_calibration_exams,
            "test": self.phantom_test_exams,
        }
        return Reading(self.rows, preset, splits, self.validation_share, exams, strict, first_training_exam)


def check_choices(key: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Raises RecipeError for a value that is none of the known."""
    wrong = [value for value in values if value not in known]
    if wrong:
        raise RecipeError(f"{key} is {wrong[0]!r}; there are {', '.join(known)}")


def check_data(data: EvaluationData, units: tuple[str, ...]) -> None:
    """Raises RecipeError for rows or units that are none."""
    check_choices("data.rows", [data.rows], ROW_UNITS)
    check_choices("units", units, UNITS)
    if "row" in units and data.rows != "row":
        raise RecipeError('units: "row" is reported where data.rows is "row"')
    if not units or not 0.0 <= data.validation_share < 1.0:
        raise RecipeError("units needs one unit at least, data.validation_share a share below 1")


def load_rows(
    source: str,
    data: EvaluationData,
    preset: str,
    splits: tuple[str, ...],
    *,
    strict: bool,
    needed: tuple[str, ...],
    first_training_exam: int = 0,
) -> Labelled:
    """The rows of some splits. Raises TableError, and DataError where one that is `needed` has none."""
    labelled = load_labelled(
        source, data.reading(preset, splits, strict=strict, first_training_exam=first_training_exam)
    )
    for split in needed:
        if not labelled.of(split):
            raise DataError(f"{source}: has no rows of the split {split}")
    return labelled


def known_labels(labelled: Labelled, labels: tuple[str, ...]) -> None:
    """Raises DataError for a label of which no row tells anything."""
    told = {name for image in labelled.images for name, value in image.labels.items() if value is not None}
    if missing := [name for name in labels if name not in told]:
        raise DataError(
            f"{labelled.source}: no row tells {', '.join(missing)}; labels there: {', '.join(sorted(told))}"
        )
