"""What a person reads of an exam: status, and why."""

from dataclasses import replace
from datetime import UTC, datetime

from node.database import Database
from node.database.deliveries import Delivery, DeliveryStatus
from node.database.exams import exam_record
from node.intake import receive, settle
from node.results.reading import ResultKind
from node.status import ExamState, as_details, as_json, as_table, exam_state, exam_states, short_uid
from tests.node.exams import SETTINGS, STUDY, after, four, image


def state_of(database: Database) -> ExamState:
    state = exam_state(database, STUDY)
    assert state is not None
    return state


def test_an_incomplete_exam_waits_for_its_view_in_words(database: Database) -> None:
    for arrived in four()[:3]:
        receive(database, arrived, SETTINGS, (), after(0))
    line = as_table(exam_states(database)).splitlines()[-1]
    assert line.split()[:5] == [short_uid(STUDY), "waiting", "waiting", "for", "LMLO"]
    assert "status       waiting: waiting for LMLO" in as_details(state_of(database))


def test_a_skip_says_why_and_is_no_alarm(database: Database) -> None:
    for arrived in four()[:3]:
        receive(database, arrived, SETTINGS, (), after(0))
    settle(database, STUDY, SETTINGS, after(301))
    state = state_of(database)
    assert "views missing: LMLO" in as_table([state])
    assert not state.needs_a_person


def test_patients_that_differ_need_a_person(database: Database) -> None:
    images = [image("RCC"), replace(image("LCC"), patient_fingerprint="q" * 64)]
    for arrived in images:
        receive(database, arrived, SETTINGS, (), after(0))
    state = state_of(database)
    assert state.needs_a_person
    assert "skipped ALARM" in as_table([state])
    assert as_json([state])["exams"][0]["reason"] == "patients differ"


def test_nothing_of_the_patient_is_shown(database: Database) -> None:
    receive(database, image("RCC"), SETTINGS, (), after(0))
    record = exam_record(database, STUDY)
    assert record is not None
    assert "p" * 64 not in str(as_json(exam_states(database)))


def test_an_empty_node_says_so() -> None:
    assert as_table([]) == "nothing has arrived"


def _delivery(number: int, status: DeliveryStatus, kind: ResultKind, reason: str = "") -> Delivery:
    return Delivery(
        id=number,
        reading_id=1,
        study_instance_uid=STUDY,
        destination="pacs",
        status=status,
        attempts=1,
        due_at=after(0),
        sent_at=datetime.now(UTC) if status is DeliveryStatus.SENT else None,
        reason=reason,
        kind=kind,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=f"2.25.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path="",
        form="",
        only_if_taken="",
        only_if_refused="",
    )


def test_what_did_not_arrive_is_named_by_its_uid_and_the_rest_is_counted(database: Database) -> None:
    receive(database, four()[0], SETTINGS, (), after(0))
    sent, kind = DeliveryStatus.SENT, ResultKind.HEATMAP
    deliveries = (
        *(_delivery(number, sent, kind) for number in (1, 2)),
        _delivery(3, DeliveryStatus.FAILED, kind, "status 0xA900"),
        *(_delivery(number, DeliveryStatus.NOT_NEEDED, ResultKind.LABELMAP, "not taken") for number in (4, 5)),
    )
    lines = as_details(replace(state_of(database), deliveries=deliveries)).splitlines()[-3:]
    assert lines[0].startswith("HEATMAP x2 to pacs: sent at ")
    assert lines[1:] == [
        "HEATMAP  to pacs: given up after 1: status 0xA900 (2.25.3)",
        "LABELMAP x2 to pacs: not needed: not taken",
    ]
