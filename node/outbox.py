"""What waits to be delivered: taken with a lease, sent, and what became of each object recorded."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node import delivery
from node.database import Database
from node.database.deliveries import (
    Delivery,
    lease_deliveries,
    mark_failed,
    mark_not_needed,
    mark_sent,
    pending_deliveries,
    reschedule,
)
from node.delivery import Outcome
from node.errors import DestinationRefusedError, retry_after
from node.results.reading import ResultKind
from node.settings import Destination, Settings

logger = logging.getLogger(__name__)


def destinations_due(database: Database, reading_id: int, now: datetime) -> list[str]:
    """Destinations that wait for something of this reading."""
    return [name for reading, name in pending_deliveries(database, now) if reading == reading_id]


def deliver_due(
    database: Database, settings: Settings, owner: str, reading_id: int, destination_name: str, now: datetime
) -> tuple[int, int]:
    """Send what is due at `now` of one reading to one destination: how many objects were sent, and how many failed."""
    seconds = settings.worker.lease_seconds
    leased = lease_deliveries(database, reading_id, destination_name, owner, now, seconds)
    if not leased:
        return 0, 0
    outcomes = _sent(settings, leased, destination_name)
    for item, outcome in zip(leased, outcomes, strict=True):
        _record(database, owner, item, outcome)
    failed = sum(outcome.error is not None for outcome in outcomes)
    return sum(not outcome.not_needed for outcome in outcomes) - failed, failed


def _sent(settings: Settings, leased: list[Delivery], destination_name: str) -> tuple[Outcome, ...]:
    """What became of each object."""
    destination = _destination(settings, destination_name)
    if destination is None:
        error = DestinationRefusedError(f"no destination is called {destination_name}")
        return tuple(Outcome(item.sop_instance_uid, error) for item in leased)
    unfit = {item.id: DestinationRefusedError(why) for item in leased if (why := _why_unfit(item, destination))}
    results = [
        delivery.StoredResult(
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            path=Path(item.path),
            only_if_taken=item.only_if_taken,
            only_if_refused=item.only_if_refused,
        )
        for item in leased
        if item.id not in unfit
    ]
    sent = iter(delivery.deliver(results, destination, settings.listener.ae_title) if results else ())
    return tuple(Outcome(item.sop_instance_uid, unfit[item.id]) if item.id in unfit else next(sent) for item in leased)


def _why_unfit(item: Delivery, destination: Destination) -> str:
    """Why an object cannot go there any more, in words; empty where it can."""
    if not Path(item.path).is_file():
        return f"its file is gone: {item.path}"
    if (item.kind is ResultKind.MESSAGE) is not (destination.protocol == "hl7"):
        return f"{item.kind} does not go by protocol {destination.protocol!r}, which the destination has now"
    return ""


def _destination(settings: Settings, name: str) -> Destination | None:
    return next((destination for destination in settings.destinations if destination.name == name), None)


def _record(database: Database, owner: str, item: Delivery, outcome: Outcome) -> None:
    now, error = datetime.now(UTC), outcome.error
    what = f"{item.kind} {item.sop_instance_uid} to {item.destination}"
    if outcome.not_needed:
        logger.info("%s not needed: %s", what, outcome.not_needed)
        mark_not_needed(database, item.id, owner, outcome.not_needed)
        return
    if error is None:
        logger.info("%s sent", what)
        mark_sent(database, item.id, owner, now)
        return
    delay = retry_after(error, item.attempts)
    if delay is None:
        logger.error("ALARM %s given up: %s", what, error)
        mark_failed(database, item.id, owner, str(error))
    else:
        logger.warning("%s again in %.0f s: %s", what, delay, error)
        reschedule(database, item.id, owner, str(error), now + timedelta(seconds=delay))
