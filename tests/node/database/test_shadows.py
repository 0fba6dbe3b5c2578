"""What is to be read in shadow: due after delivery, leased by one, kept apart from everything that is sent."""

from dataclasses import replace
from datetime import timedelta

import pytest

from node.database import Database
from node.database.canaries import exams_by_reader, hasten, read_by
from node.database.deliveries import deliveries_of, lease_deliveries, mark_failed, mark_sent, reschedule
from node.database.exams import end_reading, exam_record, lease_exam, locked_exam
from node.database.readings import readings_of, store_reading
from node.database.shadows import (
    Shadow,
    ShadowStatus,
    drop_shadow,
    due_shadows,
    fail_shadow,
    lease_shadow,
    postpone_shadow,
    shadow_counts,
    shadow_pairs,
    shadow_troubles,
    shadowed_candidates,
    store_shadow,
)
from node.exam import ExamStatus
from node.results.reading import Outcome, ResultKind
from tests.node.database.values import NOW, STUDY, a_reading, a_result, addresses

NAME = "2.1.0"
OTHER = f"{STUDY}.7"


def store(database: Database, number: int = 1, *, shadow: str = NAME, **more: object) -> int:
    """One reading of STUDY with a report for one destination, the exam taken and let go of."""
    with database.write() as session:
        row = locked_exam(session, STUDY, NOW)
        row.status = ExamStatus.READY.value
    assert lease_exam(database, STUDY, "reader", NOW, 60) is not None
    result = a_result(number=number)
    reading_id = store_reading(
        database,
        "reader",
        replace(a_reading(number=number, content="abc"[number]), **more),  # type: ignore[arg-type]
        [result],
        addresses([result], {"pacs": [ResultKind.STRUCTURED_REPORT]}),
        prediction={"exam_probability": number / 10},
        seconds={"infer": 1.0},
        now=NOW,
        shadow=shadow,
    )
    assert reading_id is not None
    return reading_id


def deliver(database: Database, reading_id: int) -> None:
    for item in lease_deliveries(database, reading_id, "pacs", "sender", NOW, 60):
        mark_sent(database, item.id, "sender", NOW)


def leased(database: Database, shadow_id: int, owner: str = "shadow", seconds: int = 0) -> Shadow:
    taken = lease_shadow(database, shadow_id, owner, NOW + timedelta(seconds=seconds), 60)
    assert taken is not None
    return taken


def say(database: Database, shadow_id: int, probability: float) -> bool:
    return store_shadow(
        database,
        shadow_id,
        "shadow",
        replace(a_reading().model, version="2", weights_hash="v" * 64),
        "6" * 64,
        prediction={"exam_probability": probability},
        seconds={"infer": 2.0},
        now=NOW,
    )


def test_a_shadow_is_due_when_nothing_of_its_reading_waits_to_be_sent(database: Database) -> None:
    reading_id = store(database)
    assert due_shadows(database, NAME, NOW) == []
    [item] = lease_deliveries(database, reading_id, "pacs", "sender", NOW, 60)
    assert due_shadows(database, NAME, NOW) == []
    reschedule(database, item.id, "sender", "no connection", NOW)
    assert due_shadows(database, NAME, NOW + timedelta(days=1)) == []
    deliver(database, reading_id)
    [due] = due_shadows(database, NAME, NOW)
    assert due_shadows(database, "another", NOW) == []
    taken = leased(database, due)
    assert (taken.study_instance_uid, taken.candidate, taken.attempts) == (STUDY, NAME, 1)
    assert taken.selection == a_reading(content="b").selection


def test_a_delivery_that_was_given_up_holds_no_shadow_up(database: Database) -> None:
    reading_id = store(database)
    [item] = lease_deliveries(database, reading_id, "pacs", "sender", NOW, 60)
    mark_failed(database, item.id, "sender", "refused")
    assert len(due_shadows(database, NAME, NOW)) == 1


@pytest.mark.parametrize("more", [{"outcome": Outcome.REFUSED, "reason": "blurred"}, {"shadow": ""}])
def test_what_was_not_read_or_not_chosen_has_no_shadow(database: Database, more: dict[str, object]) -> None:
    deliver(database, store(database, **more))  # type: ignore[arg-type]
    assert due_shadows(database, NAME, NOW) == []
    assert shadowed_candidates(database) == []


def test_two_workers_never_hold_one_shadow_and_a_lost_lease_keeps_nothing(database: Database) -> None:
    deliver(database, store(database))
    [due] = due_shadows(database, NAME, NOW)
    leased(database, due, "dead")
    assert lease_shadow(database, due, "shadow", NOW, 60) is None
    assert leased(database, due, "shadow", seconds=61).attempts == 2
    for lost in (
        fail_shadow(database, due, "dead", "x"),
        drop_shadow(database, due, "dead", "x"),
        postpone_shadow(database, due, "dead", "x", NOW),
    ):
        assert not lost
    assert say(database, due, 0.4)
    assert not say(database, due, 0.5)
    [pair] = shadow_pairs(database, NAME)
    assert (pair.first.prediction, pair.candidate.prediction) == ({"exam_probability": 0.1}, {"exam_probability": 0.4})
    assert pair.candidate.model == ("exam_encoder", "2", "openvino f32", "v" * 64)


def test_only_the_last_reading_of_a_study_is_compared(database: Database) -> None:
    for number in (1, 2):
        deliver(database, store(database, number))
        [due] = due_shadows(database, NAME, NOW)
        leased(database, due)
        say(database, due, 0.5)
    [pair] = shadow_pairs(database, NAME)
    assert pair.first.prediction == {"exam_probability": 0.2}
    assert shadow_counts(database, NAME) == {ShadowStatus.READ: 2}


def test_what_went_wrong_is_kept_in_words_and_touches_nothing_else(database: Database) -> None:
    deliver(database, store(database))
    exam, readings, deliveries = (
        exam_record(database, STUDY),
        readings_of(database, STUDY),
        deliveries_of(database, STUDY),
    )
    [due] = due_shadows(database, NAME, NOW)
    leased(database, due)
    postpone_shadow(database, due, "shadow", "the server is away", NOW + timedelta(minutes=1))
    assert due_shadows(database, NAME, NOW) == []
    assert shadow_troubles(database, NAME) == ((STUDY, "pending", "the server is away"),)
    leased(database, due, seconds=60)
    fail_shadow(database, due, "shadow", "InferenceError: output exam_logit is not finite")
    assert due_shadows(database, NAME, NOW + timedelta(days=9)) == []
    assert shadow_troubles(database, NAME)[0][1:] == ("failed", "InferenceError: output exam_logit is not finite")
    assert exam_record(database, STUDY) == exam
    assert readings_of(database, STUDY) == readings
    assert deliveries_of(database, STUDY) == deliveries


def test_the_same_reading_once_more_wants_one_shadow(database: Database) -> None:
    assert store(database) == store(database)
    assert shadow_counts(database, NAME) == {ShadowStatus.PENDING: 1}


def test_exams_that_wait_for_a_candidate_are_hastened_and_no_others(database: Database) -> None:
    for study, reason in ((STUDY, f"candidate {NAME}: no model: away"), (OTHER, "candidate 2x1x0: no model: away")):
        with database.write() as session:
            locked_exam(session, study, NOW).status = ExamStatus.READY.value
        assert lease_exam(database, study, "reader", NOW, 60) is not None
        end_reading(database, study, "reader", ExamStatus.READY, NOW, reason=reason, due_at=NOW + timedelta(hours=1))
    assert hasten(database, NAME) == 1
    due = [record.due_at for study in (STUDY, OTHER) if (record := exam_record(database, study))]
    assert due == [None, NOW + timedelta(hours=1)]
    assert (read_by(database, NAME), exams_by_reader(database)) == ((), {})
