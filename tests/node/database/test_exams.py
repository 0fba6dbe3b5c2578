"""Status is a compare-and-set, and two workers never hold one exam."""

import contextlib
import itertools
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from node.database import Database, open_database
from node.database.exams import (
    advance,
    due_exams,
    end_reading,
    exam_record,
    exam_records,
    lease_exam,
    locked_exam,
)
from node.exam import TRANSITIONS, ExamStatus
from tests.node.database.values import NOW, STUDY

LATER = NOW + timedelta(seconds=61)


def put(database: Database, status: ExamStatus, study: str = STUDY, **values: Any) -> None:
    with database.write() as session:
        row = locked_exam(session, study, NOW)
        row.status = status.value
        for name, value in values.items():
            setattr(row, name, value)


def status_of(database: Database, study: str = STUDY) -> ExamStatus:
    record = exam_record(database, study)
    assert record is not None
    return record.status


def test_only_the_transitions_of_the_table_are_taken(database: Database) -> None:
    taken = set()
    for before, after in itertools.product(ExamStatus, ExamStatus):
        put(database, before)
        with contextlib.suppress(ValueError):
            if advance(database, STUDY, before, after, NOW, reason="why"):
                taken.add((before, after))
        assert (status_of(database) == after) == ((before, after) in taken or before == after)
    table = {(before, after) for before, allowed in TRANSITIONS.items() for after in allowed}
    assert taken == {step for step in table if ExamStatus.READING not in step}


def test_advance_from_another_status_changes_nothing(database: Database) -> None:
    put(database, ExamStatus.READ)
    assert not advance(database, STUDY, ExamStatus.WAITING, ExamStatus.READY, NOW)
    assert status_of(database) == ExamStatus.READ


def test_due_exams_by_status_time_and_priority(database: Database) -> None:
    put(database, ExamStatus.READY, "1.1")
    put(database, ExamStatus.READY, "1.2", priority=0)
    put(database, ExamStatus.READY, "1.3", due_at=LATER)
    put(database, ExamStatus.WAITING, "1.4", due_at=NOW, priority=7)
    put(database, ExamStatus.WAITING, "1.5", due_at=LATER)
    put(database, ExamStatus.READING, "1.6", lease_owner="a", lease_until=NOW, priority=8)
    put(database, ExamStatus.READING, "1.7", lease_owner="a", lease_until=LATER)
    for number, status in enumerate((ExamStatus.READ, ExamStatus.SKIPPED, ExamStatus.FAILED)):
        put(database, status, f"1.8.{number}", due_at=NOW)
    assert due_exams(database, NOW) == ["1.2", "1.1", "1.4", "1.6"]


def test_a_lease_is_held_and_taken_over_when_it_ran_out(database: Database) -> None:
    put(database, ExamStatus.READY, selection_hash="s" * 64)
    first = lease_exam(database, STUDY, "first", NOW, 60)
    assert first is not None
    assert (first.status, first.attempts, first.selection_hash) == (ExamStatus.READING, 1, "s" * 64)
    assert lease_exam(database, STUDY, "second", NOW + timedelta(seconds=59), 60) is None
    second = lease_exam(database, STUDY, "second", NOW + timedelta(seconds=90), 60)
    assert second is not None
    assert second.attempts == 2
    assert not end_reading(database, STUDY, "first", ExamStatus.FAILED, LATER, reason="late")
    assert end_reading(database, STUDY, "second", ExamStatus.READY, LATER, reason="server away", due_at=LATER)
    assert [record.reason for record in exam_records(database)] == ["server away"]


@pytest.mark.parametrize("status", [status for status in ExamStatus if status is not ExamStatus.READY])
def test_only_a_ready_exam_is_leased(database: Database, status: ExamStatus) -> None:
    put(database, status)
    assert lease_exam(database, STUDY, "worker", NOW, 60) is None
    assert lease_exam(database, "1.2.3", "worker", NOW, 60) is None


def test_a_ready_exam_with_a_later_due_time_waits_for_it(database: Database) -> None:
    put(database, ExamStatus.READY, due_at=LATER)
    assert lease_exam(database, STUDY, "worker", NOW, 60) is None
    assert lease_exam(database, STUDY, "worker", LATER, 60) is not None


def test_images_that_came_while_reading_decide_the_next_status(database: Database) -> None:
    put(database, ExamStatus.READY)
    lease_exam(database, STUDY, "worker", NOW, 60)
    put(database, ExamStatus.READING, next_status="waiting", waiting_for="LMLO", due_at=LATER)
    assert end_reading(database, STUDY, "worker", ExamStatus.FAILED, NOW, reason="defect")
    record = exam_record(database, STUDY)
    assert record is not None
    assert (record.status, record.reason, record.waiting_for) == (ExamStatus.WAITING, "", "LMLO")
    assert (record.due_at, record.lease_owner, record.next_status) == (LATER, None, None)


@pytest.mark.parametrize("pending", [ExamStatus.READY, ExamStatus.SKIPPED])
def test_a_dead_workers_exam_takes_its_pending_status(database: Database, pending: ExamStatus) -> None:
    put(database, ExamStatus.READING, lease_owner="dead", lease_until=NOW, next_status=pending.value)
    leased = lease_exam(database, STUDY, "worker", LATER, 60)
    assert (leased is not None) == (pending is ExamStatus.READY)
    assert status_of(database) == (ExamStatus.READING if leased else pending)


def test_end_reading_obeys_the_table(database: Database) -> None:
    with pytest.raises(ValueError, match="no step"):
        end_reading(database, STUDY, "worker", ExamStatus.READING, NOW)


def test_of_many_threads_one_gets_the_exam(database: Database) -> None:
    for number in range(10):
        put(database, ExamStatus.READY, f"1.{number}")
    with ThreadPoolExecutor(8) as pool:
        jobs = [(f"1.{number}", f"worker {worker}") for number in range(10) for worker in range(8)]
        leased = list(pool.map(lambda job: lease_exam(database, job[0], job[1], NOW, 60), jobs))
    assert sorted(record.study_instance_uid for record in leased if record) == [f"1.{n}" for n in range(10)]


def _lease_all(url: str, owner: str, start: Any, answers: Any) -> None:
    database = open_database(url)
    start.wait()
    answers.put([number for number in range(10) if lease_exam(database, f"1.{number}", owner, NOW, 60)])
    database.close()


def test_of_many_processes_one_gets_the_exam(database: Database) -> None:
    for number in range(10):
        put(database, ExamStatus.READY, f"1.{number}")
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Event(), spawn.Queue()
    url = database.engine.url.render_as_string(hide_password=False)
    workers = [spawn.Process(target=_lease_all, args=(url, f"w{n}", start, answers)) for n in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    got = sorted(number for _ in workers for number in answers.get(timeout=30))
    for worker in workers:
        worker.join(30)
    assert got == list(range(10))
