"""Opening, migrating, durability, errors."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from node.database import Database, open_database, upgrade
from node.database.exams import exam_record, locked_exam
from node.database.instances import arrivals, record_instance
from node.database.schema import Table
from node.errors import NodeError, OutOfResourcesError, SettingsError
from tests.node.database.values import NOW, STUDY, an_instance
from tests.servers import free_port


def test_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []
        assert len(inspect(connection).get_table_names()) == 8


def test_upgrade_from_several_processes_at_once_is_safe(empty_database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [empty_database] * 4))
    assert arrivals(empty_database) == ()


def test_upgrade_twice_keeps_what_is_there(database: Database) -> None:
    record_instance(database, an_instance(), False)
    upgrade(database)
    assert len(arrivals(database)) == 1


def test_sqlite_is_durable_at_commit(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    with database.read() as session:
        pragmas = [
            session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    database.close()
    assert pragmas == ["wal", 2, 1, 30000]


def test_times_are_aware_utc_whatever_their_zone(database: Database) -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with database.write() as session:
        locked_exam(session, STUDY, east)
    record = exam_record(database, STUDY)
    assert record is not None
    assert record.last_image_at == NOW
    assert record.last_image_at.utcoffset() == timedelta(0)


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(NodeError), database.write() as session:
        locked_exam(session, STUDY, datetime(2026, 11, 22))


def test_a_block_that_fails_writes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as session:
        locked_exam(session, STUDY, NOW).attempts //= 0
    assert exam_record(database, STUDY) is None


def test_a_locked_sqlite_is_out_of_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.database.engine.BUSY_SECONDS", 0.05)
    database = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutOfResourcesError, match="locked"):
        record_instance(database, an_instance(), False)
    other.close()
    database.close()


def test_a_postgresql_that_is_away_is_out_of_resources() -> None:
    database = open_database(f"postgresql://node@127.0.0.1:{free_port()}/node")
    with pytest.raises(OutOfResourcesError):
        record_instance(database, an_instance(), False)
    database.close()


def test_a_missing_table_is_an_error_without_its_values(empty_database: Database) -> None:
    with pytest.raises(NodeError) as caught:
        record_instance(empty_database, an_instance(), False)
    assert an_instance().sop_instance_uid not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://node@host/node", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="database_url"):
        open_database(url)
