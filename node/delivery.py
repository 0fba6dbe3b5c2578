"""A reading's results to one destination, by C-STORE, STOW-RS or MLLP; what became of each object, sorted.

Four things can become of an object: it stands in the destination; the destination refused it for good; it may be tried
again; or it is not needed, for the destination takes another form of it. PS3.4 table B.2-1 and PS3.7 annex C sort the
statuses of C-STORE, and Failure Reason of STOW-RS uses them.
"""

import socket
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node import dicomweb, mllp
from node.errors import (
    ClassRefusedError,
    DeliveryError,
    DestinationRefusedError,
    DestinationUnavailableError,
    PixelError,
    RequestRefusedError,
)
from node.mammography.codecs import decompress
from node.settings import Destination
from node.supported import LABEL_MAP_SEGMENTATION_STORAGE

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
DUPLICATE_SOP_INSTANCE = 0x0111
"""PS3.7 annex C: the object is there already. One of our UIDs names one content, so that is what we want."""
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
"""Failure Reason of STOW-RS, PS3.18 annex I.2: the same object may be taken in another transfer syntax."""
RETRYABLE_STATUSES = frozenset({0x0110, 0x0210, 0x0213})
"""PS3.7 annex C: processing failure, duplicate invocation, resource limitation. 0xA7xx is out of resources."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One result object on disk. `only_if_taken` and `only_if_refused`: conditions of `rendering.Shipment`."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    only_if_taken: str = ""
    only_if_refused: str = ""

    @property
    def is_uncompressed(self) -> bool:
        """Whether there is no other transfer syntax to try."""
        return self.transfer_syntax_uid in UNCOMPRESSED

    def not_needed(self, taken: Container[str]) -> str:
        """Why a destination that takes the classes `taken` does not get it, in words; empty: it gets it."""
        if self.only_if_taken and self.only_if_taken not in taken:
            return f"the destination takes no {class_name(self.only_if_taken)}"
        if self.only_if_refused and self.only_if_refused in taken:
            return f"the destination takes {class_name(self.only_if_refused)}"
        return ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object: it stands in the destination where there is neither `error` nor `not_needed`."""

    sop_instance_uid: str
    error: DeliveryError | None = None
    not_needed: str = ""
    """Why another form of it goes instead."""


def class_name(sop_class_uid: str) -> str:
    """A SOP class in words."""
    if sop_class_uid == LABEL_MAP_SEGMENTATION_STORAGE:  # pydicom 3.0.2 does not know its name
        return "Label Map Segmentation Storage"
    return UID(sop_class_uid).name


def deliver(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> tuple[Outcome, ...]:
    """Send all results over one association or in one request; an outcome for each, in their order. Never raises a
    DeliveryError: where nothing could be sent, each outcome holds it.
    """
    try:
        return tuple(_WAYS[destination.protocol](results, destination, calling_ae_title))
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
    """An established association, released at the end. Raises DestinationUnavailableError, ClassRefusedError.

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


def _not_established(association: Association, destination: Destination) -> DeliveryError:
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        said = getattr(answer, "reason_str", "") or "no reason given"
        return DestinationUnavailableError(f"{where} rejected the association: {said}")
    if association.rejected_contexts and not association.accepted_contexts:
        return ClassRefusedError(f"{where} takes none of the classes that were proposed")
    if association.is_aborted:
        return DestinationUnavailableError(f"{where} does not answer, or aborted the association")
    return DestinationUnavailableError(f"{where}: no association")


def _by_c_store(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> Iterator[Outcome]:
    """Conditions are decided by the classes that the destination accepts, before anything is sent."""
    classes = [(result.sop_class_uid, result.transfer_syntax_uid) for result in results]
    asked = {sop_class for result in results for sop_class in (result.only_if_taken, result.only_if_refused)} - {""}
    contexts = presentation_contexts([*classes, *((sop_class, ExplicitVRLittleEndian) for sop_class in sorted(asked))])
    try:
        with associate(destination, calling_ae_title, contexts) as association:
            taken = {str(context.abstract_syntax) for context in association.accepted_contexts}
            for result in results:
                reason = result.not_needed(taken)
                error = None if reason else _send(association, result)
                yield Outcome(result.sop_instance_uid, error, reason)
    except ClassRefusedError:
        for result in results:
            reason = result.not_needed(())
            yield Outcome(result.sop_instance_uid, None if reason else _class_refused(result), reason)


def _class_refused(result: StoredResult) -> ClassRefusedError:
    return ClassRefusedError(f"the destination takes no {class_name(result.sop_class_uid)}")


def _send(association: Association, result: StoredResult) -> DeliveryError | None:
    accepted = {
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == result.sop_class_uid
    }
    if not association.is_established:
        return DestinationUnavailableError("the association ended before this object was sent")
    if not accepted:
        return _class_refused(result)
    dataset: Dataset = dcmread(result.path)
    try:
        if UID(result.transfer_syntax_uid) not in accepted:
            dataset = _uncompressed(dataset)
        status = association.send_c_store(dataset)
    except DestinationRefusedError as error:
        return error
    except RuntimeError as error:  # pynetdicom: the peer aborted in the middle
        return DestinationUnavailableError(f"the association ended: {error}")
    except ValueError as error:
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

SOP_CLASS_NOT_SUPPORTED = 0x0122
Answers = dict[str, DeliveryError | None]
"""By SOP Instance UID: the error, None where it was stored."""


def _by_stow(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> Iterator[Outcome]:
    """The objects of a class on which others depend go first: whether they are stored decides which others follow.

    The calling AE title has no place in STOW-RS.
    """
    asking = [result for result in results if result.only_if_taken and result.only_if_taken == result.sop_class_uid]
    with dicomweb.open_client(destination) as client:
        answers = _stow(client, destination, asking)  # raises: then nothing was sent, and nothing is decided
        verdicts = [_verdict(result, results, answers) for result in results]
        rest = [
            result
            for result, verdict in zip(results, verdicts, strict=True)
            if verdict is None and result.sop_instance_uid not in answers
        ]
        try:
            answers |= _stow(client, destination, rest)
        except DeliveryError as error:
            answers |= {result.sop_instance_uid: error for result in rest}
    for result, verdict in zip(results, verdicts, strict=True):
        yield verdict or Outcome(result.sop_instance_uid, answers[result.sop_instance_uid])


def _verdict(result: StoredResult, results: Sequence[StoredResult], answers: Answers) -> Outcome | None:
    """What becomes of a result without sending it: not needed, or to wait until it is known; None: it is sent, or was.

    STOW-RS negotiates nothing: that every object of the class was refused, for whatever reason, is the answer.
    """
    sop_class = result.only_if_taken or result.only_if_refused
    if not sop_class:
        return None
    of_class = [r.sop_instance_uid for r in results if r.sop_class_uid == sop_class]
    said = [answers[uid] for uid in of_class if uid in answers]
    unclear = next((error for error in said if error is not None and error.retryable), None)
    if unclear is not None and None not in said:
        return Outcome(result.sop_instance_uid, unclear)
    # Where nothing is asked any more, an earlier try decided: the other form was marked as not needed then.
    refused = None not in said if said else bool(result.only_if_refused)
    answer = answers.get(result.sop_instance_uid)
    if answer is not None and not isinstance(answer, ClassRefusedError):
        return None  # a person must see why
    reason = result.not_needed(() if refused else (sop_class,))
    return Outcome(result.sop_instance_uid, None, reason) if reason else None


def _stow(client: httpx.Client, destination: Destination, results: Sequence[StoredResult]) -> Answers:
    """One request for all; one for each where the request as a whole is refused for what is in it.

    Raises DestinationRefusedError or DestinationUnavailableError where the server takes no request at all.
    """
    if not results:
        return {}
    try:
        answer = dicomweb.store(client, destination.url, [result.path.read_bytes() for result in results])
    except RequestRefusedError as error:
        if len(results) == 1:
            return {results[0].sop_instance_uid: _of_request(results[0], error)}
        return {uid: said for result in results for uid, said in _stow(client, destination, [result]).items()}
    return {result.sop_instance_uid: _stow_error(client, destination, result, answer) for result in results}


def _of_request(result: StoredResult, error: RequestRefusedError) -> DestinationRefusedError:
    """A refusal that names the class of the object that was sent alone is about the class."""
    if result.sop_class_uid in str(error) or class_name(result.sop_class_uid) in str(error):
        return ClassRefusedError(str(error))
    return error


def _stow_error(
    client: httpx.Client, destination: Destination, result: StoredResult, answer: dicomweb.StowAnswer
) -> DeliveryError | None:
    uid = result.sop_instance_uid
    if answer.failed.get(uid) == TRANSFER_SYNTAX_NOT_SUPPORTED and not result.is_uncompressed:
        try:
            answer = dicomweb.store(client, destination.url, [_rewritten(result.path)])
        except DeliveryError as error:
            return error
    if uid in answer.failed:
        said = error_of_status(answer.failed[uid]) or DestinationUnavailableError("failed, no reason given")
        is_class = answer.failed[uid] in (SOP_CLASS_NOT_SUPPORTED, TRANSFER_SYNTAX_NOT_SUPPORTED)
        return ClassRefusedError(str(said)) if is_class else said
    if answer.stored and uid not in answer.stored:
        return DestinationUnavailableError("the destination's answer does not name this object")
    return None


def _rewritten(path: Path) -> bytes:
    """Raises DestinationRefusedError."""
    buffer = BytesIO()
    dcmwrite(buffer, _uncompressed(dcmread(path)), enforce_file_format=True)
    return buffer.getvalue()


# MLLP


def _by_mllp(results: Sequence[StoredResult], destination: Destination, calling_ae_title: str) -> Iterator[Outcome]:
    """One connection for each message. The calling AE title has no place in HL7."""
    for result in results:
        try:
            mllp.send(result.path.read_bytes(), destination.host, destination.port, destination.timeout_seconds)
        except DeliveryError as error:
            yield Outcome(result.sop_instance_uid, error)
        else:
            yield Outcome(result.sop_instance_uid)


_WAYS: dict[str, Callable[[Sequence[StoredResult], Destination, str], Iterator[Outcome]]] = {
    "dicom": _by_c_store,
    "dicomweb": _by_stow,
    "hl7": _by_mllp,
}
