"""An instance arrives: it is recorded, and its exam is assembled and judged again, in one transaction."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from node.database import Database
from node.database.exams import locked_exam, set_status
from node.database.instances import (
    Recorded,
    all_contents,
    compared,
    insert_instance,
    latest,
    record_instance,
    study_instances,
)
from node.database.schema import ExamRow
from node.exam import Exam, ExamStatus, Instance, Standing, assemble, selection_hash, standing
from node.routing import Route, route
from node.settings import ExamSettings, Rule

logger = logging.getLogger(__name__)

UNDECIDED = frozenset({ExamStatus.WAITING, ExamStatus.READY})
"""Statuses that a further image may change even if the choice of images stays the same."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an arrival came to. `wake`: the exam is to be read now."""

    recorded: Recorded
    wake: bool


def receive(
    database: Database,
    instance: Instance,
    settings: ExamSettings,
    rules: Sequence[Rule],
    now: datetime,
) -> Receipt:
    """Record an instance and let its exam take the status that its images now give it.

    An equal instance changes nothing. Other content under the same UID counts from now on. An exam that was read,
    skipped or given up is taken up again only if the choice of its images changed; one that is being read takes its
    new status when the worker lets go. Receipts of one study take turns. Raises OutOfResourcesError or NodeError, and
    then nothing was recorded.
    """
    with database.write() as session:
        row = locked_exam(session, instance.study_instance_uid, now)
        is_first = row.selection_hash == ""
        contents = all_contents(session, instance.study_instance_uid)
        same = [known.content_hash for known in contents if known.sop_instance_uid == instance.sop_instance_uid]
        recorded = compared(instance, same)
        if recorded is Recorded.EQUAL:
            return Receipt(recorded, wake=False)
        insert_instance(session, instance, is_ours=False)
        row.last_image_at = row.updated_at = now
        exam = assemble(instance.study_instance_uid, latest([*contents, instance]), settings)
        if exam.alarm and not row.alarm:
            logger.error("ALARM %s: %s", instance.study_instance_uid, exam.problem)
        return Receipt(recorded, wake=_judge(row, exam, settings, rules, now, is_first))


def receive_ours(database: Database, instance: Instance) -> Receipt:
    """Record an object that this node made itself and was sent back. It never touches an exam."""
    return Receipt(record_instance(database, instance, is_ours=True), wake=False)


def settle(database: Database, study_instance_uid: str, settings: ExamSettings, now: datetime) -> bool:
    """Judge a WAITING exam whose time is up: READY, SKIPPED, or still WAITING. Returns whether it is READY.

    Called for each study of `due_exams`, before its lease is tried.
    """
    with database.write() as session:
        row = session.get(ExamRow, study_instance_uid, with_for_update=True)
        if row is None:
            return False
        if row.status == ExamStatus.WAITING:
            _take(row, standing(_assembled(session, study_instance_uid, settings), settings, now), now)
        return row.status == ExamStatus.READY


def exam_of(database: Database, study_instance_uid: str, settings: ExamSettings) -> Exam:
    """The exam of one study as its instances now stand."""
    with database.read() as session:
        return _assembled(session, study_instance_uid, settings)


def _assembled(session: Session, study_instance_uid: str, settings: ExamSettings) -> Exam:
    return assemble(study_instance_uid, study_instances(session, study_instance_uid), settings)


def _judge(
    row: ExamRow, exam: Exam, settings: ExamSettings, rules: Sequence[Rule], now: datetime, is_first: bool
) -> bool:
    """Set the row to what the images make of it; whether that makes it READY now."""
    chosen = selection_hash(exam)
    changed = is_first or chosen != row.selection_hash
    row.selection_hash, row.alarm = chosen, exam.alarm
    status = ExamStatus(row.status)
    if not changed and status not in UNDECIDED:
        return False
    if changed:
        row.attempts = 0
        row.priority = _priority(exam, rules)
    elif status is ExamStatus.READY:
        return False
    _take(row, standing(exam, settings, now), now)
    return row.status == ExamStatus.READY


def _take(row: ExamRow, next_standing: Standing, now: datetime) -> None:
    row.reason, row.waiting_for, row.due_at = next_standing.reason, next_standing.waiting_for, next_standing.due_at
    row.updated_at = now
    if row.status == ExamStatus.READING:
        row.next_status = next_standing.status.value
    else:
        set_status(row, next_standing.status, now)


def _priority(exam: Exam, rules: Sequence[Rule]) -> int:
    if not exam.chosen:
        return Rule("", ()).priority
    decided = route(exam, rules)
    return decided.priority if isinstance(decided, Route) else Rule("", ()).priority
