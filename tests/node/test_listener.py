"""The Storage SCP over a real connection: what is kept, what is answered, what is never done."""

import gc
import logging
import resource
import signal
import socket
import sqlite3
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from node import listener as listener_module
from node.database import open_database, upgrade
from node.database.exams import exam_record, exam_records, lease_exam
from node.database.instances import arrivals
from node.errors import OutOfResourcesError
from node.exam import ExamStatus
from node.intake import settle
from node.mammography.views import LMLO
from node.results.ours import contributing_equipment
from node.results.reading import ModelIdentity
from node.supported import STORAGE_CLASSES, TRANSFER_SYNTAXES
from tests import mammograms
from tests.node.receiving import (
    AE_TITLE,
    Receiving,
    association,
    encoded,
    receiving,
    send_part,
    settings_in,
    statuses,
    store,
    store_bytes,
)
from tests.servers import wait_until

# pynetdicom leaves a refused or aborted connection's socket to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

MG = "1.2.840.10008.5.1.4.1.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Receiving]:
    database = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    with receiving(tmp_path / "data", database) as started:
        yield started
    database.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def port(running: Receiving) -> int:
    return running.listener.port


@pytest.fixture
def image() -> Dataset:
    return mammograms.mammogram(LMLO, generate_uid())


def associated(port: int, *, called: str = AE_TITLE, calling: str = "TESTER", sop_class: str = Verification) -> Any:
    entity = AE(calling)
    entity.add_requested_context(sop_class)
    return entity.associate("127.0.0.1", port, ae_title=called)


def test_echo(port: int) -> None:
    opened = associated(port)
    assert opened.send_c_echo().Status == 0x0000
    opened.release()


def test_four_views_make_an_exam_ready_and_wake_once(running: Receiving) -> None:
    images = mammograms.exam()
    study = images[0].StudyInstanceUID
    assert statuses(running.listener.port, images[:3]) == [0x0000] * 3
    assert running.exam(study).waiting_for == "LMLO"
    assert statuses(running.listener.port, images[3:]) == [0x0000]
    assert running.exam(study).status == ExamStatus.READY
    assert running.woken == [study]
    assert running.incoming() == []


def test_the_kept_file_is_part_10_and_its_data_set_is_what_was_sent(running: Receiving, image: Dataset) -> None:
    content = encoded(image, ImplicitVRLittleEndian)
    answer = store_bytes(running.listener.port, content, MG, image.SOPInstanceUID, syntax=ImplicitVRLittleEndian)
    (kept,) = running.kept()
    (arrival,) = arrivals(running.database)
    assert answer.Status == 0x0000
    assert arrival.path == str(kept)
    assert kept.read_bytes().endswith(content)
    read = pydicom.dcmread(kept)
    assert read.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert read.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert read == image


def test_the_same_again_changes_nothing(running: Receiving) -> None:
    images = mammograms.exam()
    study = images[0].StudyInstanceUID
    statuses(running.listener.port, images)
    before, files = running.exam(study), running.kept()
    assert statuses(running.listener.port, images) == [0x0000] * 4
    assert running.exam(study) == before
    assert running.kept() == files
    assert running.woken == [study]


def test_the_same_again_mends_a_file_that_was_lost(running: Receiving, image: Dataset) -> None:
    statuses(running.listener.port, [image])
    (kept,) = running.kept()
    kept.unlink()
    assert store(running.listener.port, image).Status == 0x0000
    assert running.kept() == [kept]
    assert len(arrivals(running.database)) == 1


def test_other_content_is_kept_beside_the_first_and_read_again(running: Receiving) -> None:
    images = mammograms.exam()
    study = images[0].StudyInstanceUID
    statuses(running.listener.port, images)
    now = datetime.now(UTC)
    assert lease_exam(running.database, study, "worker", now, 60)
    corrected = deepcopy(images[0])
    corrected.WindowCenter = "1024"
    assert store(running.listener.port, corrected).Status == 0x0000
    assert len(running.kept()) == 5
    assert running.exam(study).next_status == ExamStatus.READY


def test_different_patients_in_one_study_raise_an_alarm(running: Receiving, caplog: pytest.LogCaptureFixture) -> None:
    images = mammograms.exam()
    images[2].PatientID = "P-2"
    assert statuses(running.listener.port, images) == [0x0000] * 4
    record = running.exam(images[0].StudyInstanceUID)
    assert (record.status, record.reason, record.alarm) == (ExamStatus.SKIPPED, "patients differ", True)
    alarms = [said for said in caplog.messages if "ALARM" in said]
    assert alarms == [f"ALARM {images[0].StudyInstanceUID}: patients differ"]


def test_a_bare_connection_does_not_delay_the_stop(tmp_path: Path, running: Receiving) -> None:
    with receiving(tmp_path / "probed", running.database) as probed:
        with socket.create_connection(("127.0.0.1", probed.listener.port)):
            wait_until(lambda: probed.listener._server.active_associations)
            began = time.monotonic()
            probed.listener.stop()
        assert time.monotonic() - began < listener_module.RELEASE_SECONDS / 2


def test_an_unknown_called_ae_title_is_refused(port: int, caplog: pytest.LogCaptureFixture) -> None:
    opened = associated(port, called="OTHER")
    assert (opened.is_rejected, opened.acceptor.primitive.diagnostic) == (True, 0x07)
    wait_until(lambda: "TESTER at 127.0.0.1 called OTHER" in caplog.text)


def test_only_the_calling_ae_titles_of_the_settings_may_store(tmp_path: Path, running: Receiving) -> None:
    with receiving(tmp_path / "strict", running.database, calling_ae_titles=("ROOM1", "ROOM2")) as strict:
        stranger = associated(strict.listener.port, calling="ROOM3")
        assert (stranger.is_rejected, stranger.acceptor.primitive.diagnostic) == (True, 0x03)
        friend = associated(strict.listener.port, calling="ROOM2")
        assert friend.is_established
        friend.release()


def test_classes_that_are_none_of_ours_are_not_negotiated(port: int) -> None:
    opened = associated(port, sop_class=ComputedRadiographyImageStorage)
    assert opened.accepted_contexts == []


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_transfer_syntax_is_negotiated_for_every_class(port: int, syntax: str) -> None:
    entity = AE("TESTER")
    for sop_class in STORAGE_CLASSES:
        entity.add_requested_context(sop_class, syntax)
    opened = entity.associate("127.0.0.1", port, ae_title=AE_TITLE)
    assert len(opened.accepted_contexts) == len(STORAGE_CLASSES)
    assert {context.transfer_syntax[0] for context in opened.accepted_contexts} == {syntax}
    opened.release()


def without(dataset: Dataset, *keywords: str) -> Dataset:
    for keyword in keywords:
        del dataset[keyword]
    return dataset


def changed(dataset: Dataset, **values: Any) -> Dataset:
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


BAD: dict[str, tuple[Any, int]] = {
    "not DICOM": (lambda image: b"%PDF-1.7 this is no data set, whatever the sender believes" * 20, 0xC000),
    "empty": (lambda image: b"\0\0", 0xC000),
    "truncated in the pixels": (lambda image: encoded(image)[:-1000], 0xC000),
    "truncated in the header": (lambda image: encoded(image)[:200], 0xC000),
    "truncated before the pixels": (lambda image: encoded(without(image, "PixelData")), 0xC000),
    "pixels shorter than the header says": (lambda image: encoded(changed(image, Rows=641)), 0xC000),
    "absurd rows and columns": (lambda image: encoded(changed(image, Rows=65535, Columns=65535)), 0xC000),
    "another form of encoding": (lambda image: encoded(image, ImplicitVRLittleEndian), 0xC000),
    "another instance": (lambda image: encoded(changed(image, SOPInstanceUID="1.2.3.4")), 0xA900),
    "another class": (lambda image: encoded(changed(image, SOPClassUID=SECONDARY_CAPTURE)), 0xA900),
    "no study": (lambda image: encoded(without(image, "StudyInstanceUID")), 0xA900),
    "a study that climbs": (lambda image: encoded(changed(image, StudyInstanceUID="../../../tmp/x")), 0xA900),
    "a series that is no UID": (lambda image: encoded(changed(image, SeriesInstanceUID="1.2.3a")), 0xA900),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_with_its_status_and_the_next_image_taken(
    running: Receiving, image: Dataset, what: str
) -> None:
    make, status = BAD[what]
    uid, good = image.SOPInstanceUID, deepcopy(image)
    answer = store_bytes(running.listener.port, make(image), MG, uid)
    assert hex(answer.Status) == hex(status)
    assert answer.ErrorComment
    assert (running.kept(), running.incoming(), exam_records(running.database)) == ([], [], ())
    assert store(running.listener.port, good).Status == 0x0000


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["../../../../tmp/climbed", "1.2.840.." + "1" * 20, "/etc/passwd"])
def test_a_uid_that_is_a_path_is_refused_and_nothing_is_written(running: Receiving, image: Dataset, uid: str) -> None:
    before = sorted(running.folder.parent.rglob("*"))
    answer = store_bytes(running.listener.port, encoded(changed(image, SOPInstanceUID=uid)), MG, uid)
    assert answer.Status == 0xA900
    assert [path for path in sorted(running.folder.parent.rglob("*")) if path not in before] == []


def test_a_class_that_is_not_the_contexts_is_not_supported(running: Receiving, image: Dataset) -> None:
    changed(image, SOPClassUID=SECONDARY_CAPTURE)
    answer = store_bytes(
        running.listener.port, encoded(image), SECONDARY_CAPTURE, image.SOPInstanceUID, context_class=MG
    )
    assert answer.Status == 0x0122


def test_a_sender_that_goes_away_in_the_middle_leaves_nothing(running: Receiving, image: Dataset) -> None:
    with association(running.listener.port, MG, ExplicitVRLittleEndian) as opened:
        send_part(opened, image, 10)
        wait_until(lambda: bool(running.incoming()))
        opened.abort()
    wait_until(lambda: running.incoming() == [])
    assert running.kept() == []


def test_leftovers_of_a_crash_are_cleared_at_the_next_start(tmp_path: Path, running: Receiving) -> None:
    left = tmp_path / "other" / "incoming"
    left.mkdir(parents=True)
    (left / "half.part").write_bytes(b"half")
    with receiving(tmp_path / "other", running.database) as started:
        assert started.incoming() == []


def test_a_database_that_is_away_is_out_of_resources(
    tmp_path: Path, image: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.database.engine.BUSY_SECONDS", 0.05)
    database = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    with receiving(tmp_path / "data", database) as running:
        other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert store(running.listener.port, image).Status == 0xA700
        other.execute("COMMIT")
        other.close()
        assert store(running.listener.port, image).Status == 0x0000
        assert len(arrivals(database)) == 1
    database.close()


def test_a_disk_that_takes_no_more_is_out_of_resources(running: Receiving, image: Dataset) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        refused = store(running.listener.port, image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert refused.Status == 0xA700
    assert (running.kept(), running.incoming()) == ([], [])
    assert store(running.listener.port, image).Status == 0x0000


def ours(image: Dataset) -> Dataset:
    model = ModelIdentity("exam_encoder", "1", "w" * 64, "openvino f32", "fit-760x456", False)
    image.ContributingEquipmentSequence = [contributing_equipment(model, datetime(2026, 11, 22, tzinfo=UTC))]
    return image


def test_our_own_objects_come_back_without_effect(running: Receiving) -> None:
    images = mammograms.exam()
    study = images[0].StudyInstanceUID
    statuses(running.listener.port, images)
    before = running.exam(study)
    result = ours(mammograms.mammogram(LMLO, study, bright=True))
    assert store(running.listener.port, result).Status == 0x0000
    assert running.exam(study) == before
    assert [arrival.is_ours for arrival in arrivals(running.database)] == [True, False, False, False, False]


def test_our_own_objects_alone_make_no_exam(running: Receiving, image: Dataset) -> None:
    assert store(running.listener.port, ours(image)).Status == 0x0000
    assert exam_record(running.database, image.StudyInstanceUID) is None


def test_a_tomosynthesis_object_is_kept_and_skipped(running: Receiving, image: Dataset) -> None:
    image.SOPClassUID = BreastTomosynthesisImageStorage
    image.NumberOfFrames = "1"
    assert store(running.listener.port, image).Status == 0x0000
    settle(
        running.database,
        image.StudyInstanceUID,
        settings_in(running.folder).exam,
        datetime.now(UTC) + timedelta(seconds=301),
    )
    assert running.exam(image.StudyInstanceUID).reason == "tomosynthesis, not read"


def test_many_associations_at_once(running: Receiving) -> None:
    exams = [mammograms.exam() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda images: mammograms.send(images, running.listener.port), exams))
    assert answers == [[0x0000] * 4] * 4
    assert {record.status for record in exam_records(running.database)} == {ExamStatus.READY}
    assert sorted(running.woken) == sorted(images[0].StudyInstanceUID for images in exams)


def test_a_defect_is_answered_and_logged_without_values(
    running: Receiving, image: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(dataset: Dataset, **_: Any) -> None:
        raise RuntimeError(f"cannot parse {dataset.PatientName}")

    with monkeypatch.context() as patched:
        patched.setattr(listener_module, "instance_of", broken)
        assert store(running.listener.port, image).Status == 0xC000
    assert "RuntimeError" in caplog.text
    assert "Anna" not in caplog.text
    assert store(running.listener.port, image).Status == 0x0000


def test_the_log_says_what_came_from_whom_and_nothing_of_the_patient(
    running: Receiving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("pynetdicom").setLevel(logging.WARNING)
    images = mammograms.exam()
    statuses(running.listener.port, images)
    wait_until(lambda: caplog.text.count("stored") == 4)
    assert f"stored {images[0].SOPInstanceUID} from TESTER: new" in caplog.text
    assert not any(word in caplog.text for word in ("Anna", "P-1", "19610504"))


def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path, running: Receiving) -> None:
    taken = running.listener.port
    with pytest.raises(OutOfResourcesError, match=f"127.0.0.1:{taken}"):
        listener_module.serve_listener(
            settings_in(tmp_path / "second", port=taken), running.database, running.woken.append
        )
