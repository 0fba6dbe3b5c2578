"""A real Triton on free loopback ports, started by scripts/triton and stopped by its process id."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from node.settings import InferenceSettings
from tests.certificates import Certificates
from tests.integration.triton_exams import HEIGHT, WIDTH
from tests.models import make_tiny_model
from tests.servers import free_port

SCRIPT = Path(__file__).parents[2] / "scripts/triton"
START_SECONDS = 200


def install_triton() -> None:
    """Install the server once into its own virtual environment; skip where this machine lacks a library for it."""
    done = subprocess.run([SCRIPT, "--install-only"], capture_output=True, text=True, timeout=280)
    if "apt-get install" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Security:
    """TLS with a certificate asked of the client too, and a key for what changes the server."""

    certificates: Certificates
    admin_key: str

    def options(self) -> tuple[str, ...]:
        """For the server: model repository and shared memory only with the key."""
        made = self.certificates
        return (
            *("--grpc-use-ssl=true", "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={made.authority}"),
            *(f"--grpc-server-cert={made.server}", f"--grpc-server-key={made.server_key}"),
            f"--grpc-restricted-protocol=model-repository,shared-memory:admin-key={self.admin_key}",
            "--allow-http=false",  # which knows no TLS and none of these keys
        )

    def client(self, url: str) -> InferenceServerClient:
        made = self.certificates
        files = (str(made.authority), str(made.client_key), str(made.client))
        roots, key, chain = files
        return InferenceServerClient(url, ssl=True, root_certificates=roots, private_key=key, certificate_chain=chain)


class TritonServer:
    """`with TritonServer(repository, log) as server:` serves all models of the repository, or those named."""

    def __init__(
        self,
        repository: Path,
        log: Path,
        port: int | None = None,
        *,
        options: Sequence[str] = (),
        security: Security | None = None,
        models: Sequence[str] = (),
    ) -> None:
        self.repository = repository
        self.port = port or free_port()
        self.url = f"127.0.0.1:{self.port}"
        self.http_port = free_port()
        self._prefix = f"triton_test_{os.getpid()}_{self.port}_"
        self._log, self._security = log, security
        metrics_port = free_port()
        self.metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._command = [
            *(SCRIPT, "--repository", repository, "--exit-timeout", "1", "--grpc-port", str(self.port)),
            *("--http-port", str(self.http_port), "--metrics-port", str(metrics_port)),
            *(word for model in models for word in ("--model", model)),
            *("--", f"--backend-config=python,shm-region-prefix-name={self._prefix}", *options),
            *(security.options() if security else ()),
        ]

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the server; the processes of its Python models are its children."""
        return self._process.pid

    def start(self) -> None:
        """Returns when the server answers and its models are loaded."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.client = self._security.client(self.url) if self._security else InferenceServerClient(self.url)
        ends = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > ends:
                self.stop()
                raise AssertionError(f"Triton did not start: {self._log.read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it politely, then not; what a killed model process left in shared memory goes too."""
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._clear()

    def kill(self) -> None:
        """As a power cut does; the processes of its models end when they see it."""
        children = list(self._children())
        for pid in (self.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._clear()

    def kill_stub(self, model: str) -> None:
        """SIGKILL to the process in which the Python backend runs `model`."""
        os.kill(self.stub(model), signal.SIGKILL)

    def stub(self, model: str) -> int:
        """The process id of the only instance of `model`."""
        [pid] = [pid for pid in self._children() if f"/{model}/" in Path(f"/proc/{pid}/cmdline").read_text()]
        return pid

    def _ready(self) -> bool:
        try:
            return bool(self.client.is_server_ready(client_timeout=1))
        except InferenceServerException:
            return False

    def _children(self) -> Iterator[int]:
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if f"\nPPid:\t{self.pid}\n" in status.read_text():
                    yield int(status.parent.name)

    def _clear(self) -> None:
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):
            left.unlink()


class Repository:
    """Tiny models of one test on a running server."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self._loaded: list[str] = []

    def __enter__(self) -> "Repository":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in self._loaded:
            self.server.client.unload_model(name)

    def make(self, name: str, changed: Callable[[Path], None] | None = None, **more: Any) -> Path:
        """The folder of a tiny model, changed before the server sees it; `more` goes to `make_tiny_model`."""
        folder = make_tiny_model(self.server.repository / name, height=HEIGHT, width=WIDTH, **more)
        if changed is not None:
            changed(folder)
        return folder

    def load(self, name: str) -> InferenceSettings:
        """Have it loaded, or loaded anew; the settings of a node that asks it."""
        if name not in self._loaded:
            self._loaded.append(name)
        self.server.client.load_model(name)
        return self.settings(name)

    def serve(self, name: str, changed: Callable[[Path], None] | None = None, **more: Any) -> InferenceSettings:
        """Make it and have it loaded."""
        self.make(name, changed, **more)
        return self.load(name)

    def settings(self, name: str) -> InferenceSettings:
        """Of a node that asks for this model, whether it is there or not."""
        folder = self.server.repository / name
        return InferenceSettings("triton", folder, "f32", 1, self.server.url, name, 20.0, 3)
