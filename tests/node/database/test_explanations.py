"""Exams that were not read are due to be explained once, by one worker, until they are read after all."""

from dataclasses import replace
from datetime import timedelta

import pytest

from node.database import Database
from node.database.exams import advance, end_reading, exam_record, lease_exam
from node.database.explanations import (
    due_explanations,
    end_explanation,
    lease_explanation,
    leased_explanations,
)
from node.database.readings import Address, readings_of, store_explanation
from node.exam import ExamStatus
from node.results.reading import Outcome
from tests.node.database.test_exams import put
from tests.node.database.values import NOW, STUDY, a_reading, a_result

LATER = NOW + timedelta(seconds=61)
UNREAD = replace(a_reading(), outcome=Outcome.NOT_ATTEMPTED, reason="biopsy")


def skip(database: Database, status: ExamStatus = ExamStatus.SKIPPED) -> None:
    put(database, ExamStatus.READY)
    assert lease_exam(database, STUDY, "reader", NOW, 60)
    assert end_reading(database, STUDY, "reader", status, NOW, reason="biopsy")


def store(database: Database, owner: str) -> int | None:
    result = a_result()
    addresses = [Address(result.sop_instance_uid, "PACS")]
    return store_explanation(database, owner, UNREAD, [result], addresses, prediction={}, seconds={}, now=NOW)


@pytest.mark.parametrize("status", [ExamStatus.SKIPPED, ExamStatus.FAILED])
def test_an_exam_that_is_not_read_is_due_at_once(database: Database, status: ExamStatus) -> None:
    skip(database, status)
    assert due_explanations(database, NOW) == [STUDY]


def test_one_worker_has_it_until_its_lease_runs_out(database: Database) -> None:
    skip(database)
    leased = lease_explanation(database, STUDY, "first", NOW, 60)
    assert leased is not None
    assert (leased.status, leased.reason) == (ExamStatus.SKIPPED, "biopsy")
    assert leased_explanations(database) == [(STUDY, "first")]
    assert lease_explanation(database, STUDY, "second", NOW, 60) is None
    assert lease_explanation(database, STUDY, "second", LATER, 60) is not None
    assert store(database, "first") is None
    assert store(database, "second") is not None
    assert (due_explanations(database, LATER), leased_explanations(database)) == ([], [])
    record = exam_record(database, STUDY)
    assert record is not None
    assert (record.status, record.lease_owner) == (ExamStatus.SKIPPED, None)


def test_the_same_explanation_is_stored_once(database: Database) -> None:
    ids = set()
    for _ in range(2):
        skip(database)
        assert lease_explanation(database, STUDY, "worker", NOW, 60)
        ids.add(store(database, "worker"))
    assert len(ids) == len(readings_of(database, STUDY)) == 1
    [reading] = readings_of(database, STUDY)
    assert (reading.outcome, reading.reason) == (Outcome.NOT_ATTEMPTED, "biopsy")


def test_what_nobody_wants_is_done_with_and_what_waits_is_due_again(database: Database) -> None:
    skip(database)
    assert lease_explanation(database, STUDY, "worker", NOW, 60)
    assert end_explanation(database, STUDY, "worker", LATER)
    assert not end_explanation(database, STUDY, "worker", LATER)
    assert (due_explanations(database, NOW), due_explanations(database, LATER)) == ([], [STUDY])
    assert lease_explanation(database, STUDY, "worker", LATER, 60)
    assert end_explanation(database, STUDY, "worker", None)
    assert due_explanations(database, LATER + timedelta(days=1)) == []


def test_an_exam_that_is_read_after_all_is_not_explained(database: Database) -> None:
    skip(database, ExamStatus.FAILED)
    assert lease_explanation(database, STUDY, "worker", NOW, 60)
    assert advance(database, STUDY, ExamStatus.FAILED, ExamStatus.READY, NOW)
    assert due_explanations(database, LATER) == []
    assert store(database, "worker") is None
    assert readings_of(database, STUDY) == ()
