"""What a person reads of an exam: status, and why."""

from dataclasses import replace

from node.database import Database
from node.database.exams import exam_record
from node.intake import receive, settle
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
