"""Instances as the listener records them, for tests of what is decided about them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from node.exam import MG_FOR_PRESENTATION, Exam, Instance, assemble
from node.mammography.views import Laterality, View, ViewPosition
from node.settings import ExamSettings

STUDY = "1.2.276.0.7230010.3.1.2.8323329.4711.1700000000.123456"
RECEIVED = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
SETTINGS = ExamSettings(
    settle_seconds=300.0, read_incomplete=False, accept_synthetic_2d=False, view_from_patient_orientation=False
)
FOUR = ("RCC", "LCC", "RMLO", "LMLO")


def view_named(name: str) -> View:
    return View(Laterality(name[0]), ViewPosition(name[1:]))


def image(view: str | None, number: int = 1, **changes: Any) -> Instance:
    """One For Presentation image of a view; `number` goes into its UID and its content."""
    values: dict[str, Any] = {
        "sop_instance_uid": f"1.2.276.0.7230010.3.1.4.8323329.{number}.{sum(map(ord, view or ''))}",
        "sop_class_uid": MG_FOR_PRESENTATION,
        "study_instance_uid": STUDY,
        "series_instance_uid": "1.2.276.0.7230010.3.1.3.8323329.4711",
        "content_hash": f"{number:064x}",
        "path": f"instances/{view}.{number}.dcm",
        "received_at": RECEIVED,
        "modality": "MG",
        "view": None if view is None else view_named(view),
        "view_problem": None if view else "no side: Image Laterality is missing",
        "patient_fingerprint": "p" * 64,
        "presentation_intent_type": "FOR PRESENTATION",
        "rows": 3328,
        "columns": 2560,
        "acquired_at": datetime(2026, 11, 22, 8, 15),
        "header": (("Modality", "MG"), ("Manufacturer", "Hologic, Inc."), ("ImageType", "ORIGINAL\\PRIMARY")),
    }
    return Instance(**{**values, **changes})


def exam_of(images: Sequence[Instance], settings: ExamSettings = SETTINGS) -> Exam:
    return assemble(STUDY, images, settings)


def four(**changes: Any) -> list[Instance]:
    """The four standard views."""
    return [image(view, **changes) for view in FOUR]


def after(seconds: float) -> datetime:
    return RECEIVED + timedelta(seconds=seconds)
