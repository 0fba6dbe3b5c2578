"""Opening a database, its transactions, its migrations, and the translation of its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from node.errors import NodeError, OutOfResourcesError, SettingsError

BUSY_SECONDS = 30.0
"""How long SQLite waits for another writer before it answers "locked"."""
CONNECT_SECONDS = 5
"""A PostgreSQL that does not answer: the sender is told 0xA700 by then."""
MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 0x6D616D6D
"""PostgreSQL advisory lock: one process migrates at a time."""


@dataclass(frozen=True, slots=True)
class Database:
    """An open database. Opened once in each process, after any fork; safe for threads."""

    engine: Engine

    @property
    def is_sqlite(self) -> bool:
        """True for the embedded database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads. Raises OutOfResourcesError or NodeError."""
        with _translated(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that writes; committed, durably, when the block ends. SQLite: one writer at a time, from
        here on (BEGIN IMMEDIATE). Raises OutOfResourcesError or NodeError, and then nothing was written.
        """
        with _translated(), Session(_writer(self.engine), expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """`url` as SQLAlchemy has it: sqlite:///FILE or postgresql+psycopg://USER@HOST:PORT/NAME.

    Nothing is connected yet. Raises SettingsError for a URL of another kind.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError("database_url: not a database URL") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed, hide_parameters=True, pool_size=8, max_overflow=24, connect_args={"timeout": BUSY_SECONDS}
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return Database(engine)
    if parsed.get_backend_name() == "postgresql":
        return Database(_postgresql_engine(parsed.render_as_string(hide_password=False)))
    raise SettingsError(f"database_url: {parsed.get_backend_name()} is not supported, only sqlite and postgresql")


def upgrade(database: Database) -> None:
    """Bring the tables to this version's state. Safe to call from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _translated(), _writer(database.engine).begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _writer(engine: Engine) -> Engine:
    return engine.execution_options(writes=True)


def _postgresql_engine(url: str) -> Engine:
    try:
        return create_engine(
            url,
            hide_parameters=True,
            pool_size=8,
            max_overflow=24,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_SECONDS},
        )
    except ImportError as error:
        raise SettingsError("database_url: PostgreSQL needs the extra mammoclip-node[postgresql]") from error


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Durable at commit (synchronous=FULL), readers beside one writer (WAL), transactions begun by us."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise OutOfResourcesError(f"database: {_first_line(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise OutOfResourcesError("database: the connection was lost") from error
        raise NodeError(f"database: {_first_line(error)}") from error
    except SQLAlchemyError as error:
        raise NodeError(f"database: {type(error).__name__}") from error


def _first_line(error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return (str(cause).splitlines() or [type(error).__name__])[0]
