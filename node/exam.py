"""An exam is a value: the mammography instances of one study, which four are read, and whether it is complete."""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from pydicom.uid import UID

from node.instance import FOR_PRESENTATION, FOR_PROCESSING, MAMMOGRAM_CLASSES
from node.instance import MG_FOR_PRESENTATION as MG_FOR_PRESENTATION
from node.instance import MG_FOR_PROCESSING as MG_FOR_PROCESSING
from node.instance import Instance as Instance
from node.instance import instance_of as instance_of
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


PATIENTS_DIFFER = "patients differ"
TOMOSYNTHESIS = "tomosynthesis, not read"
ONLY_SYNTHESISED = "only synthesised views"
A_MAMMOGRAM = "a mammogram"


def assemble(study_instance_uid: str, instances: Sequence[Instance], settings: ExamSettings) -> Exam:
    """The exam of one study from the instances that count, in any order. Pure.

    Of several images of one view the choice is: For Presentation before For Processing, or, with
    `prefer_for_processing`, the other way round (see `_chosen`); acquired before synthesised; whole before partial;
    implant displaced before not; then the later acquisition; then the larger.
    """
    exam = Exam(study_instance_uid, tuple(instances), chosen=(), problem=None)
    if len({instance.patient_fingerprint for instance in instances}) > 1:
        return replace(exam, problem=PATIENTS_DIFFER, alarm=True)
    readable = [instance for instance in instances if why_not_read(instance, settings) is None]
    if not readable:
        return replace(exam, problem=_problem(instances, settings))
    of_view = {view: [instance for instance in readable if instance.view == view] for view in STANDARD_VIEWS}
    chosen = tuple((view, _chosen(same, settings)) for view, same in of_view.items() if same)
    return replace(exam, chosen=chosen)


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
    For Processing without the For Presentation image on which its marks are to stand; the site prefers For Processing
    and one of them is not; or an image of the study is a part of a view or shows an implant (then further images of
    the same view follow). Everything else waits `settle_seconds` after the last image; an exam without all four views
    is then read only with `read_incomplete`.
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
    """Sorted (SOP Instance UID, content hash) of the images of a reading: those that are read and those marked."""
    images = [image for _, image in (*exam.chosen, *displayed_twins(exam))]
    return tuple(sorted((image.sop_instance_uid, image.content_hash) for image in images))


def selection_hash(exam: Exam) -> str:
    """SHA-256, hexadecimal, over the images read, those marked in their stead, and their views; another one where
    patients differ.

    A displayed twin that comes after the reading changes it: the exam is read again, and the marks then stand where
    they are seen.
    """
    chosen, twins = (
        [[view.name, image.sop_instance_uid, image.content_hash] for view, image in images]
        for images in (exam.chosen, displayed_twins(exam))
    )
    stated = [chosen, exam.alarm, twins] if twins else [chosen, exam.alarm]
    return sha256(json.dumps(stated).encode()).hexdigest()


def displayed_twins(exam: Exam) -> tuple[tuple[View, Instance], ...]:
    """By view, the image that is displayed in the stead of the chosen one; no entry where there is none."""
    twins = [(view, displayed_twin(exam, image)[0]) for view, image in exam.chosen]
    return tuple((view, twin) for view, twin in twins if twin is not None)


def displayed_twin(exam: Exam, instance: Instance) -> tuple[Instance | None, str]:
    """The For Presentation image on which the marks of a For Processing image stand, else None and why, in words.

    It is of the same study, side and view; its Source Image Sequence names `instance`, or both state one Acquisition
    Date and Time; and Rows, Columns, Imager Pixel Spacing and Patient Orientation are stated and equal, so that a
    pixel of one is that pixel of the other. None and no words where `instance` is no For Processing image.
    """
    if instance.presentation_intent_type != FOR_PROCESSING:
        return None, ""
    raw = {image.sop_instance_uid for image in exam.instances if image.presentation_intent_type == FOR_PROCESSING}
    candidates = sorted((image for image in exam.instances if _may_be_displayed(image, instance)), key=_preference)
    reasons = {image: _why_no_twin(image, instance, raw) for image in candidates}
    named_first = sorted(candidates, key=lambda image: instance.sop_instance_uid in image.source_instance_uids)
    twins = [image for image in named_first if not reasons[image]]
    if twins:
        return twins[-1], ""
    where = "marks stand on the For Processing image: "
    return None, where + (reasons[named_first[-1]] if named_first else "no For Presentation image of its view")


def _may_be_displayed(image: Instance, instance: Instance) -> bool:
    return (
        image.presentation_intent_type == FOR_PRESENTATION
        and image.modality == "MG"
        and image.view == instance.view
        and image.study_instance_uid == instance.study_instance_uid
        and image.patient_fingerprint == instance.patient_fingerprint
        and image.excluding_modifier is None
        and not (image.is_tomosynthesis or image.is_synthetic_2d or image.is_quality_control)
    )


def _why_no_twin(image: Instance, instance: Instance, raw: AbstractSet[str]) -> str:
    """Why a For Presentation image is not known to show the very pixels of `instance`; "" where it is.

    `raw`: the For Processing images of the study. One that names another of them was made from that one, whatever its
    time says.
    """
    is_named = instance.sop_instance_uid in image.source_instance_uids
    if not is_named and raw & set(image.source_instance_uids):
        return "the For Presentation image was made from another one"
    if not is_named and (image.exposed_at is None or image.exposed_at != instance.exposed_at):
        return "the For Presentation image neither names it as its source nor has its acquisition time"
    if (image.rows, image.columns) != (instance.rows, instance.columns):
        return "the For Presentation image has other rows or columns"
    if not image.spacing_mm or image.spacing_mm != instance.spacing_mm:
        return "the For Presentation image has another or no pixel spacing"
    if not image.orientation or image.orientation != instance.orientation:
        return "the For Presentation image has another or no patient orientation"
    return ""


def _chosen(same: Sequence[Instance], settings: ExamSettings) -> Instance:
    """Of the readable images of one view, the one that is read; a repeat is never passed over for earlier raw data."""
    displayed = [image for image in same if image.presentation_intent_type == FOR_PRESENTATION]
    raw = [image for image in same if image.presentation_intent_type == FOR_PROCESSING and not image.is_synthetic_2d]
    last = max((image.exposed_at for image in displayed if image.exposed_at), default=None)
    current = [image for image in raw if last is None or image.exposed_at is None or image.exposed_at >= last]
    return max(current if settings.prefer_for_processing and current else same, key=_preference)


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
    intents = [image.presentation_intent_type for _, image in exam.chosen]
    if intents.count(FOR_PROCESSING) > len(displayed_twins(exam)):
        return "settling: For Processing alone"
    if settings.prefer_for_processing and FOR_PRESENTATION in intents:
        return "settling: For Presentation alone"
    readable = [instance for instance in exam.instances if why_not_read(instance, settings) is None]
    if any(instance.is_partial_view for instance in readable):
        return "settling: partial view"
    if any(instance.has_implant or instance.is_implant_displaced for instance in readable):
        return "settling: implant"
    return ""


def _names(missing: Sequence[View]) -> str:
    return ", ".join(view.name for view in missing)
