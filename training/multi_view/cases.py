"""Cases: one exam a row, malignant or benign, with the pictures of its four views; views may be missing.

Sources: `phantoms=CACHE` (rendered exams) and `cases=TABLE.csv,IMAGES`, a table with the columns study_id, patient_id,
label, RCC, LCC, RMLO, LMLO and, where the folds are given, fold. A label is 0, 1, benign or malignant; a view's cell is
a file below IMAGES, empty where the view is missing. Labels are of the case (mammo-clip.md 10.2).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from node.mammography.views import STANDARD_VIEWS, Laterality
from training.cache import cached_seeds, load_truth
from training.mammo_clip.breasts import DataError
from training.mammo_clip.images import DICOM_ENDINGS, Plane, latest_exam, picture_display
from training.mammo_clip.tables import Record, TableError, image_below, read_table, text, whole
from training.multi_view.squares import prepare_square, square_of_display, square_of_plane
from training.phantoms import CALIBRATION_SEED, TEST_SEED, TRAIN_SEED, VALIDATION_SEED

COLUMNS = ("study_id", "patient_id", "label", *(view.name for view in STANDARD_VIEWS))
FOLD = "fold"
LABELS = {"0": False, "benign": False, "1": True, "malignant": True}
PHANTOM_SEEDS = {
    "training": TRAIN_SEED,
    "validation": VALIDATION_SEED,
    "calibration": CALIBRATION_SEED,
    "test": TEST_SEED,
}
"""First seed of each split of phantoms."""


@dataclass(frozen=True, slots=True)
class ViewImage:
    """One view as a square of `size` pixels: a DICOM object, PNG or JPEG."""

    path: Path
    laterality: Laterality
    size: int

    def key(self) -> str:
        """Changes when the file does."""
        status = self.path.stat()
        return f"{self.path}|{status.st_size}|{status.st_mtime_ns}|{self.laterality.value}|square {self.size}"

    def read(self) -> Plane:
        """Grey (size, size). Raises OSError, ValueError or NodeError where the file is no such image."""
        if self.path.suffix.lower() in DICOM_ENDINGS:
            prepared = prepare_square(pydicom.dcmread(self.path), self.laterality, self.size)
        else:
            prepared = square_of_display(picture_display(self.path), self.laterality, self.size)
        plane: Plane = np.round(prepared.pixels * 255.0).astype(np.uint8)
        return plane


@dataclass(frozen=True, slots=True)
class PhantomSquare:
    """One of the four views of a cached phantom exam as a square of `size` pixels."""

    path: Path
    view: int
    size: int

    def key(self) -> str:
        """The file's name carries the generator's version and the seed."""
        return f"{self.path.name}|{self.view}|square {self.size}"

    def read(self) -> Plane:
        """Grey (size, size)."""
        return square_of_plane(latest_exam(self.path).images[self.view], self.size)


Picture = ViewImage | PhantomSquare
Pictures = tuple[Picture | None, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One exam. `row` names it in messages ("line 12") and tells nothing of the patient.

    `pictures` in the order of STANDARD_VIEWS, None where the view is missing; one at least is there.
    """

    row: str
    study: str
    patient: str
    malignant: bool
    pictures: Pictures
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class Cases:
    """The cases of one source, in its order. `problems`: what was left out and why."""

    source: str
    cases: tuple[Case, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseReading:
    """`size`: side of the square that a view becomes. Of phantoms `exams` exams of one split are read."""

    size: int
    split: str = "training"
    exams: int = 0
    strict: bool = False


def load_cases(source: str, reading: CaseReading) -> Cases:
    """Read one source. Raises TableError for a table that cannot be used and, with `strict`, for a single bad row;
    DataError for a source that is not known, one class alone, or a patient in two folds.
    """
    kind, _, rest = source.partition("=")
    parts = [Path(part) for part in rest.split(",") if part]
    if kind == "phantoms" and len(parts) == 1:
        found = _phantoms(parts[0], reading)
    elif kind == "cases" and len(parts) == 2:
        found = read_cases(parts[0], parts[1], reading.size, strict=reading.strict)
    else:
        raise DataError(f"--data {source!r}: write cases=TABLE.csv,IMAGES or phantoms=CACHE")
    _check_labels(found)
    check_folds(found)
    return found


def read_cases(table: Path, images: Path, size: int, *, strict: bool = False) -> Cases:
    """A table of exams. A row that does not hold is left out and named; with `strict` it stops. Raises TableError."""
    read = read_table(
        table, COLUMNS, lambda record: _case(record, images, size), strict=strict, key=lambda case: case.study
    )
    cases = tuple(
        Case(f"line {line}", case.study, case.patient, case.malignant, case.pictures, case.fold)
        for case, line in zip(read.rows, read.lines, strict=True)
    )
    again = {case.study: case.row for case in reversed(cases)}
    once = tuple(case for case in cases if again[case.study] == case.row)
    repeated = [f"{table}:{c.row}: repeats {again[c.study]}" for c in cases if again[c.study] != c.row]
    if strict and repeated:
        raise TableError(f"{repeated[0]}. Take the row out, or leave --strict out to go on without it")
    return Cases(str(table), once, (*map(str, read.problems), *repeated))


def _case(record: Record, images: Path, size: int) -> Case:
    """One row. Raises ValueError saying what does not hold."""
    label = record["label"].lower()
    if label not in LABELS:
        raise ValueError(f"label is {record['label']!r}, not 0, 1, benign or malignant")
    fold = whole(record, FOLD) if FOLD in record else None
    if fold is not None and fold < 0:
        raise ValueError(f"fold is {fold}, below 0")
    pictures = _pictures(record, images, size)
    return Case("", text(record, "study_id"), text(record, "patient_id"), LABELS[label], pictures, fold)


def _pictures(record: Record, images: Path, size: int) -> Pictures:
    names = {view.name: record[view.name] for view in STANDARD_VIEWS if record[view.name]}
    if not names:
        raise ValueError("no view has a file")
    firsts: dict[str, str] = {}
    for view, name in names.items():
        if name in firsts:
            raise ValueError(f"{firsts[name]} and {view} are one file, {name:.100}")
        firsts[name] = view
    return tuple(
        ViewImage(image_below(images, record[view.name]), view.laterality, size) if record[view.name] else None
        for view in STANDARD_VIEWS
    )


def _phantoms(cache: Path, reading: CaseReading) -> Cases:
    if reading.split not in PHANTOM_SEEDS:
        raise DataError(f"phantoms have no split {reading.split!r}; there are {', '.join(PHANTOM_SEEDS)}")
    first = PHANTOM_SEEDS[reading.split]
    paths = cached_seeds(cache, first, reading.exams)
    if not paths or len(paths) < reading.exams:
        raise DataError(
            f"{cache}: {len(paths)} of {reading.exams} {reading.split} exams are rendered; run python -m training "
            f"render --cache {cache} --first {first} --count {reading.exams}"
        )
    return Cases(f"phantoms, {reading.split}", tuple(_phantom(path, reading.size) for path in paths))


def _phantom(path: Path, size: int) -> Case:
    truth = load_truth(path)
    pictures = tuple(PhantomSquare(path, number, size) for number in range(len(STANDARD_VIEWS)))
    seed = str(truth.seed)
    return Case(f"phantom {seed}", seed, seed, any(truth.malignant_breasts), pictures)


def _check_labels(found: Cases) -> None:
    positives = sum(case.malignant for case in found.cases)
    if not 0 < positives < len(found.cases):
        only = "malignant" if positives else "benign"
        raise DataError(f"{found.source}: all {len(found.cases)} cases are {only}; it takes both")


def check_folds(found: Cases) -> None:
    """Raises DataError where some cases have a fold and others none, or a patient stands in two."""
    with_fold = [case for case in found.cases if case.fold is not None]
    if with_fold and len(with_fold) < len(found.cases):
        raise DataError(f"{found.source}: {len(found.cases) - len(with_fold)} cases have no fold and others have one")
    folds: dict[str, dict[int | None, str]] = defaultdict(dict)
    for case in with_fold:
        folds[case.patient].setdefault(case.fold, case.row)
    shared = [places for places in folds.values() if len(places) > 1]
    if shared:
        places = ", ".join(f"{row} in fold {fold}" for fold, row in shared[0].items())
        raise DataError(f"{found.source}: {len(shared)} patients stand in two folds, the first: {places}")


def pictures_of(cases: Iterable[Case]) -> list[Picture]:
    """Every picture once, in order."""
    return list(dict.fromkeys(picture for case in cases for picture in case.pictures if picture is not None))


def joined(parts: Sequence[Cases]) -> Cases:
    """Cases of several sources as one; a patient's identifier counts within its source."""
    if len(parts) == 1:
        return parts[0]
    cases = tuple(
        Case(f"{part.source} {c.row}", c.study, f"{number} {c.patient}", c.malignant, c.pictures, c.fold)
        for number, part in enumerate(parts)
        for c in part.cases
    )
    found = Cases(", ".join(p.source for p in parts), cases, tuple(words for part in parts for words in part.problems))
    check_folds(found)
    return found
