"""Stored readings and the objects made from them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.database.decisions import is_rolled_back
from node.database.deliveries import DeliveryStatus
from node.database.engine import Database
from node.database.exams import held_exam, let_go
from node.database.explanations import held_explanation
from node.database.schema import DeliveryRow, ReadingRow, ResultRow
from node.database.shadows import want_shadow
from node.exam import ExamStatus
from node.results.reading import DocumentReference, Outcome, Predecessor, Reading, ResultKind


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One object made from a reading. `path` is its file, `content_hash` the SHA-256 of that file.

    One with a `problem` is quarantined: it never leaves. It has no path where it could not even be written.
    """

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    content_hash: str
    series_instance_uid: str = ""
    """Empty in rows of version 0001."""
    form: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """One result to one destination, on the conditions of `rendering.Shipment`."""

    sop_instance_uid: str
    destination: str
    only_if_taken: str = ""
    only_if_refused: str = ""


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A reading, or why there is none, as the database holds it."""

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
    outcome: Outcome
    reason: str
    results: tuple[StoredResult, ...]
    candidate: str = ""
    """Name of the candidate that read it as canary; empty: the first model did."""


def identity_hash(reading: Reading) -> str:
    """SHA-256, hexadecimal, over what makes a reading this reading: its images, its model, its settings, and what
    became of it where it was not read.
    """
    model = reading.model
    parts: list[object] = [
        [list(pair) for pair in reading.selection],
        [model.name, model.version, model.weights_hash, model.variant, model.preset],
        reading.settings_hash,
    ]
    if reading.outcome is not Outcome.READ:
        parts.append([reading.outcome.value, reading.reason])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def next_reading_number(database: Database, study_instance_uid: str) -> int:
    """The number of the study's next reading, from 1. Whoever holds the exam's lease is the only one to use it."""
    with database.read() as session:
        return _next_number(session, study_instance_uid)


def stored_identity(database: Database, reading: Reading) -> StoredReading | None:
    """The study's last reading, if it is one of the same images by the same model and settings.

    It is then what counts: its results stand, and `store_reading` only lets go of the exam. An earlier one does not
    count: a later reading has replaced its results, so the same is said once more, as a reading of its own.
    """
    with database.read() as session:
        row = _same_reading(session, reading)
        return None if row is None else _stored(session, row)


def store_reading(
    database: Database,
    owner: str,
    reading: Reading,
    results: Sequence[StoredResult],
    addresses: Sequence[Address],
    *,
    prediction: Mapping[str, Any],
    seconds: Mapping[str, float],
    now: datetime,
    candidate: str = "",
    shadow: str = "",
) -> int | None:
    """Store a reading, its results and their deliveries, and end the exam's lease; all or nothing.

    The exam is READ, or SKIPPED with the reading's reason where every image was refused. Returns the reading's id, also
    where the same reading was stored before (nothing is stored twice then). None: the lease was lost, the images
    changed while they were read, or the `candidate` that read was rolled back meanwhile: nothing is stored, and the
    exam will be read again. `shadow`: the candidate that is to read these images too.
    """
    with database.write() as session:
        exam = held_exam(session, reading.study_instance_uid, owner)
        if exam is None:
            return None
        if exam.next_status is not None or is_rolled_back(session, candidate):
            let_go(exam, ExamStatus.READY, now)
            return None
        status = ExamStatus.READ if reading.outcome is Outcome.READ else ExamStatus.SKIPPED
        reason = f"{reading.outcome}: {reading.reason}" if reading.reason else ""
        let_go(exam, status, now, reason=reason, due_at=None, waiting_for="")
        exam.explain_due_at = None
        stored = _store(session, reading, results, addresses, prediction, seconds, now, candidate)
        if shadow and reading.outcome is Outcome.READ:
            want_shadow(session, stored, shadow, now)
        return stored


def store_explanation(
    database: Database,
    owner: str,
    reading: Reading,
    results: Sequence[StoredResult],
    addresses: Sequence[Address],
    *,
    prediction: Mapping[str, Any],
    seconds: Mapping[str, float],
    now: datetime,
    candidate: str = "",
) -> int | None:
    """Store why an exam was not read, and end the lease of its explanation; the exam's status stays. All or nothing.

    Returns the id as `store_reading` does. None: the lease was lost, or the exam is to be read after all.
    """
    with database.write() as session:
        exam = held_explanation(session, reading.study_instance_uid, owner)
        if exam is None:
            return None
        exam.explain_due_at = exam.lease_owner = exam.lease_until = None
        return _store(session, reading, results, addresses, prediction, seconds, now, candidate)


def predecessor_of(database: Database, study_instance_uid: str) -> tuple[Predecessor, tuple[StoredResult, ...]] | None:
    """The study's last reading as the next one refers to it, with its results; None where there is none.

    Its documents are the DICOM objects that were not quarantined; each names the destinations to which it was sent or
    may have been: all that it was addressed to, except those that take another form of it. Where the last exam was not
    read, the marks of the last one that was still stand: its documents and results are there too.
    """
    with database.read() as session:
        rows = _standing(session, study_instance_uid)
        if not rows:
            return None
        results = tuple(result for row in rows for result in _stored(session, row).results)
        addressed = session.execute(
            select(ResultRow.sop_instance_uid, DeliveryRow.destination)
            .join(DeliveryRow, DeliveryRow.result_id == ResultRow.id)
            .where(ResultRow.reading_id.in_([row.id for row in rows]), DeliveryRow.status != DeliveryStatus.NOT_NEEDED)
            .order_by(DeliveryRow.id)
        ).all()
        documents = tuple(
            _document(result, [name for uid, name in addressed if uid == result.sop_instance_uid])
            for result in results
            if not result.problem and result.sop_class_uid
        )
        return Predecessor(rows[0].number, rows[0].read_at, documents), results


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


def _last(session: Session, study_instance_uid: str) -> ReadingRow | None:
    return session.scalars(
        select(ReadingRow)
        .where(ReadingRow.study_instance_uid == study_instance_uid)
        .order_by(ReadingRow.number.desc())
        .limit(1)
    ).one_or_none()


def _standing(session: Session, study_instance_uid: str) -> list[ReadingRow]:
    """The last reading, and those before it back to the last one of an exam that was read; the latest first."""
    rows = session.scalars(
        select(ReadingRow).where(ReadingRow.study_instance_uid == study_instance_uid).order_by(ReadingRow.number.desc())
    ).all()
    read = next((index for index, row in enumerate(rows) if row.outcome == Outcome.READ.value), len(rows))
    return list(rows[: read + 1])


def _document(result: StoredResult, destinations: Iterable[str]) -> DocumentReference:
    return DocumentReference(
        kind=result.kind,
        form=result.form,
        series_instance_uid=result.series_instance_uid,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        destinations=tuple(dict.fromkeys(destinations)),
    )


def _same_reading(session: Session, reading: Reading) -> ReadingRow | None:
    last = _last(session, reading.study_instance_uid)
    said = identity_hash(reading)
    return last if last is not None and last.identity_hash in (said, _said_again(said, last.number)) else None


def _said_again(identity: str, number: int) -> str:
    """The identity of a reading that says again, as reading `number`, what an earlier and replaced one said."""
    return hashlib.sha256(f"{identity} {number}".encode()).hexdigest()


def _free_identity(session: Session, reading: Reading) -> str:
    said = identity_hash(reading)
    of_study = ReadingRow.study_instance_uid == reading.study_instance_uid
    taken = session.scalar(select(ReadingRow.id).where(of_study, ReadingRow.identity_hash == said))
    return said if taken is None else _said_again(said, reading.number)


def _store(
    session: Session,
    reading: Reading,
    results: Sequence[StoredResult],
    addresses: Sequence[Address],
    prediction: Mapping[str, Any],
    seconds: Mapping[str, float],
    now: datetime,
    candidate: str,
) -> int:
    same = _same_reading(session, reading)
    if same is not None:
        return same.id
    row = _add_reading(session, reading, prediction, seconds, candidate)
    ids = _add_results(session, row.id, results)
    problems = {result.sop_instance_uid: result.problem for result in results}
    session.add_all(
        _delivery(address, row.id, ids[address.sop_instance_uid], problems[address.sop_instance_uid], now)
        for address in addresses
    )
    return row.id


def _add_reading(
    session: Session, reading: Reading, prediction: Mapping[str, Any], seconds: Mapping[str, float], candidate: str
) -> ReadingRow:
    previous = _last(session, reading.study_instance_uid)
    row = ReadingRow(
        study_instance_uid=reading.study_instance_uid,
        number=reading.number,
        read_at=reading.read_at,
        identity_hash=_free_identity(session, reading),
        selection_json=[list(pair) for pair in reading.selection],
        model_name=reading.model.name,
        model_version=reading.model.version,
        model_variant=reading.model.variant,
        model_weights_hash=reading.model.weights_hash,
        settings_hash=reading.settings_hash,
        prediction_json=dict(prediction),
        seconds_json=dict(seconds),
        supersedes_id=None if previous is None else previous.id,
        outcome=reading.outcome.value,
        reason=reading.reason,
        candidate=candidate,
    )
    session.add(row)
    session.flush()
    return row


def _add_results(session: Session, reading_id: int, results: Sequence[StoredResult]) -> dict[str, int]:
    """The row of each result; SOP Instance UID to its id."""
    rows = [ResultRow(reading_id=reading_id, **_columns(result)) for result in results]
    session.add_all(rows)
    session.flush()
    return {row.sop_instance_uid: row.id for row in rows}


def _delivery(address: Address, reading_id: int, result_id: int, problem: str, now: datetime) -> DeliveryRow:
    """What did not pass the node's own checks is addressed, so that everybody sees where it is missing, and kept."""
    status = DeliveryStatus.QUARANTINED if problem else DeliveryStatus.PENDING
    return DeliveryRow(
        result_id=result_id,
        reading_id=reading_id,
        destination=address.destination,
        status=status.value,
        due_at=now,
        reason=problem,
        only_if_taken=address.only_if_taken,
        only_if_refused=address.only_if_refused,
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
        outcome=Outcome(row.outcome),
        reason=row.reason,
        results=tuple(stored_result(result) for result in rows),
        candidate=row.candidate,
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
        series_instance_uid=row.series_instance_uid,
        form=row.form,
        problem=row.problem,
    )
