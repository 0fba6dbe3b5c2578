"""What a candidate says in shadow: due once the reading beside it has been delivered, leased, stored, compared.

Nothing here touches an exam, a reading, a result or a delivery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, func, or_, select, update
from sqlalchemy.orm import Session

from node.database.deliveries import DeliveryStatus
from node.database.engine import Database
from node.database.schema import DeliveryRow, ReadingRow, ShadowRow
from node.results.reading import ModelIdentity


class ShadowStatus(StrEnum):
    """Where one shadow stands."""

    PENDING = "pending"
    """To be read at `due_at`; `reason` says why an earlier try failed."""
    READING = "reading"
    """A worker holds the lease."""
    READ = "read"
    FAILED = "failed"
    """Given up; `reason` says why. The exam beside it is none the worse."""
    DROPPED = "dropped"
    """Not read any more: the exam has other images by now, and a reading of those."""


OPEN_DELIVERIES = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)


@dataclass(frozen=True, slots=True)
class Shadow:
    """One leased shadow. `selection` are the images of the reading beside it, `attempts` counts this try."""

    id: int
    reading_id: int
    study_instance_uid: str
    candidate: str
    selection: tuple[tuple[str, str], ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one model said of an exam: its identity (name, version, variant, weights hash) and the summary."""

    model: tuple[str, str, str, str]
    settings_hash: str
    prediction: Mapping[str, Any]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """The last reading of a study and what the candidate says of the same images."""

    study_instance_uid: str
    read_at: datetime
    first: Spoken
    candidate: Spoken


def want_shadow(session: Session, reading_id: int, candidate: str, now: datetime) -> None:
    """Within the transaction that stores a reading: the candidate is to read its images too, once."""
    beside = (ShadowRow.reading_id == reading_id, ShadowRow.candidate == candidate)
    if session.scalar(select(ShadowRow.id).where(*beside)) is None:
        session.add(
            ShadowRow(reading_id=reading_id, candidate=candidate, status=ShadowStatus.PENDING.value, due_at=now)
        )


def due_shadows(database: Database, candidate: str, now: datetime) -> list[int]:
    """Ids of what the candidate is to read now: nothing of the reading beside it waits to be delivered. Oldest first.

    A delivery that was given up or quarantined holds nothing up.
    """
    with database.read() as session:
        return list(
            session.scalars(
                select(ShadowRow.id).where(ShadowRow.candidate == candidate, _free(now)).order_by(ShadowRow.id)
            )
        )


def lease_shadow(database: Database, shadow_id: int, owner: str, now: datetime, lease_seconds: float) -> Shadow | None:
    """Take what is due. None: another worker has it, or it is not due (any more)."""
    with database.write() as session:
        row = session.scalars(
            update(ShadowRow)
            .where(ShadowRow.id == shadow_id, _free(now))
            .values(
                status=ShadowStatus.READING.value,
                lease_owner=owner,
                lease_until=now + timedelta(seconds=lease_seconds),
                attempts=ShadowRow.attempts + 1,
            )
            .returning(ShadowRow)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if row is None:
            return None
        beside = session.get_one(ReadingRow, row.reading_id)
        return Shadow(
            id=row.id,
            reading_id=row.reading_id,
            study_instance_uid=beside.study_instance_uid,
            candidate=row.candidate,
            selection=tuple((uid, content_hash) for uid, content_hash in beside.selection_json),
            attempts=row.attempts,
        )


def store_shadow(
    database: Database,
    shadow_id: int,
    owner: str,
    model: ModelIdentity,
    settings_hash: str,
    *,
    prediction: Mapping[str, Any],
    seconds: Mapping[str, float],
    now: datetime,
) -> bool:
    """Keep what the candidate said. False: the lease was lost."""
    return _release(
        database,
        shadow_id,
        owner,
        status=ShadowStatus.READ.value,
        reason="",
        read_at=now,
        model_name=model.name,
        model_version=model.version,
        model_variant=model.variant,
        model_weights_hash=model.weights_hash,
        settings_hash=settings_hash,
        prediction_json=dict(prediction),
        seconds_json=dict(seconds),
    )


def postpone_shadow(database: Database, shadow_id: int, owner: str, reason: str, due_at: datetime) -> bool:
    """Try again at `due_at`; `reason` says what went wrong. False: the lease was lost."""
    return _release(database, shadow_id, owner, status=ShadowStatus.PENDING.value, reason=reason, due_at=due_at)


def drop_shadow(database: Database, shadow_id: int, owner: str, reason: str) -> bool:
    """There is nothing to compare with any more. False: the lease was lost."""
    return _release(database, shadow_id, owner, status=ShadowStatus.DROPPED.value, reason=reason)


def fail_shadow(database: Database, shadow_id: int, owner: str, reason: str) -> bool:
    """Give up, for a reason that a person reads. False: the lease was lost."""
    return _release(database, shadow_id, owner, status=ShadowStatus.FAILED.value, reason=reason)


def shadow_pairs(database: Database, candidate: str) -> tuple[Pair, ...]:
    """What both models said, one pair for each study: of its last reading, if that was shadowed. By time of reading."""
    newest = select(ReadingRow.study_instance_uid, func.max(ReadingRow.number).label("number"))
    newest_of = newest.group_by(ReadingRow.study_instance_uid).subquery()
    with database.read() as session:
        rows = session.execute(
            select(ReadingRow, ShadowRow)
            .join(ShadowRow, ShadowRow.reading_id == ReadingRow.id)
            .join(
                newest_of,
                and_(
                    newest_of.c.study_instance_uid == ReadingRow.study_instance_uid,
                    newest_of.c.number == ReadingRow.number,
                ),
            )
            .where(ShadowRow.candidate == candidate, ShadowRow.status == ShadowStatus.READ)
            .order_by(ReadingRow.read_at, ReadingRow.id)
        ).all()
        return tuple(
            Pair(reading.study_instance_uid, reading.read_at, _spoken(reading), _spoken(shadow))
            for reading, shadow in rows
        )


def shadow_counts(database: Database, candidate: str) -> dict[ShadowStatus, int]:
    """How many shadows of a candidate stand where."""
    with database.read() as session:
        rows = session.execute(
            select(ShadowRow.status, func.count()).where(ShadowRow.candidate == candidate).group_by(ShadowRow.status)
        )
        return {ShadowStatus(status): count for status, count in rows}


def shadow_troubles(database: Database, candidate: str) -> tuple[tuple[str, str, str], ...]:
    """(Study Instance UID, status, reason) of each shadow that failed, or that waits since a try in vain."""
    with database.read() as session:
        rows = session.execute(
            select(ReadingRow.study_instance_uid, ShadowRow.status, ShadowRow.reason)
            .join(ReadingRow, ReadingRow.id == ShadowRow.reading_id)
            .where(ShadowRow.candidate == candidate, ShadowRow.reason != "", ShadowRow.status != ShadowStatus.DROPPED)
            .order_by(ShadowRow.id)
        )
        return tuple((uid, status, reason) for uid, status, reason in rows)


def shadowed_candidates(database: Database) -> list[str]:
    """Names of the candidates of which there are shadows, the latest last."""
    with database.read() as session:
        wanted = select(ShadowRow.candidate).group_by(ShadowRow.candidate).order_by(func.max(ShadowRow.id))
        return list(session.scalars(wanted))


def _free(now: datetime) -> ColumnElement[bool]:
    still_sent = (
        select(DeliveryRow.id)
        .where(DeliveryRow.reading_id == ShadowRow.reading_id, DeliveryRow.status.in_(OPEN_DELIVERIES))
        .exists()
    )
    waits = and_(ShadowRow.status == ShadowStatus.PENDING, ShadowRow.due_at <= now)
    abandoned = and_(ShadowRow.status == ShadowStatus.READING, ShadowRow.lease_until <= now)
    return and_(or_(waits, abandoned), ~still_sent)


def _release(database: Database, shadow_id: int, owner: str, **values: object) -> bool:
    held = (ShadowRow.id == shadow_id, ShadowRow.status == ShadowStatus.READING, ShadowRow.lease_owner == owner)
    with database.write() as session:
        result = session.execute(
            update(ShadowRow)
            .where(*held)
            .values(lease_owner=None, lease_until=None, **values)
            .execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", result).rowcount == 1


def _spoken(row: ReadingRow | ShadowRow) -> Spoken:
    return Spoken(
        model=(row.model_name, row.model_version, row.model_variant, row.model_weights_hash),
        settings_hash=row.settings_hash,
        prediction=dict(row.prediction_json),
        seconds=dict(row.seconds_json),
    )
