"""Our own objects on disk, in results/<first digits>/<SOP Instance UID>.dcm of the data folder, whole or not at all."""

import hashlib
import os
import tempfile
from pathlib import Path

from node.errors import OutOfResourcesError
from node.store import sync_folder


def keep_result(data_folder: Path, sop_instance_uid: str, content: bytes) -> Path:
    """Write one Part 10 file durably and return its path. What a crash left of the same reading is replaced.

    Raises OutOfResourcesError.
    """
    shelf = data_folder / "results" / hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:2]
    path = shelf / f"{sop_instance_uid}.dcm"
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=shelf, suffix=".part", delete=False) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
        sync_folder(shelf)
    except OSError as error:
        raise OutOfResourcesError(f"cannot keep a result: {error.strerror}") from error
    return path
