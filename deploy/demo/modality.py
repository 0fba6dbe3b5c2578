"""The simulated modality: a Storage SCU that sends an exam's files as they are, one association an exam."""

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pynetdicom import AE
from pynetdicom.sop_class import Verification

AE_TITLE = "DEMO-MODALITY"


class SendError(Exception):
    """The node did not take an image, or does not answer."""


def can_echo(host: str, port: int, ae_title: str, calling_ae_title: str = AE_TITLE) -> bool:
    """C-ECHO: does the peer answer?"""
    if not _accepts(host, port):
        return False
    ae = AE(ae_title=calling_ae_title)
    ae.add_requested_context(Verification)
    association = ae.associate(host, port, ae_title=ae_title)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return "Status" in status and status.Status == 0x0000


def send_exam(files: Sequence[Path], host: str, port: int, ae_title: str) -> float:
    """C-STORE every file; the time of the last answer in seconds since the epoch. Raises SendError."""
    ae = AE(ae_title=AE_TITLE)
    ae.dimse_timeout = ae.network_timeout = 60
    for sop_class_uid, transfer_syntax_uid in sorted({_context(path) for path in files}):
        ae.add_requested_context(sop_class_uid, transfer_syntax_uid)
    association = ae.associate(host, port, ae_title=ae_title) if _accepts(host, port) else None
    if association is None or not association.is_established:
        raise SendError(f"{ae_title} at {host}:{port} refused the association")
    try:
        for path in files:
            status = association.send_c_store(path)
            if status.get("Status") != 0x0000:
                raise SendError(f"{path.name}: C-STORE was answered {status.get('Status', -1):#06x}")
        return time.time()
    finally:
        association.release()


def _accepts(host: str, port: int) -> bool:
    """Whether something takes TCP connections there; pynetdicom leaves a socket open where nothing does."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True


def _context(path: Path) -> tuple[str, str]:
    meta = pydicom.filereader.read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
