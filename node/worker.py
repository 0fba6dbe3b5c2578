"""The Celery app: its tasks, cut where retries differ. Reading and explaining need the model, delivering the PACS.

Run as `celery -A node.worker worker -Q read` (prefork: a codec that crashes takes one child with it), `-Q deliver`
(threads: they wait for networks) and, with a candidate in shadow, `-Q shadow` (one thread), with MAMMOCLIP_SETTINGS
naming settings.toml. `mammoclip-node work` does all of it.
"""

import importlib
import logging
import os
import signal
import warnings
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from celery import Celery, platforms, signals

from node import explaining, outbox, pipeline, shadowing
from node.broker import broker_url
from node.choosing import reads_exams
from node.database import open_database
from node.errors import NodeError
from node.inference.load import load_model
from node.inference.model import Model
from node.owner import owner_name
from node.settings import PARENT_VARIABLE, SETTINGS_VARIABLE, Settings, candidate_inference, load_settings
from node.wake import DELIVER_TASK, EXPLAIN_TASK, READ_TASK, SHADOW_TASK, Publisher, celery_settings

logger = logging.getLogger(__name__)


def settings_of_environment() -> Settings:
    """The settings that MAMMOCLIP_SETTINGS names. Raises SettingsError."""
    return load_settings(Path(os.environ.get(SETTINGS_VARIABLE, "settings.toml")), os.environ)


class Work:
    """What one worker process works with, each opened at its first use and thus after the fork."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._model: Model | None = None
        self._candidate: Model | None = None

    @cached_property
    def settings(self) -> Settings:
        """settings.toml."""
        return settings_of_environment()

    @cached_property
    def bench(self) -> pipeline.Bench:
        """Database, settings and name of this process."""
        return pipeline.Bench(
            database=open_database(self.settings.database_url),
            settings=self.settings,
            owner=owner_name(),
        )

    @cached_property
    def publisher(self) -> Publisher:
        """For the deliveries that a reading brings."""
        return Publisher(broker_url(self.settings), self.settings.worker.lease_seconds)

    def model(self) -> Model:
        """The model, loaded once in this process. Raises ModelError or SettingsError."""
        with self._lock:
            if self._model is None:
                self._model = load_model(self.settings.inference)
            return self._model

    def candidate(self) -> Model:
        """The second model, loaded once in this process. Raises ModelError or SettingsError."""
        with self._lock:
            if self._candidate is None:
                self._candidate = load_model(candidate_inference(self.settings))
            return self._candidate


def _configuration() -> dict[str, Any]:
    settings = settings_of_environment()
    return celery_settings(broker_url(settings), settings.worker.lease_seconds)


app = Celery("mammoclip-node")
app.add_defaults(_configuration)
work = Work()


@app.task(name=READ_TASK)  # type: ignore[untyped-decorator]
def read_exam(study_instance_uid: str) -> None:
    """Read one exam that is due, if no other worker has it, and wake the deliveries."""
    bench = work.bench
    leased = pipeline.lease(bench, study_instance_uid, datetime.now(UTC))
    if leased is None:
        return
    try:
        reading_id = pipeline.read_exam(bench, leased, work.model, work.candidate)
    except Exception as error:  # noqa: BLE001 - the top of a task: whatever happened, the exam gets its status
        pipeline.give_up(bench, leased, error, datetime.now(UTC))
        work.publisher.explain(study_instance_uid)
        return
    if reading_id is None:  # new images, or a rollback, came meanwhile: the exam is READY again
        work.publisher.read_exam(study_instance_uid)
    else:
        _wake_deliveries(reading_id)


@app.task(name=EXPLAIN_TASK)  # type: ignore[untyped-decorator]
def explain(study_instance_uid: str) -> None:
    """Tell the destinations that want it why an exam was not read, if that is due and no other worker does."""
    bench = work.bench
    leased = explaining.lease(bench, study_instance_uid, datetime.now(UTC))
    if leased is None:
        return
    try:
        reading_id = explaining.explain(bench, leased, work.model, work.candidate)
    except Exception as error:  # noqa: BLE001 - the top of a task: whatever happened, the explanation is let go of
        explaining.give_up(bench, leased, error, datetime.now(UTC))
        return
    if reading_id is not None:
        _wake_deliveries(reading_id)


def _wake_deliveries(reading_id: int) -> None:
    for destination in outbox.destinations_due(work.bench.database, reading_id, datetime.now(UTC)):
        work.publisher.deliver(reading_id, destination)


@app.task(name=DELIVER_TASK)  # type: ignore[untyped-decorator]
def deliver(reading_id: int, destination: str) -> None:
    """Send what is due of one reading to one destination, if no other worker does."""
    bench = work.bench
    outbox.deliver_due(bench.database, bench.settings, bench.owner, reading_id, destination, datetime.now(UTC))


@app.task(name=SHADOW_TASK)  # type: ignore[untyped-decorator]
def shadow(shadow_id: int) -> None:
    """Let the candidate read what was read and delivered before, if that is due and no other worker does."""
    bench = work.bench
    leased = shadowing.lease(bench, shadow_id, datetime.now(UTC))
    if leased is None:
        return
    try:
        shadowing.read_shadow(bench, leased, work.candidate)
    except Exception as error:  # noqa: BLE001 - the top of a task: whatever happened, the shadow is let go of
        shadowing.give_up(bench, leased, error, datetime.now(UTC))


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _warm_up(**_: object) -> None:
    """A reader loads the model and the encoders' tables before its first exam; what fails is said by that exam."""
    importlib.import_module("node.results.gate").load_tables()
    importlib.import_module("node.results.rendering")
    try:
        work.model()
    except (NodeError, OSError) as error:
        logger.error("ALARM no model: %s", error)
    try:
        if reads_exams(work.bench.database, work.settings.candidate):
            work.candidate()
    except (NodeError, OSError) as error:
        logger.error("ALARM candidate: %s", error)


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def _end_with_parent(**_: object) -> None:
    """A worker that `serve` or `work` started is told to end when that process is gone."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return
    platforms.set_pdeathsig("SIGTERM")
    if os.getppid() != int(parent):  # it went before we asked
        os.kill(os.getpid(), signal.SIGTERM)


for _noisy in ("pynetdicom", "httpx", "celery.worker.strategy", "celery.app.trace"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
