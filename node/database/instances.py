"""What was received: one row for each content of each SOP Instance UID."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from node.database.engine import Database
from node.database.schema import InstanceRow, ResultRow
from node.exam import Instance
from node.mammography.views import Laterality, View, ViewPosition


class Recorded(StrEnum):
    """What a received instance is to the database."""

    NEW = "new"
    """Its SOP Instance UID was not known."""
    EQUAL = "equal"
    """This very content is known: nothing was written."""
    CHANGED = "changed"
    """The UID was known with other content: both are kept, this one counts."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A row of the list of what arrived."""

    sop_instance_uid: str
    study_instance_uid: str
    path: str
    received_at: datetime
    is_ours: bool


COLUMNS = frozenset(
    {
        "sop_instance_uid",
        "sop_class_uid",
        "study_instance_uid",
        "series_instance_uid",
        "content_hash",
        "path",
        "received_at",
    }
)
"""Attributes of exam.Instance with a column of their own; the others stand in `header_json`."""


def record_instance(database: Database, instance: Instance, is_ours: bool) -> Recorded:
    """Record one received instance on its own, without its exam (see intake.receive for both)."""
    with database.write() as session:
        return add_instance(session, instance, is_ours)


def add_instance(session: Session, instance: Instance, is_ours: bool) -> Recorded:
    """Record within a transaction; the caller holds the study's exam row, so that two receipts take turns."""
    hashes = set(
        session.scalars(
            select(InstanceRow.content_hash).where(InstanceRow.sop_instance_uid == instance.sop_instance_uid)
        )
    )
    if instance.content_hash in hashes:
        return Recorded.EQUAL
    session.add(_row(instance, is_ours))
    session.flush()
    return Recorded.CHANGED if hashes else Recorded.NEW


def instances_of(database: Database, study_instance_uid: str) -> tuple[Instance, ...]:
    """The instances of one study that count, in the order in which they came: of each SOP Instance UID the content
    that came last, and nothing that this node made itself.
    """
    with database.read() as session:
        return study_instances(session, study_instance_uid)


def study_instances(session: Session, study_instance_uid: str) -> tuple[Instance, ...]:
    """`instances_of` within a transaction."""
    rows = session.scalars(
        select(InstanceRow)
        .where(InstanceRow.study_instance_uid == study_instance_uid, InstanceRow.is_ours.is_(False))
        .order_by(InstanceRow.id)
    )
    latest = {row.sop_instance_uid: row for row in rows}
    return tuple(_instance(row) for row in sorted(latest.values(), key=lambda row: row.id))


def is_known(database: Database, sop_instance_uid: str, content_hash: str) -> bool:
    """Whether this very content was accepted before."""
    with database.read() as session:
        return bool(
            session.scalar(
                select(
                    exists().where(
                        InstanceRow.sop_instance_uid == sop_instance_uid, InstanceRow.content_hash == content_hash
                    )
                )
            )
        )


def is_our_result(database: Database, sop_instance_uid: str) -> bool:
    """Whether this node made the object of that UID."""
    with database.read() as session:
        return bool(session.scalar(select(exists().where(ResultRow.sop_instance_uid == sop_instance_uid))))


def arrivals(database: Database, limit: int = 1000) -> tuple[Arrival, ...]:
    """The last instances that arrived, newest first."""
    with database.read() as session:
        rows = session.scalars(select(InstanceRow).order_by(InstanceRow.id.desc()).limit(limit))
        return tuple(
            Arrival(row.sop_instance_uid, row.study_instance_uid, row.path, row.received_at, row.is_ours)
            for row in rows
        )


def _row(instance: Instance, is_ours: bool) -> InstanceRow:
    return InstanceRow(
        **{name: getattr(instance, name) for name in COLUMNS}, is_ours=is_ours, header_json=_facts(instance)
    )


def _facts(instance: Instance) -> dict[str, Any]:
    facts: dict[str, Any] = {
        field.name: getattr(instance, field.name) for field in fields(Instance) if field.name not in COLUMNS
    }
    facts["view"] = None if instance.view is None else [instance.view.laterality.value, instance.view.position.value]
    facts["acquired_at"] = None if instance.acquired_at is None else instance.acquired_at.isoformat()
    facts["header"] = [list(pair) for pair in instance.header]
    return facts


def _instance(row: InstanceRow) -> Instance:
    facts = dict(row.header_json)
    view, acquired_at = facts["view"], facts["acquired_at"]
    facts["view"] = None if view is None else View(Laterality(view[0]), ViewPosition(view[1]))
    facts["acquired_at"] = None if acquired_at is None else datetime.fromisoformat(acquired_at)
    facts["header"] = tuple((keyword, value) for keyword, value in facts["header"])
    return Instance(**{name: getattr(row, name) for name in COLUMNS}, **facts)
