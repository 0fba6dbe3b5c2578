"""What arrived, what was said of it, and whether it got where it belongs: a table for people, JSON for scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from node.database import Database
from node.database.deliveries import Delivery, DeliveryStatus, deliveries_of
from node.database.exams import ExamRecord, exam_record, exam_records
from node.database.readings import StoredReading, StoredResult, readings_of
from node.exam import ExamStatus
from node.results.reading import Outcome

COLUMNS = ("study", "status", "because", "no.", "model", "exam", "delivered", "last image")
LONGEST_REASON = 100
STUCK = frozenset({DeliveryStatus.FAILED, DeliveryStatus.QUARANTINED})
"""Deliveries that nothing will end but a person."""


@dataclass(frozen=True, slots=True)
class ExamState:
    """One exam with its latest reading, and the deliveries of that reading."""

    exam: ExamRecord
    reading: StoredReading | None
    deliveries: tuple[Delivery, ...]

    @property
    def needs_a_person(self) -> bool:
        """Failed, an alarm, a delivery that was given up, or an object in quarantine."""
        stuck = any(delivery.status in STUCK for delivery in self.deliveries)
        quarantined = self.reading is not None and any(result.problem for result in self.reading.results)
        return self.exam.alarm or self.exam.status is ExamStatus.FAILED or stuck or quarantined


def exam_states(database: Database, limit: int = 100) -> tuple[ExamState, ...]:
    """The exams that changed last, newest first."""
    return tuple(_state(database, exam) for exam in exam_records(database, limit))


def exam_state(database: Database, study_instance_uid: str) -> ExamState | None:
    """One exam, None where nothing of it arrived."""
    exam = exam_record(database, study_instance_uid)
    return None if exam is None else _state(database, exam)


def as_json(states: Sequence[ExamState]) -> dict[str, Any]:
    """What `status --json` prints. Times are ISO 8601 in UTC."""
    return {"exams": [_exam_json(state) for state in states]}


def as_table(states: Sequence[ExamState]) -> str:
    """A line for each exam."""
    if not states:
        return "nothing has arrived"
    rows = [COLUMNS, *(_row(state) for state in states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def as_details(state: ExamState) -> str:
    """One exam in full."""
    exam, reading = state.exam, state.reading
    lines = [f"study        {exam.study_instance_uid}", f"status       {exam.status}{_because(exam, ': ')}"]
    lines += [f"last image   {_clock(exam.last_image_at)}", f"tries        {exam.attempts}"]
    if exam.alarm:
        lines.append("ALARM        a person must look")
    if reading is not None:
        lines += _reading_lines(reading)
    return "\n".join([*lines, *_delivery_lines(state)])


def _delivery_lines(state: ExamState) -> list[str]:
    """What became of each object; those of a kind that say the same stand together, with UIDs what did not arrive."""
    together: dict[tuple[str, str, str], list[Delivery]] = {}
    for delivery in state.deliveries:
        said = (delivery.kind.value, delivery.destination, _delivery_words(delivery))
        together.setdefault(said, []).append(delivery)
    lines = []
    for (kind, destination, words), same in together.items():
        count = f" x{len(same)}" if len(same) > 1 else ""
        uids = ", ".join(delivery.sop_instance_uid for delivery in same if _is_held_up(delivery))
        lines.append(f"{kind + count:<8} to {destination}: {words}{f' ({uids})' if uids else ''}")
    return lines


def _is_held_up(delivery: Delivery) -> bool:
    return bool(delivery.reason) and delivery.status is not DeliveryStatus.NOT_NEEDED


def _state(database: Database, exam: ExamRecord) -> ExamState:
    readings = readings_of(database, exam.study_instance_uid)
    latest = readings[-1] if readings else None
    deliveries = deliveries_of(database, exam.study_instance_uid) if latest is not None else ()
    current = tuple(delivery for delivery in deliveries if latest is not None and delivery.reading_id == latest.id)
    return ExamState(exam, latest, current)


def _row(state: ExamState) -> tuple[str, ...]:
    exam, reading = state.exam, state.reading
    return (
        short_uid(exam.study_instance_uid),
        f"{exam.status}{' ALARM' if exam.alarm else ''}",
        _because(exam)[:LONGEST_REASON],
        str(reading.number) if reading else "",
        f"{reading.model_version}{' canary' if reading.candidate else ''}" if reading else "",
        _index(reading.prediction.get("exam_probability")) if reading else "",
        delivered_words(state.deliveries),
        _clock(exam.last_image_at),
    )


def short_uid(uid: str) -> str:
    """The end of a UID, which tells studies of one device apart."""
    return uid if len(uid) <= 20 else f"…{uid[-19:]}"


def delivered_words(deliveries: Sequence[Delivery]) -> str:
    """By destination: "pacs: sent 14:05", or how many are there and why the next is not."""
    words = []
    for name in dict.fromkeys(delivery.destination for delivery in deliveries):
        needed = [d for d in deliveries if d.destination == name and d.status is not DeliveryStatus.NOT_NEEDED]
        here = needed or [delivery for delivery in deliveries if delivery.destination == name]
        open_ones = sorted(
            (delivery for delivery in needed if delivery.status is not DeliveryStatus.SENT),
            key=lambda delivery: delivery.status not in STUCK,
        )
        if not open_ones:
            words.append(f"{name}: {_delivery_words(here[-1])}")
        else:
            first = _delivery_words(open_ones[0])
            words.append(f"{name}: {len(here) - len(open_ones)} of {len(here)}, {first[:LONGEST_REASON]}")
    return "; ".join(words)


def _delivery_words(delivery: Delivery) -> str:
    if delivery.status is DeliveryStatus.SENT and delivery.sent_at is not None:
        return f"sent at {_clock(delivery.sent_at)}"
    if delivery.status is DeliveryStatus.FAILED:
        return f"given up after {delivery.attempts}: {delivery.reason}"
    if delivery.status in (DeliveryStatus.NOT_NEEDED, DeliveryStatus.QUARANTINED):
        return f"{delivery.status}: {delivery.reason}"
    if delivery.status is DeliveryStatus.SENDING:
        return "being sent"
    if delivery.reason:
        return f"again at {_clock(delivery.due_at)}: {delivery.reason}"
    return "to be sent"


def _because(exam: ExamRecord, lead: str = "") -> str:
    if exam.status is ExamStatus.WAITING and exam.waiting_for:
        return f"{lead}waiting for {exam.waiting_for}"
    return f"{lead}{exam.reason}" if exam.reason else ""


def _reading_lines(reading: StoredReading) -> list[str]:
    said = reading.prediction
    replaces = said.get("replaces")
    lines = [
        f"reading      number {reading.number}, {_clock(reading.read_at)}, {reading.model_name} "
        f"{reading.model_version} ({reading.model_variant})" + (f", replaces reading {replaces}" if replaces else ""),
        f"weights      {reading.model_weights_hash}" + (f", canary {reading.candidate}" if reading.candidate else ""),
    ]
    if reading.outcome is Outcome.READ:
        lines += _read_lines(said)
    else:
        lines.append(f"outcome      {reading.outcome}: {reading.reason}")
    unread = said.get("unread", {})
    lines += [f"unread       {view}: {image['reason']}" for view, image in unread.items()]
    lines += [
        f"quality      {view}: {finding['reason']} ({finding['words']})"
        for view, image in said["views"].items()
        for finding in image.get("quality", ())
    ]
    lines += [
        f"marks        {view} on the For Presentation image of {image['read_from']}"
        for view, image in said["views"].items()
        if image.get("read_from")
    ]
    lines += [f"note         {view}: {flag}" for view, image in said["views"].items() for flag in image["flags"]]
    lines += [f"not assessed {words}" for words in said["not_assessed"] if words.partition(":")[0] not in unread]
    lines += [_quarantine_line(result) for result in reading.results if result.problem]
    seconds = ", ".join(f"{stage} {value:.2f}" for stage, value in reading.seconds.items())
    return [*lines, f"seconds      {seconds}"]


def _quarantine_line(result: StoredResult) -> str:
    kept = f", kept at {result.path}" if result.path else ""
    return f"quarantine   {result.kind} {result.sop_instance_uid}: {result.problem}{kept}"


def _read_lines(said: dict[str, Any]) -> list[str]:
    exam, right, left = said.get("exam_probability"), said["breasts"].get("R"), said["breasts"].get("L")
    kind = "" if said.get("calibrated_on_patients") else "  (suspicion index, not calibrated on patients)"
    lines = [f"exam         {_index(exam)}, right {_index(right)}, left {_index(left)}{kind}"]
    lines += [
        f"finding      {finding['view']} {finding['kind'].replace('_', ' ')} {_index(finding['probability'])}"
        f"{_place_words(finding.get('place'))}"
        for finding in said["findings"]
    ]
    named = [f"{finding['view']} {finding['kind'].replace('_', ' ')}" for finding in said["findings"]]
    lines += [f"same lesion  {named[cc]}, {named[mlo]}" for cc, mlo in said.get("correspondences", ())]
    density = said.get("density")
    if density:
        lines.append(f"density      {density['category']} {_index(density['probability'])}")
    return lines


def _place_words(place: dict[str, Any] | None) -> str:
    if place is None:
        return ""
    mm = place["nipple_distance_mm"]
    said = [place["sector"], f"{place['depth']} third", None if mm is None else f"{mm:.0f} mm from the nipple"]
    return ", " + ", ".join(word for word in said if word)


def _exam_json(state: ExamState) -> dict[str, Any]:
    exam, reading = state.exam, state.reading
    return {
        "study_instance_uid": exam.study_instance_uid,
        "status": exam.status.value,
        "reason": exam.reason,
        "waiting_for": exam.waiting_for,
        "due_at": _iso(exam.due_at),
        "alarm": exam.alarm,
        "attempts": exam.attempts,
        "priority": exam.priority,
        "last_image_at": _iso(exam.last_image_at),
        "updated_at": _iso(exam.updated_at),
        "reading": None if reading is None else _reading_json(reading),
        "deliveries": [_delivery_json(delivery) for delivery in state.deliveries],
    }


def _reading_json(reading: StoredReading) -> dict[str, Any]:
    return {
        "number": reading.number,
        "read_at": _iso(reading.read_at),
        "outcome": reading.outcome.value,
        "reason": reading.reason,
        **reading.prediction,
        "model": {
            "name": reading.model_name,
            "version": reading.model_version,
            "variant": reading.model_variant,
            "weights_hash": reading.model_weights_hash,
            "candidate": reading.candidate,
        },
        "seconds": reading.seconds,
        "results": [
            {
                "kind": result.kind.value,
                "sop_class_uid": result.sop_class_uid,
                "form": result.form,
                "sop_instance_uid": result.sop_instance_uid,
                "series_instance_uid": result.series_instance_uid,
                "path": result.path,
                "problem": result.problem,
            }
            for result in reading.results
        ],
    }


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
    return {
        "kind": delivery.kind.value,
        "form": delivery.form,
        "destination": delivery.destination,
        "status": delivery.status.value,
        "attempts": delivery.attempts,
        "sent_at": _iso(delivery.sent_at),
        "due_at": _iso(delivery.due_at),
        "reason": delivery.reason,
        "sop_instance_uid": delivery.sop_instance_uid,
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _clock(time: datetime) -> str:
    """Local time as on the wall; with the date where it is not today."""
    local = time.astimezone()
    today = datetime.now(local.tzinfo).date()
    return local.strftime("%H:%M" if local.date() == today else "%Y-%m-%d %H:%M")


def _index(probability: float | None) -> str:
    """Two decimals, no percent sign: a suspicion index is no share of women."""
    return "not assessed" if probability is None else f"{probability:.2f}"
