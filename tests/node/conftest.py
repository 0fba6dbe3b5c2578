"""A test that asks for `database` runs on SQLite and on a real PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from node.database import Database, open_database, upgrade
from node.database.schema import Table
from tests.servers import postgresql

KINDS = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database of this version, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "node.db"
    made = open_database(f"sqlite:///{path}")
    upgrade(made)
    made.close()
    return path


@pytest.fixture(params=KINDS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'empty.db'}")
    else:
        opened = open_database(request.getfixturevalue("postgresql_url"))
        with opened.write() as session:
            session.execute(text("DROP SCHEMA public CASCADE"))
            session.execute(text("CREATE SCHEMA public"))
    yield opened
    opened.close()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database without rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_file"), tmp_path / "node.db")
        opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    else:
        opened = open_database(request.getfixturevalue("postgresql_url"))
        if not inspect(opened.engine).has_table("alembic_version"):
            upgrade(opened)
        with opened.write() as session:
            session.execute(text(f"TRUNCATE {', '.join(Table.metadata.tables)}"))
    yield opened
    opened.close()
