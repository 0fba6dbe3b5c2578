"""Which For Presentation image shows the very pixels of a For Processing image, and what that does to the exam."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence

from node.exam import completeness, displayed_twin, displayed_twins, selection_hash, selection_of, standing
from node.instance import MG_FOR_PROCESSING, Instance, instance_of
from node.mammography.views import LMLO
from tests.node.exams import FOUR, RECEIVED, SETTINGS, after, exam_of, four, image

RAW_FIRST = replace(SETTINGS, prefer_for_processing=True)
EXPOSED = datetime(2026, 11, 22, 8, 15, 2, 250000)
GRID: dict[str, Any] = {"exposed_at": EXPOSED, "spacing_mm": (0.07, 0.07), "orientation": ("A", "FR")}


def raw(view: str = "LMLO", number: int = 1, **changes: Any) -> Instance:
    intent = {"presentation_intent_type": "FOR PROCESSING", "sop_class_uid": MG_FOR_PROCESSING}
    return image(view, number, **{**GRID, **intent, **changes})


def shown(view: str = "LMLO", number: int = 2, **changes: Any) -> Instance:
    return image(view, number, **{**GRID, **changes})


UID = raw().sop_instance_uid
OTHER_TIME = {"exposed_at": datetime(2026, 11, 22, 8, 16)}
MADE_FROM_IT = {"source_instance_uids": (UID,)}

TWINS: dict[str, dict[str, Any]] = {
    "of one exposure": {},
    "made from it": MADE_FROM_IT,
    "made from it, another time": MADE_FROM_IT | OTHER_TIME,
    "made from it, no time": MADE_FROM_IT | {"exposed_at": None},
    "made from it and another": {"source_instance_uids": ("1.2.3", UID)},
    "of one exposure, a source that nobody has": {"source_instance_uids": ("1.2.3",)},
}
NO_TWINS: dict[str, tuple[dict[str, Any], str]] = {
    "of another exposure": (OTHER_TIME, "neither names it as its source nor has its acquisition time"),
    "of no stated exposure": ({"exposed_at": None}, "neither names it as its source nor has its acquisition time"),
    "other rows": (MADE_FROM_IT | {"rows": 4096}, "other rows or columns"),
    "other columns": ({"columns": 2294}, "other rows or columns"),
    "other spacing": (MADE_FROM_IT | {"spacing_mm": (0.07, 0.1)}, "another or no pixel spacing"),
    "no spacing": (MADE_FROM_IT | {"spacing_mm": ()}, "another or no pixel spacing"),
    "stored mirrored": (MADE_FROM_IT | {"orientation": ("P", "FR")}, "another or no patient orientation"),
    "no orientation": (MADE_FROM_IT | {"orientation": ()}, "another or no patient orientation"),
    "of the other view": ({"view": image("LCC").view}, "no For Presentation image of its view"),
    "of the other side": ({"view": image("RMLO").view}, "no For Presentation image of its view"),
    "of another study": ({"study_instance_uid": "1.2.3"}, "no For Presentation image of its view"),
    "of another patient": ({"patient_fingerprint": "q" * 64}, "no For Presentation image of its view"),
    "synthesised": (MADE_FROM_IT | {"is_synthetic_2d": True}, "no For Presentation image of its view"),
    "tomosynthesis": (MADE_FROM_IT | {"is_tomosynthesis": True}, "no For Presentation image of its view"),
    "magnified": (MADE_FROM_IT | {"excluding_modifier": "magnification"}, "no For Presentation image of its view"),
    "raw too": ({"presentation_intent_type": "FOR PROCESSING"}, "no For Presentation image of its view"),
    "without an intent": ({"presentation_intent_type": ""}, "no For Presentation image of its view"),
}


@pytest.mark.parametrize("case", TWINS)
def test_the_marks_stand_on_the_displayed_twin(case: str) -> None:
    twin = shown(**TWINS[case])
    assert displayed_twin(exam_of([raw(), twin], RAW_FIRST), raw()) == (twin, "")


@pytest.mark.parametrize("case", NO_TWINS)
def test_the_marks_stay_on_the_image_that_was_read_and_it_is_said_why(case: str) -> None:
    changes, reason = NO_TWINS[case]
    exam = replace(exam_of([raw()], RAW_FIRST), instances=(raw(), replace(shown(), **changes)))
    twin, words = displayed_twin(exam, raw())
    assert twin is None
    assert words.startswith("marks stand on the For Processing image: ")
    assert words.endswith(reason)


def test_spacing_and_orientation_that_neither_states_are_not_equal() -> None:
    unknown: dict[str, Any] = {"spacing_mm": (), "orientation": ()}
    exam = exam_of([raw(**unknown), shown(**unknown, **MADE_FROM_IT)], RAW_FIRST)
    assert displayed_twin(exam, raw(**unknown))[0] is None


def test_one_made_from_another_exposure_is_no_twin_whatever_its_time() -> None:
    second = raw(number=3, exposed_at=datetime(2026, 11, 22, 8, 14))
    twin = shown(source_instance_uids=(second.sop_instance_uid,))
    assert displayed_twin(exam_of([raw(), second, twin], RAW_FIRST), raw())[0] is None


def test_of_several_the_one_that_names_it_then_the_preferred_one() -> None:
    named = shown(number=2, **MADE_FROM_IT)
    whole, partial = shown(number=3), shown(number=4, is_partial_view=True)
    assert displayed_twin(exam_of([raw(), whole, named], RAW_FIRST), raw())[0] == named
    assert displayed_twin(exam_of([raw(), partial, whole], RAW_FIRST), raw())[0] == whole


def test_an_image_that_is_displayed_itself_needs_no_twin() -> None:
    assert displayed_twin(exam_of([raw(), shown()]), shown()) == (None, "")


# --- choice, completeness, selection ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_raw_is_chosen_only_where_the_site_prefers_it(order: int) -> None:
    both = [raw(), shown()][::order]
    assert exam_of(both).chosen == ((LMLO, shown()),)
    assert exam_of(both, RAW_FIRST).chosen == ((LMLO, raw()),)


def test_a_repeat_is_not_passed_over_for_earlier_raw_data() -> None:
    repeat = shown(number=3, exposed_at=datetime(2026, 11, 22, 8, 20))
    assert exam_of([raw(), shown(), repeat], RAW_FIRST).chosen == ((LMLO, repeat),)


def test_synthesised_raw_data_is_not_preferred() -> None:
    settings = replace(RAW_FIRST, accept_synthetic_2d=True)
    assert exam_of([raw(is_synthetic_2d=True), shown()], settings).chosen == ((LMLO, shown()),)


FOUR_RAW = [raw(view, number) for number, view in enumerate(FOUR, 1)]
FOUR_SHOWN = [shown(view, number) for number, view in enumerate(FOUR, 11)]
COMPLETE = {
    "raw with all its twins": (FOUR_RAW + FOUR_SHOWN, ""),
    "a twin is missing": (FOUR_RAW + FOUR_SHOWN[:3], "settling: For Processing alone"),
    "raw alone": (FOUR_RAW, "settling: For Processing alone"),
    "raw may follow": (FOUR_SHOWN, "settling: For Presentation alone"),
    "film": (four(presentation_intent_type=""), ""),
}


@pytest.mark.parametrize("case", COMPLETE)
def test_when_an_exam_is_complete_where_raw_is_preferred(case: str) -> None:
    images, waiting_for = COMPLETE[case]
    exam = exam_of(images, RAW_FIRST)
    early, late = (completeness(exam, RAW_FIRST, now) for now in (RECEIVED, after(RAW_FIRST.settle_seconds)))
    assert (early.complete, early.waiting_for) == (not waiting_for, waiting_for)
    assert late.complete
    assert standing(exam, RAW_FIRST, after(RAW_FIRST.settle_seconds)).reason == ""


def test_a_twin_that_comes_later_makes_another_reading() -> None:
    alone, together = exam_of(FOUR_RAW, RAW_FIRST), exam_of(FOUR_RAW + FOUR_SHOWN, RAW_FIRST)
    assert alone.chosen == together.chosen
    assert selection_hash(alone) != selection_hash(together)
    assert [image for _, image in displayed_twins(together)] == FOUR_SHOWN
    assert {uid for uid, _ in selection_of(together)} == {image.sop_instance_uid for image in FOUR_RAW + FOUR_SHOWN}


def test_another_image_of_the_view_that_is_no_twin_changes_no_selection() -> None:
    stranger = shown("LMLO", 11, orientation=("P", "FR"))
    alone, beside = exam_of(FOUR_RAW, RAW_FIRST), exam_of([*FOUR_RAW, stranger], RAW_FIRST)
    assert (selection_hash(alone), selection_of(alone)) == (selection_hash(beside), selection_of(beside))


# --- what the header says ---------------------------------------------------------------------------------------------


def header(**changes: Any) -> Instance:
    dataset = Dataset()
    dataset.Modality, dataset.SOPClassUID, dataset.SOPInstanceUID = "MG", MG_FOR_PROCESSING, UID
    dataset.ImageLaterality, dataset.ViewPosition = "L", "MLO"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return instance_of(dataset, content_hash="", path="", received_at=RECEIVED, from_patient_orientation=False)


def test_the_header_tells_source_exposure_spacing_and_orientation() -> None:
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = MG_FOR_PROCESSING, "1.2.840.113619.2.401.7"
    told = header(
        SourceImageSequence=DicomSequence([source, Dataset()]),
        AcquisitionDate="20261122",
        AcquisitionTime="081502.25",
        ImagerPixelSpacing=["0.070", "0.07"],
        PatientOrientation=["A", "FR"],
    )
    assert told.source_instance_uids == ("1.2.840.113619.2.401.7",)
    assert (told.exposed_at, told.spacing_mm, told.orientation) == (EXPOSED, (0.07, 0.07), ("A", "FR"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"AcquisitionDate": "20261122", "ContentDate": "20261122", "ContentTime": "081502"},
        {"AcquisitionTime": "081502", "SeriesDate": "20261122"},
        {"AcquisitionDateTime": "20261122"},
    ],
    ids=["nothing", "a day alone", "a time alone", "a day as date and time"],
)
def test_an_exposure_has_a_day_and_a_time_of_its_own(changes: dict[str, str]) -> None:
    assert header(**changes).exposed_at is None


def test_a_date_and_time_in_one_tells_the_exposure() -> None:
    assert header(AcquisitionDateTime="20261122081502.250000+0100").exposed_at == EXPOSED


def test_odd_values_tell_nothing() -> None:
    told = header(ImagerPixelSpacing="0.07", PatientOrientation="")
    assert (told.spacing_mm, told.orientation, told.source_instance_uids) == ((), (), ())
