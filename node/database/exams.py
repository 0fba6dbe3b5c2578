"""Where each exam stands. Every change of status is a compare-and-set that obeys exam.TRANSITIONS."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack, cast

from sqlalchemy import CursorResult, and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from node.database.engine import Database
from node.database.schema import ExamRow
from node.exam import TRANSITIONS, ExamStatus


@dataclass(frozen=True, slots=True)
class ExamRecord:
    """One exam as the status list shows it; the attributes are those of schema.ExamRow."""

    study_instance_uid: str
    status: ExamStatus
    reason: str
    waiting_for: str
    due_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None
    next_status: ExamStatus | None
    attempts: int
    priority: int
    alarm: bool
    selection_hash: str
    last_image_at: datetime
    updated_at: datetime
    explain_due_at: datetime | None


UNREAD = frozenset({ExamStatus.SKIPPED, ExamStatus.FAILED})
"""Statuses of an exam that was not read: destinations may want to know why (see explanations.py)."""


class ExamFields(TypedDict, total=False):
    """What may be set together with a status."""

    reason: str
    waiting_for: str
    due_at: datetime | None
    priority: int
    alarm: bool
    attempts: int


def exam_record(database: Database, study_instance_uid: str) -> ExamRecord | None:
    """One exam, None where nothing of that study arrived."""
    with database.read() as session:
        row = session.get(ExamRow, study_instance_uid)
        return None if row is None else record_of(row)


def exam_records(database: Database, limit: int = 1000) -> tuple[ExamRecord, ...]:
    """The exams that changed last, newest first."""
    with database.read() as session:
        return tuple(record_of(row) for row in session.scalars(_newest_first().limit(limit)))


def due_exams(database: Database, now: datetime) -> list[str]:
    """Study Instance UIDs to work on now: READY, WAITING whose time is up, READING whose lease ran out.

    By priority, then by the time of their last image. The sweep publishes them; the broker may lose every message.
    """
    with database.read() as session:
        return list(
            session.scalars(
                select(ExamRow.study_instance_uid)
                .where(
                    or_(
                        and_(ExamRow.status == ExamStatus.READY, or_(ExamRow.due_at.is_(None), ExamRow.due_at <= now)),
                        and_(ExamRow.status == ExamStatus.WAITING, ExamRow.due_at <= now),
                        and_(ExamRow.status == ExamStatus.READING, ExamRow.lease_until <= now),
                    )
                )
                .order_by(ExamRow.priority, ExamRow.last_image_at)
            )
        )


def advance(
    database: Database,
    study_instance_uid: str,
    from_status: ExamStatus,
    to_status: ExamStatus,
    now: datetime,
    **also: Unpack[ExamFields],
) -> bool:
    """Move one exam from one status to another, and set `also` with it. False: it was not in `from_status`.

    Raises ValueError where TRANSITIONS has no such step. Into and out of READING go `lease_exam` and `end_reading`.
    """
    if to_status not in TRANSITIONS[from_status] or ExamStatus.READING in (from_status, to_status):
        raise ValueError(f"no step from {from_status} to {to_status}")
    with database.write() as session:
        return _changed(
            session,
            update(ExamRow)
            .where(ExamRow.study_instance_uid == study_instance_uid, ExamRow.status == from_status)
            .values(status=to_status.value, updated_at=now, explain_due_at=explanation_due(to_status, now), **also),
        )


def lease_exam(
    database: Database, study_instance_uid: str, owner: str, now: datetime, lease_seconds: float
) -> ExamRecord | None:
    """Take a READY exam, or one whose reader's lease ran out, for `owner`. None: another has it, or nothing is due.

    Two workers never hold one exam. `attempts` counts this try; the record holds the selection that is leased.
    """
    free = or_(
        and_(ExamRow.status == ExamStatus.READY, or_(ExamRow.due_at.is_(None), ExamRow.due_at <= now)),
        and_(ExamRow.status == ExamStatus.READING, ExamRow.lease_until <= now, ExamRow.next_status.is_(None)),
    )
    with database.write() as session:
        _release_expired(session, study_instance_uid, now)
        row = session.scalars(
            update(ExamRow)
            .where(ExamRow.study_instance_uid == study_instance_uid, free)
            .values(
                status=ExamStatus.READING.value,
                lease_owner=owner,
                lease_until=now + timedelta(seconds=lease_seconds),
                next_status=None,
                due_at=None,
                attempts=ExamRow.attempts + 1,
                updated_at=now,
            )
            .returning(ExamRow)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        return None if row is None else record_of(row)


def end_reading(
    database: Database,
    study_instance_uid: str,
    owner: str,
    to_status: ExamStatus,
    now: datetime,
    **also: Unpack[ExamFields],
) -> bool:
    """Let go of a leased exam without a reading: SKIPPED or FAILED with a reason, READY with `due_at` for a retry.

    Images that came meanwhile win: the exam then takes the status that they gave it. False: the lease was lost.
    A reading ends in readings.store_reading.
    """
    if to_status not in TRANSITIONS[ExamStatus.READING]:
        raise ValueError(f"no step from {ExamStatus.READING} to {to_status}")
    with database.write() as session:
        row = held_exam(session, study_instance_uid, owner)
        if row is None:
            return False
        let_go(row, to_status, now, **also)
        return True


def held_exam(session: Session, study_instance_uid: str, owner: str) -> ExamRow | None:
    """The exam's row, locked, where `owner` still holds its lease."""
    return session.scalars(select(ExamRow).where(*_held_by(study_instance_uid, owner)).with_for_update()).one_or_none()


def let_go(row: ExamRow, to_status: ExamStatus, now: datetime, **also: Unpack[ExamFields]) -> None:
    """End a lease within a transaction: the pending status of newer images, else `to_status` with `also`."""
    if row.next_status is not None:
        set_status(row, ExamStatus(row.next_status), now)
    else:
        set_status(row, to_status, now)
        for name, value in also.items():
            setattr(row, name, value)
    row.next_status = row.lease_owner = row.lease_until = None
    row.updated_at = now


def set_status(row: ExamRow, status: ExamStatus, now: datetime) -> None:
    """Set a status within a transaction; an exam that is not read is to be explained from now on."""
    row.status = status.value
    row.explain_due_at = explanation_due(status, now)


def explanation_due(status: ExamStatus, now: datetime) -> datetime | None:
    """When an exam that takes `status` at `now` is to be explained; None: there is nothing to explain."""
    return now if status in UNREAD else None


def locked_exam(session: Session, study_instance_uid: str, now: datetime) -> ExamRow:
    """The study's exam, made where it is missing, locked until the transaction ends: receipts of a study take turns."""
    wanted = select(ExamRow).where(ExamRow.study_instance_uid == study_instance_uid).with_for_update()
    row = session.scalars(wanted).one_or_none()
    if row is None:
        _make_exam(session, study_instance_uid, now)
        row = session.scalars(wanted).one()
    return row


def _make_exam(session: Session, study_instance_uid: str, now: datetime) -> None:
    """Another receipt may make it at the same time: PostgreSQL then waits for that one, and this does nothing."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(
        insert(ExamRow)
        .values(
            study_instance_uid=study_instance_uid,
            status=ExamStatus.WAITING.value,
            reason="",
            waiting_for="",
            attempts=0,
            priority=5,
            alarm=False,
            selection_hash="",
            last_image_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing(index_elements=[ExamRow.study_instance_uid])
    )


def _release_expired(session: Session, study_instance_uid: str, now: datetime) -> None:
    """A dead worker's exam whose images changed meanwhile takes the status that they gave it."""
    row = session.scalars(
        select(ExamRow)
        .where(
            ExamRow.study_instance_uid == study_instance_uid,
            ExamRow.status == ExamStatus.READING,
            ExamRow.lease_until <= now,
            ExamRow.next_status.is_not(None),
        )
        .with_for_update()
    ).one_or_none()
    if row is not None:
        let_go(row, ExamStatus.READY, now)
        session.flush()


def _held_by(study_instance_uid: str, owner: str) -> Sequence[Any]:
    return (
        ExamRow.study_instance_uid == study_instance_uid,
        ExamRow.status == ExamStatus.READING,
        ExamRow.lease_owner == owner,
    )


def _newest_first() -> Any:
    return select(ExamRow).order_by(ExamRow.updated_at.desc(), ExamRow.study_instance_uid)


def _changed(session: Session, statement: Any) -> bool:
    result = cast("CursorResult[Any]", session.execute(statement.execution_options(synchronize_session=False)))
    return result.rowcount == 1


def record_of(row: ExamRow) -> ExamRecord:
    """A row as a value."""
    values = {field.name: getattr(row, field.name) for field in fields(ExamRecord)}
    values["status"] = ExamStatus(row.status)
    values["next_status"] = None if row.next_status is None else ExamStatus(row.next_status)
    return ExamRecord(**values)
