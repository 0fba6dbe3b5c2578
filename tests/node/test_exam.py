"""What an exam is made of: the header's words, the choice of four images, completeness as a table."""

import io
import itertools
import pathlib
import warnings
from dataclasses import replace
from datetime import datetime
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence

from node.exam import (
    MG_FOR_PROCESSING,
    TRANSITIONS,
    Completeness,
    ExamStatus,
    Standing,
    completeness,
    instance_of,
    selection_hash,
    selection_of,
    standing,
)
from node.mammography.views import LCC, LMLO, RMLO
from tests.node.exams import FOUR, RECEIVED, SETTINGS, STUDY, after, exam_of, four, image

DATA = pathlib.Path(__file__).parents[2] / "../shared/data"
READ_INCOMPLETE = replace(SETTINGS, read_incomplete=True)
SYNTHETIC = replace(SETTINGS, accept_synthetic_2d=True)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

# of each pair the first is chosen, whatever the order of receipt
PREFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "For Presentation before For Processing, even earlier": (
        {"acquired_at": datetime(2026, 11, 22, 8)},
        {"presentation_intent_type": "FOR PROCESSING", "sop_class_uid": MG_FOR_PROCESSING},
    ),
    "For Presentation before film without an intent": (
        {},
        {"presentation_intent_type": "", "sop_class_uid": SECONDARY_CAPTURE},
    ),
    "film without an intent before For Processing": (
        {"presentation_intent_type": "", "sop_class_uid": SECONDARY_CAPTURE},
        {"presentation_intent_type": "FOR PROCESSING"},
    ),
    "For Presentation synthesised before acquired For Processing": (
        {"is_synthetic_2d": True},
        {"presentation_intent_type": "FOR PROCESSING"},
    ),
    "acquired before synthesised, even partial": ({"is_partial_view": True}, {"is_synthetic_2d": True}),
    "whole before partial, even not displaced": ({}, {"is_partial_view": True, "is_implant_displaced": True}),
    "implant displaced before not, even earlier": (
        {"is_implant_displaced": True, "acquired_at": datetime(2026, 11, 22, 8)},
        {},
    ),
    "the later acquisition, even smaller": ({"acquired_at": datetime(2026, 11, 22, 8, 16), "rows": 1664}, {}),
    "a known time before none": ({}, {"acquired_at": None, "rows": 4096}),
    "size breaks a tie": ({"rows": 4096}, {}),
    "then the later receipt": ({"received_at": after(1)}, {}),
}


@pytest.mark.parametrize("rule", PREFERENCES)
@pytest.mark.parametrize("order", [1, -1])
def test_the_choice_between_images_of_one_view(rule: str, order: int) -> None:
    better, worse = (image("LMLO", number, **changes) for number, changes in enumerate(PREFERENCES[rule], 1))
    assert exam_of([better, worse][::order], SYNTHETIC).chosen == ((LMLO, better),)


def test_the_choice_is_the_same_in_any_order_of_receipt() -> None:
    images = [image("LMLO", number, **changes) for number, (changes, _) in enumerate(PREFERENCES.values())]
    chosen = {exam_of(order, SYNTHETIC).chosen for order in itertools.permutations(images[:5])}
    assert len(chosen) == 1


def test_the_four_standard_views_in_the_order_of_the_view_axis() -> None:
    exam = exam_of(four()[::-1])
    assert [str(view) for view, _ in exam.chosen] == list(FOUR)
    assert (exam.missing(), exam.problem, exam.alarm) == ((), None, False)


def test_a_missing_view_is_named() -> None:
    assert exam_of(four()[:3]).missing() == (LMLO,)


UNREAD: dict[str, tuple[list[Any], str]] = {
    "a chest radiograph called MG": ([image(None)], "no side: Image Laterality is missing"),
    "computed radiography": ([image(None, modality="CR")], "no mammogram: CR"),
    "a Secondary Capture that is no MG": (
        [image("LCC", modality="OT", sop_class_uid=SECONDARY_CAPTURE)],
        "no mammogram: OT",
    ),
    "a dose report": ([image(None, modality="SR")], "no mammogram: SR"),
    "an MG of another class": (
        [image("LCC", sop_class_uid="1.2.840.10008.5.1.4.1.1.1")],
        "no mammogram: Computed Radiography Image Storage",
    ),
    "tomosynthesis": ([image("LCC", is_tomosynthesis=True)], "tomosynthesis, not read"),
    "tomosynthesis with synthesised views": (
        [image("LCC", is_tomosynthesis=True), image("LCC", 2, is_synthetic_2d=True)],
        "only synthesised views",
    ),
    "magnifications": (
        [image("LCC", excluding_modifier="magnification"), image("LMLO", excluding_modifier="spot compression")],
        "no standard view: magnification; no standard view: spot compression",
    ),
    "other views": ([image("LML"), image("RXCCL")], "no standard view: LML; no standard view: RXCCL"),
    "a phantom": ([image("LCC", is_quality_control=True)], "quality control image"),
    "a magnification with its dose report": (
        [image("LCC", excluding_modifier="magnification"), image(None, modality="SR")],
        "no standard view: magnification",
    ),
}


@pytest.mark.parametrize("what", UNREAD)
def test_what_cannot_be_read_says_why_after_the_settle_time(what: str) -> None:
    images, reason = UNREAD[what]
    exam = exam_of(images)
    assert (exam.problem, exam.chosen) == (reason, ())
    assert standing(exam, SETTINGS, after(0)) == Standing(ExamStatus.WAITING, "", "a mammogram", after(300))
    assert standing(exam, SETTINGS, after(300)) == Standing(ExamStatus.SKIPPED, reason, "", None)


def test_synthesised_views_are_read_where_the_site_accepts_them() -> None:
    exam = exam_of(four(is_synthetic_2d=True), SYNTHETIC)
    assert standing(exam, SYNTHETIC, after(0)).status == ExamStatus.READY


def test_different_patients_are_a_skip_at_once_and_an_alarm() -> None:
    exam = exam_of([*four(), image("LML", patient_fingerprint="q" * 64)])
    assert (exam.problem, exam.alarm, exam.chosen) == ("patients differ", True, ())
    assert standing(exam, SETTINGS, after(0)) == Standing(ExamStatus.SKIPPED, "patients differ", "", None)


PROCESSING: dict[str, Any] = {"presentation_intent_type": "FOR PROCESSING", "sop_class_uid": MG_FOR_PROCESSING}
# images, read_incomplete, seconds since the last image -> complete, waiting for
COMPLETENESS: dict[str, tuple[list[Any], bool, float, bool, str]] = {
    "four For Presentation": (four(), False, 0, True, ""),
    "four For Presentation of film": (four(presentation_intent_type=""), False, 0, True, ""),
    "and their For Processing twins": ([*four(), *four(**PROCESSING)], False, 0, True, ""),
    "and a magnification": ([*four(), image("LCC", 2, excluding_modifier="spot compression")], False, 0, True, ""),
    "and a partial magnification": (
        [*four(), image("LCC", 2, excluding_modifier="magnification", is_partial_view=True)],
        False,
        0,
        True,
        "",
    ),
    "For Processing alone": (four(**PROCESSING), False, 299, False, "settling: For Processing alone"),
    "For Processing alone, settled": (four(**PROCESSING), False, 300, True, "settling: For Processing alone"),
    "one For Processing": (
        [*four()[:3], image("LMLO", **PROCESSING)],
        False,
        0,
        False,
        "settling: For Processing alone",
    ),
    "a partial view": ([*four(), image("LCC", 2, is_partial_view=True)], False, 0, False, "settling: partial view"),
    "a partial view, settled": (
        [*four(), image("LCC", 2, is_partial_view=True)],
        False,
        300,
        True,
        "settling: partial view",
    ),
    "an implant": ([*four()[:3], image("LMLO", has_implant=True)], False, 0, False, "settling: implant"),
    "an implant, displaced": (four(is_implant_displaced=True), False, 0, False, "settling: implant"),
    "three views": (four()[:3], False, 0, False, "LMLO"),
    "three views, settled": (four()[:3], False, 300, False, "LMLO"),
    "three views, read as they are": (four()[:3], True, 300, True, "LMLO"),
    "three views, read as they are, not yet": (four()[:3], True, 299.9, False, "LMLO"),
    "two views": (four()[1:3], False, 0, False, "RCC, LMLO"),
    "none": ([image("LML")], True, 300, False, "a mammogram"),
}


@pytest.mark.parametrize("what", COMPLETENESS)
def test_completeness(what: str) -> None:
    images, read_incomplete, seconds, complete, waiting_for = COMPLETENESS[what]
    settings = READ_INCOMPLETE if read_incomplete else SETTINGS
    exam = exam_of(images, settings)
    assert completeness(exam, settings, after(seconds)) == Completeness(complete, after(300), waiting_for)


def test_the_settle_time_counts_from_the_last_image() -> None:
    exam = exam_of([*four()[:2], image("RMLO", received_at=after(200))])
    assert completeness(exam, SETTINGS, after(300)).due_at == after(500)


def test_an_incomplete_exam_is_skipped_in_these_words() -> None:
    expected = Standing(ExamStatus.SKIPPED, "views missing: LMLO", "", None)
    assert standing(exam_of(four()[:3]), SETTINGS, after(300)) == expected


def test_a_skip_says_what_was_wrong_with_the_image_that_is_missing() -> None:
    contradiction = image(None, view_problem="side contradicts itself: Image Laterality R, Laterality L")
    decided = standing(exam_of([*four()[:3], contradiction]), SETTINGS, after(300))
    assert decided.reason == (
        "views missing: LMLO; not used: side contradicts itself: Image Laterality R, Laterality L"
    )


def test_the_selection_changes_with_an_image_its_content_and_its_patient_only() -> None:
    images = four()
    same = [*images, image("LCC", 2, is_partial_view=True), image("LML")]
    changed = [*images[:3], replace(images[3], content_hash="e" * 64)]
    mixed = [*images, image("LML", patient_fingerprint="q" * 64)]
    hashes = [selection_hash(exam_of(each)) for each in (images, images[::-1], same, changed, mixed, images[:3], [])]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes[2:])) == 5
    assert selection_of(exam_of(images)) == tuple(sorted((i.sop_instance_uid, i.content_hash) for i in images))


def test_every_status_but_reading_can_be_left_by_a_new_image() -> None:
    for status in ExamStatus:
        allowed = TRANSITIONS[status] | {status}
        assert {ExamStatus.READY, ExamStatus.WAITING} <= allowed


def written_and_read(dataset: Dataset) -> Dataset:
    """As the listener has it: from bytes, elements not yet converted."""
    buffer = io.BytesIO()
    pydicom.filewriter.write_dataset(_writer(buffer), dataset)
    buffer.seek(0)
    return pydicom.filereader.read_dataset(buffer, False, True)


def _writer(buffer: io.BytesIO) -> Any:
    writer = pydicom.filebase.DicomIO(buffer)
    writer.is_implicit_VR, writer.is_little_endian = False, True
    return writer


def a_mammogram() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = "1.2.840.113619.2.255.1001"
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = "1.2.840.113619.2.255.1002"
    dataset.Modality = "MG"
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.PatientID, dataset.PatientBirthDate, dataset.PatientName = "PID-0815", "19600101", "Müller^Erika"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality, dataset.ViewPosition = "L", "MLO"
    dataset.BreastImplantPresent, dataset.PartialView, dataset.QualityControlImage = "YES", "NO", "NO"
    dataset.Rows, dataset.Columns = 3062, 2394
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20261122", "081502.25"
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "R-10226", "SRT", "medio-lateral oblique"
    displaced = Dataset()
    displaced.CodeValue, displaced.CodingSchemeDesignator = "R-102D5", "SRT"
    displaced.CodeMeaning = "Implant Displaced"
    view.ViewModifierCodeSequence = DicomSequence([displaced])
    dataset.ViewCodeSequence = DicomSequence([view])
    return dataset


def described(dataset: Dataset) -> Any:
    return instance_of(
        written_and_read(dataset),
        content_hash="0" * 64,
        path="x.dcm",
        received_at=RECEIVED,
        from_patient_orientation=False,
    )


def test_the_header_becomes_an_instance() -> None:
    instance = described(a_mammogram())
    assert (instance.view, instance.view_problem) == (LMLO, None)
    assert (instance.rows, instance.columns) == (3062, 2394)
    assert instance.acquired_at == datetime(2026, 11, 22, 8, 15, 2, 250000)
    assert (instance.has_implant, instance.is_implant_displaced, instance.is_partial_view) == (True, True, False)
    assert (instance.is_tomosynthesis, instance.is_synthetic_2d, instance.is_quality_control) == (False, False, False)
    assert instance.excluding_modifier is None


def test_nothing_of_the_patient_is_kept_but_a_fingerprint() -> None:
    instance = described(a_mammogram())
    assert not any(word in str(instance) for word in ("PID-0815", "19600101", "Müller", "Erika"))
    assert dict(instance.header)["ImageType"] == "ORIGINAL\\PRIMARY\\"


@pytest.mark.parametrize("keyword", ["PatientID", "PatientBirthDate", "IssuerOfPatientID"])
def test_the_fingerprint_tells_patients_apart(keyword: str) -> None:
    other = a_mammogram()
    setattr(other, keyword, "19610101")
    renamed = a_mammogram()
    renamed.PatientName = "Mueller^Erika"
    prints = [described(each).patient_fingerprint for each in (a_mammogram(), renamed, other)]
    assert prints[0] == prints[1] != prints[2]


TIMES = {
    ("AcquisitionDateTime", "20261122081502.123456+0100"): datetime(2026, 11, 22, 8, 15, 2, 123456),
    ("AcquisitionDateTime", "20261122"): datetime(2026, 11, 22),
    ("AcquisitionTime", "0815"): datetime(2026, 11, 22, 8, 15),
    ("AcquisitionTime", ""): datetime(2026, 11, 22),
    ("AcquisitionDate", ""): None,
    ("AcquisitionTime", "081560"): None,
}


@pytest.mark.parametrize(("stated", "expected"), TIMES.items())
def test_acquisition_times_as_they_are_written(stated: tuple[str, str], expected: datetime | None) -> None:
    dataset = a_mammogram()
    setattr(dataset, *stated)
    assert described(dataset).acquired_at == expected


def test_content_and_series_time_stand_in_for_a_missing_acquisition_time() -> None:
    dataset = a_mammogram()
    del dataset.AcquisitionDate
    dataset.SeriesDate, dataset.SeriesTime = "20261121", "230000"
    assert described(dataset).acquired_at == datetime(2026, 11, 21, 23)
    dataset.ContentDate = "20261120"
    assert described(dataset).acquired_at == datetime(2026, 11, 20)


def test_the_intent_follows_from_the_class_where_it_is_not_stated() -> None:
    dataset = a_mammogram()
    del dataset.PresentationIntentType
    assert described(dataset).presentation_intent_type == "FOR PRESENTATION"
    dataset.SOPClassUID = MG_FOR_PROCESSING
    assert described(dataset).presentation_intent_type == "FOR PROCESSING"
    dataset.SOPClassUID = SECONDARY_CAPTURE
    assert described(dataset).presentation_intent_type == ""


def test_a_side_that_is_missing_is_a_problem_not_an_error() -> None:
    dataset = a_mammogram()
    del dataset.ImageLaterality
    instance = described(dataset)
    assert instance.view is None
    assert instance.view_problem is not None
    assert "side" in instance.view_problem


def test_only_what_may_be_a_mammogram_is_asked_for_its_view() -> None:
    dataset = a_mammogram()
    dataset.Modality, dataset.SOPClassUID = "OT", SECONDARY_CAPTURE
    assert (described(dataset).view, described(dataset).view_problem) == (None, None)


VENDORS = {
    "openrem/MG-Im-GE_Seno_1_ForPresentation.dcm": (LCC, "FOR PRESENTATION", False),
    "openrem/MG-Im-GE_Seno_1_ForProcessing.dcm": (LCC, "FOR PROCESSING", False),
    "fo-dicom/GH133.dcm": (RMLO, "FOR PRESENTATION", False),
    "dbt/breast_tomosynthesis_j2k.dcm": (None, "", True),
}


@pytest.mark.parametrize("name", VENDORS)
def test_real_headers(name: str) -> None:
    path = DATA / "dicom" / name
    if not path.exists():
        pytest.skip("../shared/data is absent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vendors' own values
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        instance = instance_of(
            dataset, content_hash="0" * 64, path=str(path), received_at=RECEIVED, from_patient_orientation=False
        )
    assert (instance.view, instance.presentation_intent_type, instance.is_tomosynthesis) == VENDORS[name]
