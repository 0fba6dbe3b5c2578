"""Stored readings and the objects made from them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.database.deliveries import DeliveryStatus
from node.database.engine import Database
from node.database.exams import held_exam, let_go
from node.database.schema import DeliveryRow, ReadingRow, ResultRow
from node.exam import ExamStatus
from node.results.reading import Reading, ResultKind


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One object made from a reading. `path` is its Part 10 file, `content_hash` the SHA-256 of that file."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    content_hash: str


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A reading as the database holds it."""

    id: int
    study_instance_uid: str
    number: int
    read_at: datetime
    selection: tuple[tuple[str, str], ...]
    model_name: str
    model_version: str
    model_variant: str
    model_weights_hash: str
    settings_hash: str
    prediction: dict[str, Any]
    """What the status list and reports show: probabilities and findings, as JSON."""
    seconds: dict[str, float]
    supersedes_id: int | None
    results: tuple[StoredResult, ...]


def identity_hash(reading: Reading) -> str:
    """SHA-256, hexadecimal, over what makes a reading this reading: its images, its model, its settings."""
    model = reading.model
    parts = [
        [list(pair) for pair in reading.selection],
        [model.name, model.version, model.weights_hash, model.variant, model.preset],
        reading.settings_hash,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def next_reading_number(database: Database, study_instance_uid: str) -> int:
    """The number of the study's next reading, from 1. Whoever holds the exam's lease is the only one to use it."""
    with database.read() as session:
        return _next_number(session, study_instance_uid)


def stored_identity(database: Database, reading: Reading) -> StoredReading | None:
    """The stored reading of the same images by the same model and settings, if there is one.

    It is then what counts: its results stand, and `store_reading` only lets go of the exam.
    """
    with database.read() as session:
        row = _same_reading(session, reading)
        return None if row is None else _stored(session, row)


def store_reading(
    database: Database,
    owner: str,
    reading: Reading,
    results: Sequence[StoredResult],
    destinations: Mapping[str, Sequence[ResultKind]],
    *,
    prediction: Mapping[str, Any],
    seconds: Mapping[str, float],
    now: datetime,
) -> int | None:
    """Store a reading, its results and their deliveries, and end the exam's lease as READ; all or nothing.

    `destinations` maps a destination's name to the kinds it takes. Returns the reading's id, also where the same
    reading was stored before (nothing is stored twice then). None: the lease was lost, or the images changed while
    they were read: nothing is stored, and the exam will be read again.
    """
    with database.write() as session:
        exam = held_exam(session, reading.study_instance_uid, owner)
        if exam is None:
            return None
        if exam.next_status is not None:
            let_go(exam, ExamStatus.READY, now)
            return None
        let_go(exam, ExamStatus.READ, now, reason="", due_at=None, waiting_for="")
        same = _same_reading(session, reading)
        if same is not None:
            return same.id
        row = _add_reading(session, reading, prediction, seconds)
        _add_results(session, row.id, results, destinations, now)
        return row.id


def stored_reading(database: Database, reading_id: int) -> StoredReading | None:
    """One reading with its results, None where there is none of that id."""
    with database.read() as session:
        row = session.get(ReadingRow, reading_id)
        return None if row is None else _stored(session, row)


def readings_of(database: Database, study_instance_uid: str) -> tuple[StoredReading, ...]:
    """The readings of one study, the latest (which supersedes the others) last."""
    with database.read() as session:
        rows = session.scalars(
            select(ReadingRow).where(ReadingRow.study_instance_uid == study_instance_uid).order_by(ReadingRow.number)
        ).all()
        return tuple(_stored(session, row) for row in rows)


def _next_number(session: Session, study_instance_uid: str) -> int:
    last = session.scalar(
        select(func.max(ReadingRow.number)).where(ReadingRow.study_instance_uid == study_instance_uid)
    )
    return (last or 0) + 1


def _same_reading(session: Session, reading: Reading) -> ReadingRow | None:
    return session.scalars(
        select(ReadingRow).where(
            ReadingRow.study_instance_uid == reading.study_instance_uid,
            ReadingRow.identity_hash == identity_hash(reading),
        )
    ).one_or_none()


def _add_reading(
    session: Session, reading: Reading, prediction: Mapping[str, Any], seconds: Mapping[str, float]
) -> ReadingRow:
    previous = session.scalar(
        select(ReadingRow.id)
        .where(ReadingRow.study_instance_uid == reading.study_instance_uid)
        .order_by(ReadingRow.number.desc())
        .limit(1)
    )
    row = ReadingRow(
        study_instance_uid=reading.study_instance_uid,
        number=reading.number,
        read_at=reading.read_at,
        identity_hash=identity_hash(reading),
        selection_json=[list(pair) for pair in reading.selection],
        model_name=reading.model.name,
        model_version=reading.model.version,
        model_variant=reading.model.variant,
        model_weights_hash=reading.model.weights_hash,
        settings_hash=reading.settings_hash,
        prediction_json=dict(prediction),
        seconds_json=dict(seconds),
        supersedes_id=previous,
    )
    session.add(row)
    session.flush()
    return row


def _add_results(
    session: Session,
    reading_id: int,
    results: Sequence[StoredResult],
    destinations: Mapping[str, Sequence[ResultKind]],
    now: datetime,
) -> None:
    for result in results:
        row = ResultRow(reading_id=reading_id, **_columns(result))
        session.add(row)
        session.flush()
        session.add_all(
            DeliveryRow(
                result_id=row.id,
                reading_id=reading_id,
                destination=name,
                status=DeliveryStatus.PENDING.value,
                due_at=now,
            )
            for name, kinds in destinations.items()
            if result.kind in kinds
        )


def _columns(result: StoredResult) -> dict[str, str]:
    values = {field.name: getattr(result, field.name) for field in fields(StoredResult)}
    return {**values, "kind": result.kind.value}


def _stored(session: Session, row: ReadingRow) -> StoredReading:
    rows = session.scalars(select(ResultRow).where(ResultRow.reading_id == row.id).order_by(ResultRow.id))
    return StoredReading(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        number=row.number,
        read_at=row.read_at,
        selection=tuple((uid, content_hash) for uid, content_hash in row.selection_json),
        model_name=row.model_name,
        model_version=row.model_version,
        model_variant=row.model_variant,
        model_weights_hash=row.model_weights_hash,
        settings_hash=row.settings_hash,
        prediction=dict(row.prediction_json),
        seconds=dict(row.seconds_json),
        supersedes_id=row.supersedes_id,
        results=tuple(stored_result(result) for result in rows),
    )


def stored_result(row: ResultRow) -> StoredResult:
    """A row of `results` as a value."""
    return StoredResult(
        kind=ResultKind(row.kind),
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        path=row.path,
        content_hash=row.content_hash,
    )
