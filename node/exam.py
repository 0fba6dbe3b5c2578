"""An exam is a value: the mammography instances of one study, which four are read, and whether it is complete."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from node.mammography.views import View


class ExamStatus(StrEnum):
    """Where an exam stands. Every exam ends in READ, SKIPPED or FAILED, and a new image may wake it again."""

    WAITING = "waiting"
    """Incomplete, or settling: read at `due_at`, or when the missing views come."""
    READY = "ready"
    """To be read as soon as a worker is free."""
    READING = "reading"
    """A worker holds the lease."""
    READ = "read"
    """A reading stands; its results are under delivery or delivered."""
    SKIPPED = "skipped"
    """Not read, and the reason says why."""
    FAILED = "failed"
    """Reading failed for good; a person must look."""


TRANSITIONS: dict[ExamStatus, frozenset[ExamStatus]] = {
    ExamStatus.WAITING: frozenset({ExamStatus.READY, ExamStatus.SKIPPED}),
    ExamStatus.READY: frozenset({ExamStatus.READING, ExamStatus.WAITING, ExamStatus.SKIPPED}),
    ExamStatus.READING: frozenset(
        {ExamStatus.READ, ExamStatus.SKIPPED, ExamStatus.FAILED, ExamStatus.READY, ExamStatus.WAITING}
    ),
    ExamStatus.READ: frozenset({ExamStatus.READY, ExamStatus.WAITING, ExamStatus.SKIPPED}),
    ExamStatus.SKIPPED: frozenset({ExamStatus.READY, ExamStatus.WAITING}),
    ExamStatus.FAILED: frozenset({ExamStatus.READY, ExamStatus.WAITING, ExamStatus.SKIPPED}),
}


@dataclass(frozen=True, slots=True)
class Instance:
    """One received SOP instance, by what its header says. Built once, at receipt, by `exam.instance_of(dataset)`.

    `view` is None where side or view cannot be told; `view_problem` then says why in words. `content_hash` is the
    SHA-256 of the encoded data set as received, hexadecimal. `acquired_at` is Acquisition Date and Time (falling back
    to Content, then Series), None if unknown; naive, as DICOM has it.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    content_hash: str
    path: str
    received_at: datetime
    modality: str
    view: View | None
    view_problem: str | None
    patient_fingerprint: str
    """SHA-256 over Patient ID, Issuer and Birth Date: tells patients apart without naming them."""
    presentation_intent_type: str
    rows: int
    columns: int
    acquired_at: datetime | None
    is_tomosynthesis: bool = False
    is_synthetic_2d: bool = False
    is_partial_view: bool = False
    has_implant: bool = False
    is_implant_displaced: bool = False
    is_quality_control: bool = False
    excluding_modifier: str | None = None
    """Meaning of a view modifier that makes the image none of a screening set: magnification, spot, specimen."""
    header: tuple[tuple[str, str], ...] = ()
    """Keyword and value pairs that routing rules may match; no patient attributes."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The mammography instances of one study. `chosen` has at most one instance for each standard view."""

    study_instance_uid: str
    instances: tuple[Instance, ...]
    chosen: tuple[tuple[View, Instance], ...]
    """In the order of STANDARD_VIEWS; a missing view has no entry."""
    problem: str | None
    """Why nothing of this study can be read ("patients differ", "no mammogram: CR"), None where something can."""
    alarm: bool = False
    """True where a person must be told at once (patients differ)."""

    def missing(self) -> tuple[View, ...]:
        """The standard views without an image."""
        from node.mammography.views import STANDARD_VIEWS

        have = {view for view, _ in self.chosen}
        return tuple(view for view in STANDARD_VIEWS if view not in have)


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether an exam is to be read now. `due_at` is the time at which it is read or skipped as it stands."""

    complete: bool
    due_at: datetime
    waiting_for: str
    """In words for the status list: "LMLO", "settling: For Processing alone", empty when complete."""
