"""Exams that were not read: who is told, when, in which words, and that nobody takes silence for "no finding"."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import BreastTomosynthesisImageStorage, JPEGLSLossless

from node import explaining, pipeline
from node.database.deliveries import deliveries_of
from node.database.explanations import due_explanations
from node.database.readings import readings_of
from node.errors import SettingsError
from node.exam import ExamStatus
from node.inference.model import Model
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS
from node.results.reading import Outcome, ResultKind
from node.settings import Destination, Match, Rule
from node.status import as_details, as_json
from tests import mammograms
from tests.integration.desk import Desk

TOLD = Destination("workstation", "dicom", "127.0.0.1", 104, "WS", preset="breast-workstation")
REPORTED = Destination("reports", "dicom", "127.0.0.1", 104, "R", objects=("SR",), explain_unread=True)
RIS = Destination("ris", "hl7", "127.0.0.1", 2575, explain_unread=True)
UNTOLD = Destination("pacs", "dicom", "127.0.0.1", 104, "PACS", objects=("SR", "SC"))
BIOPSY = Rule("no biopsies", (Match("StudyDescription", regex="(?i)biopsy"),), skip="biopsy")


def unreadable(image: Dataset) -> Dataset:
    """Pixel data that no decoder takes."""
    image.file_meta.TransferSyntaxUID = JPEGLSLossless
    image.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0"
    image["PixelData"].is_undefined_length = True
    return image


def constant(image: Dataset) -> Dataset:
    image.PixelData = bytes(len(image.PixelData))
    return image


def skipped_by_rule(desk: Desk) -> str:
    desk.set(rules=(BIOPSY,))
    images = mammograms.exam()
    for image in images:
        image.StudyDescription = "Biopsy"
    study = desk.receive(images)
    assert desk.read(study) is None
    return study


def test_a_skipped_exam_is_explained_to_those_who_want_it(desk: Desk) -> None:
    desk.set(TOLD, UNTOLD, REPORTED, RIS)
    study = skipped_by_rule(desk)
    assert due_explanations(desk.database, datetime.now(UTC)) == [study]
    assert desk.explain(study) is not None
    [reading] = readings_of(desk.database, study)
    assert (reading.outcome, reading.reason) == (Outcome.NOT_ATTEMPTED, "biopsy")
    sent = {(d.destination, d.kind) for d in deliveries_of(desk.database, study)}
    assert sent == {
        ("workstation", ResultKind.CAD_REPORT),
        ("reports", ResultKind.STRUCTURED_REPORT),
        ("ris", ResultKind.MESSAGE),
    }
    assert {result.problem for result in reading.results} == {""}
    assert desk.exam(study).status is ExamStatus.SKIPPED
    assert due_explanations(desk.database, datetime.now(UTC) + timedelta(days=1)) == []
    assert "outcome      not attempted: biopsy" in as_details(desk.state(study))
    assert as_json([desk.state(study)])["exams"][0]["reading"]["outcome"] == "not attempted"


def test_an_exam_that_waits_too_long_is_explained_by_whoever_finds_it_due(desk: Desk) -> None:
    desk.set(TOLD)
    study = desk.receive(mammograms.exam([RCC, LCC]))
    later = datetime.now(UTC) + timedelta(hours=1)
    assert pipeline.lease(desk.bench, study, later) is None
    assert due_explanations(desk.database, datetime.now(UTC)) == []
    [due] = due_explanations(desk.database, later)
    leased = explaining.lease(desk.bench, due, later)
    assert leased is not None
    assert explaining.explain(desk.bench, leased, lambda: desk.model) is not None
    [reading] = readings_of(desk.database, study)
    assert reading.reason == "views missing: RMLO, LMLO"
    assert set(reading.prediction["unread"]) == {"RCC", "LCC"}


def test_a_failed_exam_says_failed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.set(TOLD)
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None
    pipeline.give_up(desk.bench, leased, ValueError("no such thing"), datetime.now(UTC))
    assert desk.exam(study).status is ExamStatus.FAILED
    assert desk.explain(study) is not None
    [reading] = readings_of(desk.database, study)
    assert (reading.outcome, reading.reason) == (Outcome.FAILED, "ValueError: no such thing")
    assert desk.exam(study).status is ExamStatus.FAILED


def test_an_exam_of_constant_images_is_refused_for_quality(desk: Desk) -> None:
    desk.set(TOLD, UNTOLD)
    study = desk.receive([constant(image) for image in mammograms.exam()])
    assert desk.read(study) is not None
    exam = desk.exam(study)
    assert exam.status is ExamStatus.SKIPPED
    assert exam.reason == "refused for quality: RCC, LCC, RMLO, LMLO: constant image: every pixel has the same value"
    assert f"outcome      {exam.reason}" in as_details(desk.state(study))
    [reading] = readings_of(desk.database, study)
    assert reading.outcome is Outcome.REFUSED
    assert [(d.destination, d.kind.value) for d in deliveries_of(desk.database, study)] == [("workstation", "CADSR")]
    assert reading.prediction["unread"]["LMLO"]["quality"][0]["reason"] == "constant image"
    assert due_explanations(desk.database, datetime.now(UTC)) == []


def test_nothing_is_made_where_nobody_wants_it(desk: Desk) -> None:
    desk.set(UNTOLD)
    for study in (skipped_by_rule(desk), desk.receive([constant(image) for image in mammograms.exam()])):
        if desk.exam(study).status is ExamStatus.READY:
            assert desk.read(study) is None
        assert desk.exam(study).status is ExamStatus.SKIPPED
        assert desk.explain(study) is None
        assert readings_of(desk.database, study) == ()
    assert due_explanations(desk.database, datetime.now(UTC)) == []
    assert not (desk.folder / "results").exists()


def _tomosynthesis(image: Dataset) -> None:
    image.SOPClassUID = BreastTomosynthesisImageStorage


def _no_side(image: Dataset) -> None:
    del image.ImageLaterality, image.PatientOrientation


def _no_mammogram(image: Dataset) -> None:
    image.Modality = "CR"


@pytest.mark.parametrize("change", [_tomosynthesis, _no_side, _no_mammogram])
def test_a_study_without_a_mammogram_of_a_known_side_is_not_explained(desk: Desk, change: object) -> None:
    desk.set(TOLD)
    images = mammograms.exam()
    for image in images:
        change(image)  # type: ignore[operator]
    study = desk.receive(images)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert pipeline.lease(desk.bench, study, later) is None
    leased = explaining.lease(desk.bench, study, later)
    assert leased is not None
    assert explaining.explain(desk.bench, leased, lambda: desk.model) is None
    assert readings_of(desk.database, study) == ()


def test_patients_that_differ_are_not_explained(desk: Desk) -> None:
    desk.set(TOLD)
    images = mammograms.exam()
    images[1].PatientID = "P-2"
    study = desk.receive(images)
    assert desk.exam(study).alarm
    assert desk.explain(study) is None
    assert readings_of(desk.database, study) == ()


def test_two_workers_never_explain_one_exam_and_a_dead_one_is_followed(desk: Desk) -> None:
    desk.set(TOLD)
    study = skipped_by_rule(desk)
    now = datetime.now(UTC)
    first = explaining.lease(desk.bench, study, now)
    assert first is not None
    assert explaining.lease(desk.bench, study, now) is None
    other = replace(desk.bench, owner="elsewhere/1/2/3")
    second = explaining.lease(other, study, now + timedelta(days=1))
    assert second is not None
    assert explaining.explain(desk.bench, first, lambda: desk.model) is None  # its lease ran out
    reading_id = explaining.explain(other, second, lambda: desk.model)
    assert reading_id is not None
    assert len(readings_of(desk.database, study)) == 1


def test_what_was_said_and_replaced_is_said_again_as_a_new_explanation(desk: Desk) -> None:
    desk.set(TOLD)
    study = skipped_by_rule(desk)
    first = desk.explain(study)
    late = mammograms.mammogram(LCC, study)
    late.StudyDescription, late.AcquisitionTime = "Biopsy", "111500"
    desk.receive([late])
    assert desk.read(study) is None
    second = desk.explain(study)
    late.AcquisitionTime = "091500"  # the same instance, corrected: the first choice holds again
    desk.receive([late])
    assert desk.read(study) is None
    third = desk.explain(study)
    assert len({first, second, third}) == 3
    made = readings_of(desk.database, study)
    assert [one.number for one in made] == [1, 2, 3]
    uids = [result.sop_instance_uid for one in made for result in one.results]
    assert len(set(uids)) == len(uids) > 0


def test_a_late_view_is_read_and_replaces_the_explanation(desk: Desk) -> None:
    desk.set(TOLD)
    study = desk.receive(mammograms.exam([RCC, LCC, RMLO]))
    later = datetime.now(UTC) + timedelta(hours=1)
    assert pipeline.lease(desk.bench, study, later) is None
    leased = explaining.lease(desk.bench, study, later)
    assert leased is not None
    desk.receive([mammograms.mammogram(LMLO, study)])
    assert explaining.explain(desk.bench, leased, lambda: desk.model) is None  # it is to be read after all
    assert desk.read(study) is not None
    [reading] = readings_of(desk.database, study)
    assert reading.outcome is Outcome.READ


def test_a_node_without_a_model_explains_later(desk: Desk) -> None:
    desk.set(TOLD)
    study = skipped_by_rule(desk)
    now = datetime.now(UTC)
    leased = explaining.lease(desk.bench, study, now)
    assert leased is not None

    def no_model() -> Model:
        raise SettingsError("inference.model_folder: nothing there")

    with pytest.raises(pipeline.NotReadyError) as caught:
        explaining.explain(desk.bench, leased, no_model)
    explaining.give_up(desk.bench, leased, caught.value, now)
    assert due_explanations(desk.database, now) == []
    assert due_explanations(desk.database, now + timedelta(minutes=2)) == [study]


def test_an_image_whose_file_is_gone_is_left_out(desk: Desk) -> None:
    desk.set(TOLD)
    study = skipped_by_rule(desk)
    files = {dcmread(path).ViewPosition: path for path in desk.folder.glob("*.dcm")}
    Path(files["CC"]).write_bytes(b"no DICOM")
    assert desk.explain(study) is not None
    [reading] = readings_of(desk.database, study)
    assert len(reading.prediction["unread"]) == len(STANDARD_VIEWS) - 1
    assert {result.problem for result in reading.results} == {""}


def test_read_incomplete_reads_what_can_be_read(desk: Desk) -> None:
    desk.set(replace(TOLD, objects=("CADSR", "SR", "SC")), exam={"read_incomplete": True})
    images = mammograms.exam(bright=[RCC])
    unreadable(images[3])
    constant(images[1])
    study = desk.receive(images)
    assert desk.read(study) is not None
    assert desk.exam(study).status is ExamStatus.READ
    [reading] = readings_of(desk.database, study)
    assert set(reading.prediction["views"]) == {"RCC", "RMLO"}
    assert set(reading.prediction["unread"]) == {"LCC", "LMLO"}
    assert "no JPEG" in reading.prediction["unread"]["LMLO"]["reason"]
    said = as_details(desk.state(study))
    assert "unread       LCC: constant image: every pixel has the same value" in said
    assert {result.problem for result in reading.results} == {""}


def test_an_unreadable_view_skips_the_exam_that_must_be_whole(desk: Desk) -> None:
    desk.set(TOLD)
    images = mammograms.exam()
    unreadable(images[3])
    study = desk.receive(images)
    assert desk.read(study) is None
    assert desk.exam(study).reason.startswith("LMLO: ")
    assert desk.explain(study) is not None
    [reading] = readings_of(desk.database, study)
    assert (reading.outcome, len(reading.prediction["unread"])) == (Outcome.NOT_ATTEMPTED, 4)
