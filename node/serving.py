"""The node's processes: what `serve`, `listen` and `work` start, watch, start again, and stop by their process ids."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from node.broker import EmbeddedBroker, broker_url
from node.database import Database, open_database, upgrade
from node.errors import ContractError, ModelError, NodeError, SettingsError
from node.listener import serve_listener
from node.result_files import clear_unfinished
from node.settings import LOG_FORMAT, PARENT_VARIABLE, SETTINGS_VARIABLE, InferenceSettings, Settings
from node.wake import DELIVER_QUEUE, READ_QUEUE, SHADOW_QUEUE, Publisher, Waker

logger = logging.getLogger(__name__)

DELIVERIES_AT_ONCE = 4
WATCH_SECONDS = 1.0
RESTART_SECONDS = 5.0
LEAST_URGENT = 19
"""The nice value of the shadow's worker: it computes when nobody else wants the processor."""
STOP_SECONDS = 30.0
"""How long a worker may take to end the exam or the delivery that it is at."""


UNFIT = 3
"""Exit code of the model's check where the node must not run with it."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Which parts this command runs."""

    listens: bool
    works: bool


ROLES = {"serve": Roles(True, True), "listen": Roles(True, False), "work": Roles(False, True)}


def run(settings: Settings, settings_path: Path, roles: Roles) -> None:
    """Run until SIGTERM or SIGINT, then stop what was started, in order. Raises NodeError where it cannot start."""
    stopping = _stop_on_signals()
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        broker = stack.enter_context(_broker(settings)) if roles.works else None
        database = _ready_database(settings)
        stack.callback(database.close)
        if clear_unfinished(settings.data_folder, time.time()):
            logger.warning("a crash left objects half written; they were cleared")
        publisher = Publisher(broker_url(settings), settings.worker.lease_seconds)
        waker = Waker(database, publisher, settings.worker.sweep_seconds, shadow_of(settings))
        workers = [Worker(queue, settings, settings_path) for queue in queues_of(settings)] if roles.works else []
        for worker in workers:
            stack.callback(worker.end)
        for worker in workers:
            stack.callback(worker.ask_to_end)
        check = stack.enter_context(_model_check(settings)) if roles.works else None
        waker.start()
        stack.callback(waker.stop)
        if roles.listens:
            stack.enter_context(serve_listener(settings, database, waker.wake))
        _watch(stopping, broker, workers, check)
        logger.info("stopping")


def shadow_of(settings: Settings) -> str | None:
    """Name of the candidate that reads in shadow, None where none does."""
    return settings.candidate.name if settings.candidate is not None and settings.candidate.shadow > 0 else None


def queues_of(settings: Settings) -> tuple[str, ...]:
    """One worker for each. The shadow's is a process of its own: what it does or suffers touches no reading."""
    return (READ_QUEUE, DELIVER_QUEUE, SHADOW_QUEUE) if shadow_of(settings) else (READ_QUEUE, DELIVER_QUEUE)


class Worker:
    """One Celery worker process for one queue; it is started again when it ends by itself."""

    def __init__(self, queue: str, settings: Settings, settings_path: Path) -> None:
        self._queue = queue
        self._command = worker_command(queue, settings.worker.concurrency)
        self._environment = {
            **os.environ,
            SETTINGS_VARIABLE: str(settings_path.resolve()),
            "MAMMOCLIP_DATA_FOLDER": str(settings.data_folder),
            PARENT_VARIABLE: str(os.getpid()),
        }
        self._not_before = 0.0
        self._process = self._start()

    def watch(self) -> None:
        """Start it again where it has ended; not more often than every RESTART_SECONDS."""
        if self._process.poll() is None or time.monotonic() < self._not_before:
            return
        logger.error(
            "ALARM the %s worker ended with exit code %s; starting it again", self._queue, self._process.returncode
        )
        self._process = self._start()

    def ask_to_end(self) -> None:
        """SIGTERM: it ends after the task that it is at."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def end(self) -> None:
        """Wait for it to end; after STOP_SECONDS it is killed, with its children. Its exam is read by the next one."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("the %s worker does not end; killing it", self._queue)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._not_before = time.monotonic() + RESTART_SECONDS
        process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        if self._queue == SHADOW_QUEUE:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, LEAST_URGENT)
        return process


def worker_command(queue: str, concurrency: int) -> list[str]:
    """The Celery command of one worker. Readers are processes, deliverers threads, the shadow one thread."""
    pool = ["--pool", "prefork", "--concurrency", str(concurrency)]
    if queue == DELIVER_QUEUE:
        pool = ["--pool", "threads", "--concurrency", str(DELIVERIES_AT_ONCE)]
    if queue == SHADOW_QUEUE:
        pool = ["--pool", "threads", "--concurrency", "1"]  # of a prefork worker each child would load the first model
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]
    celery = [sys.executable, "-m", "celery", "--app", "node.worker", "--quiet", "worker"]
    return [*celery, "--queues", queue, "--hostname", f"{queue}@%h", *pool, *quiet]


@contextmanager
def _broker(settings: Settings) -> Iterator[EmbeddedBroker | None]:
    """The embedded broker where no URL names another."""
    if settings.broker_url:
        yield None
        return
    broker = EmbeddedBroker(settings.data_folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def _ready_database(settings: Settings) -> Database:
    database = open_database(settings.database_url)
    upgrade(database)
    return database


def _stop_on_signals() -> threading.Event:
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping


def refuse_unfit_model(settings: InferenceSettings) -> None:
    """In a process of its own: exit code UNFIT where this node cannot read with that model, whatever happens later."""
    from node.inference.load import load_model  # 100 MB that the process of the listener does without

    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT, stream=sys.stderr)
    try:
        load_model(settings)
    except (ContractError, SettingsError) as error:
        logger.error("ALARM %s", error)
        sys.exit(UNFIT)
    except (ModelError, OSError) as error:
        logger.error("ALARM no model yet: %s", error)


@contextmanager
def _model_check(settings: Settings) -> "Iterator[multiprocessing.process.BaseProcess]":
    """Beside the start of everything else; it costs this process no memory."""
    check = multiprocessing.get_context("spawn").Process(target=refuse_unfit_model, args=(settings.inference,))
    check.start()
    try:
        yield check
    finally:
        check.terminate()
        check.join()


def _watch(
    stopping: threading.Event,
    broker: EmbeddedBroker | None,
    workers: list[Worker],
    check: "multiprocessing.process.BaseProcess | None",
) -> None:
    """Until told to stop: bring back what ended by itself. Raises ContractError where the model was refused."""
    while not stopping.wait(WATCH_SECONDS):
        if check is not None and check.exitcode == UNFIT:
            raise ContractError("the model does not fit this node; see the line above, or run doctor")
        if broker is not None and not broker.is_running():
            logger.error("ALARM the embedded broker ended; starting it again")
            _try(broker.start)
        for worker in workers:
            worker.watch()


def _try(start: Callable[[], None]) -> None:
    try:
        start()
    except NodeError as error:
        logger.error("ALARM %s", error)
