"""Real senders (dcmtk), a real PostgreSQL, real files; a listener process that is killed in the middle."""

import subprocess
from collections.abc import Iterator, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from node.database import Database, open_database, upgrade
from node.database.exams import exam_record, exam_records
from node.database.instances import arrivals, instances_of
from node.exam import ExamStatus
from node.intake import settle
from node.mammography.views import LMLO
from tests import mammograms
from tests.node.receiving import (
    Receiving,
    association,
    listener_process,
    receiving,
    send_part,
    settings_in,
    store,
)
from tests.servers import DCMTK_ENVIRONMENT, need, postgresql, postgresql_cluster, wait_until

DATA = Path(__file__).parents[2] / "../shared/data"
LATER = timedelta(seconds=301)

# pynetdicom leaves an aborted connection's socket to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(opened)
    yield opened
    opened.close()


@pytest.fixture
def running(tmp_path: Path, database: Database) -> Iterator[Receiving]:
    with receiving(tmp_path / "data", database) as started:
        yield started


def files(folder: Path, images: Sequence[Dataset], syntax: str = ExplicitVRLittleEndian) -> list[str]:
    """Part 10 files of the images, for programs that send files."""
    paths = []
    for number, image in enumerate(images):
        path = folder / f"{number}.{syntax}.dcm"
        written = deepcopy(image)
        written.file_meta.TransferSyntaxUID = UID(syntax)
        if syntax == ExplicitVRBigEndian:
            written.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
        written.save_as(path, enforce_file_format=True)
        paths.append(str(path))
    return paths


def dcmtk(program: str, port: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    need(program)
    return subprocess.run(
        [program, "-v", "-aec", "MAMMOCLIP", "127.0.0.1", str(port), *arguments],
        env=DCMTK_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_dcmsend_sends_an_exam(tmp_path: Path, running: Receiving, syntax: str) -> None:
    images = mammograms.exam()
    paths = files(tmp_path, images, syntax)
    sent = dcmtk("dcmsend", running.listener.port, *paths)
    assert sent.stdout.count("(Success)") == 4, sent.stdout
    assert running.exam(images[0].StudyInstanceUID).status == ExamStatus.READY
    for path, instance in zip(paths, instances_of(running.database, images[0].StudyInstanceUID), strict=True):
        kept, source = pydicom.dcmread(instance.path), pydicom.dcmread(path)
        assert np.array_equal(kept.pixel_array, source.pixel_array)


def test_dcmsend_sends_real_compressed_mammograms(running: Receiving) -> None:
    paths = sorted(DATA.glob("dicom/wg04/*.dcm")) + sorted(DATA.glob("dicom/fo-dicom/*.dcm"))
    if not paths:
        pytest.skip("../shared/data is absent")
    for path in paths:
        sent = dcmtk("dcmsend", running.listener.port, "--decompress-never", str(path))
        assert "(Success)" in sent.stdout, sent.stdout
    assert {Path(arrival.path).read_bytes()[128:132] for arrival in arrivals(running.database)} == {b"DICM"}
    hashes = {
        instance.content_hash for study in _studies(running) for instance in instances_of(running.database, study)
    }
    assert len(hashes) == len(paths)


def _studies(running: Receiving) -> set[str]:
    return {record.study_instance_uid for record in exam_records(running.database)}


def test_tomosynthesis_is_kept_and_skipped_with_its_reason(running: Receiving) -> None:
    path = DATA / "dicom/dbt/breast_tomosynthesis_j2k.dcm"
    if not path.exists():
        pytest.skip("../shared/data is absent")
    sent = dcmtk("dcmsend", running.listener.port, "--decompress-never", str(path))
    assert "(Success)" in sent.stdout, sent.stdout
    (study,) = _studies(running)
    settle(running.database, study, settings_in(running.folder).exam, datetime.now(UTC) + LATER)
    assert running.exam(study).reason == "tomosynthesis, not read"


def test_a_chest_radiograph_called_mg_is_kept_and_skipped_with_its_reason(running: Receiving) -> None:
    pictures = sorted(
        path for path in DATA.glob("not-mammograms/**/*") if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    )
    if not pictures:
        pytest.skip("../shared/data is absent")
    grey = np.asarray(Image.open(pictures[0]).convert("L")).astype("<u2") * 16
    chest = mammograms.mammogram(LMLO, generate_uid())
    chest.Rows, chest.Columns = grey.shape
    chest.PixelData = grey.tobytes()
    chest.BodyPartExamined, chest.ViewPosition = "CHEST", "PA"
    del chest.ImageLaterality, chest.PatientOrientation
    assert store(running.listener.port, chest).Status == 0x0000
    settle(running.database, chest.StudyInstanceUID, settings_in(running.folder).exam, datetime.now(UTC) + LATER)
    record = running.exam(chest.StudyInstanceUID)
    assert record.status == ExamStatus.SKIPPED
    assert record.reason.startswith("no side")


def test_exams_sent_at_once_into_postgresql(tmp_path: Path) -> None:
    need("dcmsend")
    exams = [mammograms.exam() for _ in range(3)]
    with postgresql() as url, listener_process(tmp_path / "data", url) as running:
        senders = []
        for number, images in enumerate(exams):
            (tmp_path / str(number)).mkdir()
            paths = files(tmp_path / str(number), images)
            command = ["dcmsend", "-aec", "MAMMOCLIP", "127.0.0.1", str(running.port)]
            # each exam over two associations, as a workstation sends that opens one for each series
            senders += [subprocess.Popen([*command, *half], env=DCMTK_ENVIRONMENT) for half in (paths[:2], paths[2:])]
        assert [sender.wait(60) for sender in senders] == [0] * 6
        database = open_database(url)
        records = exam_records(database)
        assert {record.status for record in records} == {ExamStatus.READY}
        assert len(records) == 3
        assert len(arrivals(database)) == 12
        database.close()


def test_a_postgresql_that_goes_away_is_answered_and_taken_up_again(tmp_path: Path) -> None:
    image = mammograms.mammogram(LMLO, generate_uid())
    with postgresql_cluster() as cluster, listener_process(tmp_path / "data", cluster.url) as running:
        cluster.stop()
        refused = store(running.port, image)
        cluster.start()
        assert (refused.Status, store(running.port, image).Status) == (0xA700, 0x0000)
        assert "Anna" not in refused.ErrorComment


def test_a_listener_killed_while_it_receives_counts_nothing_that_is_half(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    image = mammograms.mammogram(LMLO, generate_uid())
    with listener_process(tmp_path / "data", url) as running:
        with association(running.port, image.SOPClassUID, ExplicitVRLittleEndian) as opened:
            send_part(opened, image, 10)
            wait_until(lambda: any(path.stat().st_size > 100_000 for path in running.incoming()))
            running.process.kill()
            running.process.wait()
            wait_until(lambda: not opened.is_established)
        assert len(running.incoming()) == 1
    database = open_database(url)
    assert (arrivals(database), exam_records(database)) == ((), ())
    with listener_process(tmp_path / "data", url) as again:
        assert again.incoming() == []
        assert store(again.port, image).Status == 0x0000
        assert len(arrivals(database)) == 1
    database.close()


def test_what_was_answered_with_success_outlives_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    images = mammograms.exam()
    with listener_process(tmp_path / "data", url) as running:
        for image in images:
            assert store(running.port, image).Status == 0x0000
        running.process.kill()
    database = open_database(url)
    record = exam_record(database, images[0].StudyInstanceUID)
    assert record is not None
    assert record.status == ExamStatus.READY
    kept = [pydicom.dcmread(instance.path) for instance in instances_of(database, images[0].StudyInstanceUID)]
    assert kept == images
    database.close()
