"""A reading, its results and its deliveries are stored in one step, once."""

from dataclasses import replace
from datetime import timedelta

from node.database import Database
from node.database.deliveries import (
    DeliveryStatus,
    deliveries_of,
    lease_deliveries,
    mark_not_needed,
    mark_sent,
    retry_failed,
)
from node.database.exams import exam_record, lease_exam, locked_exam
from node.database.readings import (
    Address,
    next_reading_number,
    predecessor_of,
    readings_of,
    store_reading,
    stored_identity,
    stored_reading,
)
from node.exam import ExamStatus
from node.results.reading import Outcome, ResultKind
from tests.node.database.values import NOW, STUDY, a_reading, a_result, addresses

SR, SC = ResultKind.STRUCTURED_REPORT, ResultKind.SECONDARY_CAPTURE
DESTINATIONS = {"PACS": (SR, SC), "REPORTS": (SR,)}


def lease(database: Database, owner: str = "worker") -> None:
    with database.write() as session:
        locked_exam(session, STUDY, NOW).status = "ready"
    assert lease_exam(database, STUDY, owner, NOW, 60)


def store(database: Database, *, number: int = 1, content: str = "a", owner: str = "worker") -> int | None:
    results = [a_result(SR, number=number), a_result(SC, number=number + 10)]
    return store_reading(
        database,
        owner,
        a_reading(number=number, content=content),
        results,
        addresses(results, DESTINATIONS),
        prediction={"exam_probability": 0.25},
        seconds={"infer": 0.5},
        now=NOW,
    )


def status_of(database: Database) -> ExamStatus:
    record = exam_record(database, STUDY)
    assert record is not None
    return record.status


def test_a_reading_is_stored_with_its_results_and_deliveries(database: Database) -> None:
    lease(database)
    assert next_reading_number(database, STUDY) == 1
    reading_id = store(database)
    assert reading_id is not None
    stored = stored_reading(database, reading_id)
    assert stored is not None
    assert stored.results == (a_result(SR), a_result(SC, number=11))
    assert (stored.read_at, stored.prediction, stored.seconds) == (NOW, {"exam_probability": 0.25}, {"infer": 0.5})
    assert stored.selection == a_reading().selection
    assert [(d.destination, d.kind) for d in deliveries_of(database, STUDY)] == [
        ("PACS", SR),
        ("REPORTS", SR),
        ("PACS", SC),
    ]
    assert status_of(database) == ExamStatus.READ


def test_the_same_reading_is_never_stored_twice(database: Database) -> None:
    lease(database)
    first = store(database)
    lease(database)
    stored = stored_identity(database, a_reading())
    assert stored is not None
    assert store(database, number=2) == first == stored.id
    assert len(readings_of(database, STUDY)) == 1
    assert status_of(database) == ExamStatus.READ


def test_a_new_choice_supersedes(database: Database) -> None:
    lease(database)
    first = store(database)
    lease(database)
    assert stored_identity(database, a_reading(content="b")) is None
    assert next_reading_number(database, STUDY) == 2
    store(database, number=2, content="b")
    assert [reading.supersedes_id for reading in readings_of(database, STUDY)] == [None, first]


def test_who_lost_the_lease_stores_nothing(database: Database) -> None:
    lease(database)
    assert lease_exam(database, STUDY, "second", NOW + timedelta(seconds=60), 60)
    assert store(database) is None
    assert readings_of(database, STUDY) == ()
    assert status_of(database) == ExamStatus.READING


def test_images_that_changed_meanwhile_discard_the_reading(database: Database) -> None:
    lease(database)
    with database.write() as session:
        locked_exam(session, STUDY, NOW).next_status = "ready"
    assert store(database) is None
    assert readings_of(database, STUDY) == ()
    assert status_of(database) == ExamStatus.READY


def test_no_reading_of_that_id(database: Database) -> None:
    assert stored_reading(database, 4711) is None


def test_what_may_not_leave_is_addressed_and_never_pending(database: Database) -> None:
    lease(database)
    results = [a_result(SR), replace(a_result(SC, number=11), problem="no pixels")]
    addresses = [Address(result.sop_instance_uid, "PACS") for result in results]
    reading_id = store_reading(database, "worker", a_reading(), results, addresses, prediction={}, seconds={}, now=NOW)
    assert reading_id is not None
    states = {delivery.kind: (delivery.status, delivery.reason) for delivery in deliveries_of(database, STUDY)}
    assert states == {SR: (DeliveryStatus.PENDING, ""), SC: (DeliveryStatus.QUARANTINED, "no pixels")}
    assert retry_failed(database, NOW) == 0
    leased = lease_deliveries(database, reading_id, "PACS", "worker", NOW, 60)
    assert [delivery.kind for delivery in leased] == [SR]


def test_a_later_reading_knows_what_left_and_where_to(database: Database) -> None:
    assert predecessor_of(database, STUDY) is None
    lease(database)
    results = [
        a_result(SR),
        replace(a_result(SC, number=11), problem="no pixels"),
        replace(a_result(ResultKind.SEGMENTATION, number=12), form="own"),
        replace(a_result(ResultKind.MESSAGE, number=13), sop_class_uid=""),
    ]
    addresses = [Address(result.sop_instance_uid, name) for result in results for name in ("PACS", "WS")]
    reading_id = store_reading(database, "worker", a_reading(), results, addresses, prediction={}, seconds={}, now=NOW)
    assert reading_id is not None
    for delivery in lease_deliveries(database, reading_id, "WS", "worker", NOW, 60):
        if delivery.kind is ResultKind.SEGMENTATION:
            mark_not_needed(database, delivery.id, "worker", "the destination takes another form")
        else:
            mark_sent(database, delivery.id, "worker", NOW)
    found = predecessor_of(database, STUDY)
    assert found is not None
    before, stored = found
    assert (before.number, before.read_at, len(stored)) == (1, NOW, 4)
    assert {(document.kind, document.form): document.destinations for document in before.documents} == {
        (SR, ""): ("PACS", "WS"),
        (ResultKind.SEGMENTATION, "own"): ("PACS",),
    }


def test_after_an_exam_that_was_not_read_the_marks_before_it_still_stand(database: Database) -> None:
    uids = []
    for number, outcome in enumerate((Outcome.READ, Outcome.READ, Outcome.REFUSED, Outcome.REFUSED), start=1):
        lease(database)
        result = a_result(SR, number=number)
        reading = replace(a_reading(number=number, content=str(number)), outcome=outcome, reason=str(number))
        address = [Address(result.sop_instance_uid, "PACS")]
        assert store_reading(database, "worker", reading, [result], address, prediction={}, seconds={}, now=NOW)
        uids.append(result.sop_instance_uid)
    found = predecessor_of(database, STUDY)
    assert found is not None
    assert found[0].number == 4
    assert [document.sop_instance_uid for document in found[0].documents] == [uids[3], uids[2], uids[1]]


def test_an_exam_refused_for_quality_is_skipped_with_its_reading(database: Database) -> None:
    lease(database)
    reading = replace(a_reading(), outcome=Outcome.REFUSED, reason="RCC: constant image")
    assert store_reading(database, "worker", reading, [], [], prediction={}, seconds={}, now=NOW) is not None
    record = exam_record(database, STUDY)
    assert record is not None
    assert (record.status, record.reason, record.explain_due_at) == (
        ExamStatus.SKIPPED,
        "refused for quality: RCC: constant image",
        None,
    )
