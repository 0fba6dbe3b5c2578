"""Bytes on disk: what came in over the network, kept before the sender is told so.

incoming/    data sets while they arrive; cleared at start, so what a crash left never counts
instances/<Study Instance UID>/<SOP Instance UID>.<content hash, 16 digits>.dcm    Part 10 files, never changed
"""

import hashlib
import os
import uuid
from io import FileIO
from pathlib import Path

from node.encoded import checked_uid
from node.errors import OutOfResourcesError

PREAMBLE_BYTES = 132
"""Preamble and "DICM" (PS3.10 7.1)."""


class IncomingFile:
    """One data set while it arrives, as pynetdicom writes it (it asks for `name`, `file`, `write`, `close`).

    Writing never fails: pynetdicom would abort the association. The error is kept, the disk is freed at once, and the
    sender is answered "out of resources" when the data set has been read to its end.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.part"
        self.name = str(self.path)
        self.file = self
        self.error: OSError | None = None
        self._stream: FileIO | None = None
        try:
            self._stream = FileIO(self.path, "x")
        except OSError as error:
            self.error = error

    def write(self, content: bytes | bytearray) -> int:
        """Append. Says that all was written; `error` says whether it was."""
        rest = memoryview(content)
        while rest and self.error is None and self._stream is not None:
            try:
                rest = rest[self._stream.write(rest) :]
            except OSError as error:
                self.discard()
                self.error = error
        return len(content)

    def flush(self) -> None:
        """Nothing is buffered."""

    def sync(self) -> None:
        """Have it on the disk. Raises OutOfResourcesError, also for an earlier failure to write."""
        try:
            if self.error is None and self._stream is not None:
                os.fsync(self._stream.fileno())
        except OSError as error:
            self.error = error
        self.check()

    def check(self) -> None:
        """Raises OutOfResourcesError where something could not be written."""
        if self.error is not None:
            raise OutOfResourcesError(f"cannot store: {self.error.strerror}") from self.error

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._stream is not None:
            self._stream.close()

    def discard(self) -> None:
        """Close the file and delete it, where it was not kept."""
        self.close()
        self.path.unlink(missing_ok=True)


class Store:
    """The folder of what was received. Raises OutOfResourcesError where it cannot be made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.incoming = self.folder / "incoming"
        self.instances = self.folder / "instances"
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            for shelf in range(256):
                (self.instances / f"{shelf:02x}").mkdir(parents=True, exist_ok=True)
            for made in (self.instances, self.folder):
                sync_folder(made)
        except OSError as error:
            raise OutOfResourcesError(f"cannot make the store: {error.strerror}") from error

    def clear_incoming(self) -> int:
        """Delete what a crash left half received; at start, before anything listens. Returns how many."""
        leftovers = list(self.incoming.iterdir())
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def open_incoming(self) -> IncomingFile:
        """A file for a data set that arrives, on the file system that keeps it."""
        return IncomingFile(self.incoming)

    def path_of(self, sop_instance_uid: str, content_hash: str) -> Path:
        """Where an instance is kept. Raises DataSetMismatchError for what is no UID."""
        uid = checked_uid(sop_instance_uid, "SOPInstanceUID")
        return self.instances / content_hash[:2] / f"{uid}.{content_hash[:16]}.dcm"

    def keep(self, arrived: IncomingFile, kept: Path) -> None:
        """Make a whole file durable under its final name. Raises OutOfResourcesError; the sender may try again."""
        arrived.sync()
        try:
            arrived.path.replace(kept)
            sync_folder(kept.parent)
        except OSError as error:
            raise OutOfResourcesError(f"cannot store: {error.strerror}") from error


def data_set_offset(path: Path) -> int:
    """Where the data set of a Part 10 file starts: behind preamble, prefix and file meta (PS3.10 7.1)."""
    with path.open("rb") as file:
        file.seek(PREAMBLE_BYTES + 8)  # (0002,0000) UL 4: File Meta Information Group Length
        return PREAMBLE_BYTES + 12 + int.from_bytes(file.read(4), "little")


def content_hash(path: Path, offset: int) -> str:
    """SHA-256, hexadecimal, of a file from `offset`: of the encoded data set as it was received."""
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
