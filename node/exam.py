"""An exam is a value: the mammography instances of one study, which four are read, and whether it is complete."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from node.errors import ViewError
from node.mammography import views
from node.mammography.views import STANDARD_VIEWS, View
from node.settings import ExamSettings


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
        have = {view for view, _ in self.chosen}
        return tuple(view for view in STANDARD_VIEWS if view not in have)


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether an exam is to be read now. `due_at` is the time at which it is read or skipped as it stands."""

    complete: bool
    due_at: datetime
    waiting_for: str
    """In words for the status list: "LMLO", "settling: For Processing alone", empty when complete."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an exam's images alone make of it: READY, WAITING until `due_at`, or SKIPPED for `reason`."""

    status: ExamStatus
    reason: str
    waiting_for: str
    due_at: datetime | None


MG_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
SECONDARY_CAPTURES = frozenset(
    {"1.2.840.10008.5.1.4.1.1.7", *(f"1.2.840.10008.5.1.4.1.1.7.{kind}" for kind in (1, 2, 3, 4))}
)
"""Secondary Capture Image Storage and its multi-frame forms: single bit, grayscale byte, grayscale word, true color."""
MAMMOGRAM_CLASSES = SECONDARY_CAPTURES | {MG_FOR_PRESENTATION, MG_FOR_PROCESSING}
"""SOP classes that may hold a mammogram to be read; each also needs Modality MG and a known side and view."""

FOR_PRESENTATION = "FOR PRESENTATION"
FOR_PROCESSING = "FOR PROCESSING"
INTENT_OF_CLASS = {MG_FOR_PRESENTATION: FOR_PRESENTATION, MG_FOR_PROCESSING: FOR_PROCESSING}
"""Presentation Intent Type where the data set does not state it (PS3.3 C.8.11.1)."""

# fmt: off
ROUTING_KEYWORDS = (
    "Modality", "SOPClassUID", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "DeviceSerialNumber", "DetectorID", "StationName", "InstitutionName", "InstitutionalDepartmentName",
    "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription",
    "BodyPartExamined", "PresentationIntentType", "ImageType", "ImageLaterality", "ViewPosition",
    "BreastImplantPresent", "PartialView", "QualityControlImage",
)
# fmt: on
"""What routing rules may match, beside SourceApplicationEntityTitle of the file meta: nothing about the patient."""

PATIENTS_DIFFER = "patients differ"
TOMOSYNTHESIS = "tomosynthesis, not read"
ONLY_SYNTHESISED = "only synthesised views"
A_MAMMOGRAM = "a mammogram"


def instance_of(
    dataset: Dataset,
    *,
    content_hash: str,
    path: str,
    received_at: datetime,
    from_patient_orientation: bool,
) -> Instance:
    """What a data set's header says; pixel data is not needed. `from_patient_orientation` as in views.view_of.

    Odd values count as absent where only sorting and routing want them. Raises ValueError or TypeError where an
    element that tells what the image is cannot be read as its VR says.
    """
    modality = _text(dataset, "Modality")
    sop_class_uid = _text(dataset, "SOPClassUID")
    view, view_problem = _view(dataset, modality, sop_class_uid, from_patient_orientation)
    intent = _text(dataset, "PresentationIntentType") or INTENT_OF_CLASS.get(sop_class_uid, "")
    return Instance(
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        sop_class_uid=sop_class_uid,
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        content_hash=content_hash,
        path=path,
        received_at=received_at,
        modality=modality,
        view=view,
        view_problem=view_problem,
        patient_fingerprint=_patient_fingerprint(dataset),
        presentation_intent_type=intent,
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        acquired_at=_acquired_at(dataset),
        is_tomosynthesis=views.is_tomosynthesis(dataset),
        is_synthetic_2d=views.is_synthetic_2d(dataset),
        is_partial_view=views.is_partial_view(dataset),
        has_implant=views.has_implant(dataset),
        is_implant_displaced=views.is_implant_displaced(dataset),
        is_quality_control=views.is_quality_control_image(dataset),
        excluding_modifier=views.excluding_modifier(dataset),
        header=_routing_header(dataset),
    )


def assemble(study_instance_uid: str, instances: Sequence[Instance], settings: ExamSettings) -> Exam:
    """The exam of one study from the instances that count, in any order. Pure.

    Of several images of one view the choice is (see `_preference`): For Presentation before For Processing; acquired
    before synthesised; whole before partial; implant displaced before not; then the later acquisition; then the larger.
    """
    exam = Exam(study_instance_uid, tuple(instances), chosen=(), problem=None)
    if len({instance.patient_fingerprint for instance in instances}) > 1:
        return replace(exam, problem=PATIENTS_DIFFER, alarm=True)
    readable = [instance for instance in instances if why_not_read(instance, settings) is None]
    if not readable:
        return replace(exam, problem=_problem(instances, settings))
    of_view = {view: [instance for instance in readable if instance.view == view] for view in STANDARD_VIEWS}
    return replace(exam, chosen=tuple((view, max(same, key=_preference)) for view, same in of_view.items() if same))


def why_not_read(instance: Instance, settings: ExamSettings) -> str | None:
    """Why one instance can be none of the four images, in words; None where it can."""
    if instance.modality != "MG":
        return f"no mammogram: {instance.modality or 'no modality'}"
    if instance.is_tomosynthesis:
        return TOMOSYNTHESIS
    if instance.sop_class_uid not in MAMMOGRAM_CLASSES:
        return f"no mammogram: {UID(instance.sop_class_uid).name}"
    if instance.is_quality_control:
        return "quality control image"
    if instance.view is None:
        return instance.view_problem or "no view"
    if instance.excluding_modifier is not None:
        return f"no standard view: {instance.excluding_modifier}"
    if instance.view not in STANDARD_VIEWS:
        return f"no standard view: {instance.view}"
    if instance.is_synthetic_2d and not settings.accept_synthetic_2d:
        return ONLY_SYNTHESISED
    return None


def completeness(exam: Exam, settings: ExamSettings, now: datetime) -> Completeness:
    """Whether an exam is read at `now`. Pure.

    The four standard views are complete at once, unless something better is likely to follow: one of them is
    For Processing, or an image of the study is a part of a view or shows an implant (then further images of the
    same view follow). Everything else waits `settle_seconds` after the last image; an exam without all four views is
    then read only with `read_incomplete`.
    """
    due_at = last_image_at(exam) + timedelta(seconds=settings.settle_seconds)
    waiting_for = _waiting_for(exam, settings)
    if not waiting_for:
        return Completeness(True, due_at, "")
    settled = now >= due_at and bool(exam.chosen)
    return Completeness(settled and (not exam.missing() or settings.read_incomplete), due_at, waiting_for)


def standing(exam: Exam, settings: ExamSettings, now: datetime) -> Standing:
    """What is to become of an exam at `now`, by its images alone. Pure.

    Different patients are a skip at once, for no later image mends that. Everything else that cannot be read, a study
    without any mammogram too, is a skip only when the settle time has passed: the mammograms may still be on their way.
    """
    if exam.alarm:
        return Standing(ExamStatus.SKIPPED, exam.problem or "", "", None)
    state = completeness(exam, settings, now)
    if state.complete:
        return Standing(ExamStatus.READY, "", "", None)
    if now < state.due_at:
        return Standing(ExamStatus.WAITING, "", state.waiting_for, state.due_at)
    return Standing(ExamStatus.SKIPPED, exam.problem or _views_missing(exam, settings), "", None)


def last_image_at(exam: Exam) -> datetime:
    """When the last instance of the exam was received."""
    return max(instance.received_at for instance in exam.instances)


def selection_of(exam: Exam) -> tuple[tuple[str, str], ...]:
    """Sorted (SOP Instance UID, content hash) of the chosen images: what a reading is a reading of."""
    return tuple(sorted((instance.sop_instance_uid, instance.content_hash) for _, instance in exam.chosen))


def selection_hash(exam: Exam) -> str:
    """SHA-256, hexadecimal, over the choice of images and their views; another one where patients differ."""
    chosen = [[view.name, image.sop_instance_uid, image.content_hash] for view, image in exam.chosen]
    return sha256(json.dumps([chosen, exam.alarm]).encode()).hexdigest()


def _preference(instance: Instance) -> tuple[object, ...]:
    """The greatest is chosen. The last two only make the choice the same on every machine."""
    return (
        instance.presentation_intent_type == FOR_PRESENTATION,
        instance.presentation_intent_type != FOR_PROCESSING,
        not instance.is_synthetic_2d,
        not instance.is_partial_view,
        instance.is_implant_displaced,
        instance.acquired_at or datetime.min,
        instance.rows * instance.columns,
        instance.received_at,
        instance.sop_instance_uid,
    )


def _problem(instances: Sequence[Instance], settings: ExamSettings) -> str:
    """The reason that tells most: a study of tomosynthesis with synthesised views lacks acquired views."""
    reasons = {why_not_read(instance, settings) or "" for instance in instances}
    for telling in (ONLY_SYNTHESISED, TOMOSYNTHESIS):
        if telling in reasons:
            return telling
    of_mammograms = {reason for reason in reasons if not reason.startswith("no mammogram")}
    return "; ".join(sorted(of_mammograms or reasons))


def _views_missing(exam: Exam, settings: ExamSettings) -> str:
    """Which views, and what was wrong with the mammograms that might have been theirs."""
    mammograms = [instance for instance in exam.instances if instance.modality == "MG"]
    reasons = {why_not_read(instance, settings) for instance in mammograms} - {None}
    return "; ".join([f"views missing: {_names(exam.missing())}", *sorted(f"not used: {reason}" for reason in reasons)])


def _waiting_for(exam: Exam, settings: ExamSettings) -> str:
    if not exam.chosen:
        return A_MAMMOGRAM
    if exam.missing():
        return _names(exam.missing())
    if any(image.presentation_intent_type == FOR_PROCESSING for _, image in exam.chosen):
        return "settling: For Processing alone"
    readable = [instance for instance in exam.instances if why_not_read(instance, settings) is None]
    if any(instance.is_partial_view for instance in readable):
        return "settling: partial view"
    if any(instance.has_implant or instance.is_implant_displaced for instance in readable):
        return "settling: implant"
    return ""


def _names(missing: Sequence[View]) -> str:
    return ", ".join(view.name for view in missing)


def _view(
    dataset: Dataset, modality: str, sop_class_uid: str, from_patient_orientation: bool
) -> tuple[View | None, str | None]:
    """View and problem. Only what may be a mammogram is asked for its view: elsewhere the answer means nothing."""
    if modality != "MG" or sop_class_uid not in MAMMOGRAM_CLASSES:
        return None, None
    try:
        return views.view_of(dataset, from_patient_orientation=from_patient_orientation), None
    except ViewError as error:
        return None, str(error)


def _patient_fingerprint(dataset: Dataset) -> str:
    identity = [_text(dataset, keyword) for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate")]
    return sha256(json.dumps(identity).encode()).hexdigest()


def _routing_header(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    pairs = [(keyword, _text(dataset, keyword)) for keyword in ROUTING_KEYWORDS]
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        pairs.append(("SourceApplicationEntityTitle", _text(meta, "SourceApplicationEntityTitle")))
    return tuple((keyword, value) for keyword, value in pairs if value)


def _text(dataset: Dataset, keyword: str) -> str:
    """One element as text, several values joined by a backslash; empty where absent or not readable as its VR says."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return ""
    if value is None or (isinstance(value, Sequence) and not isinstance(value, str) and not len(value)):
        return ""
    values = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(item) for item in values).replace("\0", "").strip()


def _count(dataset: Dataset, keyword: str) -> int:
    text = _text(dataset, keyword)
    return int(text) if text.isdecimal() else 0


def _acquired_at(dataset: Dataset) -> datetime | None:
    """Acquisition, else Content, else Series date and time, as stated: without time zone."""
    stated = [_text(dataset, "AcquisitionDateTime")]
    stated += [
        _text(dataset, f"{event}Date") + _text(dataset, f"{event}Time")
        for event in ("Acquisition", "Content", "Series")
    ]
    return next((time for time in map(_moment, stated) if time is not None), None)


def _moment(text: str) -> datetime | None:
    """A DT, or a DA with a TM (PS3.5 6.2): YYYYMMDD, then as much of HHMMSS.FFFFFF as is there."""
    match = re.match(r"(\d{8})(\d{2})?(\d{2})?(\d{2})?(?:\.(\d{1,6}))?", text)
    if match is None:
        return None
    date, hour, minute, second, fraction = match.groups()
    digits = f"{date}{hour or '00'}{minute or '00'}{second or '00'}{(fraction or '0').ljust(6, '0')}"
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None
