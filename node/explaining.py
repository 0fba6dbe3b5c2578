"""Why an exam was not read, told to the destinations that want it: silence must never be taken for "no finding".

An exam that ends SKIPPED or FAILED, in whatever process, is due to be explained. Its explanation is a reading without
views, stored and delivered as any other; the exam's status stays. A later reading supersedes it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydicom import Dataset

from node.choosing import choose
from node.database.exams import ExamRecord
from node.database.explanations import end_explanation, lease_explanation
from node.database.readings import store_explanation
from node.errors import NodeError
from node.exam import Exam, ExamStatus
from node.inference.model import Model
from node.intake import exam_of
from node.keeping import destinations_of, keep
from node.loading import read_headers, unread_view
from node.mammography.views import View
from node.pipeline import NOT_READY_SECONDS, Bench, NotReadyError, begun, chosen, named, no_candidate
from node.results.reading import Outcome, Reading
from node.routing import Route, Skip, route
from node.settings import Destination, Settings
from node.summary import summary_of

logger = logging.getLogger(__name__)


def lease(bench: Bench, study_instance_uid: str, now: datetime) -> ExamRecord | None:
    """Take an explanation that is due, None where there is nothing to do."""
    return lease_explanation(bench.database, study_instance_uid, bench.owner, now, bench.settings.worker.lease_seconds)


def explain(
    bench: Bench,
    leased: ExamRecord,
    model_of: Callable[[], Model],
    candidate_of: Callable[[], Model] = no_candidate,
) -> int | None:
    """Explain a leased exam. Returns the reading's id; None where no destination wants it, no image can be named, or
    the exam is to be read after all. Raises NotReadyError without a model, OutOfResourcesError.
    """
    exam = exam_of(bench.database, leased.study_instance_uid, bench.settings.exam)
    taken = route(exam, bench.settings.rules)
    destinations = wanted_by(exam, taken, bench.settings)
    sources = read_headers(exam) if destinations else {}
    if not sources:
        end_explanation(bench.database, leased.study_instance_uid, bench.owner, None)
        return None
    choice = choose(bench.database, bench.settings.candidate, exam.study_instance_uid)
    with named(choice):
        frame = begun(bench, exam, taken, chosen(choice, model_of, candidate_of))
    reading = _unread(frame, leased, exam, sources)
    seconds: dict[str, float] = {}
    kept = keep(bench.database, bench.settings.data_folder, reading, sources, destinations, seconds)
    reading_id = store_explanation(
        bench.database,
        bench.owner,
        reading,
        kept.results,
        kept.addresses,
        prediction=summary_of(reading, taken.rule),
        seconds=seconds,
        now=datetime.now(UTC),
        candidate=choice.candidate,
    )
    logger.info("%s explained: number %d, %s", exam.study_instance_uid, reading.number, reading.outcome.value)
    return reading_id


def wanted_by(exam: Exam, taken: Route | Skip, settings: Settings) -> tuple[Destination, ...]:
    """The destinations that are told. Nobody is told of a study without a mammogram of a standard view (tomosynthesis,
    unknown sides), nor of one whose images are of different patients.
    """
    if exam.alarm or not exam.chosen:
        return ()
    return tuple(destination for destination in destinations_of(taken, settings) if destination.wants_unread)


def give_up(bench: Bench, leased: ExamRecord, error: Exception, now: datetime) -> None:
    """Put an explanation that raised back for later where that may help; else end it, and a person must look."""
    uid = leased.study_instance_uid
    waits = isinstance(error, NotReadyError) or (isinstance(error, NodeError) and error.retryable)
    if waits:
        logger.error("ALARM %s cannot be explained yet: %s", uid, error)
    else:
        logger.error("ALARM %s cannot be explained", uid, exc_info=error)
    due_at = now + timedelta(seconds=NOT_READY_SECONDS) if waits else None
    end_explanation(bench.database, uid, bench.owner, due_at)


def _unread(frame: Reading, leased: ExamRecord, exam: Exam, sources: Mapping[View, Dataset]) -> Reading:
    return replace(
        frame,
        outcome=Outcome.FAILED if leased.status is ExamStatus.FAILED else Outcome.NOT_ATTEMPTED,
        reason=leased.reason,
        unread=tuple(
            unread_view(view, instance, sources[view], f"the exam was not read: {leased.reason}")
            for view, instance in exam.chosen
            if view in sources
        ),
    )
