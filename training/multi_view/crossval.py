"""Folds by patient, a validation part of their own, few shots, and the figures of a cross-validation.

Each case is tested once, by a model that saw neither it nor another exam of its patient. The validation part, cut out
of the training patients, chooses the epoch.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.figures import resampling
from training.figures.intervals import Interval, auc_interval, average_precision, delong_interval, interval_of
from training.figures.report import Measured, Row
from training.figures.resampling import Counts, Statistic
from training.mammo_clip.breasts import DataError
from training.multi_view.case_items import CaseImages

Rows = list[int]
_HEADER = ("row", "patient", "malignant", "fold", "logit")


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows of one fold: no patient stands in two of the three."""

    training: Rows
    validation: Rows
    test: Rows


def folds_of(images: CaseImages, count: int, seed: int) -> list[Rows]:
    """The table's own folds where it has them, else `count` of equal shares of both classes. Raises DataError."""
    given = [case.fold for case in images.cases]
    if given[0] is not None:
        rows = [[row for row, fold in enumerate(given) if fold == name] for name in sorted({f for f in given if f})]
        first = [row for row, fold in enumerate(given) if fold == 0]
        folds = ([first] if first else []) + rows
    else:
        folds = _dealt(images, count, seed)
    for number, rows_of in enumerate(folds):
        if len({images.cases[row].malignant for row in rows_of}) < 2:
            raise DataError(f"fold {number} has one class alone; take fewer folds, or more cases")
    if len(folds) < 2:
        raise DataError(f"{len(folds)} fold; it takes two at least")
    return folds


def _dealt(images: CaseImages, count: int, seed: int) -> list[Rows]:
    """Patients dealt in turn, malignant ones first; a patient is malignant where one of the cases is."""
    patients = _by_patient(images, range(len(images)))
    folds: list[Rows] = [[] for _ in range(count)]
    for number, patient in enumerate(_shuffled(images, patients, seed)):
        folds[number % count] += patients[patient]
    return [sorted(rows) for rows in folds]


def _by_patient(images: CaseImages, rows: Sequence[int]) -> dict[str, Rows]:
    found: dict[str, Rows] = defaultdict(list)
    for row in rows:
        found[images.cases[row].patient].append(row)
    return dict(found)


def _shuffled(images: CaseImages, patients: dict[str, Rows], seed: int) -> list[str]:
    """Malignant patients in a drawn order, then the others in one."""
    malignant = {name: any(images.cases[row].malignant for row in rows) for name, rows in patients.items()}
    rng = np.random.default_rng((seed, 71))
    names = sorted(patients)
    rng.shuffle(names)
    return sorted(names, key=lambda name: not malignant[name])


def parts_of(images: CaseImages, folds: list[Rows], fold: int, share: float, seed: int) -> Parts:
    """Test rows of a fold; of the other patients `share` of either class validates, the rest trains."""
    others = [row for number, rows in enumerate(folds) if number != fold for row in rows]
    patients = _by_patient(images, others)
    names = _shuffled(images, patients, seed * 1000 + fold)
    every = max(2, round(1.0 / share))
    validation = sorted(row for number, name in enumerate(names) if number % every == 0 for row in patients[name])
    training = sorted(set(others) - set(validation))
    for words, rows in (("validation", validation), ("training", training)):
        if len({images.cases[row].malignant for row in rows}) < 2:
            raise DataError(f"fold {fold}: the {words} cases are of one class alone; it takes more cases")
    return Parts(training, validation, folds[fold])


def few_shots(images: CaseImages, rows: Rows, shots: int, seed: int) -> Rows:
    """So many cases of either class among these rows, 0: all. Raises DataError where there are fewer."""
    if not shots:
        return rows
    order = [int(row) for row in np.random.default_rng((seed, 73)).permutation(rows)]
    chosen: Rows = []
    for malignant in (False, True):
        of_class = [row for row in order if images.cases[row].malignant is malignant]
        if len(of_class) < shots:
            words = "malignant" if malignant else "benign"
            raise DataError(f"{shots} shots are wanted; a fold trains on {len(of_class)} {words} cases alone")
        chosen += of_class[:shots]
    return sorted(chosen)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Cases with the logit of a model that did not learn them; `fold` is -1 outside of a cross-validation. All (N)."""

    rows: tuple[str, ...]
    patients: NDArray[Any]
    malignant: NDArray[np.bool_]
    fold: NDArray[np.int64]
    logits: NDArray[np.float64]

    @property
    def one_row_a_patient(self) -> bool:
        """Whether DeLong's variance holds."""
        return bool(np.unique(self.patients).size == self.patients.size)

    def of(self, fold: int) -> "Judged":
        """Those of one fold."""
        there = self.fold == fold
        rows = tuple(row for row, is_there in zip(self.rows, there, strict=True) if is_there)
        return Judged(rows, self.patients[there], self.malignant[there], self.fold[there], self.logits[there])


def judged_of(images: CaseImages, logits: NDArray[np.float64], fold: int = -1) -> Judged:
    """What a model says of cases."""
    rows = tuple(case.row for case in images.cases)
    return Judged(rows, images.patients, images.malignant, np.full(len(rows), fold), logits)


def together(parts: Sequence[Judged]) -> Judged:
    """Several folds as one."""
    return Judged(
        tuple(row for part in parts for row in part.rows),
        np.concatenate([part.patients for part in parts]),
        np.concatenate([part.malignant for part in parts]),
        np.concatenate([part.fold for part in parts]),
        np.concatenate([part.logits for part in parts]),
    )


def write_judged(path: Path, judged: Judged) -> None:
    """As CSV, whole or not at all; patients are numbers that stand for nothing else."""
    numbers = np.unique(judged.patients, return_inverse=True)[1]
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        for values in zip(judged.rows, numbers, judged.malignant.astype(int), judged.fold, judged.logits, strict=True):
            writer.writerow([*values[:4], repr(float(values[4]))])
    part.replace(path)


def read_judged(path: Path) -> Judged:
    """What `write_judged` wrote. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = [tuple(record[name] for name in _HEADER) for record in csv.DictReader(file)]
        rows, patients, malignant, fold, logits = zip(*table, strict=True)
        positive = np.array([int(value) for value in malignant], np.bool_)
        folds = np.array([int(value) for value in fold], np.int64)
        return Judged(rows, np.array(patients), positive, folds, np.array([float(value) for value in logits]))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: no table of logits: {error}; delete it, and that fold is run again") from error


def fold_aucs(judged: Judged) -> list[float]:
    """AUC of each fold."""
    return [
        float(_auc(judged.of(int(fold)))(resampling.once(len(judged.of(int(fold)).rows)))[0]) for fold in _folds(judged)
    ]


def _folds(judged: Judged) -> NDArray[np.int64]:
    return np.unique(judged.fold)


def _auc(judged: Judged) -> Statistic:
    return resampling.auc(judged.logits, judged.malignant)


def mean_of_folds(judged: Judged) -> Statistic:
    """Mean over the folds of their AUC: logits of different models are not ranked against each other."""
    places = [np.flatnonzero(judged.fold == fold) for fold in _folds(judged)]
    statistics = [_auc(judged.of(int(fold))) for fold in _folds(judged)]

    def statistic(counts: Counts) -> NDArray[np.float64]:
        values = [one(counts[:, rows]) for one, rows in zip(statistics, places, strict=True)]
        return np.asarray(np.mean(values, axis=0), np.float64)

    return statistic


def one_auc(judged: Judged) -> Interval:
    """By DeLong where each patient has one row, else by bootstrap."""
    if judged.one_row_a_patient:
        return delong_interval(judged.logits, judged.malignant, judged.patients)
    return auc_interval(judged.logits, judged.malignant, judged.patients)


def cross_validation_figures(judged: Judged, what: str) -> tuple[Row, ...]:
    """Mean and sd over the folds, each fold, all folds pooled, average precision."""
    aucs = fold_aucs(judged)
    mean = interval_of(mean_of_folds(judged), judged.patients, judged.malignant)
    pooled = auc_interval(judged.logits, judged.malignant, judged.patients)
    precision = average_precision(judged.logits, judged.malignant, judged.patients)
    prevalence = float(judged.malignant.mean())
    found = [
        Measured(what, "mean AUC of the folds", mean, "case", f"sd over {len(aucs)} folds {np.std(aucs, ddof=1):.3f}"),
        Measured(what, "AUC", pooled, "case", "pooled: ranks cases of different models against each other"),
        Measured(what, "average precision", precision, "case", "pooled", round(prevalence, 4)),
    ]
    found += [Measured(f"{what}, fold {fold}", "AUC", one_auc(judged.of(int(fold))), "case") for fold in _folds(judged)]
    return tuple(one.as_table() for one in found)
