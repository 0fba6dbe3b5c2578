"""Key objects: one reading found whole; what is withdrawn is ours alone."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from node.results import key_objects
from node.results.reading import EncodedResult, ResultKind
from tests.node.results import exams, report_exams, validators
from tests.node.results.test_structured_report import named

KINDS = ("SEG", "HEATMAP", "GSPS", "SC", "SR", "KOS")


@pytest.fixture(scope="module")
def shipped() -> tuple[EncodedResult, ...]:
    return exams.encode_all(report_exams.whole(), exams.sources(), *KINDS)


def read(result: EncodedResult) -> Dataset:
    return pydicom.dcmread(BytesIO(result.content))


def references(dataset: Dataset) -> list[tuple[str, str]]:
    """Value type and SOP Instance UID of the content items that refer to an instance."""
    return [
        (item.ValueType, str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
        for item in dataset.ContentSequence
        if "ReferencedSOPSequence" in item
    ]


def evidence(dataset: Dataset) -> list[tuple[str, str, str]]:
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == dataset.StudyInstanceUID
    return [
        (str(series.SeriesInstanceUID), str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def test_all_other_objects_are_named_in_tree_and_evidence(shipped):
    *others, last = shipped
    dataset = read(last)
    assert last.kind is ResultKind.KEY_OBJECTS
    assert [uid for _, uid in references(dataset)] == [each.sop_instance_uid for each in others]
    assert sorted(evidence(dataset)) == sorted(
        (each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid) for each in others
    )


def test_objects_with_pixels_are_images_and_documents_are_not(shipped):
    kinds = {each.sop_instance_uid: each.kind.value for each in shipped}
    told = {(kinds[uid], value_type) for value_type, uid in references(read(shipped[-1]))}
    assert told == {
        ("SEG", "IMAGE"),
        ("HEATMAP", "IMAGE"),
        ("SC", "IMAGE"),
        ("GSPS", "COMPOSITE"),
        ("SR", "COMPOSITE"),
    }


def test_title_template_and_description(shipped):
    dataset = read(shipped[-1])
    assert dataset.Modality == "KO"
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "113000"
    (template,) = dataset.ContentTemplateSequence
    assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "2010")
    (description,) = named(dataset, "113012")
    assert description.TextValue.startswith("AI research result, not for diagnosis. Reading 1 by exam_encoder 1: ")
    assert all("ConceptNameCodeSequence" not in item for item in dataset.ContentSequence if item.ValueType == "IMAGE")


def test_what_is_named_is_part_of_the_identity(shipped):
    made, headers = report_exams.whole(), exams.sources()
    first, same, other = (key_objects.encode(made, headers, named) for named in (shipped[:2], shipped[:2], shipped[:3]))
    assert first.content == same.content
    assert first.form == key_objects.form(shipped[:2]) != other.form
    assert first.sop_instance_uid != other.sop_instance_uid
    assert first.series_instance_uid != other.series_instance_uid


def rejection() -> EncodedResult:
    documents = report_exams.DOCUMENTS[:2]
    return key_objects.reject(report_exams.later(), exams.sources(), documents)


def test_a_rejection_note_names_our_objects_and_no_image_of_the_study():
    dataset = read(rejection())
    assert references(dataset) == [("COMPOSITE", "2.25.12"), ("IMAGE", "2.25.14")]
    assert [uid for *_, uid in evidence(dataset)] == ["2.25.12", "2.25.14"]
    images = {str(header.SOPInstanceUID) for header in exams.sources().values()}
    uids = {str(element.value) for element in dataset.iterall() if element.VR == "UI"}
    assert not images & uids


def test_a_rejection_note_has_title_reason_and_words():
    dataset = read(rejection())
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert named(dataset, "113011")[0].ConceptCodeSequence[0].CodeValue == "111220"
    words = "AI results of 2026-03-14 11:05 are withdrawn: AI reading 2 replaces them. No image is withdrawn."
    assert named(dataset, "113012")[0].TextValue == words
    assert dataset.SeriesDescription == "AI reading 2, replaces 11:05; results withdrawn (research)"


@pytest.mark.parametrize("which", ["key objects", "rejection"])
def test_dciodvfy_finds_nothing(which, shipped, tmp_path: Path):
    result = shipped[-1] if which == "key objects" else rejection()
    assert validators.iod_complaints(result.content, tmp_path) == []
