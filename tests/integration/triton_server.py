"""A real Triton on free loopback ports, started by scripts/triton and stopped by its process id."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.servers import free_port

SCRIPT = Path(__file__).parents[2] / "scripts/triton"
START_SECONDS = 60


def install_triton() -> None:
    """Install the server once into its own virtual environment; skip where this machine lacks a library for it."""
    done = subprocess.run([SCRIPT, "--install-only"], capture_output=True, text=True, timeout=280)
    if "apt-get install" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr


class TritonServer:
    """`with TritonServer(repository, log) as server:` serves all models of the repository."""

    def __init__(self, repository: Path, log: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"127.0.0.1:{self.port}"
        self._prefix = f"triton_test_{os.getpid()}_{self.port}_"
        self._log = log
        self._command = [
            *(SCRIPT, "--repository", repository, "--exit-timeout", "1", "--grpc-port", str(self.port)),
            *("--http-port", str(free_port()), "--metrics-port", str(free_port())),
            *("--", f"--backend-config=python,shm-region-prefix-name={self._prefix}"),
        ]

    def __enter__(self) -> "TritonServer":
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.client = InferenceServerClient(self.url)
        ends = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < ends, "Triton did not start"
            time.sleep(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):  # a killed stub leaves its region
            left.unlink()

    def kill_stub(self, model: str) -> None:
        """SIGKILL to the process in which the Python backend runs `model`."""
        pids = [pid for pid in self._children() if f"/{model}/" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(pids) == 1
        os.kill(pids[0], signal.SIGKILL)

    def _ready(self) -> bool:
        try:
            return bool(self.client.is_server_ready(client_timeout=1))
        except InferenceServerException:
            return False

    def _children(self) -> Iterator[int]:
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if f"\nPPid:\t{self._process.pid}\n" in status.read_text():
                    yield int(status.parent.name)
