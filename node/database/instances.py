"""What was received: one row for each content of each SOP Instance UID."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import exists, insert, select
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


COLUMNS = (
    "sop_instance_uid",
    "sop_class_uid",
    "study_instance_uid",
    "series_instance_uid",
    "content_hash",
    "path",
    "received_at",
)
"""Attributes of exam.Instance with a column of their own."""
FACTS = tuple(field.name for field in fields(Instance) if field.name not in COLUMNS)
"""The others, which stand in `header_json`; rows of earlier versions lack the latest."""
TIMES = ("acquired_at", "exposed_at")
LISTS = ("source_instance_uids", "spacing_mm", "orientation")
"""What JSON has no type for."""


def record_instance(database: Database, instance: Instance, is_ours: bool) -> Recorded:
    """Record one received instance on its own, without its exam (see intake.receive for both)."""
    with database.write() as session:
        return add_instance(session, instance, is_ours)


def add_instance(session: Session, instance: Instance, is_ours: bool) -> Recorded:
    """Record within a transaction; the caller holds the study's exam row, so that two receipts take turns."""
    known = select(InstanceRow.content_hash).where(InstanceRow.sop_instance_uid == instance.sop_instance_uid)
    recorded = compared(instance, session.scalars(known).all())
    if recorded is not Recorded.EQUAL:
        insert_instance(session, instance, is_ours)
    return recorded


def compared(instance: Instance, hashes: Sequence[str]) -> Recorded:
    """What an instance is beside the contents that are known under its UID."""
    if instance.content_hash in hashes:
        return Recorded.EQUAL
    return Recorded.CHANGED if hashes else Recorded.NEW


def insert_instance(session: Session, instance: Instance, is_ours: bool) -> None:
    """Write the row, within a transaction."""
    values = {name: getattr(instance, name) for name in COLUMNS}
    session.execute(insert(InstanceRow), [{**values, "is_ours": is_ours, "header_json": _facts(instance)}])


def instances_of(database: Database, study_instance_uid: str) -> tuple[Instance, ...]:
    """The instances of one study that count, in the order in which they came: of each SOP Instance UID the content
    that came last, and nothing that this node made itself.
    """
    with database.read() as session:
        return study_instances(session, study_instance_uid)


def study_instances(session: Session, study_instance_uid: str) -> tuple[Instance, ...]:
    """`instances_of` within a transaction."""
    return latest(all_contents(session, study_instance_uid))


def all_contents(session: Session, study_instance_uid: str) -> list[Instance]:
    """Every content of every instance of one study, in the order in which they came, without our own objects."""
    rows = session.execute(
        _contents.where(InstanceRow.study_instance_uid == study_instance_uid, InstanceRow.is_ours.is_(False))
    )
    return [_instance(*row) for row in rows]


def latest(contents: Iterable[Instance]) -> tuple[Instance, ...]:
    """Of each SOP Instance UID the content that came last, in the order in which they came."""
    of_uid: dict[str, Instance] = {}
    for instance in contents:
        of_uid.pop(instance.sop_instance_uid, None)
        of_uid[instance.sop_instance_uid] = instance
    return tuple(of_uid.values())


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


_contents = select(*(getattr(InstanceRow, name) for name in COLUMNS), InstanceRow.header_json).order_by(InstanceRow.id)


def _facts(instance: Instance) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(instance, name) for name in FACTS}
    facts["view"] = None if instance.view is None else [instance.view.laterality.value, instance.view.position.value]
    for name in TIMES:
        facts[name] = None if facts[name] is None else facts[name].isoformat()
    return facts


def _instance(*values: Any) -> Instance:
    facts = dict(values[-1])
    view = facts["view"]
    facts["view"] = None if view is None else View(Laterality(view[0]), ViewPosition(view[1]))
    for name in TIMES:
        facts[name] = datetime.fromisoformat(facts[name]) if facts.get(name) else None
    for name in LISTS:
        facts[name] = tuple(facts.get(name, ()))
    facts["header"] = tuple((keyword, value) for keyword, value in facts["header"])
    return Instance(**dict(zip(COLUMNS, values, strict=False)), **facts)
