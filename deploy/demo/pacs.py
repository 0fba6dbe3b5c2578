"""The demo's receiving PACS: a Storage SCP that keeps every object as a file. Runs as a process of its own.

    python -m deploy.demo.pacs PORT AE_TITLE FOLDER

One line of JSON is appended to FOLDER/arrivals.jsonl for each object, after its file is on disk.
"""

import argparse
import json
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

ARRIVALS = "arrivals.jsonl"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object that the PACS holds. `at` is the time of receipt in seconds since the epoch."""

    at: float
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    modality: str
    series_number: int
    path: Path


def arrivals(folder: Path) -> list[Arrival]:
    """What has arrived so far, oldest first; an object that was sent twice counts once, by its first arrival."""
    index = folder / ARRIVALS
    if not index.exists():
        return []
    first: dict[str, Arrival] = {}
    for line in index.read_text().splitlines():
        row = json.loads(line)
        arrival = Arrival(**{**row, "path": folder / row["path"]})
        first.setdefault(arrival.sop_instance_uid, arrival)
    return list(first.values())


class Archive:
    """Keeps what C-STORE brings in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()

    def on_c_store(self, event: Any) -> int:
        """Write the object as it came, note it, answer success."""
        dataset = event.dataset
        name = f"{dataset.SOPInstanceUID}.dcm"
        (self._folder / name).write_bytes(event.encoded_dataset())
        row = {
            "at": time.time(),
            "study_instance_uid": str(dataset.StudyInstanceUID),
            "sop_class_uid": str(dataset.SOPClassUID),
            "sop_instance_uid": str(dataset.SOPInstanceUID),
            "modality": str(dataset.get("Modality", "")),
            "series_number": int(dataset.get("SeriesNumber") or 0),
            "path": name,
        }
        with self._lock, (self._folder / ARRIVALS).open("a") as index:
            index.write(json.dumps(row) + "\n")
        return 0x0000


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The demo's receiving PACS")
    parser.add_argument("port", type=int)
    parser.add_argument("ae_title")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    ae = AE(ae_title=arguments.ae_title)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
    ae.add_supported_context(Verification)
    archive = Archive(arguments.folder)
    server = ae.start_server(
        ("127.0.0.1", arguments.port), block=False, evt_handlers=[(evt.EVT_C_STORE, archive.on_c_store)]
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    stop.wait()
    if server is not None:
        server.shutdown()


if __name__ == "__main__":
    main()
