"""Deliveries are leased, sent, retried, given up."""

from dataclasses import replace
from datetime import timedelta

import pytest

from node.database import Database
from node.database.deliveries import (
    DeliveryStatus,
    deliveries_of,
    lease_deliveries,
    mark_failed,
    mark_not_needed,
    mark_sent,
    pending_deliveries,
    reschedule,
    retry_failed,
)
from node.database.readings import Address, store_reading
from node.results.reading import Outcome, ResultKind
from tests.node.database.test_readings import lease, store
from tests.node.database.values import NOW, STUDY, a_reading, a_result

LATER = NOW + timedelta(seconds=61)


@pytest.fixture
def reading_id(database: Database) -> int:
    lease(database)
    stored = store(database)
    assert stored is not None
    return stored


def test_pending_by_reading_and_destination(database: Database, reading_id: int) -> None:
    assert pending_deliveries(database, NOW) == [(reading_id, "PACS"), (reading_id, "REPORTS")]
    assert pending_deliveries(database, NOW - timedelta(seconds=1)) == []


def test_a_lease_is_exclusive_until_it_runs_out(database: Database, reading_id: int) -> None:
    first = lease_deliveries(database, reading_id, "PACS", "first", NOW, 60)
    assert [(delivery.attempts, delivery.path) for delivery in first] == [(1, "results/1.dcm"), (1, "results/11.dcm")]
    assert {delivery.study_instance_uid for delivery in first} == {STUDY}
    assert lease_deliveries(database, reading_id, "PACS", "second", NOW, 60) == []
    assert pending_deliveries(database, LATER) == [(reading_id, "PACS"), (reading_id, "REPORTS")]
    assert len(lease_deliveries(database, reading_id, "PACS", "second", LATER, 60)) == 2
    assert not mark_sent(database, first[0].id, "first", LATER)


def test_sent_failed_and_rescheduled(database: Database, reading_id: int) -> None:
    report, capture = lease_deliveries(database, reading_id, "PACS", "worker", NOW, 60)
    assert mark_sent(database, report.id, "worker", NOW)
    assert reschedule(database, capture.id, "worker", "no connection", LATER)
    assert pending_deliveries(database, NOW) == [(reading_id, "REPORTS")]
    (again,) = lease_deliveries(database, reading_id, "PACS", "worker", LATER, 60)
    assert (again.attempts, again.reason) == (2, "no connection")
    assert mark_failed(database, again.id, "worker", "refused: 0x0122")
    assert not mark_failed(database, again.id, "worker", "twice")
    states = {(d.destination, d.kind.value): (d.status, d.sent_at, d.reason) for d in deliveries_of(database, STUDY)}
    assert states == {
        ("PACS", "SR"): (DeliveryStatus.SENT, NOW, ""),
        ("PACS", "SC"): (DeliveryStatus.FAILED, None, "refused: 0x0122"),
        ("REPORTS", "SR"): (DeliveryStatus.PENDING, None, ""),
    }


def test_what_was_given_up_can_be_sent_again(database: Database, reading_id: int) -> None:
    for delivery in lease_deliveries(database, reading_id, "PACS", "worker", NOW, 60):
        mark_failed(database, delivery.id, "worker", "refused")
    assert retry_failed(database, LATER, "REPORTS") == 0
    assert retry_failed(database, LATER) == 2
    assert len(lease_deliveries(database, reading_id, "PACS", "worker", LATER, 60)) == 2


def later_reading(database: Database, outcome: Outcome = Outcome.READ) -> int:
    """A second reading of the study, for PACS alone."""
    lease(database)
    result = a_result(ResultKind.STRUCTURED_REPORT, number=2)
    reading = replace(a_reading(number=2, content="b"), outcome=outcome)
    addresses = [Address(result.sop_instance_uid, "PACS")]
    stored = store_reading(database, "worker", reading, [result], addresses, prediction={}, seconds={}, now=NOW)
    assert stored is not None
    return stored


def test_what_waits_of_a_replaced_reading_never_arrives_after_the_later_one(
    database: Database, reading_id: int
) -> None:
    report, capture = lease_deliveries(database, reading_id, "PACS", "worker", NOW, 60)
    second = later_reading(database)
    assert mark_sent(database, report.id, "worker", NOW)
    assert reschedule(database, capture.id, "worker", "no connection", LATER)
    assert lease_deliveries(database, reading_id, "PACS", "worker", LATER, 60) == []
    assert len(lease_deliveries(database, second, "PACS", "worker", LATER, 60)) == 1
    assert len(lease_deliveries(database, reading_id, "REPORTS", "worker", LATER, 60)) == 1  # gets no later one
    states = {d.id: (d.status, d.reason) for d in deliveries_of(database, STUDY)}
    assert states[report.id] == (DeliveryStatus.SENT, "")
    assert states[capture.id] == (DeliveryStatus.NOT_NEEDED, "reading 2 replaces it")


def test_an_exam_that_was_not_read_replaces_nothing_that_waits(database: Database, reading_id: int) -> None:
    later_reading(database, Outcome.REFUSED)
    assert len(lease_deliveries(database, reading_id, "PACS", "worker", NOW, 60)) == 2


@pytest.mark.parametrize("taken", [True, False])
def test_a_negotiation_decides_for_good(database: Database, taken: bool) -> None:
    lease(database)
    labels, report, other_report = (a_result(ResultKind.STRUCTURED_REPORT, number=number) for number in (1, 2, 3))
    addresses = [
        Address(labels.sop_instance_uid, "PACS", only_if_taken="1.2.66.7"),
        Address(report.sop_instance_uid, "PACS", only_if_taken="1.2.66.7"),
        Address(other_report.sop_instance_uid, "PACS", only_if_refused="1.2.66.7"),
    ]
    results = [labels, report, other_report]
    stored = store_reading(database, "worker", a_reading(), results, addresses, prediction={}, seconds={}, now=NOW)
    assert stored is not None
    for delivery in lease_deliveries(database, stored, "PACS", "worker", NOW, 60):
        if bool(delivery.only_if_taken) is taken:
            assert mark_failed(database, delivery.id, "worker", "refused")
        else:
            assert mark_not_needed(database, delivery.id, "worker", "another form goes")
            assert not mark_not_needed(database, delivery.id, "worker", "twice")
    assert retry_failed(database, NOW) == (2 if taken else 1)
    again = lease_deliveries(database, stored, "PACS", "worker", NOW, 60)
    assert [(delivery.only_if_taken, delivery.only_if_refused) for delivery in again] == [("", "")] * len(again)
    assert {delivery.sop_instance_uid for delivery in again} == (
        {labels.sop_instance_uid, report.sop_instance_uid} if taken else {other_report.sop_instance_uid}
    )
