"""The main job on real parts: dcmsend sends exams, Orthanc holds the results, and they are read back from it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from deploy.demo.archive import RealArchive
from deploy.demo.cases import Run
from deploy.demo.chest import chest_exam
from deploy.demo.node_process import Peer
from deploy.demo.outcome import KINDS
from node.mammography.views import LMLO, STANDARD_VIEWS, Laterality
from tests.acceptance.public_commands import RunningNode, running_node, validator
from tests.servers import Running, free_port, orthanc
from training.phantoms import make_exam
from training.phantoms.dicom import write_dicom
from training.phantoms.lesions import MASS_SPICULATED

PIXEL_MM = 0.28
MOVE_PORT = free_port()
AS_IT_IS = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""WADO-RS without it gives Explicit VR Little Endian (PS3.18 8.7.3.5.2)."""


@pytest.fixture(scope="module")
def pacs() -> Iterator[Running]:
    allowed = {"mammoclip": ("MAMMOCLIP", "127.0.0.1", 104), "tester": ("TESTER", "127.0.0.1", MOVE_PORT)}
    with orthanc("ORTHANC", modalities=allowed) as running:
        yield running


@pytest.fixture(scope="module")
def node(pacs: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running_node(tmp_path_factory.mktemp("node"), Peer(pacs.host, pacs.port, pacs.ae_title)) as running:
        yield running


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Files of a complete exam with a mass, and of one without LMLO."""
    folder = tmp_path_factory.mktemp("sent")
    lesion = make_exam(8_000_000, kinds=[MASS_SPICULATED.on(Laterality.RIGHT)])
    normal = make_exam(8_000_001, kinds=[])
    three = [view for view in STANDARD_VIEWS if view != LMLO]
    return {
        "complete": write_dicom(lesion, folder / "complete", pixel_mm=PIXEL_MM),
        "incomplete": write_dicom(normal, folder / "incomplete", pixel_mm=PIXEL_MM, views=three),
    }


@pytest.fixture(scope="module")
def complete(node: RunningNode, sent: dict[str, list[Path]]) -> dict[str, Any]:
    """The complete exam, read and delivered."""
    node.send(*sent["complete"])
    return node.wait(_study(sent["complete"]))


def _sent(exam: dict[str, Any]) -> list[dict[str, Any]]:
    """Its deliveries without forms that the PACS did not need."""
    return [delivery for delivery in exam["deliveries"] if delivery["status"] == "sent"]


def _study(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def _client(pacs: Running) -> httpx.Client:
    return httpx.Client(base_url=pacs.dicomweb_url, auth=(pacs.username, pacs.password), timeout=60)


def _entity() -> AE:
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
    return ae


def _query(study_instance_uid: str, level: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = study_instance_uid
    return query


def _fetched_by_move(pacs: Running, study_instance_uid: str, folder: Path) -> list[Path]:
    """C-MOVE the study to a receiver of our own; its files."""
    receiver = AE(ae_title="TESTER")
    for context in AllStoragePresentationContexts:
        receiver.add_supported_context(str(context.abstract_syntax))
    receiver.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34")

    def keep(event: Any) -> int:
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    server = receiver.start_server(("127.0.0.1", MOVE_PORT), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    try:
        association = _entity().associate(pacs.host, pacs.port, ae_title=pacs.ae_title)
        assert association.is_established
        query = _query(study_instance_uid, "STUDY")
        answers = list(association.send_c_move(query, "TESTER", StudyRootQueryRetrieveInformationModelMove))
        association.release()
        assert answers[-1][0].Status == 0x0000
    finally:
        server.shutdown()
    return sorted(folder.iterdir())


def test_a_complete_exam_is_read_and_its_results_are_sent(complete: dict[str, Any]) -> None:
    assert complete["status"] == "read"
    assert {delivery["status"] for delivery in complete["deliveries"]} <= {"sent", "not needed"}
    assert {"CADSR", "SR", "GSPS", "SC", "SCVIEW", "KOS"} <= {delivery["kind"] for delivery in _sent(complete)}
    assert 0.0 <= complete["reading"]["exam_probability"] <= 1.0


def test_the_pacs_finds_the_results_by_c_find(pacs: Running, complete: dict[str, Any]) -> None:
    query = _query(complete["study_instance_uid"], "SERIES")
    query.SeriesInstanceUID = query.Modality = ""
    association = _entity().associate(pacs.host, pacs.port, ae_title=pacs.ae_title)
    assert association.is_established
    found = [item for _, item in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind) if item]
    association.release()
    assert {"SR", "OT"} <= {str(item.Modality) for item in found}


def test_the_demo_counts_what_a_real_pacs_holds(pacs: Running, complete: dict[str, Any]) -> None:
    archive = RealArchive(Peer(pacs.host, pacs.port, pacs.ae_title))
    held = archive.kinds(complete["study_instance_uid"])
    assert sorted(held or ()) == sorted(delivery["kind"] for delivery in _sent(complete))


def test_results_read_back_by_c_move_are_valid(pacs: Running, complete: dict[str, Any], tmp_path: Path) -> None:
    files = _fetched_by_move(pacs, complete["study_instance_uid"], tmp_path)
    assert len(files) == len(_sent(complete))
    kinds = []
    for path in files:
        dataset = pydicom.dcmread(path)
        assert dataset.StudyInstanceUID == complete["study_instance_uid"]
        kinds.append(KINDS[dataset.SeriesNumber])
        checked = subprocess.run([validator(), "-new", str(path)], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []
    assert sorted(kinds) == sorted(delivery["kind"] for delivery in _sent(complete))


def test_results_read_back_by_dicomweb_are_the_bytes_sent(pacs: Running, complete: dict[str, Any]) -> None:
    sent = {delivery["sop_instance_uid"] for delivery in _sent(complete)}
    results = complete["reading"]["results"]
    by_uid = {r["sop_instance_uid"]: Path(r["path"]) for r in results if r["sop_instance_uid"] in sent}
    with _client(pacs) as client:
        listed = client.get(
            f"/studies/{complete['study_instance_uid']}/instances", headers={"Accept": "application/dicom+json"}
        )
        listed.raise_for_status()
        held = {item["00080018"]["Value"][0]: item["0020000E"]["Value"][0] for item in listed.json()}
        assert set(held) == set(by_uid)
        for uid, series in held.items():
            path = f"/studies/{complete['study_instance_uid']}/series/{series}/instances/{uid}"
            answer = client.get(path, headers={"Accept": AS_IT_IS})
            answer.raise_for_status()
            assert _data_set(by_uid[uid].read_bytes()) in answer.content


def _data_set(part_10: bytes) -> bytes:
    """The encoded data set of a Part 10 file, without preamble and file meta information (PS3.10 7.1)."""
    length = int.from_bytes(part_10[140:144], "little")
    return part_10[144 + length :]


def test_the_report_names_every_image_that_was_read(pacs: Running, complete: dict[str, Any], tmp_path: Path) -> None:
    files = _fetched_by_move(pacs, complete["study_instance_uid"], tmp_path)
    report = next(pydicom.dcmread(path) for path in files if KINDS[pydicom.dcmread(path).SeriesNumber] == "SR")
    named = {str(element.value) for element in report.iterall() if element.keyword == "ReferencedSOPInstanceUID"}
    results = {result["sop_instance_uid"] for result in complete["reading"]["results"]}
    assert len(named - results) >= len(STANDARD_VIEWS)
    assert report.ValueType == "CONTAINER"


def test_the_same_exam_again_changes_nothing(
    node: RunningNode, sent: dict[str, list[Path]], complete: dict[str, Any]
) -> None:
    node.send(*sent["complete"])
    again = node.wait(complete["study_instance_uid"])
    assert again["reading"]["number"] == complete["reading"]["number"]
    assert again["reading"]["results"] == complete["reading"]["results"]


def test_results_sent_back_make_no_new_reading(node: RunningNode, complete: dict[str, Any]) -> None:
    node.send(*(Path(result["path"]) for result in complete["reading"]["results"]))
    again = node.wait(complete["study_instance_uid"])
    assert again["reading"]["results"] == complete["reading"]["results"]
    assert again["status"] == "read"


def test_a_missing_view_is_waited_for_and_then_skipped(node: RunningNode, sent: dict[str, list[Path]]) -> None:
    node.send(*sent["incomplete"])
    exam = node.wait(_study(sent["incomplete"]))
    assert (exam["status"], exam["reason"]) == ("skipped", "views missing: LMLO")
    told = node.wait(_study(sent["incomplete"]), told=True)
    assert {(delivery["kind"], delivery["status"]) for delivery in told["deliveries"]} == {
        ("CADSR", "sent"),
        ("SR", "sent"),
    }
    assert told["reading"]["outcome"] == "not attempted"


def test_what_is_no_mammogram_is_skipped(node: RunningNode, tmp_path: Path) -> None:
    exam = chest_exam(Run("acceptance", tmp_path))
    node.send(*exam.files)
    found = node.wait(exam.study_instance_uid)
    assert found["status"] == "skipped"
    assert found["reason"].startswith("no mammogram")
    assert found["deliveries"] == []


def test_status_is_a_table_for_people(node: RunningNode, complete: dict[str, Any]) -> None:
    done = subprocess.run(node.process.command("status"), capture_output=True, text=True, check=False)
    assert complete["study_instance_uid"][-10:] in done.stdout
    assert "sent" in done.stdout


def test_doctor_finds_the_node_well(node: RunningNode, complete: dict[str, Any]) -> None:
    done = subprocess.run(node.process.command("doctor"), capture_output=True, text=True, check=False)
    assert "inference" in done.stdout.lower()
    assert done.returncode == 0, done.stdout + done.stderr
