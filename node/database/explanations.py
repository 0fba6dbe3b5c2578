"""Exams that were not read and whose destinations are to be told why: due, leased, done with.

`explain_due_at` is both the time and the lease: whoever takes an explanation puts it off by the length of the lease.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from node.database.engine import Database
from node.database.exams import UNREAD, ExamRecord, record_of
from node.database.schema import ExamRow


def due_explanations(database: Database, now: datetime) -> list[str]:
    """Study Instance UIDs of exams that were not read and are to be explained now; the sweep publishes them."""
    with database.read() as session:
        return list(
            session.scalars(
                select(ExamRow.study_instance_uid)
                .where(ExamRow.explain_due_at <= now, ExamRow.status.in_(UNREAD))
                .order_by(ExamRow.explain_due_at)
            )
        )


def lease_explanation(
    database: Database, study_instance_uid: str, owner: str, now: datetime, lease_seconds: float
) -> ExamRecord | None:
    """Take an explanation that is due. None: another has it, nothing is due, or the exam is to be read after all."""
    until = now + timedelta(seconds=lease_seconds)
    with database.write() as session:
        row = session.scalars(
            update(ExamRow)
            .where(
                ExamRow.study_instance_uid == study_instance_uid,
                ExamRow.explain_due_at <= now,
                ExamRow.status.in_(UNREAD),
            )
            .values(lease_owner=owner, lease_until=until, explain_due_at=until)
            .returning(ExamRow)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        return None if row is None else record_of(row)


def end_explanation(database: Database, study_instance_uid: str, owner: str, due_at: datetime | None) -> bool:
    """Let go of an explanation without a reading: None: none is wanted; else it is tried again at `due_at`.

    False: the lease was lost. One that was made ends in readings.store_explanation.
    """
    with database.write() as session:
        result = session.execute(
            update(ExamRow)
            .where(*_held_by(study_instance_uid, owner))
            .values(lease_owner=None, lease_until=None, explain_due_at=due_at)
            .execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", result).rowcount == 1


def held_explanation(session: Session, study_instance_uid: str, owner: str) -> ExamRow | None:
    """The exam's row, locked, where `owner` still holds the lease of its explanation."""
    return session.scalars(select(ExamRow).where(*_held_by(study_instance_uid, owner)).with_for_update()).one_or_none()


def leased_explanations(database: Database) -> list[tuple[str, str]]:
    """(Study Instance UID, owner) of each exam that is being explained."""
    with database.read() as session:
        rows = session.execute(
            select(ExamRow.study_instance_uid, ExamRow.lease_owner).where(
                ExamRow.status.in_(UNREAD), ExamRow.explain_due_at.is_not(None), ExamRow.lease_owner.is_not(None)
            )
        )
        return [(uid, owner) for uid, owner in rows if owner is not None]


def _held_by(study_instance_uid: str, owner: str) -> Sequence[Any]:
    return (
        ExamRow.study_instance_uid == study_instance_uid,
        ExamRow.status.in_(UNREAD),
        ExamRow.explain_due_at.is_not(None),
        ExamRow.lease_owner == owner,
    )
