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
    mark_sent,
    pending_deliveries,
    reschedule,
)
from node.errors import DeliveryError, DestinationRefusedError, retry_after
from node.settings import Destination, Settings

logger = logging.getLogger(__name__)


def destinations_due(database: Database, reading_id: int, now: datetime) -> list[str]:
    """Destinations that wait for something of this reading."""
    return [name for reading, name in pending_deliveries(database, now) if reading == reading_id]


def deliver_due(
    database: Database, settings: Settings, owner: str, reading_id: int, destination_name: str, now: datetime
) -> tuple[int, int]:
    """Send what is due at `now` of one reading to one destination: how many objects were sent, and how many not."""
    seconds = settings.worker.lease_seconds
    leased = lease_deliveries(database, reading_id, destination_name, owner, now, seconds)
    if not leased:
        return 0, 0
    errors = _sent(settings, leased, destination_name)
    for item, error in zip(leased, errors, strict=True):
        _record(database, owner, item, error)
    return errors.count(None), len(errors) - errors.count(None)


def _sent(settings: Settings, leased: list[Delivery], destination_name: str) -> list[DeliveryError | None]:
    """What became of each object."""
    destination = _destination(settings, destination_name)
    if destination is None:
        return [DestinationRefusedError(f"no destination is called {destination_name}") for _ in leased]
    results = [
        delivery.StoredResult(item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid, Path(item.path))
        for item in leased
    ]
    return [outcome.error for outcome in delivery.deliver(results, destination, settings.listener.ae_title)]


def _destination(settings: Settings, name: str) -> Destination | None:
    return next((destination for destination in settings.destinations if destination.name == name), None)


def _record(database: Database, owner: str, item: Delivery, error: DeliveryError | None) -> None:
    now = datetime.now(UTC)
    what = f"{item.kind} {item.sop_instance_uid} to {item.destination}"
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
