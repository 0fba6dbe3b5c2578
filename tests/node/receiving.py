"""A listener in this process, and senders that may send anything."""

import io
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from node.database import Database
from node.database.exams import ExamRecord, exam_record
from node.listener import Listener, serve_listener
from node.settings import (
    ExamSettings,
    InferenceSettings,
    ListenerSettings,
    ReadingSettings,
    Settings,
    WorkerSettings,
)
from tests.servers import end, free_port, listens, wait_until

AE_TITLE = "MAMMOCLIP"

# run as a process of its own: a listener on the folder, database and port of its arguments
LISTENER = """
import sys, threading
from pathlib import Path
from node.database import open_database, upgrade
from node.listener import serve_listener
from tests.node.receiving import settings_in
folder, url, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
database = open_database(url)
upgrade(database)
with serve_listener(settings_in(folder, port=port), database, lambda study: None):
    threading.Event().wait()
"""


def settings_in(folder: Path, **listener: Any) -> Settings:
    return Settings(
        data_folder=folder,
        database_url="",
        broker_url="",
        listener=replace(ListenerSettings(AE_TITLE, "127.0.0.1", 0, (), 131072), **listener),
        exam=ExamSettings(300.0, False, False, False),
        inference=InferenceSettings("openvino", folder, "f32", 1, "", "exam_encoder", 60.0, 1),
        reading=ReadingSettings(None, False),
        worker=WorkerSettings(1, 60.0, 5.0),
        rules=(),
        destinations=(),
    )


@dataclass
class Receiving:
    """A running listener, its store and its database; `woken` holds the studies that it announced."""

    listener: Listener
    database: Database
    folder: Path
    woken: list[str] = field(default_factory=list)

    def kept(self) -> list[Path]:
        return sorted((self.folder / "instances").glob("*/*"))

    def incoming(self) -> list[Path]:
        return sorted((self.folder / "incoming").iterdir())

    def exam(self, study_instance_uid: str) -> ExamRecord:
        record = exam_record(self.database, study_instance_uid)
        assert record is not None
        return record


@contextmanager
def receiving(folder: Path, database: Database, **listener: Any) -> Iterator[Receiving]:
    """`listener`: what differs from the usual listener settings."""
    woken: list[str] = []
    with serve_listener(settings_in(folder, **listener), database, woken.append) as running:
        yield Receiving(running, database, folder, woken)


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = io.BytesIO()
    writer = DicomIO(buffer)
    writer.is_implicit_VR, writer.is_little_endian = UID(syntax).is_implicit_VR, UID(syntax).is_little_endian
    write_dataset(writer, dataset)
    return buffer.getvalue()


@contextmanager
def association(port: int, sop_class: str, syntax: str, calling: str = "TESTER") -> Iterator[Any]:
    entity = AE(calling)
    entity.add_requested_context(sop_class, syntax)
    opened = entity.associate("127.0.0.1", port, ae_title=AE_TITLE, max_pdu=131072)
    assert opened.is_established
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def store_bytes(
    port: int,
    content: bytes,
    sop_class: str,
    sop_instance_uid: str,
    *,
    syntax: str = ExplicitVRLittleEndian,
    context_class: str | None = None,
) -> Dataset:
    """C-STORE whatever bytes, under whatever names; the answer's status and comment."""
    with association(port, context_class or sop_class, syntax) as opened:
        (context,) = opened.accepted_contexts
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request._affected_sop_class_uid = UID(sop_class)
        request._affected_sop_instance_uid = UID(sop_instance_uid)
        request.DataSet = io.BytesIO(content)
        opened._reactor_checkpoint.clear()  # as its own send_c_store: the answer is ours, not the reactor's
        wait_until(lambda: bool(opened._is_paused))
        opened.dimse.send_msg(request, context.context_id)
        _, response = opened.dimse.get_msg(block=True)
        opened._reactor_checkpoint.set()
        assert response is not None, "the association was aborted"
        answer = Dataset()
        answer.Status, answer.ErrorComment = response.Status, response.ErrorComment or ""
        return answer


def store(port: int, dataset: Dataset) -> Dataset:
    """C-STORE a data set as its file meta says."""
    return store_bytes(
        port,
        encoded(dataset, dataset.file_meta.TransferSyntaxUID),
        dataset.SOPClassUID,
        dataset.SOPInstanceUID,
        syntax=dataset.file_meta.TransferSyntaxUID,
    )


def statuses(port: int, images: Sequence[Dataset]) -> list[int]:
    return [store(port, image).Status for image in images]


def send_part(opened: Any, image: Dataset, pdus: int) -> None:
    """The first so many PDUs of 16 kB of a C-STORE, and then nothing more."""
    (context,) = opened.accepted_contexts
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    request.DataSet = io.BytesIO(encoded(image))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for fragment in itertools.islice(message.encode_msg(context.context_id, 16384), pdus):
        opened.dul.send_pdu(fragment)


@dataclass
class ListenerProcess:
    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    def incoming(self) -> list[Path]:
        return sorted((self.folder / "incoming").iterdir())


@contextmanager
def listener_process(folder: Path, url: str) -> Iterator[ListenerProcess]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(folder), url, str(port)], cwd=Path(__file__).parents[2]
    )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, 30, "the listener did not start")
        yield ListenerProcess(process, port, folder)
    finally:
        end(process, signal.SIGKILL)
