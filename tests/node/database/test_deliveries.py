"""Deliveries are leased, sent, retried, given up."""

from datetime import timedelta

import pytest

from node.database import Database
from node.database.deliveries import (
    DeliveryStatus,
    deliveries_of,
    lease_deliveries,
    mark_failed,
    mark_sent,
    pending_deliveries,
    reschedule,
    retry_failed,
)
from tests.node.database.test_readings import lease, store
from tests.node.database.values import NOW, STUDY

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
