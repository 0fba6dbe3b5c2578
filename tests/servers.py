"""Real servers for the tests, each on a free loopback port, stopped by its own process id.

Each starter is a context manager; it skips the test, with the reason, where the server is not installed.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

POSTGRESQL_BIN = Path("/usr/lib/postgresql/15/bin")
ORTHANC_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DCMTK_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
"""Without it Debian's dcmtk stalls 45 ms on each small message."""


@dataclass(frozen=True)
class Running:
    """A server under test. `prefix` goes before the commands of its clients (a network namespace), often empty."""

    host: str
    port: int
    ae_title: str = ""
    http_port: int = 0
    username: str = ""
    password: str = ""
    folder: Path = Path()
    prefix: tuple[str, ...] = ()

    @property
    def http_url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.http_url}/dicom-web"


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need(*programs: str) -> None:
    """Skip where a program is missing, and say which."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@contextlib.contextmanager
def process(
    command: Sequence[str],
    ready: Callable[[], bool],
    *,
    folder: Path,
    environment: dict[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    seconds: float = 30.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, wait until it is ready, stop it by its pid; its output goes to folder/server.log."""
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: ready() or server.poll() is not None, seconds, f"{command[0]} did not start")
        if server.poll() is not None:
            raise RuntimeError(f"{command[0]} ended: {(folder / 'server.log').read_text(errors='replace')[-2000:]}")
        yield server
    finally:
        end(server, stop)


def end(server: subprocess.Popen[bytes], stop: signal.Signals = signal.SIGTERM) -> None:
    """Stop one process by its pid: politely, then not."""
    if server.poll() is None:
        server.send_signal(stop)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(15)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0, what: str = "timed out") -> None:
    """Poll a condition; TimeoutError with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


class PostgresqlCluster:
    """A fresh PostgreSQL in a folder of its own, to be started and stopped. As root it runs as the user postgres."""

    def __init__(self, folder: Path) -> None:
        if not (POSTGRESQL_BIN / "initdb").exists():
            pytest.skip("not installed: postgresql-15")
        as_root = os.geteuid() == 0
        self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if as_root else []
        self._folder, self._port = folder, free_port()
        self._running = contextlib.ExitStack()
        if as_root:
            shutil.chown(folder, "postgres", "postgres")
        initdb = [*self._user, str(POSTGRESQL_BIN / "initdb"), "-D", str(folder / "data"), "-U", "node", "-A", "trust"]
        subprocess.run([*initdb, "--no-sync", "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd="/tmp")

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://node@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        command = [*self._user, str(POSTGRESQL_BIN / "postgres"), "-D", str(self._folder / "data")]
        command += ["-p", str(self._port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", f"unix_socket_directories={self._folder}"]
        self._running.enter_context(process(command, self._is_ready, folder=self._folder, stop=signal.SIGINT))

    def stop(self) -> None:
        self._running.close()

    def _is_ready(self) -> bool:
        probe = [str(POSTGRESQL_BIN / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(probe, check=False).returncode == 0


@contextlib.contextmanager
def postgresql_cluster() -> Iterator[PostgresqlCluster]:
    """A started cluster, stopped at the end if it still runs."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        cluster = PostgresqlCluster(Path(name))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A fresh PostgreSQL; yields its SQLAlchemy URL."""
    with postgresql_cluster() as cluster:
        yield cluster.url


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Debian's redis-server with AOF; yields its URL."""
    need("redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", name, "--appendonly", "yes"]
        with process(command, lambda: listens(port), folder=Path(name)):
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def dcmqrscp(ae_title: str = "QRSCP", *, peers: Sequence[tuple[str, str, int]] = ()) -> Iterator[Running]:
    """dcmtk's image archive: takes uncompressed objects only. `peers`: (AE title, host, port) that it may move to."""
    need("dcmqrscp")
    with tempfile.TemporaryDirectory(prefix="qrscp-") as name:
        folder, port = Path(name), free_port()
        (folder / "images").mkdir()
        hosts = "".join(f"peer{i} = ({aet}, {host}, {number})\n" for i, (aet, host, number) in enumerate(peers))
        (folder / "dcmqrscp.cfg").write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
            f"HostTable BEGIN\n{hosts}HostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{ae_title} {folder / 'images'} RW (500, 1024mb) ANY\nAETable END\n"
        )
        command = ["dcmqrscp", "-c", str(folder / "dcmqrscp.cfg"), str(port)]
        with process(command, lambda: listens(port), folder=folder, environment=DCMTK_ENVIRONMENT):
            yield Running("127.0.0.1", port, ae_title, folder=folder / "images")


@contextlib.contextmanager
def storescp(ae_title: str = "STORESCP", *options: str) -> Iterator[Running]:
    """dcmtk's plain receiver; files land in `folder`. Options as on its command line, for example "--fork"."""
    need("storescp")
    with tempfile.TemporaryDirectory(prefix="storescp-") as name:
        folder, port = Path(name), free_port()
        (folder / "received").mkdir()
        command = ["storescp", "--aetitle", ae_title, "--output-directory", str(folder / "received"), *options]
        with process([*command, str(port)], lambda: listens(port), folder=folder, environment=DCMTK_ENVIRONMENT):
            yield Running("127.0.0.1", port, ae_title, folder=folder / "received")


def orthanc_settings(running: Running, modalities: dict[str, tuple[str, str, int]]) -> dict[str, object]:
    """Orthanc's configuration: registered users, only the modalities named here, DICOMweb, fsync on (its default)."""
    return {
        "Name": "TEST",
        "StorageDirectory": str(running.folder / "db"),
        "IndexDirectory": str(running.folder / "db"),
        "Plugins": [str(ORTHANC_DICOMWEB)],
        "HttpPort": running.http_port,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {running.username: running.password},
        "DicomAet": running.ae_title,
        "DicomPort": running.port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowGet": False,
        "DicomAlwaysAllowMove": False,
        "DicomCheckModalityHost": False,
        "DicomModalities": {
            name: {"AET": aet, "Host": host, "Port": port} for name, (aet, host, port) in modalities.items()
        },
        "OverwriteInstances": True,
        "StableAge": 1,
        "UnknownSopClassAccepted": True,
        "MaximumPduLength": 131072,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


@contextlib.contextmanager
def orthanc(
    ae_title: str = "ORTHANC",
    *,
    modalities: dict[str, tuple[str, str, int]] | None = None,
    own_network: bool = False,
    environment: dict[str, str] | None = None,
) -> Iterator[Running]:
    """Orthanc with DICOMweb. `modalities`: name -> (AE title, host, port) of who may store and query; by default
    MAMMOCLIP, TESTER and DCMSEND.

    It listens on all addresses whatever it is told. `own_network` puts it into a network namespace of its own (root
    only); its clients then run with `prefix` before their command. Without it, users and modalities guard it.
    """
    need("Orthanc")
    if not ORTHANC_DICOMWEB.exists():
        pytest.skip("not installed: orthanc-dicomweb")
    allowed = modalities or {name.lower(): (name, "127.0.0.1", 104) for name in ("MAMMOCLIP", "TESTER", "DCMSEND")}
    with tempfile.TemporaryDirectory(prefix="orthanc-") as name, _network(own_network) as prefix:
        running = Running(
            "127.0.0.1", free_port(), ae_title, free_port(), "orthanc", "orthanc-test", Path(name), prefix
        )
        (running.folder / "orthanc.json").write_text(json.dumps(orthanc_settings(running, allowed)))
        command = [*prefix, "Orthanc", str(running.folder / "orthanc.json")]
        with process(command, lambda: _orthanc_ready(running), folder=running.folder, environment=environment):
            yield running


def _orthanc_ready(running: Running) -> bool:
    log = running.folder / "server.log"
    return log.exists() and "Orthanc has started" in log.read_text(errors="replace")


@contextlib.contextmanager
def _network(own: bool) -> Iterator[tuple[str, ...]]:
    """A network namespace with only its loopback, deleted at the end; () where not wanted or not possible."""
    if not own or os.geteuid() != 0 or shutil.which("ip") is None:
        yield ()
        return
    name = f"test{os.getpid()}x{free_port()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    if made.returncode != 0:
        yield ()
        return
    try:
        prefix = ("ip", "netns", "exec", name)
        subprocess.run([*prefix, "ip", "link", "set", "lo", "up"], check=True)
        yield prefix
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
