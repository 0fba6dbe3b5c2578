"""Delivery to real Storage SCPs and a real HTTP server on loopback: what is accepted, refused, tried again."""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, evt

from node.delivery import StoredResult, deliver, error_of_status, presentation_contexts
from node.errors import (
    ClassRefusedError,
    DestinationRefusedError,
    DestinationUnavailableError,
    RequestRefusedError,
    retry_after,
)
from node.settings import Destination
from node.supported import LABEL_MAP_SEGMENTATION_STORAGE as LABELS


def _result(folder: Path, sop_class: str, syntax: str) -> StoredResult:
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "OT"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if sop_class == SecondaryCaptureImageStorage:
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 5, 7, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = np.arange(35, dtype=np.uint8).tobytes() + b"\0"
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dcmwrite(path, dataset, enforce_file_format=True)
    return StoredResult(sop_class, str(dataset.SOPInstanceUID), syntax, path)


@contextmanager
def _scp(
    contexts: Sequence[tuple[str, str]], answer: Callable[[Dataset], int], **limits: bool
) -> Iterator[tuple[Destination, list[Dataset]]]:
    """A Storage SCP that takes these (class, syntax) pairs and answers as told."""
    received: list[Dataset] = []

    def keep(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        received.append(dataset)
        return answer(dataset)

    ae = AE(ae_title="PACS")
    for name, value in limits.items():
        setattr(ae, name, value)
    for sop_class, syntax in contexts:
        ae.add_supported_context(sop_class, syntax)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    try:
        port = server.socket.getsockname()[1]
        yield Destination("pacs", "dicom", host="127.0.0.1", port=port, ae_title="PACS", timeout_seconds=5), received
    finally:
        server.shutdown()


# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

SR, SC = ComprehensiveSRStorage, SecondaryCaptureImageStorage


def test_own_syntax_and_uncompressed_are_proposed_in_contexts_of_their_own() -> None:
    contexts = presentation_contexts([(SC, RLELossless), (SR, ExplicitVRLittleEndian), (SC, RLELossless)])
    proposed = [(context.abstract_syntax, context.transfer_syntax) for context in contexts]
    assert proposed == [
        (SC, [RLELossless]),
        (SC, [ExplicitVRLittleEndian]),
        (SC, [ImplicitVRLittleEndian]),
        (SR, [ExplicitVRLittleEndian]),
        (SR, [ImplicitVRLittleEndian]),
    ]


@pytest.mark.parametrize("taken", [RLELossless, ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_pixels_arrive_whatever_syntax_is_taken(tmp_path: Path, taken: str) -> None:
    result = _result(tmp_path, SC, RLELossless)
    with _scp([(SC, taken)], lambda _: 0x0000) as (destination, received):
        outcomes = deliver([result], destination, "NODE")
    assert [outcome.error for outcome in outcomes] == [None]
    assert received[0].file_meta.TransferSyntaxUID == taken
    assert received[0].SOPInstanceUID == result.sop_instance_uid
    np.testing.assert_array_equal(received[0].pixel_array, dcmread(result.path).pixel_array)


@pytest.mark.parametrize("own", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_report_goes_to_an_implicit_only_destination(tmp_path: Path, own: str) -> None:
    result = _result(tmp_path, SR, own)
    with _scp([(SR, ImplicitVRLittleEndian)], lambda _: 0x0000) as (destination, received):
        outcomes = deliver([result], destination, "NODE")
    assert [outcome.error for outcome in outcomes] == [None]
    assert received[0].file_meta.TransferSyntaxUID == ImplicitVRLittleEndian


def test_refused_object_does_not_stop_the_others(tmp_path: Path) -> None:
    results = [_result(tmp_path, sop_class, ExplicitVRLittleEndian) for sop_class in (SC, SR, SC)]
    codes = {results[0].sop_instance_uid: 0xA900, results[2].sop_instance_uid: 0xA700}
    with _scp([(SC, ExplicitVRLittleEndian)], lambda ds: codes[ds.SOPInstanceUID]) as (destination, received):
        first, second, third = deliver(results, destination, "NODE")
    assert isinstance(first.error, DestinationRefusedError)
    assert "0xA900" in str(first.error)
    assert isinstance(second.error, DestinationRefusedError)
    assert "takes no Comprehensive SR Storage" in str(second.error)
    assert isinstance(third.error, DestinationUnavailableError)
    assert len(received) == 2


def _set_by_labels(folder: Path) -> list[StoredResult]:
    """One picture for all, a label map with its report, and the report that stands in for both."""
    own = ExplicitVRLittleEndian
    return [
        _result(folder, SC, own),
        replace(_result(folder, LABELS, own), only_if_taken=LABELS),
        replace(_result(folder, SR, own), only_if_taken=LABELS),
        replace(_result(folder, SR, own), only_if_refused=LABELS),
    ]


def test_the_accepted_classes_decide_which_form_goes(tmp_path: Path) -> None:
    results = _set_by_labels(tmp_path)
    takes_all = [(sop_class, ExplicitVRLittleEndian) for sop_class in (SC, SR, LABELS)]
    for contexts, forms in ((takes_all, results[:3]), (takes_all[:2], [results[0], results[3]])):
        with _scp(contexts, lambda _: 0x0000) as (destination, received):
            outcomes = deliver(results, destination, "NODE")
        assert [dataset.SOPInstanceUID for dataset in received] == [result.sop_instance_uid for result in forms]
        assert all(outcome.error is None for outcome in outcomes)
        others = [outcome.not_needed for outcome in outcomes if outcome.not_needed]
        takes = "takes" if contexts is takes_all else "takes no"
        assert set(others) == {f"the destination {takes} Label Map Segmentation Storage"}


def test_a_failure_brings_no_other_form(tmp_path: Path) -> None:
    results = _set_by_labels(tmp_path)
    takes_all = [(sop_class, ExplicitVRLittleEndian) for sop_class in (SC, SR, LABELS)]
    with _scp(takes_all, lambda ds: 0xC000 if ds.SOPClassUID == LABELS else 0x0000) as (destination, received):
        _, labels, with_labels, without = deliver(results, destination, "NODE")
    assert "0xC000 (cannot understand)" in str(labels.error)
    assert (with_labels.error, with_labels.not_needed) == (None, "")
    assert without.not_needed
    assert len(received) == 3


def test_destination_that_takes_no_class_at_all_says_so_of_each_object(tmp_path: Path) -> None:
    results = _set_by_labels(tmp_path)
    with _scp([("1.2.840.10008.1.1", ImplicitVRLittleEndian)], lambda _: 0x0000) as (destination, _):
        picture, labels, with_labels, without = deliver(results, destination, "NODE")
    assert isinstance(picture.error, ClassRefusedError)
    assert str(picture.error) == "the destination takes no Secondary Capture Image Storage"
    assert labels.not_needed == with_labels.not_needed == "the destination takes no Label Map Segmentation Storage"
    assert isinstance(without.error, ClassRefusedError)


def test_association_that_ends_in_the_middle_is_tried_again(tmp_path: Path) -> None:
    results = [_result(tmp_path, SC, ExplicitVRLittleEndian) for _ in range(3)]
    ae = AE(ae_title="PACS")
    ae.add_supported_context(SC, ExplicitVRLittleEndian)

    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, abort)])
    assert server is not None
    try:
        port = server.socket.getsockname()[1]
        outcomes = deliver(results, Destination("pacs", "dicom", "127.0.0.1", port, "PACS", timeout_seconds=5), "NODE")
    finally:
        server.shutdown()
    assert {type(outcome.error) for outcome in outcomes} == {DestinationUnavailableError}


def test_destination_that_is_down_or_rejects_is_tried_again(tmp_path: Path) -> None:
    result = _result(tmp_path, SC, ExplicitVRLittleEndian)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = Destination(
            "pacs", "dicom", host="127.0.0.1", port=free.getsockname()[1], ae_title="PACS", timeout_seconds=2
        )
        [outcome] = deliver([result], down, "NODE")
    assert outcome.error is not None
    assert retry_after(outcome.error, 1) == 5.0
    with _scp([(SC, ExplicitVRLittleEndian)], lambda _: 0, require_called_aet=True) as (destination, _):
        wrong = Destination(
            "pacs", "dicom", host="127.0.0.1", port=destination.port, ae_title="OTHER", timeout_seconds=2
        )
        [outcome] = deliver([result], wrong, "NODE")
    assert isinstance(outcome.error, DestinationUnavailableError)
    assert "Called AE title not recognised" in str(outcome.error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, None),
        (0xB000, None),
        (0xB007, None),
        (0x0111, None),
        (0xA700, DestinationUnavailableError),
        (0xA7FF, DestinationUnavailableError),
        (0x0110, DestinationUnavailableError),
        (0xA900, DestinationRefusedError),
        (0xC000, DestinationRefusedError),
        (0x0122, DestinationRefusedError),
        (0x0124, DestinationRefusedError),
    ],
)
def test_statuses_are_sorted(status: int, kind: type | None) -> None:
    error = error_of_status(status)
    assert (None if error is None else type(error)) is kind


def _parts(content: bytes) -> list[bytes]:
    boundary = content.split(b"\r\n", 1)[0]
    return [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in content.split(boundary)[1:-1]]


@contextmanager
def _stow(
    status: int | Callable[[list[str]], int], body: Callable[[list[str]], object] | None
) -> Iterator[tuple[Destination, list[bytes]]]:
    """An HTTP server whose answer to a POST is made from the SOP Instance UIDs in it."""
    requests: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(content)
            parts = content.split(b"DICM")[1:]
            uids = [
                part.split(b"\x08\x00\x18\x00UI")[1][2:66].split(b"\x08\x00")[0].rstrip(b"\0").decode()
                for part in parts
            ]
            answer = b"" if body is None else json.dumps(body(uids)).encode()
            self.send_response(status if isinstance(status, int) else status(uids))
            self.send_header("Content-Type", "application/json" if b"Message" in answer else "application/dicom+json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web/"
        yield Destination("web", "dicomweb", url=url, timeout_seconds=5), requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _items(uids: list[str], reason: tuple[str, int] | None = None) -> dict[str, object]:
    items = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids]
    for item in items:
        if reason is not None:
            item[reason[0]] = {"vr": "US", "Value": [reason[1]]}  # type: ignore[list-item]
    return {"vr": "SQ", "Value": items}


def _failed(uids: list[str], reason: int) -> dict[str, object]:
    return _items(uids, ("00081197", reason))


def _stow_kinds(tmp_path: Path, status: int, body: Callable[[list[str]], object] | None) -> list[type | None]:
    results = [_result(tmp_path, SR, ExplicitVRLittleEndian), _result(tmp_path, SC, ExplicitVRLittleEndian)]
    with _stow(status, body) as (destination, _):
        outcomes = deliver(results, destination, "NODE")
    assert [outcome.sop_instance_uid for outcome in outcomes] == [result.sop_instance_uid for result in results]
    return [None if outcome.error is None else type(outcome.error) for outcome in outcomes]


REFUSED, UNAVAILABLE = DestinationRefusedError, DestinationUnavailableError


@pytest.mark.parametrize(
    ("status", "body", "kinds"),
    [
        (200, lambda uids: {"00081199": _items(uids), "00081198": {"vr": "SQ"}}, [None, None]),
        (200, lambda uids: {"00081199": _items(uids), "00081198": {"vr": "SQ", "Value": []}}, [None, None]),
        (200, None, [None, None]),
        (
            202,
            lambda uids: {"00081199": _items(uids[:1]), "00081198": _items(uids[1:], ("00081197", 0xA900))},
            [None, REFUSED],
        ),
        (202, lambda uids: {"00081199": _items(uids, ("00081196", 0xB000))}, [None, None]),
        (202, lambda uids: {"00081199": _items(uids[:1])}, [None, UNAVAILABLE]),
        (202, None, [UNAVAILABLE, UNAVAILABLE]),
        (409, lambda uids: {"00081198": _failed(uids, 0x0110)}, [UNAVAILABLE, UNAVAILABLE]),
        (409, lambda uids: {"00081198": _failed(uids, 0xC000)}, [REFUSED, REFUSED]),
        (401, None, [REFUSED, REFUSED]),
        (429, None, [UNAVAILABLE, UNAVAILABLE]),
        (503, None, [UNAVAILABLE, UNAVAILABLE]),
    ],
)
def test_stow_answers_are_read_for_each_instance(
    tmp_path: Path, status: int, body: Callable[[list[str]], object] | None, kinds: list[type | None]
) -> None:
    assert _stow_kinds(tmp_path, status, body) == kinds


def test_stow_sends_uncompressed_where_the_syntax_is_not_supported(tmp_path: Path) -> None:
    result = _result(tmp_path, SC, RLELossless)
    with _stow(409, lambda uids: {"00081198": _failed(uids, 0xC122)}) as (destination, requests):
        [outcome] = deliver([result], destination, "NODE")
    assert isinstance(outcome.error, DestinationRefusedError)
    assert [RLELossless.encode() in request for request in requests] == [True, False]


def test_stow_destination_that_is_down_is_tried_again(tmp_path: Path) -> None:
    result = _result(tmp_path, SC, ExplicitVRLittleEndian)
    with _stow(200, None) as (destination, _):
        pass
    [outcome] = deliver([result], destination, "NODE")
    assert isinstance(outcome.error, DestinationUnavailableError)


def _stow_set(
    results: list[StoredResult], status: int | Callable[[list[str]], int], body: Callable[[list[str]], object] | None
) -> tuple[list[str], list[int]]:
    """What became of each of `results` in a word or two, and how many objects each request held."""
    with _stow(status, body) as (destination, requests):
        outcomes = deliver(results, destination, "NODE")
    words = [(outcome.not_needed and "not needed") or type(outcome.error).__name__ for outcome in outcomes]
    return words, [len(request.split(b"DICM")) - 1 for request in requests]


def test_stow_asks_with_the_label_maps_which_form_goes(tmp_path: Path) -> None:
    results = _set_by_labels(tmp_path)
    labels = results[1].sop_instance_uid

    def refused(reason: int) -> Callable[[list[str]], object]:
        return lambda uids: {"00081198": _failed([labels], reason)} if uids == [labels] else {"00081199": _items(uids)}

    taken = _stow_set(results, 200, lambda uids: {"00081199": _items(uids)})
    assert taken == (["NoneType", "NoneType", "NoneType", "not needed"], [1, 2])
    for reason in (0x0122, 0xC122):
        other = _stow_set(results, 202, refused(reason))
        assert other == (["NoneType", "not needed", "not needed", "NoneType"], [1, 2])
    broken = _stow_set(results, 202, refused(0xA900))
    assert broken == (["NoneType", "DestinationRefusedError", "not needed", "NoneType"], [1, 2])
    later = _stow_set(results, 202, refused(0xA700))
    unavailable = "DestinationUnavailableError"
    assert later == (["NoneType", unavailable, unavailable, unavailable], [1, 1])


def test_stow_4xx_for_the_label_maps_brings_the_other_form(tmp_path: Path) -> None:
    results = _set_by_labels(tmp_path)
    labels = results[1].sop_instance_uid

    def status(uids: list[str]) -> int:
        return 400 if uids == [labels] else 200

    def naming(uids: list[str]) -> object:
        return {"Message": f"unknown SOP class {LABELS}"} if uids == [labels] else {"00081199": _items(uids)}

    def other(uids: list[str]) -> object:
        return {"Message": "bad request"} if uids == [labels] else {"00081199": _items(uids)}

    assert _stow_set(results, status, naming)[0] == ["NoneType", "not needed", "not needed", "NoneType"]
    assert _stow_set(results, status, other)[0] == ["NoneType", "RequestRefusedError", "not needed", "NoneType"]


def test_stow_request_that_is_refused_whole_is_sent_one_by_one(tmp_path: Path) -> None:
    results = [_result(tmp_path, sop_class, ExplicitVRLittleEndian) for sop_class in (SC, SR, SC)]
    bad = results[1].sop_instance_uid
    with _stow(lambda uids: 422 if bad in uids else 200, lambda uids: {"Message": "no thanks"}) as (web, requests):
        first, second, third = deliver(results, web, "NODE")
    assert (first.error, third.error) == (None, None)
    assert isinstance(second.error, RequestRefusedError)
    assert "HTTP 422" in str(second.error)
    assert str(second.error).endswith(": no thanks")
    assert len(requests) == 4


def test_what_was_decided_in_an_earlier_try_stands(tmp_path: Path) -> None:
    """The label map stands in the destination already; its report was put off."""
    report, other = _set_by_labels(tmp_path)[2:]
    assert _stow_set([report], 200, lambda uids: {"00081199": _items(uids)}) == (["NoneType"], [1])
    assert _stow_set([other], 200, lambda uids: {"00081199": _items(uids)}) == (["NoneType"], [1])


@pytest.mark.parametrize("status", [401, 503])
def test_a_server_that_takes_no_request_decides_nothing(tmp_path: Path, status: int) -> None:
    words, requests = _stow_set(_set_by_labels(tmp_path), status, None)
    assert len(set(words)) == 1
    assert set(words) <= {"DestinationRefusedError", "DestinationUnavailableError"}
    assert requests == [1]


def test_a_server_that_goes_away_between_requests_keeps_what_it_took(tmp_path: Path) -> None:
    results = _set_by_labels(tmp_path)
    labels = results[1].sop_instance_uid
    words, _ = _stow_set(
        results, lambda uids: 200 if uids == [labels] else 503, lambda uids: {"00081199": _items(uids)}
    )
    assert words == ["DestinationUnavailableError", "NoneType", "DestinationUnavailableError", "not needed"]
