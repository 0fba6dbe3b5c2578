"""Every kind of object at real peers: Orthanc, dcmqrscp, an HL7 listener; quarantine; later readings."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from node.database.deliveries import DeliveryStatus, deliveries_of, retry_failed
from node.database.readings import readings_of
from node.destinations import PRESETS
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, View
from node.results.reading import EncodedResult, ResultKind
from node.settings import Destination
from node.status import as_details, as_json, as_table
from node.supported import LABEL_MAP_SEGMENTATION_STORAGE
from tests import mammograms
from tests.integration.desk import Desk
from tests.node.listeners import hl7_listener
from tests.running_node import Pacs
from tests.servers import Running, dcmqrscp, free_port, orthanc

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")
EVERYTHING = (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    SegmentationStorage,
    LABEL_MAP_SEGMENTATION_STORAGE,
)
NOWHERE = Destination("nowhere", "dicom", "127.0.0.1", 104, "PACS")


def kinds_to(desk: Desk, study: str, destination: str, *statuses: DeliveryStatus) -> list[str]:
    """Kinds of what has one of these statuses there, sorted."""
    found = [d for d in deliveries_of(desk.database, study) if d.destination == destination]
    return sorted(d.kind.value for d in found if d.status in statuses)


def references(dataset: Dataset) -> set[str]:
    """Every SOP Instance UID that a data set refers to."""
    found = set()
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            found.add(str(element.value))
    return found


@contextmanager
def storage(port: int, classes: Sequence[str], received: list[Dataset]) -> Iterator[None]:
    """A PACS that takes these classes, and answers C-ECHO."""

    def keep(event: evt.Event) -> int:
        received.append(event.dataset)
        return 0x0000

    ae = AE(ae_title="PACS")
    for sop_class in (Verification, *classes):
        ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def archive() -> Iterator[Running]:
    with orthanc() as running:
        yield running


def held_by(archive: Running, study: str) -> list[str]:
    """SOP Instance UIDs that Orthanc's DICOMweb finds in a study."""
    url = f"{archive.dicomweb_url}/studies/{study}/instances"
    answer = httpx.get(url, auth=(archive.username, archive.password), headers={"Accept": "application/dicom+json"})
    answer.raise_for_status()
    return sorted(item["00080018"]["Value"][0] for item in answer.json())


def preset_destinations(archive: Running) -> tuple[Destination, ...]:
    """Each preset by C-STORE and by STOW-RS."""
    stored = Destination("", "dicom", "127.0.0.1", archive.port, archive.ae_title)
    web = Destination("", "dicomweb", url=archive.dicomweb_url, username=archive.username, password=archive.password)
    ways = [(preset, where) for preset in PRESETS for where in (stored, web)]
    return tuple(replace(where, name=f"{preset} by {where.protocol}", preset=preset) for preset, where in ways)


def test_orthanc_holds_all_of_every_preset_by_either_way(desk: Desk, archive: Running) -> None:
    destinations = preset_destinations(archive)
    desk.set(*destinations)
    study = desk.receive(mammograms.exam(bright=[RCC, RMLO, LMLO]))
    reading_id = desk.read(study)
    assert reading_id is not None
    results = {result.sop_instance_uid: result for result in readings_of(desk.database, study)[0].results}
    assert {result.problem for result in results.values()} == {""}
    for destination in destinations:
        sent, failed = desk.deliver(reading_id, destination.name)
        assert failed == 0, as_details(desk.state(study))
        made = kinds_to(desk, study, destination.name, DeliveryStatus.SENT)
        assert len(made) == sent
        assert set(made) == set(destination.kinds), destination.name
    left = {d.sop_instance_uid for d in deliveries_of(desk.database, study) if d.status is DeliveryStatus.SENT}
    assert held_by(archive, study) == sorted(left)
    # What nobody got is the set without label maps.
    unsent = [result for uid, result in results.items() if uid not in left]
    assert {result.kind.value for result in unsent} <= {"SR", "KOS"}
    by_kind = Counter(result.kind.value for result in results.values())
    assert (by_kind["GSPS"], by_kind["LABELMAP"], by_kind["SEG"]) == (4, 3, 6)  # SEG in two forms
    assert not desk.state(study).needs_a_person


def test_dcmqrscp_refuses_label_maps_and_gets_binary_ones_with_a_report_of_their_own(desk: Desk) -> None:
    with dcmqrscp() as peer:
        desk.set(Destination("archive", "dicom", "127.0.0.1", peer.port, peer.ae_title, preset="archive"))
        study = desk.receive(mammograms.exam(bright=[RCC, LMLO]))
        reading_id = desk.read(study)
        assert reading_id is not None
        _, failed = desk.deliver(reading_id, "archive")
        received = [dcmread(path) for path in peer.folder.rglob("*") if path.is_file() and path.name != "index.dat"]
    state = desk.state(study)
    assert failed == 0, as_details(state)
    assert kinds_to(desk, study, "archive", DeliveryStatus.NOT_NEEDED) == ["KOS", "LABELMAP", "LABELMAP", "SR"]
    assert "the destination takes no Label Map Segmentation Storage" in as_details(state)
    here = {str(dataset.SOPInstanceUID): dataset for dataset in received}
    regions = [uid for uid, dataset in here.items() if dataset.SOPClassUID == SegmentationStorage]
    binary = [uid for uid in regions if here[uid].SegmentationType == "BINARY"]
    assert len(binary) == 2
    assert LABEL_MAP_SEGMENTATION_STORAGE not in {dataset.SOPClassUID for dataset in received}
    [report] = [ds for ds in received if ds.Modality == "SR" and references(ds) & set(regions)]
    ours = {uid for uid in references(report) if uid.startswith("2.25.")}
    assert ours <= set(here)
    assert set(binary) <= ours
    [keys] = [ds for ds in received if ds.SOPClassUID == KeyObjectSelectionDocumentStorage]
    named = {uid for uid in references(keys) if uid.startswith("2.25.")}
    assert named <= set(here)
    assert set(binary) | {str(report.SOPInstanceUID)} <= named
    assert not [d for d in state.deliveries if d.status is DeliveryStatus.PENDING]


def test_a_pacs_that_took_nothing_gets_the_whole_set_when_it_is_mended_and_takes_label_maps_too(desk: Desk) -> None:
    port = free_port()
    desk.set(replace(NOWHERE, name="archive", port=port, objects=("SR", "LABELMAP", "KOS")))
    study = desk.receive(mammograms.exam(bright=[RCC]))
    reading_id = desk.read(study)
    assert reading_id is not None
    received: list[Dataset] = []
    for classes in ((), EVERYTHING):
        retry_failed(desk.database, datetime.now(UTC))
        with storage(port, classes, received):
            desk.deliver(reading_id, "archive", datetime.now(UTC))
    assert kinds_to(desk, study, "archive", DeliveryStatus.SENT) == ["KOS", "SEG", "SR"]
    assert kinds_to(desk, study, "archive", DeliveryStatus.NOT_NEEDED) == ["KOS", "LABELMAP", "SR"]
    [keys] = [dataset for dataset in received if dataset.SOPClassUID == KeyObjectSelectionDocumentStorage]
    ours = {str(dataset.SOPInstanceUID) for dataset in received}
    assert {uid for uid in references(keys) if uid.startswith("2.25.")} == ours - {str(keys.SOPInstanceUID)}


def test_what_the_gate_refuses_is_kept_said_and_never_sent_while_the_rest_goes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_pictures(result: EncodedResult) -> str:
        return "Rows (0028,0010) is missing" if result.kind is ResultKind.SECONDARY_CAPTURE else ""

    monkeypatch.setattr("node.results.gate.problem_of", no_pictures)
    pacs = Pacs(free_port())
    desk.set(replace(NOWHERE, name="pacs", port=pacs.port, objects=("SR", "SC", "KOS")))
    study = desk.receive(mammograms.exam())
    reading_id = desk.read(study)
    assert reading_id is not None
    with pacs.running():
        assert desk.deliver(reading_id, "pacs") == (2, 0)
        assert retry_failed(desk.database, datetime.now(UTC)) == 0
        assert desk.deliver(reading_id, "pacs", datetime.now(UTC) + timedelta(days=1)) == (0, 0)
    [kept] = [result for result in readings_of(desk.database, study)[0].results if result.problem]
    assert kept.sop_instance_uid not in pacs.uids()
    assert not {uid for dataset in pacs.received for uid in references(dataset)} & {kept.sop_instance_uid}
    assert Path(kept.path).parent == desk.folder / "quarantine"
    assert dcmread(kept.path).SOPInstanceUID == kept.sop_instance_uid
    assert "ALARM" in caplog.text
    assert f"SC {kept.sop_instance_uid} is quarantined: Rows" in caplog.text
    state = desk.state(study)
    assert state.needs_a_person
    assert "SC       to pacs: quarantined: Rows (0028,0010) is missing" in as_details(state)
    assert "pacs: 2 of 3, quarantined: Rows (0028,0010) is missing" in as_table([state])
    said = as_json([state])["exams"][0]
    assert {d["kind"]: d["status"] for d in said["deliveries"]} == {"SR": "sent", "SC": "quarantined", "KOS": "sent"}
    assert [result["problem"] for result in said["reading"]["results"] if result["kind"] == "SC"] == [kept.problem]


def test_a_late_view_gives_a_reading_that_names_and_withdraws_the_one_before(desk: Desk) -> None:
    pacs, keeps = Pacs(free_port()), Pacs(free_port())
    objects = ("CADSR", "SR", "SC")
    desk.set(
        replace(NOWHERE, name="pacs", port=pacs.port, objects=objects, retract=True),
        replace(NOWHERE, name="keeps", port=keeps.port, objects=objects),
    )
    study = desk.receive(mammograms.exam(bright=[LCC]))
    with pacs.running(), keeps.running():
        first = desk.read(study)
        assert first is not None
        desk.deliver(first, "pacs")
        before = {str(dataset.SOPClassUID): dataset for dataset in pacs.received}
        again = mammograms.mammogram(LCC, study)
        again.AcquisitionTime = "111500"
        desk.receive([again])
        second = desk.read(study)
        assert second is not None
        assert desk.deliver(second, "pacs") == (4, 0)
        assert desk.deliver(second, "keeps") == (3, 0)
    later = pacs.received[3:]
    for dataset in later:
        assert dataset.SeriesDescription.startswith("AI reading 2, replaces "), dataset.SeriesDescription
        if dataset.SOPClassUID in before and dataset.Modality == "SR":
            [study_item] = dataset.PredecessorDocumentsSequence
            [reference] = study_item.ReferencedSeriesSequence[0].ReferencedSOPSequence
            assert reference.ReferencedSOPInstanceUID == before[str(dataset.SOPClassUID)].SOPInstanceUID
    [note] = [ds for ds in later if ds.SOPClassUID == KeyObjectSelectionDocumentStorage]
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert references(note) == {str(dataset.SOPInstanceUID) for dataset in before.values()}
    assert KeyObjectSelectionDocumentStorage not in {ds.SOPClassUID for ds in keeps.received}
    assert "replaces reading 1" in as_details(desk.state(study))


def _raw(view: View, shown: Dataset, *, bright: bool) -> Dataset:
    """The For Processing image that `shown` was made from."""
    made = mammograms.mammogram(view, str(shown.StudyInstanceUID), bright=bright)
    made.SOPClassUID = DigitalMammographyXRayImageStorageForProcessing
    made.PresentationIntentType = "FOR PROCESSING"
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    shown.SourceImageSequence = [source]
    return made


def test_marks_of_a_raw_image_stand_on_the_image_that_is_displayed(desk: Desk) -> None:
    pacs = Pacs(free_port())
    desk.set(
        replace(NOWHERE, name="pacs", port=pacs.port, objects=("SR", "GSPS")), exam={"prefer_for_processing": True}
    )
    shown = mammograms.exam(bright=[RCC])
    raw = [_raw(view, image, bright=view is RCC) for view, image in zip(STANDARD_VIEWS, shown, strict=True)]
    study = desk.receive([*raw, *shown])
    reading_id = desk.read(study)
    assert reading_id is not None
    with pacs.running():
        _, failed = desk.deliver(reading_id, "pacs")
    assert failed == 0
    [reading] = readings_of(desk.database, study)
    views = reading.prediction["views"]
    assert {view["sop_instance_uid"] for view in views.values()} == {image.SOPInstanceUID for image in shown}
    assert {view["read_from"] for view in views.values()} == {image.SOPInstanceUID for image in raw}
    states = [ds for ds in pacs.received if ds.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage]
    marked = {str(ds.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID) for ds in states}
    assert marked == {image.SOPInstanceUID for image in shown}
    assert "on the For Presentation image of" in as_details(desk.state(study))


def test_an_hl7_destination_gets_one_message_a_reading_and_is_tried_again(desk: Desk) -> None:
    images = mammograms.exam(bright=[RCC])
    with hl7_listener() as listener:
        down = Destination("ris", "hl7", "127.0.0.1", free_port(), timeout_seconds=5.0)
        desk.set(down)
        study = desk.receive(images)
        reading_id = desk.read(study)
        assert reading_id is not None
        assert desk.deliver(reading_id, "ris") == (0, 1)
        desk.set(replace(down, port=listener.port))
        assert desk.deliver(reading_id, "ris", datetime.now(UTC) + timedelta(minutes=1)) == (1, 0)
    [message] = listener.received
    [result] = readings_of(desk.database, study)[0].results
    assert Path(result.path).suffix == ".hl7"
    assert message.encode() == Path(result.path).read_bytes()
    assert "ORU      to ris: sent at" in as_details(desk.state(study))
