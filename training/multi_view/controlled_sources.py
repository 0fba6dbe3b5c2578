"""Where the exams of controlled runs come from: phantoms rendered for them, or a table of real cases."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from node.mammography.views import STANDARD_VIEWS
from training.mammo_clip.breasts import DataError
from training.multi_view.case_items import ABSENT, CaseImages, decode_cases
from training.multi_view.cases import CaseReading, load_cases
from training.multi_view.controlled_exams import NEGATIVE, ExamRecord, ExamStore, Wanted, render_store
from training.multi_view.controlled_recipe import ControlledRecipe
from training.multi_view.crossval import folds_of, parts_of

CASES = "cases"
"""Group of real exams."""
_FOLDS, _VALIDATION_SHARE = 5, 0.15
MayGoOn = Callable[[], bool]


def exams_of(
    source: str, recipe: ControlledRecipe, out: Path, may_go_on: MayGoOn, workers: int
) -> dict[str, ExamStore] | None:
    """Exams by split; None where the time was spent before all were rendered. Raises DataError, TableError."""
    kind, _, rest = source.partition("=")
    if kind == "phantoms" and rest and "," not in rest:
        return _phantoms(Path(rest), recipe, may_go_on, workers)
    if kind != CASES or recipe.encoder.kind == "own":
        raise DataError(
            f"--data {source!r}: write phantoms=CACHE, a folder for rendered squares, or, with CLIP's weights, "
            "cases=TABLE.csv,IMAGES"
        )
    return _cases(source, recipe, out / "decoded")


def _phantoms(cache: Path, recipe: ControlledRecipe, may_go_on: MayGoOn, workers: int) -> dict[str, ExamStore] | None:
    exams = recipe.exams
    wanted = [
        Wanted("training", exams.training_seed, exams.training, exams.pair_share),
        Wanted("validation", exams.validation_seed, exams.validation, exams.pair_share),
        Wanted("test", exams.test_seed, exams.test, exams.pair_share),
    ]
    if recipe.encoder.kind == "own":
        wanted.insert(0, Wanted("pretraining", exams.pretraining_seed, exams.pretraining, 0.0))
    found = {}
    for one in wanted:
        store = render_store(cache, one, exams.size, may_go_on, workers) if one.count else None
        if store is None:
            return None
        found[one.split] = store
    return found


def _cases(source: str, recipe: ControlledRecipe, folder: Path) -> dict[str, ExamStore]:
    """Fold 0 of the table is the test, the rest trains and validates; without folds the fifth of a drawn five."""
    size = recipe.exams.size
    images, problems = decode_cases(load_cases(source, CaseReading(size)), size, folder)
    for problem in problems:
        print(f"left out: {problem}")
    parts = parts_of(images, folds_of(images, _FOLDS, recipe.seed), 0, _VALIDATION_SHARE, recipe.seed)
    rows: Mapping[str, list[int]] = {
        "training": parts.training,
        "validation": parts.validation,
        "test": parts.test,
    }
    return {split: _store(images.only(chosen), folder / f"{split}-{size}.u8") for split, chosen in rows.items()}


def _store(images: CaseImages, file: Path) -> ExamStore:
    shape = (len(images), len(STANDARD_VIEWS), *images.planes.shape[1:])
    planes = np.memmap(file, np.uint8, "w+", shape=shape)
    records = []
    for row, (case, numbers) in enumerate(zip(images.cases, images.numbers, strict=True)):
        absent = tuple(view for view, number in enumerate(numbers) if number == ABSENT)
        for view, number in enumerate(numbers):
            if number != ABSENT:
                planes[row, view] = images.planes[number]
        impressions = (NEGATIVE,) * len(STANDARD_VIEWS)
        records.append(ExamRecord(row, CASES, case.malignant, 0.0, impressions, (), case.patient, absent))
    planes.flush()
    return ExamStore(planes, tuple(records))
