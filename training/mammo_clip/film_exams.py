"""Whole four-view exams of which only is known that they are normal, or nothing: what a model says of real normals.

The source is an index `exams.json`: exam, views (files below the folder of the index's folder), labels.outcome.
"""

import json
from pathlib import Path
from typing import Any

from node.mammography.views import STANDARD_VIEWS
from training.mammo_clip.breasts import DataError
from training.mammo_clip.images import WholeImage
from training.mammo_clip.labelled_images import Labelled, LabelledImage, Reading
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES

LABELS = (*GRAMMAR_NAMES.values(), "cancer")
_MIRRORED = "RIGHT VIEWS MIRRORED"


def load_exams(folder: Path, reading: Reading) -> Labelled:
    """`exams=FOLDER`: every exam is of the test split. Raises DataError where the index is none or a file is missing.

    A normal exam has none of the labels; of any other nothing is known.
    """
    index = folder / "exams.json"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        images = tuple(image for entry in entries for image in _views(entry, folder.parent, reading.preset))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{index}: no index of exams: {type(error).__name__}: {error}") from error
    missing = [image.row for image in images if not image.picture.path.is_file()]
    if missing:
        raise DataError(f"{index}: {len(missing)} views have no file, the first: {missing[0]}")
    return Labelled("exams", reading.unit, images)


def _views(entry: dict[str, Any], root: Path, preset: str) -> list[LabelledImage]:
    """The four views. Where right views are stored mirrored, the chest wall is found in the pixels alone."""
    name, normal = str(entry["exam"]), entry["labels"].get("outcome") == "normal"
    mirrored = _MIRRORED in entry["kind"]
    patient = str(entry["labels"].get("ddsm_path", name))
    return [
        LabelledImage(
            picture=WholeImage(root / entry["views"][str(view)], None if mirrored else view.laterality, preset),
            row=f"{name} {view}",
            patient=patient,
            exam=name,
            laterality=view.laterality,
            position=view.position,
            labels=dict.fromkeys(LABELS, False if normal else None),
            split="test",
        )
        for view in STANDARD_VIEWS
    ]
