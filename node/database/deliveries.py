"""Which result goes where, and whether it got there. Leases are compare-and-set, as with exams."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from node.database.engine import Database
from node.database.schema import DeliveryRow, ReadingRow, ResultRow
from node.results.reading import Outcome, ResultKind


class DeliveryStatus(StrEnum):
    """Where one delivery stands."""

    PENDING = "pending"
    """To be sent at `due_at`; `reason` says why an earlier try failed."""
    SENDING = "sending"
    """A worker holds the lease."""
    SENT = "sent"
    """The destination took it at `sent_at`."""
    FAILED = "failed"
    """Given up; `reason` says why, a person must look."""
    NOT_NEEDED = "not needed"
    """The destination gets another form of the object, or a later reading's; `reason` says which."""
    QUARANTINED = "quarantined"
    """The object did not pass the node's own checks, `reason` says which; it never leaves. A person must look."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result on its way to one destination. `attempts` counts the tries, this one included."""

    id: int
    reading_id: int
    study_instance_uid: str
    destination: str
    status: DeliveryStatus
    attempts: int
    due_at: datetime
    sent_at: datetime | None
    reason: str
    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    form: str
    only_if_taken: str
    only_if_refused: str


def pending_deliveries(database: Database, now: datetime) -> list[tuple[int, str]]:
    """(reading id, destination) with something to send now: pending and due, or its sender's lease ran out."""
    with database.read() as session:
        rows = session.execute(
            select(DeliveryRow.reading_id, DeliveryRow.destination)
            .where(_free(now))
            .distinct()
            .order_by(DeliveryRow.reading_id, DeliveryRow.destination)
        )
        return [(reading_id, destination) for reading_id, destination in rows]


def lease_deliveries(
    database: Database, reading_id: int, destination: str, owner: str, now: datetime, lease_seconds: float
) -> list[Delivery]:
    """Take what is due of one reading for one destination; empty where another worker has it, or nothing is due.

    Nothing is due any more where a later reading goes to the same destination: it would arrive after that one.
    """
    with database.write() as session:
        _drop_replaced(session, reading_id, destination, now)
        taken = session.scalars(
            update(DeliveryRow)
            .where(DeliveryRow.reading_id == reading_id, DeliveryRow.destination == destination, _free(now))
            .values(
                status=DeliveryStatus.SENDING.value,
                lease_owner=owner,
                lease_until=now + timedelta(seconds=lease_seconds),
                attempts=DeliveryRow.attempts + 1,
            )
            .returning(DeliveryRow.id)
            .execution_options(synchronize_session=False)
        ).all()
        rows = session.execute(_joined().where(DeliveryRow.id.in_(taken)).order_by(DeliveryRow.id))
        return [_delivery(*row) for row in rows]


def mark_sent(database: Database, delivery_id: int, owner: str, now: datetime) -> bool:
    """The destination took it. False: the lease was lost (the object may then be sent twice; its UID is the same)."""
    return _release(database, delivery_id, owner, status=DeliveryStatus.SENT.value, sent_at=now, reason="")


def mark_failed(database: Database, delivery_id: int, owner: str, reason: str) -> bool:
    """Give up, for a reason that a person reads. False: the lease was lost."""
    return _release(database, delivery_id, owner, status=DeliveryStatus.FAILED.value, reason=reason)


def mark_not_needed(database: Database, delivery_id: int, owner: str, reason: str) -> bool:
    """The destination gets another form instead, for good: what depended on that is due whatever it takes later on.
    Without that a destination that is mended between two tries would get neither. False: the lease was lost.
    """
    with database.write() as session:
        if not _released(session, delivery_id, owner, status=DeliveryStatus.NOT_NEEDED.value, reason=reason):
            return False
        _decide_for_the_other(session, session.get_one(DeliveryRow, delivery_id))
        return True


def reschedule(database: Database, delivery_id: int, owner: str, reason: str, due_at: datetime) -> bool:
    """Try again at `due_at`; `reason` says what went wrong. False: the lease was lost."""
    return _release(database, delivery_id, owner, status=DeliveryStatus.PENDING.value, reason=reason, due_at=due_at)


def retry_failed(database: Database, now: datetime, destination: str | None = None) -> int:
    """A person mended the destination: what was given up, for one or for all, is sent again. Returns how many."""
    statement = update(DeliveryRow).where(DeliveryRow.status == DeliveryStatus.FAILED)
    if destination is not None:
        statement = statement.where(DeliveryRow.destination == destination)
    with database.write() as session:
        statement = statement.values(status=DeliveryStatus.PENDING.value, due_at=now, attempts=0)
        result = session.execute(statement.execution_options(synchronize_session=False))
        return cast("CursorResult[Any]", result).rowcount


def deliveries_of(database: Database, study_instance_uid: str) -> tuple[Delivery, ...]:
    """All deliveries of one study, for the status list, in the order of their results."""
    with database.read() as session:
        rows = session.execute(
            _joined().where(ReadingRow.study_instance_uid == study_instance_uid).order_by(DeliveryRow.id)
        )
        return tuple(_delivery(*row) for row in rows)


def _drop_replaced(session: Session, reading_id: int, destination: str, now: datetime) -> None:
    """Only an exam that was read replaces an earlier reading: where the later one failed, the earlier marks stay."""
    later = aliased(ReadingRow)
    number = session.scalar(
        select(func.max(later.number))
        .join(DeliveryRow, DeliveryRow.reading_id == later.id)
        .join(ReadingRow, ReadingRow.study_instance_uid == later.study_instance_uid)
        .where(
            ReadingRow.id == reading_id,
            later.number > ReadingRow.number,
            later.outcome == Outcome.READ.value,
            DeliveryRow.destination == destination,
        )
    )
    if number is None:
        return
    reason = f"reading {number} replaces it"
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.reading_id == reading_id, DeliveryRow.destination == destination, _free(now))
        .values(status=DeliveryStatus.NOT_NEEDED.value, lease_owner=None, lease_until=None, reason=reason)
        .execution_options(synchronize_session=False)
    )


def _free(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(DeliveryRow.status == DeliveryStatus.PENDING, DeliveryRow.due_at <= now),
        and_(DeliveryRow.status == DeliveryStatus.SENDING, DeliveryRow.lease_until <= now),
    )


def _release(database: Database, delivery_id: int, owner: str, **values: object) -> bool:
    with database.write() as session:
        return _released(session, delivery_id, owner, **values)


def _released(session: Session, delivery_id: int, owner: str, **values: object) -> bool:
    result = session.execute(
        update(DeliveryRow)
        .where(
            DeliveryRow.id == delivery_id,
            DeliveryRow.status == DeliveryStatus.SENDING,
            DeliveryRow.lease_owner == owner,
        )
        .values(lease_owner=None, lease_until=None, **values)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", result).rowcount == 1


def _decide_for_the_other(session: Session, row: DeliveryRow) -> None:
    """The condition of the other form is fulfilled from now on."""
    of_the_same = (DeliveryRow.reading_id == row.reading_id, DeliveryRow.destination == row.destination)
    for given_up, other in (
        (row.only_if_taken, DeliveryRow.only_if_refused),
        (row.only_if_refused, DeliveryRow.only_if_taken),
    ):
        if given_up:
            session.execute(
                update(DeliveryRow)
                .where(*of_the_same, other == given_up)
                .values({other: ""})
                .execution_options(synchronize_session=False)
            )


def _joined() -> Any:
    return (
        select(DeliveryRow, ResultRow, ReadingRow.study_instance_uid)
        .join(ResultRow, ResultRow.id == DeliveryRow.result_id)
        .join(ReadingRow, ReadingRow.id == DeliveryRow.reading_id)
    )


def _delivery(row: DeliveryRow, result: ResultRow, study_instance_uid: str) -> Delivery:
    return Delivery(
        id=row.id,
        reading_id=row.reading_id,
        study_instance_uid=study_instance_uid,
        destination=row.destination,
        status=DeliveryStatus(row.status),
        attempts=row.attempts,
        due_at=row.due_at,
        sent_at=row.sent_at,
        reason=row.reason,
        kind=ResultKind(result.kind),
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        path=result.path,
        form=result.form,
        only_if_taken=row.only_if_taken,
        only_if_refused=row.only_if_refused,
    )
