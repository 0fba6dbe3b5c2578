"""The candidate in shadow: it reads what was read and delivered before; what it says stays in the database.

No object is made, nothing is addressed to a destination, and whatever goes wrong here leaves the exam as it stands.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from node.database.shadows import Shadow, drop_shadow, fail_shadow, lease_shadow, postpone_shadow, store_shadow
from node.errors import MAX_ATTEMPTS, ModelWaitError, NodeError, UnreadableError, retry_after
from node.exam import selection_of
from node.inference.model import Model
from node.intake import exam_of
from node.pipeline import NOT_READY_SECONDS, Bench, NotReadyError, loaded, read_with
from node.results.reading import Outcome
from node.routing import Skip, route
from node.summary import summary_of

logger = logging.getLogger(__name__)

LOWEST_PRIORITY = 9
"""Of the exams of a server's queue: all others go first."""
REPLACED = "the exam has other images by now"


def lease(bench: Bench, shadow_id: int, now: datetime) -> Shadow | None:
    """Take what is due, None where there is nothing to do. After too many tries it is given up instead."""
    leased = lease_shadow(bench.database, shadow_id, bench.owner, now, bench.settings.worker.lease_seconds)
    if leased is not None and leased.attempts > MAX_ATTEMPTS:
        fail_shadow(bench.database, shadow_id, bench.owner, f"given up after {MAX_ATTEMPTS} tries")
        return None
    return leased


def read_shadow(bench: Bench, leased: Shadow, candidate_of: Callable[[], Model]) -> None:
    """Read the images of a reading by the candidate, and keep what it says. Raises NodeErrors: see `give_up`."""
    seconds: dict[str, float] = {}
    exam = exam_of(bench.database, leased.study_instance_uid, bench.settings.exam)
    taken = route(exam, bench.settings.rules)
    if selection_of(exam) != leased.selection or isinstance(taken, Skip):
        drop_shadow(bench.database, leased.id, bench.owner, REPLACED)
        return
    reading, _ = read_with(bench, exam, taken, loaded(candidate_of), seconds, LOWEST_PRIORITY)
    if reading.outcome is not Outcome.READ:
        raise UnreadableError(f"{reading.outcome}: {reading.reason}")
    store_shadow(
        bench.database,
        leased.id,
        bench.owner,
        reading.model,
        reading.settings_hash,
        prediction=summary_of(reading, taken.rule),
        seconds=seconds,
        now=datetime.now(UTC),
    )
    logger.info("%s read in shadow by %s", leased.study_instance_uid, leased.candidate)


def give_up(bench: Bench, leased: Shadow, error: Exception, now: datetime) -> None:
    """Put a shadow that raised back for later where that may help; else give it up, in words. Never an ALARM."""
    delay = _delay(error, leased.attempts)
    logger.warning("%s in shadow of %s: %s", leased.candidate, leased.study_instance_uid, error)
    if delay is not None:
        postpone_shadow(bench.database, leased.id, bench.owner, str(error), now + timedelta(seconds=delay))
        return
    if not isinstance(error, NodeError):
        logger.error("%s in shadow of %s failed", leased.candidate, leased.study_instance_uid, exc_info=error)
    words = str(error) if isinstance(error, UnreadableError) else f"{type(error).__name__}: {error}"
    fail_shadow(bench.database, leased.id, bench.owner, words)


def _delay(error: Exception, attempts: int) -> float | None:
    if isinstance(error, NotReadyError):
        return NOT_READY_SECONDS
    if isinstance(error, ModelWaitError):
        return max(error.seconds, 1.0)
    return retry_after(error, attempts)
