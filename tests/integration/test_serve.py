"""The whole node as a process: C-STORE in, SR, SEG and SC out; crashes; destinations that are down or refuse."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.broker import connect, socket_path
from node.database import open_database
from node.database.leases import leased_exams
from node.database.readings import readings_of
from node.mammography.views import LCC, LMLO, RCC, RMLO
from tests import mammograms
from tests.running_node import REPOSITORY, Pacs, RunningNode, pacs_destination, running_node
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


def _kill_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _kill_worker_and_its_children(pid: int) -> None:
    """Workers are started as leaders of a session of their own; their readers belong to it."""
    os.killpg(os.getsid(pid), signal.SIGKILL)


def test_results_stand_in_the_pacs_and_start_no_reading_when_they_come_back(tmp_path: Path) -> None:
    pacs = Pacs(free_port())
    images = mammograms.exam(bright=[LCC, LMLO])
    study = str(images[0].StudyInstanceUID)
    with pacs.running(syntaxes=[ImplicitVRLittleEndian]), running_node(tmp_path, pacs_destination(pacs)) as node:
        assert mammograms.send(images, node.port) == [0x0000] * 4
        said = node.wait_for(study, "read")
        assert {(finding["view"], finding["kind"]) for finding in said["reading"]["findings"]} == {
            ("LCC", "mass"),
            ("LMLO", "mass"),
        }
        assert [delivery["status"] for delivery in said["deliveries"]] == ["sent"] * 4
        assert sorted(str(ds.SOPClassUID) for ds in pacs.received) == sorted(
            [Comprehensive3DSRStorage, SegmentationStorage, SegmentationStorage, SecondaryCaptureImageStorage]
        )
        assert {str(ds.StudyInstanceUID) for ds in pacs.received} == {study}
        assert {ds.file_meta.TransferSyntaxUID for ds in pacs.received} == {ImplicitVRLittleEndian}
        results = list(pacs.received)
        assert mammograms.send(results, node.port) == [0x0000] * len(results)  # what a PACS with auto-routing does
        time.sleep(3.0)  # six sweeps
        after = node.status()
        assert set(after) == {study}
        assert (after[study]["reading"], after[study]["updated_at"]) == (said["reading"], said["updated_at"])
        assert len(pacs.received) == len(results)
    assert node.stop() == [0]


def test_killed_readers_exams_are_read_again_and_once(tmp_path: Path) -> None:
    pacs = Pacs(free_port())
    with pacs.running(), running_node(tmp_path, pacs_destination(pacs)) as node:
        database = open_database(f"sqlite:///{tmp_path / 'data' / 'node.db'}")
        for kill in (_kill_process, _kill_worker_and_its_children):
            images = mammograms.exam(bright=[RCC])
            study = str(images[0].StudyInstanceUID)
            mammograms.send(images, node.port)
            wait_until(lambda: bool(leased_exams(database)), 120.0, "nobody reads")
            [(leased, owner)] = leased_exams(database)
            assert leased == study
            kill(int(owner.split("/")[2]))
            said = node.wait_for(study, "read")
            assert said["attempts"] == 2, node.log()
            assert said["reading"]["number"] == 1
            assert len(readings_of(database, study)) == 1
            assert sorted(delivery["kind"] for delivery in said["deliveries"]) == ["SC", "SEG", "SR"]
            of_study = [ds for ds in pacs.received if ds.StudyInstanceUID == study]
            assert len(of_study) == len({ds.SOPInstanceUID for ds in of_study}) == 3
        database.close()
    assert "ALARM the worker that read" in node.log()


def test_lost_broker_loses_no_exam(tmp_path: Path) -> None:
    pacs = Pacs(free_port())
    with pacs.running(), running_node(tmp_path, pacs_destination(pacs)) as node:
        url = f"redis+socket://{socket_path(tmp_path / 'data')}"
        first, second, third = (mammograms.exam() for _ in range(3))
        mammograms.send(first, node.port)
        with connect(url) as client:
            client.flushall()
        node.wait_for(str(first[0].StudyInstanceUID), "read")
        with connect(url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        assert mammograms.send(second, node.port) == [0x0000] * 4  # the listener does not wait for a broker
        node.wait_for(str(second[0].StudyInstanceUID), "read")
        mammograms.send(third, node.port)
        said = node.wait_for(str(third[0].StudyInstanceUID), "read")
        assert said["attempts"] == 1
        assert len(pacs.uids()) == len(set(pacs.uids())) == 6
    assert "ALARM the embedded broker ended" in node.log()


def test_killed_node_goes_on_after_a_restart(tmp_path: Path) -> None:
    pacs = Pacs(free_port())
    images = mammograms.exam(bright=[RCC])
    study = str(images[0].StudyInstanceUID)
    with running_node(tmp_path, pacs_destination(pacs)) as node:
        mammograms.send(images, node.port)
        node.kill()
        node.start()
        with pacs.running():
            said = node.wait_for(study, "read")
        assert said["reading"]["number"] == 1
        assert len(pacs.uids()) == len(set(pacs.uids())) == 3


def test_what_was_stored_before_a_crash_is_delivered_as_it_was_stored(tmp_path: Path) -> None:
    pacs = Pacs(free_port())
    images = mammograms.exam(bright=[RCC])
    study = str(images[0].StudyInstanceUID)
    with running_node(tmp_path, pacs_destination(pacs)) as node:
        mammograms.send(images, node.port)
        wait_until(lambda: node.status().get(study, {}).get("status") == "read", 120.0, "not read")
        before = node.status()[study]["reading"]
        node.kill()
        with pacs.running():
            node.start()
            said = node.wait_for(study, "read")
    assert said["reading"] == before
    assert [delivery["status"] for delivery in said["deliveries"]] == ["sent"] * 3
    kept = {result["sop_instance_uid"]: dcmread(result["path"]) for result in before["results"]}
    assert {str(dataset.SOPInstanceUID): dataset for dataset in pacs.received} == kept


def test_listener_and_workers_run_apart_and_status_tells_all(tmp_path: Path) -> None:
    pacs = Pacs(free_port())
    images, few = mammograms.exam(bright=[LMLO]), mammograms.exam([RCC, LCC, RMLO])
    study, incomplete = str(images[0].StudyInstanceUID), str(few[0].StudyInstanceUID)
    with (
        pacs.running(),
        running_node(
            tmp_path,
            pacs_destination(pacs) + "explain_unread = true\n",
            verbs=("work", "listen"),
            settle_seconds=10.0,
        ) as node,
    ):
        mammograms.send(few, node.port)
        mammograms.send(images, node.port)
        waiting = node.wait_for(incomplete, "waiting")
        assert waiting["waiting_for"] == "LMLO"
        node.wait_for(study, "read")
        assert node.wait_for(incomplete, "skipped")["reason"] == "views missing: LMLO"
        table, code = _printed(node, "status")
        assert code == 0
        assert "views missing: LMLO" in table
        wait_until(lambda: incomplete in {ds.StudyInstanceUID for ds in list(pacs.received)}, 60.0, "not explained")
        [explanation] = [ds for ds in pacs.received if incomplete == ds.StudyInstanceUID]
        assert explanation.SOPClassUID == Comprehensive3DSRStorage
        assert f"…{study[-19:]}" in table
        assert "pacs: sent at" in table
        details, _ = _printed(node, "status", "--study", study)
        assert "finding      LMLO mass" in details
        assert json.loads(_printed(node, "status", "--json")[0])["exams"][0]["study_instance_uid"] in (
            study,
            incomplete,
        )
        assert _printed(node, "status", "--study", "1.2.3")[1] == 2
        assert "another node works" in _printed(node, "work")[0]
    assert node.stop() == [0, 0]


def _printed(node: RunningNode, *arguments: str) -> tuple[str, int]:
    done = subprocess.run(
        node.command(*arguments), cwd=REPOSITORY, env=node.environment, capture_output=True, check=False, timeout=120
    )
    return (done.stdout + done.stderr).decode(), done.returncode


def test_node_refuses_to_run_with_a_model_that_does_not_fit(tmp_path: Path) -> None:
    with running_node(tmp_path, "", contract={"contract_version": 2}) as node:
        [process] = node.processes
        assert process.wait(120) == 2
        assert "ALARM" in node.log()
        assert "contract_version" in node.log()


def test_given_up_deliveries_are_sent_after_retry(tmp_path: Path) -> None:
    pacs = Pacs(free_port(), statuses={SecondaryCaptureImageStorage: 0xA900})
    images = mammograms.exam()
    study = str(images[0].StudyInstanceUID)
    with pacs.running(), running_node(tmp_path, pacs_destination(pacs)) as node:
        mammograms.send(images, node.port)
        said = node.wait_for(study, "read")
        assert {d["kind"]: d["status"] for d in said["deliveries"]} == {"SR": "sent", "SC": "failed"}
        assert _printed(node, "status")[1] == 1
        pacs.statuses.clear()
        assert _printed(node, "retry")[0].strip() == "0 exams are read and 1 results are sent again"
        wait_until(lambda: len(pacs.uids()) == 2, 60.0, "not sent again")
