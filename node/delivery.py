"""A reading's results to one destination, by C-STORE or STOW-RS; what became of each object, sorted.

Three things can become of an object: it stands in the destination; the destination refused it for good; or it may be
tried again. PS3.4 table B.2-1 and PS3.7 annex C sort the statuses of C-STORE, and Failure Reason of STOW-RS uses them.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node import dicomweb
from node.errors import DeliveryError, DestinationRefusedError, DestinationUnavailableError, PixelError
from node.mammography.codecs import decompress
from node.settings import Destination

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
DUPLICATE_SOP_INSTANCE = 0x0111
"""PS3.7 annex C: the object is there already. One of our UIDs names one content, so that is what we want."""
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
"""Failure Reason of STOW-RS, PS3.18 annex I.2: the same object may be taken in another transfer syntax."""
RETRYABLE_STATUSES = frozenset({0x0110, 0x0210, 0x0213})
"""PS3.7 annex C: processing failure, duplicate invocation, resource limitation. 0xA7xx is out of resources."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One result object on disk."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object: `error` None means that it stands in the destination."""

    sop_instance_uid: str
    error: DeliveryError | None


def deliver(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> tuple[Outcome, ...]:
    """Send all results over one association or in one request; an outcome for each, in their order. Never raises a
    DeliveryError: where nothing could be sent, each outcome holds it.
    """
    send = _by_stow if destination.protocol == "dicomweb" else _by_c_store
    try:
        return tuple(send(results, destination, calling_ae_title))
    except DeliveryError as error:
        return tuple(Outcome(result.sop_instance_uid, error) for result in results)


def error_of_status(status: int) -> DeliveryError | None:
    """The error that a C-STORE status or a STOW-RS Failure Reason means; None: stored, perhaps with a warning."""
    if status in (0x0000, 0x0001, 0x0107, 0x0116, DUPLICATE_SOP_INSTANCE) or 0xB000 <= status <= 0xBFFF:
        return None
    said = f"status 0x{status:04X}{_meaning(status)}"
    if status in RETRYABLE_STATUSES or 0xA700 <= status <= 0xA7FF:
        return DestinationUnavailableError(said)
    return DestinationRefusedError(said)


_MEANINGS = {
    0x0110: "processing failure",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0xC122: "transfer syntax not supported",
}


def _meaning(status: int) -> str:
    ranges = {0xA700: "out of resources", 0xA900: "data set does not match SOP class"}
    said = _MEANINGS.get(status) or ranges.get(status & 0xFF00) or ("cannot understand" if status >> 12 == 0xC else "")
    return f" ({said})" if said else ""


# C-STORE


def presentation_contexts(classes: Sequence[tuple[str, str]]) -> list[PresentationContext]:
    """For each (SOP Class UID, Transfer Syntax UID) its own syntax, and both uncompressed ones, in contexts of their
    own: an acceptor picks one syntax of a context (PS3.8 9.3.3.2), and another than ours may be all that it takes.
    """
    wanted = dict.fromkeys((sop_class, syntax) for sop_class, own in classes for syntax in (UID(own), *UNCOMPRESSED))
    return [build_context(sop_class, syntax) for sop_class, syntax in wanted]


@contextmanager
def associate(
    destination: Destination, calling_ae_title: str, contexts: list[PresentationContext]
) -> Iterator[Association]:
    """An established association, released at the end. Raises DestinationUnavailableError.

    A rejection is retryable even where the peer calls it permanent: it goes when the PACS learns our AE title.
    """
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = destination.timeout_seconds
    handlers = [(evt.EVT_CONN_OPEN, _no_delay)]
    association = ae.associate(
        destination.host,
        destination.port,
        contexts=contexts,
        ae_title=destination.ae_title,
        max_pdu=0,
        evt_handlers=handlers,
    )
    if not association.is_established:
        raise _not_established(association, destination)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _no_delay(event: evt.Event) -> None:
    """TCP_NODELAY: a C-STORE is several small writes, and Nagle holds each for the peer's delayed answer."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _not_established(association: Association, destination: Destination) -> DestinationUnavailableError:
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        said = getattr(answer, "reason_str", "") or "no reason given"
        return DestinationUnavailableError(f"{where} rejected the association: {said}")
    if association.is_aborted:
        return DestinationUnavailableError(f"{where} does not answer, or aborted the association")
    return DestinationUnavailableError(f"{where}: no association")


def _by_c_store(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> Iterator[Outcome]:
    contexts = presentation_contexts([(result.sop_class_uid, result.transfer_syntax_uid) for result in results])
    with associate(destination, calling_ae_title, contexts) as association:
        for result in results:
            yield Outcome(result.sop_instance_uid, _send(association, result))


def _send(association: Association, result: StoredResult) -> DeliveryError | None:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == result.sop_class_uid
    }
    if not association.is_established:
        return DestinationUnavailableError("the association ended before this object was sent")
    if not accepted:
        return DestinationRefusedError(f"the destination takes no {UID(result.sop_class_uid).name}")
    dataset: Dataset = dcmread(result.path)
    try:
        if UID(result.transfer_syntax_uid) not in accepted:
            dataset = _uncompressed(dataset)
        status = association.send_c_store(dataset)
    except DestinationRefusedError as error:
        return error
    except (RuntimeError, ValueError) as error:
        return DestinationRefusedError(f"cannot be sent: {error}")
    if "Status" not in status:
        return DestinationUnavailableError("no answer to C-STORE: time-out or connection lost")
    return error_of_status(int(status.Status))


def _uncompressed(dataset: Dataset) -> Dataset:
    """The same object in Explicit VR Little Endian; pynetdicom writes it as Implicit where only that is taken.

    Raises DestinationRefusedError where it cannot be transcoded.
    """
    if UID(dataset.file_meta.TransferSyntaxUID) in UNCOMPRESSED:
        return dataset
    try:
        return decompress(dataset)
    except PixelError as error:
        raise DestinationRefusedError(
            f"its transfer syntax is not taken, and it cannot be transcoded: {error}"
        ) from error


# STOW-RS


def _by_stow(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> Iterator[Outcome]:
    """One request for all. The calling AE title has no place in STOW-RS."""
    with dicomweb.open_client(destination) as client:
        answer = dicomweb.store(client, destination.url, [result.path.read_bytes() for result in results])
        for result in results:
            if answer.failed.get(result.sop_instance_uid) == TRANSFER_SYNTAX_NOT_SUPPORTED:
                again = dicomweb.store(client, destination.url, [_rewritten(result.path)])
                yield Outcome(result.sop_instance_uid, _stow_error(again, result.sop_instance_uid))
            else:
                yield Outcome(result.sop_instance_uid, _stow_error(answer, result.sop_instance_uid))


def _stow_error(answer: dicomweb.StowAnswer, sop_instance_uid: str) -> DeliveryError | None:
    if sop_instance_uid in answer.failed:
        return error_of_status(answer.failed[sop_instance_uid]) or DestinationUnavailableError(
            "failed, no reason given"
        )
    if answer.stored and sop_instance_uid not in answer.stored:
        return DestinationUnavailableError("the destination's answer does not name this object")
    return None


def _rewritten(path: Path) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, _uncompressed(dcmread(path)), enforce_file_format=True)
    return buffer.getvalue()
