"""From what `mammoclip-node status --json` prints to what the node says of one exam."""

import datetime
from typing import Any

from deploy.demo.outcome import Answer, Mark
from node.mammography.findings import Box


def answer_of(status: dict[str, Any], study_instance_uid: str) -> Answer:
    """The exam of a study; an empty Answer where the node does not know it yet."""
    for exam in status["exams"]:
        if exam["study_instance_uid"] == study_instance_uid:
            return _answer(exam)
    return Answer()


def _answer(exam: dict[str, Any]) -> Answer:
    reading = exam["reading"] or {}
    breasts = reading.get("breasts", {})
    deliveries = exam["deliveries"]
    sent = [delivery for delivery in deliveries if delivery["status"] == "sent"]
    stuck = [delivery for delivery in deliveries if delivery["status"] in ("failed", "quarantined")]
    waiting_for = f"waiting for {exam['waiting_for']}" if exam["waiting_for"] else ""
    return Answer(
        status=exam["status"],
        reason=exam["reason"] or waiting_for,
        exam_probability=reading.get("exam_probability"),
        right=breasts.get("R"),
        left=breasts.get("L"),
        marks=tuple(_mark(finding) for finding in reading.get("findings", [])),
        undelivered=tuple(f"{d['kind']}: {d['reason']}" for d in stuck),
        promised=sum(delivery["status"] != "not needed" for delivery in deliveries),
        delivered_kinds=tuple(delivery["kind"] for delivery in sent),
        last_delivery=max((_seconds(delivery["sent_at"]) for delivery in sent), default=None),
        model=_model_words(reading),
        calibrated_on_patients=bool(reading.get("calibrated_on_patients")),
        capture=_capture(reading),
        report=tuple(reading.get("report", ())),
    )


def _mark(finding: dict[str, Any]) -> Mark:
    box = finding["box"]
    return Mark(finding["view"], finding["kind"], float(finding["probability"]), Box(*map(float, box)))


def _model_words(reading: dict[str, Any]) -> str:
    model = reading.get("model")
    return f"{model['name']} {model['version']}, {model['variant']}" if model else ""


def _capture(reading: dict[str, Any]) -> str:
    """Path of the node's own copy of the Secondary Capture."""
    paths = [result["path"] for result in reading.get("results", []) if result["kind"] == "SC"]
    return paths[-1] if paths else ""


def _seconds(iso: str) -> float:
    return datetime.datetime.fromisoformat(iso).timestamp()
