"""What is published, when, and what happens while the broker is away."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.broker import EmbeddedBroker, connect, socket_path
from node.cli import main
from node.database import Database, open_database, upgrade
from node.database.deliveries import lease_deliveries, pending_deliveries
from node.database.exams import end_reading, exam_record, lease_exam
from node.database.explanations import due_explanations, lease_explanation
from node.database.readings import Address, store_reading
from node.exam import ExamStatus
from node.intake import receive
from node.mammography.views import STANDARD_VIEWS
from node.owner import owner_name
from node.settings import ExamSettings
from node.wake import DELIVER_QUEUE, READ_QUEUE, SHADOW_QUEUE, Publisher, Waker
from tests.node.database.values import STUDY, a_reading, a_result, an_instance

EXAM = ExamSettings(60.0, False, False, False)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(f"redis+socket://{socket_path(tmp_path)}", 30.0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    yield database
    database.close()


def _ready_exam(database: Database) -> None:
    for number, view in enumerate(STANDARD_VIEWS):
        instance = an_instance(number, content="abcd"[number], view=view)
        object.__setattr__(instance, "has_implant", False)
        object.__setattr__(instance, "excluding_modifier", None)
        receive(database, instance, EXAM, (), datetime.now(UTC))
    record = exam_record(database, STUDY)
    assert record is not None
    assert record.status is ExamStatus.READY


def test_urgent_exams_come_first(broker: EmbeddedBroker, publisher: Publisher, tmp_path: Path) -> None:
    assert publisher.read_exam("1.2.3", priority=5)
    assert publisher.read_exam("1.2.4", priority=0)
    assert publisher.deliver(7, "pacs")
    assert (publisher.queued(READ_QUEUE), publisher.queued(DELIVER_QUEUE)) == (2, 1)
    with connect(f"redis+socket://{socket_path(tmp_path)}") as client:
        assert client.llen("read") == client.llen("read:5") == 1


def test_broker_that_is_away_costs_no_time_and_one_line(
    publisher: Publisher, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    assert not publisher.read_exam("1.2.3")
    assert not publisher.deliver(1, "pacs")
    assert publisher.queued(READ_QUEUE) is None
    assert time.monotonic() - began < 2.0
    assert caplog.text.count("the broker is away") == 1


def test_what_is_due_is_published_once_until_its_message_is_lost(
    broker: EmbeddedBroker, publisher: Publisher, database: Database, tmp_path: Path
) -> None:
    _ready_exam(database)
    waker, now = Waker(database, publisher, 60.0), datetime.now(UTC)
    assert [waker.sweep(now), waker.sweep(now)] == [1, 0]
    with connect(f"redis+socket://{socket_path(tmp_path)}") as client:
        client.flushall()
    assert waker.sweep(now) == 1
    assert lease_exam(database, STUDY, "elsewhere/1/2/3", now, 30.0) is not None
    assert waker.sweep(now) == 0
    assert waker.sweep(now + timedelta(seconds=31)) == 1


def test_what_is_handed_is_published_at_once(broker: EmbeddedBroker, publisher: Publisher, database: Database) -> None:
    waker = Waker(database, publisher, 60.0)
    waker.start()
    try:
        waker.wake("1.2.3")
        deadline = time.monotonic() + 5.0
        while publisher.queued(READ_QUEUE) != 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert publisher.queued(READ_QUEUE) == 1
    finally:
        waker.stop()


def test_exam_of_a_dead_reader_is_ready_again(database: Database, publisher: Publisher) -> None:
    _ready_exam(database)
    now = datetime.now(UTC)
    dead = lease_exam(database, STUDY, _dead_owner(), now, 300.0)
    assert dead is not None
    Waker(database, publisher, 60.0).sweep(now)
    record = exam_record(database, STUDY)
    assert record is not None
    assert (record.status, record.attempts) == (ExamStatus.READY, 1)


def _dead_owner() -> str:
    host, namespace, pid, started = owner_name().split("/")
    return f"{host}/{namespace}/{pid}/{int(started) - 1}"


def _skipped_exam(database: Database, now: datetime) -> None:
    _ready_exam(database)
    assert lease_exam(database, STUDY, "elsewhere/1/2/3", now, 300.0) is not None
    assert end_reading(database, STUDY, "elsewhere/1/2/3", ExamStatus.SKIPPED, now, reason="biopsy")


def test_what_is_to_be_explained_is_published_after_what_is_to_be_read(
    broker: EmbeddedBroker, publisher: Publisher, database: Database, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    _skipped_exam(database, now)
    waker = Waker(database, publisher, 60.0)
    assert [waker.sweep(now), waker.sweep(now)] == [1, 0]
    with connect(f"redis+socket://{socket_path(tmp_path)}") as client:
        assert client.llen("read:9") == 1
        client.flushall()
    assert waker.sweep(now) == 1
    assert lease_explanation(database, STUDY, "elsewhere/1/2/3", now, 300.0) is not None
    assert waker.sweep(now) == 0


def test_what_a_dead_worker_explained_is_due_again(database: Database, publisher: Publisher) -> None:
    now = datetime.now(UTC)
    _skipped_exam(database, now)
    assert lease_explanation(database, STUDY, _dead_owner(), now, 300.0) is not None
    assert due_explanations(database, now) == []
    Waker(database, publisher, 60.0).sweep(now)
    assert due_explanations(database, now) == [STUDY]


def test_delivery_of_a_dead_sender_is_due_again(database: Database, publisher: Publisher) -> None:
    _ready_exam(database)
    now = datetime.now(UTC)
    assert lease_exam(database, STUDY, "elsewhere/1/2/3", now, 300.0) is not None
    reading_id = store_reading(
        database,
        "elsewhere/1/2/3",
        a_reading(),
        [a_result()],
        [Address(a_result().sop_instance_uid, "pacs")],
        prediction={},
        seconds={},
        now=now,
    )
    assert reading_id is not None
    assert len(lease_deliveries(database, reading_id, "pacs", _dead_owner(), now, 300.0)) == 1
    assert pending_deliveries(database, now) == []
    Waker(database, publisher, 60.0).sweep(now)
    assert pending_deliveries(database, now) == [(reading_id, "pacs")]


def test_retry_reads_failed_exams_again(database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ready_exam(database)
    now = datetime.now(UTC)
    assert lease_exam(database, STUDY, "elsewhere/1/2/3", now, 300.0) is not None
    assert end_reading(database, STUDY, "elsewhere/1/2/3", ExamStatus.FAILED, now, reason="no memory")
    settings = Path(__file__).parents[2] / "settings.toml"
    assert main(["status", "--settings", str(settings), "--data-folder", str(tmp_path)]) == 1
    assert "no memory" in capsys.readouterr().out
    assert main(["retry", "--settings", str(settings), "--data-folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 exams are read and 0 results are sent again\n"
    record = exam_record(database, STUDY)
    assert record is not None
    assert (record.status, record.attempts, record.reason) == (ExamStatus.READY, 0, "")


def test_wrong_settings_end_the_command_with_their_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.toml").write_text("colour = 'red'\n")
    assert main(["status", "--settings", str(tmp_path / "settings.toml")]) == 2
    assert "colour: unknown key" in capsys.readouterr().err


def test_a_shadow_is_published_to_its_own_queue_where_its_candidate_reads(
    broker: EmbeddedBroker, publisher: Publisher, database: Database, tmp_path: Path
) -> None:
    _ready_exam(database)
    now = datetime.now(UTC)
    assert lease_exam(database, STUDY, "elsewhere/1/2/3", now, 300.0) is not None
    said = {"prediction": {}, "seconds": {}, "now": now, "shadow": "2.1.0"}
    assert store_reading(database, "elsewhere/1/2/3", a_reading(), [], [], **said) is not None  # type: ignore[arg-type]
    assert Waker(database, publisher, 60.0).sweep(now) == 0
    assert Waker(database, publisher, 60.0, "2.2.0").sweep(now) == 0
    waker = Waker(database, publisher, 60.0, "2.1.0")
    assert [waker.sweep(now), waker.sweep(now)] == [1, 0]
    assert (publisher.queued(SHADOW_QUEUE), publisher.queued(READ_QUEUE)) == (1, 0)
