"""The exams that a candidate read in place of the first model, or that wait for it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Select, and_, func, select, update

from node.database.engine import Database
from node.database.exams import advance
from node.database.schema import ExamRow, ReadingRow
from node.exam import ExamStatus
from node.results.reading import Outcome


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """The last reading of a study, where a candidate made it."""

    study_instance_uid: str
    number: int
    read_at: datetime
    model_name: str
    model_version: str
    model_variant: str
    model_weights_hash: str


def read_by(database: Database, candidate: str) -> tuple[CanaryReading, ...]:
    """The exams whose last reading is this candidate's, the latest first."""
    wanted = (
        _last_readings()
        .where(ReadingRow.candidate == candidate, ReadingRow.outcome == Outcome.READ.value)
        .order_by(ReadingRow.read_at.desc(), ReadingRow.id.desc())
    )
    with database.read() as session:
        return tuple(
            CanaryReading(
                row.study_instance_uid,
                row.number,
                row.read_at,
                row.model_name,
                row.model_version,
                row.model_variant,
                row.model_weights_hash,
            )
            for row in session.scalars(wanted)
        )


def exams_by_reader(database: Database) -> dict[str, int]:
    """How many exams were last read by each candidate; "": by the first model."""
    last = _last_readings().where(ReadingRow.outcome == Outcome.READ.value).subquery()
    with database.read() as session:
        rows = session.execute(select(last.c.candidate, func.count()).group_by(last.c.candidate)).all()
        return {str(name): int(count) for name, count in rows}


def read_again(database: Database, candidate: str, now: datetime) -> int:
    """Let the exams that this candidate read be read again, and those that failed with it. Returns how many."""
    done = [reading.study_instance_uid for reading in read_by(database, candidate)]
    with database.read() as session:
        failed = list(session.scalars(select(ExamRow.study_instance_uid).where(*_blames(candidate, ExamStatus.FAILED))))
    steps = [(uid, ExamStatus.READ) for uid in done] + [(uid, ExamStatus.FAILED) for uid in failed]
    return sum(
        advance(database, uid, status, ExamStatus.READY, now, attempts=0, reason="", due_at=None)
        for uid, status in steps
    )


def hasten(database: Database, candidate: str) -> int:
    """Exams that wait because this candidate could not read them are due at once. Returns how many."""
    with database.write() as session:
        result = session.execute(
            update(ExamRow)
            .where(*_blames(candidate, ExamStatus.READY))
            .values(due_at=None, attempts=0)
            .execution_options(synchronize_session=False)
        )
        return cast("CursorResult[Any]", result).rowcount


def _blames(candidate: str, status: ExamStatus) -> tuple[ColumnElement[bool], ...]:
    return (ExamRow.status == status.value, ExamRow.reason.contains(f"candidate {candidate}: ", autoescape=True))


def _last_readings() -> Select[ReadingRow]:
    last = (
        select(ReadingRow.study_instance_uid, func.max(ReadingRow.number).label("number"))
        .group_by(ReadingRow.study_instance_uid)
        .subquery()
    )
    same = and_(last.c.study_instance_uid == ReadingRow.study_instance_uid, last.c.number == ReadingRow.number)
    return select(ReadingRow).join(last, same)
