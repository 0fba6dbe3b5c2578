"""From an arrival to the exam's status, in one transaction, whoever else is at it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from node.database import Database
from node.database.exams import ExamRecord, due_exams, end_reading, exam_record, lease_exam, locked_exam
from node.database.instances import Recorded, instances_of
from node.errors import NodeError
from node.exam import TRANSITIONS, ExamStatus, Instance
from node.intake import Receipt, exam_of, receive, receive_ours, settle
from node.settings import Match, Rule
from tests.node.exams import SETTINGS, STUDY, after, four, image

READ_INCOMPLETE = replace(SETTINGS, read_incomplete=True)


def take(database: Database, instance: Instance, seconds: float = 0, rules: Sequence[Rule] = ()) -> Receipt:
    return receive(database, replace(instance, received_at=after(seconds)), SETTINGS, rules, after(seconds))


def take_all(database: Database, images: Sequence[Instance]) -> list[bool]:
    return [take(database, each).wake for each in images]


def record_of(database: Database) -> ExamRecord:
    record = exam_record(database, STUDY)
    assert record is not None
    return record


def put(database: Database, status: ExamStatus, **values: Any) -> None:
    with database.write() as session:
        row = locked_exam(session, STUDY, after(0))
        row.status = status.value
        for name, value in values.items():
            setattr(row, name, value)


def test_the_fourth_view_makes_the_exam_ready(database: Database) -> None:
    assert take_all(database, four()[:3]) == [False] * 3
    waiting = record_of(database)
    assert (waiting.status, waiting.waiting_for, waiting.due_at) == (ExamStatus.WAITING, "LMLO", after(300))
    assert take(database, four()[3], 10) == Receipt(Recorded.NEW, wake=True)
    ready = record_of(database)
    assert (ready.status, ready.waiting_for, ready.due_at) == (ExamStatus.READY, "", None)
    assert ready.last_image_at == after(10)


def test_an_equal_instance_again_changes_nothing(database: Database) -> None:
    take_all(database, four())
    before = record_of(database)
    assert take(database, four()[0], 60) == Receipt(Recorded.EQUAL, wake=False)
    assert record_of(database) == before


def test_a_further_image_that_is_not_chosen_wakes_nobody(database: Database) -> None:
    take_all(database, four())
    assert take(database, image("LML", 2), 5) == Receipt(Recorded.NEW, wake=False)
    assert record_of(database).status == ExamStatus.READY


def test_other_content_of_a_chosen_image_makes_a_new_reading(database: Database) -> None:
    take_all(database, four())
    put(database, ExamStatus.READ, attempts=1)
    before = record_of(database).selection_hash
    assert take(database, replace(four()[0], content_hash="c" * 64), 60) == Receipt(Recorded.CHANGED, wake=True)
    record = record_of(database)
    assert (record.status, record.attempts) == (ExamStatus.READY, 0)
    assert record.selection_hash != before
    assert {instance.content_hash for instance in instances_of(database, STUDY)} == {f"{1:064x}", "c" * 64}


DONE = [ExamStatus.READ, ExamStatus.SKIPPED, ExamStatus.FAILED]


@pytest.mark.parametrize("status", DONE)
def test_what_is_done_stays_done_unless_the_choice_changes(database: Database, status: ExamStatus) -> None:
    take_all(database, four())
    put(database, status, reason="as it was")
    worse = image("LMLO", 2, acquired_at=datetime(2026, 11, 22, 8))
    assert take(database, worse, 60) == Receipt(Recorded.NEW, wake=False)
    assert (record_of(database).status, record_of(database).reason) == (status, "as it was")
    better = image("LMLO", 3, acquired_at=datetime(2026, 11, 22, 9))
    assert take(database, better, 61) == Receipt(Recorded.NEW, wake=True)
    assert (record_of(database).status, record_of(database).reason) == (ExamStatus.READY, "")


def test_a_late_view_of_a_skipped_exam_has_it_read(database: Database) -> None:
    take_all(database, four()[:3])
    assert not settle(database, STUDY, SETTINGS, after(300))
    assert record_of(database).reason == "views missing: LMLO"
    assert take(database, four()[3], 900).wake
    assert record_of(database).status == ExamStatus.READY


def test_images_that_come_while_reading_are_read_next(database: Database) -> None:
    take_all(database, four())
    assert lease_exam(database, STUDY, "worker", after(1), 600)
    assert not take(database, image("LMLO", 2, acquired_at=datetime(2026, 11, 22, 9)), 2).wake
    reading = record_of(database)
    assert (reading.status, reading.next_status) == (ExamStatus.READING, ExamStatus.READY)
    assert lease_exam(database, STUDY, "second", after(3), 600) is None
    assert end_reading(database, STUDY, "worker", ExamStatus.FAILED, after(4), reason="defect")
    assert (record_of(database).status, record_of(database).reason) == (ExamStatus.READY, "")
    assert due_exams(database, after(4)) == [STUDY]


def test_an_image_that_is_not_chosen_leaves_a_reading_alone(database: Database) -> None:
    take_all(database, four())
    lease_exam(database, STUDY, "worker", after(1), 600)
    take(database, image("LML"), 2)
    assert record_of(database).next_status is None


@pytest.mark.parametrize("status", list(ExamStatus))
def test_different_patients_are_a_skip_and_an_alarm_whatever_was_before(database: Database, status: ExamStatus) -> None:
    take_all(database, four())
    put(database, status, lease_owner="worker", lease_until=after(600))
    assert not take(database, image("LML", patient_fingerprint="q" * 64), 2).wake
    record = record_of(database)
    assert record.alarm
    assert record.reason == "patients differ"
    assert (record.next_status or record.status) == ExamStatus.SKIPPED
    assert ExamStatus.SKIPPED in TRANSITIONS[status] | {status}


def test_what_we_made_ourselves_never_touches_an_exam(database: Database) -> None:
    ours = image(None, modality="SR", patient_fingerprint="q" * 64)
    assert receive_ours(database, ours) == Receipt(Recorded.NEW, wake=False)
    assert exam_record(database, STUDY) is None
    take_all(database, four())
    before = record_of(database)
    receive_ours(database, replace(ours, content_hash="e" * 64))
    assert record_of(database) == before
    assert not exam_of(database, STUDY, SETTINGS).alarm


def test_each_further_image_starts_the_settle_time_again(database: Database) -> None:
    take_all(database, four()[:2])
    take(database, image("LML"), 200)
    assert record_of(database).due_at == after(500)
    assert due_exams(database, after(499)) == []
    assert due_exams(database, after(500)) == [STUDY]


def test_settling_reads_an_incomplete_exam_where_the_site_wants(database: Database) -> None:
    take_all(database, four()[:3])
    assert not settle(database, STUDY, READ_INCOMPLETE, after(299))
    assert record_of(database).status == ExamStatus.WAITING
    assert settle(database, STUDY, READ_INCOMPLETE, after(300))
    assert record_of(database).status == ExamStatus.READY
    assert settle(database, STUDY, READ_INCOMPLETE, after(301))


@pytest.mark.parametrize("status", [*DONE, ExamStatus.READING])
def test_settling_leaves_every_other_status_alone(database: Database, status: ExamStatus) -> None:
    take_all(database, four()[:3])
    put(database, status)
    assert not settle(database, STUDY, SETTINGS, after(300))
    assert record_of(database).status == status


def test_nothing_is_known_of_a_study_that_never_came(database: Database) -> None:
    assert not settle(database, "1.2.3", SETTINGS, after(0))
    assert exam_record(database, "1.2.3") is None


def test_the_priority_is_that_of_the_rule(database: Database) -> None:
    urgent = Rule("urgent", (Match("Manufacturer", regex="Hologic"),), priority=1)
    take(database, image("LCC"), 0, [urgent])
    assert record_of(database).priority == 1
    take(database, image("LMLO", header=()), 1, [urgent])
    assert record_of(database).priority == 5


def test_associations_at_once_make_one_exam_ready_once(database: Database) -> None:
    images = [*four(), *four(number=2, presentation_intent_type="FOR PROCESSING"), image("LML"), image("RML")]
    with ThreadPoolExecutor(5) as pool:
        receipts = list(pool.map(lambda each: take(database, each), images * 2))
    assert sum(receipt.wake for receipt in receipts) >= 1
    assert sum(receipt.recorded is Recorded.NEW for receipt in receipts) == 10
    assert record_of(database).status == ExamStatus.READY
    assert exam_of(database, STUDY, SETTINGS).chosen == tuple((each.view, each) for each in images[:4])


def test_where_the_database_fails_nothing_is_recorded(database: Database) -> None:
    take_all(database, four()[:3])
    before = record_of(database)
    broken = replace(four()[3], received_at=after(1).replace(tzinfo=None))
    with pytest.raises(NodeError):
        receive(database, broken, SETTINGS, (), after(1))
    assert record_of(database) == before
    assert len(instances_of(database, STUDY)) == 3
