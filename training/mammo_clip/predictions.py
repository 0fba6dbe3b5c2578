"""Logits of single images with their truth, as a CSV table: what another report or another unit can be made of."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from training.mammo_clip.unit_figures import Platt, Scored


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image and one label. `patient` and `exam` are numbers that stand for nothing else; "" is not known."""

    label: str
    row: str
    patient: int
    exam: int
    side: str
    view: str
    density: int | str
    vendor: str
    truth: int | str
    logit: float
    probability: float


def predictions_of(label: str, scored: Scored, platt: Platt) -> list[Prediction]:
    """A row for each image, in order; `label` may name the prompts too ("Mass, grammar")."""
    patients: dict[str, int] = {}
    exams: dict[tuple[str, str], int] = {}
    found = []
    for image, value, probability in zip(scored.images, scored.logits, platt(scored.logits), strict=True):
        truth = image.labels.get(label.partition(",")[0])
        found.append(
            Prediction(
                label=label,
                row=image.row,
                patient=patients.setdefault(image.patient, len(patients)),
                exam=exams.setdefault((image.patient, image.exam), len(exams)),
                side=image.laterality.value if image.laterality else "",
                view=image.position.value if image.position else "",
                density="" if image.density is None else image.density,
                vendor=image.vendor or "",
                truth="" if truth is None else int(truth),
                logit=round(float(value), 6),
                probability=round(float(probability), 6),
            )
        )
    return found


def write_predictions(path: Path, rows: Sequence[Prediction]) -> None:
    """As CSV with the fields' names as header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Prediction)])
        writer.writerows(astuple(row) for row in rows)
