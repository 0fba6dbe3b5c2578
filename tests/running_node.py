"""A whole node under test: `mammoclip-node serve` as a process of its own, asked by `status --json`."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from node.database import Database, open_database
from node.settings import load_settings
from node.status import as_json, exam_states
from tests.models import make_tiny_model
from tests.servers import free_port, wait_until

REPOSITORY = Path(__file__).parents[1]

SETTINGS = """
data_folder = "data"
database_url = "{database_url}"
broker_url = "{broker_url}"

[listener]
ae_title = "MAMMOCLIP"
host = "127.0.0.1"
port = {port}
calling_ae_titles = []
maximum_pdu_bytes = 131072

[exam]
settle_seconds = {settle_seconds}
read_incomplete = false
accept_synthetic_2d = false
view_from_patient_orientation = false

[inference]
backend = "openvino"
model_folder = "model"
precision = "f32"
threads = 1
triton_url = "localhost:8001"
triton_model = "exam_encoder"
deadline_seconds = 60.0
attempts = 3

[reading]
allow_probability_from_phantoms = false

[worker]
concurrency = 1
lease_seconds = 30.0
sweep_seconds = 0.5

[[rules]]
name = "no biopsies"
match = [{{ keyword = "StudyDescription", regex = "(?i)biopsy" }}]
skip = "biopsy"

[[rules]]
name = "screening"
match = [{{ keyword = "Modality", equals = "MG" }}]
"""

DICOM_DESTINATION = """
[[destinations]]
name = "{name}"
protocol = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "{ae_title}"
timeout_seconds = 5.0
objects = ["SR", "SEG", "SC"]
"""

DICOMWEB_DESTINATION = """
[[destinations]]
name = "{name}"
protocol = "dicomweb"
url = "{url}"
username = "{username}"
timeout_seconds = 10.0
objects = ["SR", "SEG", "SC"]
"""


@dataclass
class Pacs:
    """A Storage SCP in this process that keeps what it is sent."""

    port: int
    received: list[Dataset] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    """SOP Class UID to the status it is answered; 0x0000 for all others."""
    lock: Lock = field(default_factory=Lock)

    def uids(self) -> list[str]:
        with self.lock:
            return [str(dataset.SOPInstanceUID) for dataset in self.received]

    def _keep(self, event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        with self.lock:
            status = self.statuses.get(str(dataset.SOPClassUID), 0x0000)
            if status == 0x0000:
                self.received.append(dataset)
        return status

    @contextlib.contextmanager
    def running(self, *, syntaxes: Sequence[str] = ()) -> Iterator["Pacs"]:
        ae = AE(ae_title="PACS")
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, list(syntaxes) or context.transfer_syntax)
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        assert server is not None
        try:
            yield self
        finally:
            server.shutdown()


@dataclass
class RunningNode:
    """One node: its folder holds settings.toml, the model and the data."""

    folder: Path
    port: int
    environment: dict[str, str]
    verbs: tuple[str, ...] = ("serve",)
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    database: Database | None = None

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "node.cli", *arguments, "--settings", str(self.folder / "settings.toml")]

    def status(self) -> dict[str, dict[str, Any]]:
        """Study Instance UID to what `status --json` prints of it, asked in this process: a command takes a second."""
        if self.database is None:
            settings = load_settings(self.folder / "settings.toml", self.environment)
            self.database = open_database(settings.database_url)
        exams = as_json(exam_states(self.database))["exams"]
        return {exam["study_instance_uid"]: exam for exam in exams}

    def log(self) -> str:
        return (self.folder / "node.log").read_text(errors="replace")

    def wait_for(self, study: str, status: str, seconds: float = 150.0) -> dict[str, Any]:
        """The exam as soon as it has that status and nothing of it waits to be delivered."""
        latest: dict[str, Any] = {}

        def there() -> bool:
            nonlocal latest
            assert self.is_alive(), self.log()[-3000:]
            latest = self.status().get(study, {})
            waiting = [d for d in latest.get("deliveries", ()) if d["status"] in ("pending", "sending")]
            return latest.get("status") == status and not waiting

        try:
            wait_until(there, seconds, "")
        except TimeoutError:
            raise AssertionError(f"{latest}\n{self.log()[-5000:]}") from None
        return latest

    def start(self) -> None:
        """Start each verb; returns when the listener listens."""
        before = self.log().count("listens on") if (self.folder / "node.log").exists() else 0
        with (self.folder / "node.log").open("ab") as log:
            self.processes = [
                subprocess.Popen(
                    self.command(verb),
                    cwd=REPOSITORY,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for verb in self.verbs
            ]
        wait_until(lambda: self.log().count("listens on") > before or not self.is_alive(), 120.0, "no listener")
        assert self.is_alive(), self.log()

    def is_alive(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """As a power cut does to the first process of each verb."""
        for process in self.processes:
            process.kill()
            process.wait()

    def stop(self) -> list[int]:
        """SIGTERM to each verb; their exit codes. It ends what it is at first: patience on a busy machine."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(90.0)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        return [process.wait() for process in self.processes]


def settings_text(port: int, destinations: str, **values: object) -> str:
    return (
        SETTINGS.format(**{"database_url": "", "broker_url": "", "settle_seconds": 60.0, **values, "port": port})
        + destinations
    )


def pacs_destination(pacs: Pacs, name: str = "pacs") -> str:
    return DICOM_DESTINATION.format(name=name, port=pacs.port, ae_title="PACS")


@contextlib.contextmanager
def running_node(
    folder: Path,
    destinations: str,
    environment: dict[str, str] | None = None,
    verbs: tuple[str, ...] = ("serve",),
    contract: dict[str, object] | None = None,
    **values: object,
) -> Iterator[RunningNode]:
    """A node in `folder` with a tiny model, its contract changed by `contract`; stopped at the end by its pids."""
    port = free_port()
    make_tiny_model(folder / "model", height=380, width=228, contract=contract)
    (folder / "settings.toml").write_text(settings_text(port, destinations, **values))
    node = RunningNode(folder, port, {**os.environ, **(environment or {})}, verbs)
    node.start()
    try:
        yield node
    finally:
        node.stop()
        if node.database is not None:
            node.database.close()
