"""The whole node as a process: C-STORE in, SR, SEG and SC out; crashes; destinations that are down or refuse."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.broker import connect, socket_path
from node.mammography.views import LCC, LMLO, RCC, RMLO
from tests import mammograms
from tests.running_node import Pacs, pacs_destination, running_node
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


def test_results_of_an_exam_stand_in_the_pacs(tmp_path: Path) -> None:
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
    assert node.process.returncode == 0
