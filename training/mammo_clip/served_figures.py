"""Figures of served models on the test phantoms, each with its interval by patient, two models on the same exams.

Units are named in each key: exam, breast, view. A phantom exam is one patient.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.cache import load_truth
from training.figures import resampling
from training.figures.calibration import calibration
from training.figures.detection import ViewMarks, froc
from training.figures.intervals import (
    Interval,
    auc_difference,
    auc_interval,
    paired_difference,
    share_interval,
)
from training.finish import probability_of
from training.mammo_clip.served_rows import KINDS, Answered, Row, kind_of

Table = dict[str, Any]
Rows = dict[str, list[Row]]
"""Rows of each finding."""


class Truth:
    """Of N exams: patients (N), malignant breasts (N, 2), views that show a finding (N, 4, 4)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        exams = [load_truth(path) for path in paths]
        self.patients: NDArray[np.int64] = np.array([exam.seed for exam in exams], np.int64)
        self.breasts: NDArray[np.bool_] = np.array([exam.malignant_breasts for exam in exams], np.bool_)
        self.findings: NDArray[np.bool_] = np.zeros((len(exams), 4, KINDS), np.bool_)
        for number, exam in enumerate(exams):
            for box in exam.boxes:
                if 0 <= box.kind < KINDS:
                    self.findings[number, box.view, box.kind] = True

    def cases(self, said: Answered) -> dict[str, tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]]:
        """Logits, truth and patients of each output, by name and unit."""
        found = {
            "exam, malignant": (said.exam, np.asarray(self.breasts.any(1)), self.patients),
            "breast, malignant": (said.breasts.ravel(), self.breasts.ravel(), np.repeat(self.patients, 2)),
        }
        for at, name in enumerate(said.names):
            logits, shown = said.findings[..., at].ravel(), self.findings[..., kind_of(name)].ravel()
            found[f"view, {name}"] = (logits, shown, np.repeat(self.patients, 4))
        return found


def model_figures(said: Answered, truth: Truth, rows: Rows) -> Table:
    """Everything of one model."""
    exam = probability_of(said.exam, said.contract["calibration"]["exam_logit"])
    return {
        "weights_hash": said.contract["weights_hash"],
        "version": said.contract["version"],
        "exams": len(truth.patients),
        "auc": {name: auc_interval(*case).as_table() for name, case in truth.cases(said).items()},
        "exam calibration": calibration(exam, np.asarray(truth.breasts.any(1)), truth.patients).as_table(),
        "findings": {name: finding_figures(rows[name], truth.patients) for name in said.names},
        **{
            f"{name}, all findings": _rate(list(rows.values()), truth.patients, *rate).as_table()
            for name, rate in RATES.items()
        },
    }


def finding_figures(rows: Sequence[Row], patients: NDArray[np.int64]) -> Table:
    """Where heat lies in views that show the finding; what the operating point marks; FROC."""
    shown = [row for row in rows if row.located is not None]
    table: Table = {"views that show it": len(shown)}
    for name, hit in LOCATED.items():
        table[name] = _share(shown, hit, patients).as_table()
    bounded = [row for row in shown if row.bounds is not None]
    for name, hit in BOUNDS.items() if bounded else ():
        table[name] = _share(bounded, hit, patients).as_table()
    table["lesion views marked"] = _share(shown, lambda row: row.found, patients).as_table()
    table |= {name: _rate([list(rows)], patients, *rate).as_table() for name, rate in RATES.items()}
    table["FROC, heat times probability, centre in the lesion's box"] = froc(_view_marks(rows, patients)).as_table()
    return table


LOCATED: dict[str, Callable[[Row], float]] = {
    "pointing": lambda row: row.located is not None and row.located.pointing,
    "box at half of the maximum, IoU .25, at most 2": lambda row: row.located is not None and row.located.box,
    "the same where the probability is above its operating value": lambda row: (
        row.located is not None and row.located.box_where_probable
    ),
}

BOUNDS: dict[str, Callable[[Row], float]] = {
    "area chance of pointing": lambda row: row.bounds.area if row.bounds else 0.0,
    "Laplacian of Gaussian, pointing": lambda row: bool(row.bounds and row.bounds.filter_points),
    "Laplacian of Gaussian, box": lambda row: bool(row.bounds and row.bounds.filter_box),
    "true mask in these cells, pointing": lambda row: bool(row.bounds and row.bounds.mask_points),
    "true mask in these cells, box": lambda row: bool(row.bounds and row.bounds.mask_box),
}


def _share(rows: Sequence[Row], hit: Callable[[Row], float], patients: NDArray[np.int64]) -> Interval:
    return share_interval(_values(rows, hit), _patients(rows, patients))


def _values(rows: Sequence[Row], value: Callable[[Row], float]) -> NDArray[np.float64]:
    return np.array([float(value(row)) for row in rows], np.float64)


def _patients(rows: Sequence[Row], patients: NDArray[np.int64]) -> NDArray[np.int64]:
    return patients[[row.exam for row in rows]]


RATES: dict[str, tuple[bool, Callable[[Row], float]]] = {
    "marks per normal view": (True, lambda row: row.marked),
    "marks per view with a finding": (False, lambda row: row.marked),
    "false marks per view with a finding": (False, lambda row: row.false),
    "marks of another kind on a lesion, per view with a finding": (False, lambda row: row.mistaken),
}
"""Whether views without any finding count or those with one, and what is counted in them."""


def _rate(
    findings: Sequence[list[Row]], patients: NDArray[np.int64], normal: bool, count: Callable[[Row], float]
) -> Interval:
    """What is counted, of all findings given, in a view that shows none, or in one that shows any."""
    counted = np.sum([_values(rows, count) for rows in findings], axis=0)
    among = np.array([row.normal == normal for row in findings[0]], np.bool_)
    return share_interval(counted, _patients(findings[0], patients), among)


def _view_marks(rows: Sequence[Row], patients: NDArray[np.int64]) -> list[ViewMarks]:
    return [
        ViewMarks(
            str(patients[row.exam]),
            np.array([mark.heat * mark.probability for mark in row.marks], np.float64),
            np.array([mark.lesion for mark in row.marks], np.int64),
            row.lesions,
            row.normal,
        )
        for row in rows
    ]


def differences(first: tuple[Answered, Rows], second: tuple[Answered, Rows], truth: Truth) -> Table:
    """The first model less the second on the same exams, for all that both answer, intervals on the same draws."""
    table = auc_differences(first[0], second[0], truth)
    for name in (one for one in first[0].names if one in second[0].names):
        pair = [[row for row in rows[name] if row.located is not None] for _, rows in (first, second)]
        for figure, hit in {**LOCATED, "lesion views marked": lambda row: row.found}.items():
            values = [_values(rows, hit) for rows in pair]
            shares = [resampling.share(one) for one in values]
            patients, right = _patients(pair[0], truth.patients), values[0] > 0.5
            table[f"{name}: {figure}"] = paired_difference(shares[0], shares[1], patients, right).as_table()
    return table


def auc_differences(first: Answered, second: Answered, truth: Truth) -> Table:
    """The first model's AUC less the second's of every output that both have; "findings" is the mean over findings."""
    cases, others = truth.cases(first), truth.cases(second)
    table: Table = {
        f"auc: {name}": auc_difference(case[0], others[name][0], case[1], case[2]).as_table()
        for name, case in cases.items()
        if name in others
    }
    both = [name for name in cases if name.startswith("view, ") and name in others]
    if both:
        means = [
            resampling.mean([resampling.auc(own[name][0], own[name][1]) for name in both]) for own in (cases, others)
        ]
        shown = np.any([cases[name][1] for name in both], axis=0)
        table["auc: view, findings"] = paired_difference(means[0], means[1], cases[both[0]][2], shown).as_table()
    return table
