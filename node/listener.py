"""Storage SCP: keep the bytes, record the instance, answer with a status (PS3.4 B, PS3.7 9.1.1).

0x0000 is answered only when the file, its folder entry and the database row are on the disk.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import pydicom.config
import pynetdicom._config
import pynetdicom.dimse_messages
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from node.database import Database
from node.database.instances import is_our_result
from node.encoded import checked_uid, read_header
from node.errors import DataSetMismatchError, NodeError, NotUnderstoodError, OutOfResourcesError, SopClassError
from node.exam import Instance, instance_of
from node.intake import Receipt, receive, receive_ours
from node.results.ours import is_ours
from node.settings import Settings
from node.store import IncomingFile, Store, content_hash, data_set_offset
from node.supported import STORAGE_CLASSES, TRANSFER_SYNTAXES, WITH_PIXELS
from node.transport import StorageServer, hang_up

logger = logging.getLogger(__name__)

SUCCESS = 0x0000
ERROR_COMMENT_LENGTH = 64
"""(0000,0902) is an LO."""
MAXIMUM_ASSOCIATIONS = 64
OUR_UID_ROOT = "2.25."
"""UIDs of results are made of a UUID (PS3.5 B.2); only those are looked up."""
RELEASE_SECONDS = 10.0
"""How long `Listener.stop` lets senders finish."""

Wake = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reception:
    """What one listener works with. `wake` is told the study of each exam that became ready."""

    settings: Settings
    database: Database
    store: Store
    wake: Wake


@dataclass(frozen=True, slots=True)
class Request:
    """One C-STORE request: what the command says of the data set in `arrived`."""

    calling_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    context_sop_class_uid: str
    transfer_syntax_uid: str
    arrived: IncomingFile


class Listener:
    """A running Storage SCP; as a context manager it stops at the end."""

    def __init__(self, server: StorageServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on; differs from the settings' where they say 0."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Accept nothing more, let senders finish for a while, then abort them."""
        self._server.shutdown()
        deadline = time.monotonic() + RELEASE_SECONDS
        while self._storing() and time.monotonic() < deadline:
            time.sleep(0.02)
        for association in self._server.active_associations:
            if association.is_established:
                association.abort()
            else:
                hang_up(association)
        self._thread.join()

    def _storing(self) -> bool:
        """Whether a sender has an association; a bare connection, a port probe say, is not waited for."""
        return any(association.is_established for association in self._server.active_associations)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def serve_listener(settings: Settings, database: Database, wake: Wake) -> Listener:
    """Listen in threads of this process until stopped. One listener a process: it sets pynetdicom's switches.

    `wake` is called with the Study Instance UID of each exam that became ready; it returns at once and never raises,
    for a sender waits. Raises OutOfResourcesError where the data folder or the port cannot be had.
    """
    store = Store(settings.data_folder)
    cleared = store.clear_incoming()
    if cleared:
        logger.warning("%d data sets half received before the last stop were deleted", cleared)
    set_up_libraries(store)
    handlers = _handlers(Reception(settings, database, store, wake))
    host, port = settings.listener.host, settings.listener.port
    try:
        server = _entity(settings).make_server((host, port), evt_handlers=handlers, server_class=StorageServer)
    except OSError as error:
        raise OutOfResourcesError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    logger.info("%s listens on %s:%d", settings.listener.ae_title, host, server.server_address[1])
    return Listener(server)


def set_up_libraries(store: Store) -> None:
    """Data sets go to the store's file system as they come, senders' odd values are no news, and nothing is printed."""
    pynetdicom._config.STORE_RECV_CHUNKED_DATASET = True
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
    # it opens its file under this name, without a word on where: (delete, mode, suffix) are its own
    pynetdicom.dimse_messages.NamedTemporaryFile = lambda **_: store.open_incoming()
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for library in ("pynetdicom", "pydicom"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _entity(settings: Settings) -> Any:
    entity = AE(settings.listener.ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.listener.calling_ae_titles)
    entity.maximum_pdu_size = settings.listener.maximum_pdu_bytes
    entity.maximum_associations = MAXIMUM_ASSOCIATIONS
    entity.supported_contexts = [
        build_context(Verification),
        *(build_context(sop_class, list(TRANSFER_SYNTAXES)) for sop_class in STORAGE_CLASSES),
    ]
    return entity


def _handlers(reception: Reception) -> list[Any]:
    return [
        (evt.EVT_C_STORE, on_c_store, [reception]),
        (evt.EVT_REJECTED, on_rejected),
        (evt.EVT_CONN_CLOSE, on_closed),
    ]


def on_rejected(event: Any) -> None:
    """An association was refused: an unknown AE title, or too many at once."""
    asked = event.assoc.requestor.primitive
    logger.warning(
        "association refused: %s at %s called %s",
        asked.calling_ae_title,
        event.assoc.requestor.address,
        asked.called_ae_title,
    )


def on_closed(event: Any) -> None:
    """The connection ended; what had come of a data set by then is deleted."""
    message = event.assoc.dimse.message
    if message is not None and message._data_set_file is not None:
        message._data_set_file.discard()


def on_c_store(event: Any, reception: Reception) -> Dataset:
    """Answer one C-STORE request: a status, with a comment where it is a failure."""
    request = _request(event)
    try:
        receipt = take(request, reception)
    except NodeError as error:
        logger.warning("refused %s from %s: %s", request.sop_instance_uid, request.calling_ae_title, error)
        return _failure(error.dimse_status or 0xA700, str(error))
    except Exception as error:  # noqa: BLE001 the top of this task; the error's own text may hold a patient's value
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("refused %s: %s\n%s", request.sop_instance_uid, type(error).__name__, where)
        return _failure(0xC000, f"cannot be read: {type(error).__name__}")
    finally:
        request.arrived.discard()
    logger.info("stored %s from %s: %s", request.sop_instance_uid, request.calling_ae_title, receipt.recorded)
    return _status(SUCCESS)


def take(request: Request, reception: Reception) -> Receipt:
    """Check, keep and record one data set. Raises NodeError, whose `dimse_status` is the answer."""
    request.arrived.check()
    path = request.arrived.path
    offset = data_set_offset(path)
    dataset = _checked_header(request, offset)
    digest = content_hash(path, offset)
    kept = reception.store.path_of(request.sop_instance_uid, digest)
    now = datetime.now(UTC)
    instance = instance_of(
        dataset,
        content_hash=digest,
        path=str(kept),
        received_at=now,
        from_patient_orientation=reception.settings.exam.view_from_patient_orientation,
    )
    reception.store.keep(request.arrived, kept)
    receipt = _record(dataset, instance, reception, now)
    if receipt.wake:
        reception.wake(instance.study_instance_uid)
    return receipt


def _record(dataset: Dataset, instance: Instance, reception: Reception, now: datetime) -> Receipt:
    named_as_ours = instance.sop_instance_uid.startswith(OUR_UID_ROOT)
    if is_ours(dataset) or (named_as_ours and is_our_result(reception.database, instance.sop_instance_uid)):
        return receive_ours(reception.database, instance)
    return receive(reception.database, instance, reception.settings.exam, reception.settings.rules, now)


def _checked_header(request: Request, offset: int) -> Dataset:
    """The header of a whole data set that is what the command said. Raises ReceiveError."""
    if request.sop_class_uid != request.context_sop_class_uid:
        raise SopClassError("the SOP class is not that of the presentation context")
    header = read_header(request.arrived.path, offset, request.transfer_syntax_uid)
    dataset = header.dataset
    if "SOPClassUID" not in dataset:
        raise NotUnderstoodError("no SOP Class UID: this is no DICOM object")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        checked_uid(str(dataset.get(keyword, "")), keyword)
    if (dataset.SOPClassUID, dataset.SOPInstanceUID) != (request.sop_class_uid, request.sop_instance_uid):
        raise DataSetMismatchError("the data set's SOP class or instance UID is not that of the command")
    if request.sop_class_uid in WITH_PIXELS and header.pixels is None:
        raise NotUnderstoodError("no pixel data")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.SourceApplicationEntityTitle = request.calling_ae_title
    return dataset


def _request(event: Any) -> Request:
    command = event.request
    return Request(
        calling_ae_title=event.assoc.requestor.ae_title,
        sop_class_uid=str(command.AffectedSOPClassUID),
        sop_instance_uid=str(command.AffectedSOPInstanceUID),
        context_sop_class_uid=str(event.context.abstract_syntax),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        arrived=command._dataset_file,
    )


def _failure(status: int, comment: str) -> Dataset:
    answer = _status(status)
    answer.ErrorComment = comment.replace("\\", "/")[:ERROR_COMMENT_LENGTH]
    return answer


def _status(status: int) -> Dataset:
    answer = Dataset()
    answer.Status = status
    return answer
