"""Wake-ups: what tells a worker at once that there is something to do. SQL is the truth; these may all be lost.

`Publisher` puts a message into the broker's queues. `Waker` is a thread that publishes what it is handed, so that a
listener never waits for a broker, and that looks into the database for whatever is due and was not published: after a
crash, a lost broker, or the end of a waiting time.
"""

import logging
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from node.broker import connect
from node.database import Database
from node.database.deliveries import pending_deliveries, reschedule
from node.database.exams import due_exams, end_reading
from node.database.explanations import due_explanations, end_explanation, leased_explanations
from node.database.leases import leased_deliveries, leased_exams
from node.database.shadows import due_shadows
from node.errors import NodeError
from node.exam import ExamStatus
from node.owner import is_dead
from node.settings import LOG_FORMAT

T = TypeVar("T", bound=Hashable)

logger = logging.getLogger(__name__)

READ_QUEUE = "read"
DELIVER_QUEUE = "deliver"
SHADOW_QUEUE = "shadow"
READ_TASK = "read_exam"
EXPLAIN_TASK = "explain"
DELIVER_TASK = "deliver"
SHADOW_TASK = "shadow"
PRIORITIES = tuple(range(10))
SEPARATOR = ":"
REPUBLISH_SECONDS = 60.0
"""While a queue is not empty, what was published and is still due is published again only after this long."""


def celery_settings(broker_url: str, lease_seconds: float) -> dict[str, Any]:
    """Settings that the publishers and the workers share.

    Late acknowledgement and a short restore interval: a message whose worker died comes back. Its visibility timeout
    is longer than the hard time limit, so no message is handed out while its task still runs.
    """
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": int(2 * lease_seconds) + 1,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "priority_steps": list(PRIORITIES),
            "sep": SEPARATOR,
            "queue_order_strategy": "priority",
            "socket_timeout": 5.0,
            "socket_connect_timeout": 2.0,
        },
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_routes": {
            READ_TASK: READ_QUEUE,
            EXPLAIN_TASK: READ_QUEUE,
            DELIVER_TASK: DELIVER_QUEUE,
            SHADOW_TASK: SHADOW_QUEUE,
        },
        "task_time_limit": lease_seconds,
        "worker_prefetch_multiplier": 1,
        "worker_proc_alive_timeout": 120.0,
        "worker_redirect_stdouts": False,
        "worker_log_format": LOG_FORMAT,
        "worker_task_log_format": LOG_FORMAT,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
    }


class Publisher:
    """Puts wake-ups into the broker; never raises, and says once that the broker is away, and once that it is back."""

    def __init__(self, broker_url: str, lease_seconds: float) -> None:
        self._app = Celery("mammoclip-node-publisher", set_as_current=False)
        self._app.conf.update(celery_settings(broker_url, lease_seconds))
        self._app.conf.broker_pool_limit = 0  # a pooled connection would be dead after a restart of the broker
        self._broker_url = broker_url
        self._away = False

    def read_exam(self, study_instance_uid: str, priority: int = 5) -> bool:
        """Wake a worker to read an exam. False: the broker is away."""
        return self._publish(READ_TASK, (study_instance_uid,), priority)

    def explain(self, study_instance_uid: str) -> bool:
        """Wake a worker to explain why an exam was not read, after what is to be read. False: the broker is away."""
        return self._publish(EXPLAIN_TASK, (study_instance_uid,), PRIORITIES[-1])

    def deliver(self, reading_id: int, destination: str) -> bool:
        """Wake a worker to deliver a reading's results to a destination. False: the broker is away."""
        return self._publish(DELIVER_TASK, (reading_id, destination), 0)

    def shadow(self, shadow_id: int) -> bool:
        """Wake the candidate's worker. False: the broker is away."""
        return self._publish(SHADOW_TASK, (shadow_id,), PRIORITIES[-1])

    def queued(self, queue: str) -> int | None:
        """How many messages wait in a queue, None where the broker does not say."""
        try:
            with connect(self._broker_url) as client:
                return sum(int(client.llen(_key(queue, priority))) for priority in PRIORITIES)
        except redis.RedisError:
            return None

    def _check_broker(self) -> None:
        """kombu's connection tries for 6 s where nobody listens; ours says so at once."""
        with connect(self._broker_url) as client:
            client.ping()

    def _publish(self, task: str, arguments: tuple[Any, ...], priority: int) -> bool:
        try:
            self._check_broker()
            self._app.send_task(task, arguments, priority=priority, retry=False)
        except (OperationalError, redis.RedisError) as error:
            if not self._away:
                logger.warning("the broker is away; what is due will be published when it is back: %s", error)
            self._away = True
            return False
        if self._away:
            logger.warning("the broker is back")
        self._away = False
        return True


class Waker:
    """The thread that publishes: at once what it is handed, and every `sweep_seconds` what the database says is due."""

    def __init__(
        self, database: Database, publisher: Publisher, sweep_seconds: float, shadow: str | None = None
    ) -> None:
        """`shadow`: the candidate that a worker of SHADOW_QUEUE reads with."""
        self._database, self._shadow = database, shadow
        self._publisher = publisher
        self._sweep_seconds = sweep_seconds
        self._handed: SimpleQueue[str | None] = SimpleQueue()
        self._published: dict[Hashable, float] = {}
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        """Begin; what a crash left behind is published at once."""
        self._thread.start()

    def wake(self, study_instance_uid: str) -> None:
        """An exam is ready. Returns at once, whatever the broker does."""
        self._handed.put(study_instance_uid)

    def stop(self) -> None:
        """End the thread; what was handed and not published is found by the next sweep."""
        self._handed.put(None)
        self._thread.join(timeout=10.0)

    def sweep(self, now: datetime) -> int:
        """Publish what is due at `now` and not on its way; returns how many messages."""
        release_dead(self._database, now)
        exams = due_exams(self._database, now)
        unread = [(EXPLAIN_TASK, uid) for uid in due_explanations(self._database, now)]
        deliveries = pending_deliveries(self._database, now)
        shadows = [(SHADOW_TASK, due) for due in self._due_shadows(now)]
        due = {*exams, *unread, *deliveries, *shadows}
        self._published = {key: at for key, at in self._published.items() if key in due}
        count = sum(self._publisher.read_exam(uid) for uid in self._unpublished(READ_QUEUE, exams))
        count += sum(self._publisher.explain(uid) for _, uid in self._unpublished(READ_QUEUE, unread))
        count += sum(self._publisher.deliver(*pair) for pair in self._unpublished(DELIVER_QUEUE, deliveries))
        return count + sum(self._publisher.shadow(due) for _, due in self._unpublished(SHADOW_QUEUE, shadows))

    def _due_shadows(self, now: datetime) -> Sequence[int]:
        return due_shadows(self._database, self._shadow, now) if self._shadow else ()

    def _unpublished(self, queue: str, due: Sequence[T]) -> Iterator[T]:
        """Those of `due` whose message must have been lost, or never was: the queue is empty, or it is long ago."""
        is_empty = bool(due) and self._publisher.queued(queue) == 0
        for key in due:
            if is_empty or time.monotonic() - self._published.get(key, float("-inf")) > REPUBLISH_SECONDS:
                self._published[key] = time.monotonic()
                yield key

    def _run(self) -> None:
        next_sweep = time.monotonic()
        while True:
            try:
                handed = self._handed.get(timeout=max(0.0, next_sweep - time.monotonic()))
            except Empty:
                self._sweep_or_complain()
                next_sweep = time.monotonic() + self._sweep_seconds
                continue
            if handed is None:
                return
            self._published[handed] = time.monotonic()
            self._publisher.read_exam(handed)

    def _sweep_or_complain(self) -> None:
        try:
            self.sweep(datetime.now(UTC))
        except NodeError as error:
            logger.error("ALARM the database cannot be swept: %s", error)


def release_dead(database: Database, now: datetime) -> None:
    """What a process of this host held that is gone is due at once, without waiting for its lease to end."""
    for study_instance_uid, owner in leased_exams(database):
        if is_dead(owner) and end_reading(database, study_instance_uid, owner, ExamStatus.READY, now, due_at=None):
            logger.error("ALARM the worker that read %s died; the exam is read again", study_instance_uid)
    for study_instance_uid, owner in leased_explanations(database):
        if is_dead(owner) and end_explanation(database, study_instance_uid, owner, now):
            logger.error("ALARM the worker that explained %s died; it is explained again", study_instance_uid)
    for delivery_id, owner in leased_deliveries(database):
        if is_dead(owner) and reschedule(database, delivery_id, owner, "the worker that sent it died", now):
            logger.error("ALARM the worker of delivery %d died; it is sent again", delivery_id)


def _key(queue: str, priority: int) -> str:
    """The Redis list of one priority of a queue, as kombu names it."""
    return f"{queue}{SEPARATOR}{priority}" if priority else queue
