"""Our own objects on disk, whole or not at all, and never changed: what is sent again is what was stored.

results/<first digits>/<SOP Instance UID>.<content hash, 16 digits>.dcm    what may leave; HL7 messages end in .hl7
quarantine/<the same>    what did not pass the node's own checks, for a person to look at
"""

import hashlib
import os
import tempfile
from pathlib import Path

from node.errors import OutOfResourcesError
from node.results.reading import ResultKind
from node.store import sync_folder

UNFINISHED = ".part"
UNFINISHED_SECONDS = 3600.0
"""No object takes that long to write."""


def keep_result(data_folder: Path, sop_instance_uid: str, content: bytes, kind: ResultKind) -> Path:
    """Write one object durably and return its path.

    A worker that lost its lease may still write the same object with another time in it: that is another file.
    Raises OutOfResourcesError.
    """
    shelf = data_folder / "results" / hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:2]
    return _write(shelf, _name(sop_instance_uid, content, kind), content)


def keep_quarantined(data_folder: Path, sop_instance_uid: str, content: bytes, kind: ResultKind) -> Path:
    """Write an object that must not leave. Raises OutOfResourcesError."""
    return _write(data_folder / "quarantine", _name(sop_instance_uid, content, kind), content)


def clear_unfinished(data_folder: Path, now: float) -> int:
    """Delete what a crash left half written; `now` in seconds since the epoch. Returns how many files.

    A younger file may be in the hands of another worker on the same data folder.
    """
    left = [
        path
        for folder in ("results", "quarantine")
        for path in (data_folder / folder).glob(f"**/*{UNFINISHED}")
        if now - path.stat().st_mtime > UNFINISHED_SECONDS
    ]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _name(sop_instance_uid: str, content: bytes, kind: ResultKind) -> str:
    digits = hashlib.sha256(content).hexdigest()[:16]
    return f"{sop_instance_uid}.{digits}.{'hl7' if kind is ResultKind.MESSAGE else 'dcm'}"


def _write(shelf: Path, name: str, content: bytes) -> Path:
    path = shelf / name
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=shelf, suffix=UNFINISHED, delete=False) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
        sync_folder(shelf)
    except OSError as error:
        raise OutOfResourcesError(f"cannot keep a result: {error.strerror}") from error
    return path
