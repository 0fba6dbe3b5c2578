"""The node as a site runs it: `mammoclip-node serve` on a settings.toml, asked by `mammoclip-node status --json`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.modality import can_echo

AE_TITLE = "MAMMOCLIP"
HOST = "127.0.0.1"
START_SECONDS = 90.0
STOP_SECONDS = 30.0
MODEL_FOLDER = Path(__file__).resolve().parents[2] / "triton_models" / "exam_encoder"

_SETTINGS = """\
data_folder = {data_folder}
database_url = ""
broker_url = ""

[listener]
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
calling_ae_titles = []
maximum_pdu_bytes = 131072

[exam]
settle_seconds = {settle_seconds}
read_incomplete = false
accept_synthetic_2d = false
view_from_patient_orientation = true

[inference]
backend = "openvino"
model_folder = {model_folder}
precision = "f32"
threads = 0
triton_url = "localhost:8001"
triton_model = "exam_encoder"
deadline_seconds = 60.0
attempts = 3

[reading]
allow_probability_from_phantoms = false

[worker]
concurrency = 1
lease_seconds = 300.0
sweep_seconds = 1.0

[[rules]]
name = "screening"
match = [{{ keyword = "Modality", equals = "MG" }}]

# Every kind of object goes to one PACS; label maps by a destination of their own, for they stand in for SEG elsewhere.

[[destinations]]
name = "pacs"
protocol = "dicom"
host = "{pacs_host}"
port = {pacs_port}
ae_title = "{pacs_ae_title}"
objects = ["CADSR", "SR", "SEG", "HEATMAP", "GSPS", "SC", "SCVIEW", "KOS"]
explain_unread = true

[[destinations]]
name = "label maps"
protocol = "dicom"
host = "{pacs_host}"
port = {pacs_port}
ae_title = "{pacs_ae_title}"
objects = ["LABELMAP"]
"""


class NodeError(Exception):
    """The node did not start, or stopped by itself."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application entity."""

    host: str
    port: int
    ae_title: str


def free_port(first: int = 0) -> int:
    """`first` where it is free on loopback, otherwise any free port."""
    for port in (first, 0):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise NodeError("no free TCP port on loopback")


def write_settings(path: Path, port: int, pacs: Peer, settle_seconds: float, model_folder: Path = MODEL_FOLDER) -> None:
    """The settings.toml of the demo's node; its data lie beside the file."""
    text = _SETTINGS.format(
        data_folder=json.dumps(str(path.parent / "data")),
        model_folder=json.dumps(str(model_folder)),
        ae_title=AE_TITLE,
        port=port,
        settle_seconds=settle_seconds,
        pacs_host=pacs.host,
        pacs_port=pacs.port,
        pacs_ae_title=pacs.ae_title,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class NodeProcess:
    """One running node. Its output goes to node.log beside the settings."""

    def __init__(self, settings: Path, port: int) -> None:
        self.settings = settings
        self.peer = Peer(HOST, port, AE_TITLE)
        self.log = settings.parent / "node.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command("serve"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Process id, also of its process group."""
        return self._process.pid

    def command(self, *verb: str) -> list[str]:
        """The public command, as a person would type it."""
        return [str(Path(sys.executable).parent / "mammoclip-node"), *verb, "--settings", str(self.settings)]

    def wait_until_up(self) -> float:
        """Seconds until the listener answered C-ECHO. Raises NodeError."""
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            self.check_alive()
            if can_echo(*self._address()):
                return time.monotonic() - began
            time.sleep(0.2)
        raise NodeError(f"the listener did not answer within {START_SECONDS:.0f} s\n{self.log_tail()}")

    def check_alive(self) -> None:
        """Raises NodeError with the end of the log where the process has ended."""
        if self._process.poll() is not None:
            raise NodeError(f"the node ended with exit code {self._process.returncode}\n{self.log_tail()}")

    def status(self) -> dict[str, Any]:
        """What `mammoclip-node status --json` prints."""
        done = subprocess.run(self.command("status", "--json"), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode not in (0, 1):
            raise NodeError(f"mammoclip-node status failed: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the node's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to the whole group where that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _address(self) -> tuple[str, int, str]:
        return self.peer.host, self.peer.port, self.peer.ae_title
