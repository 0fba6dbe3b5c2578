"""Place, density, lesions of two views, segments, predecessors: what the report says beyond contours and values."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import highdicom as hd
import pydicom
import pytest
from pydicom import Dataset

from node.mammography.findings import BreastDensity, Depth, Place
from node.mammography.views import LMLO, RCC, RMLO
from node.results import gate, heatmap_segmentation, labelmap, segmentation, structured_report, uids
from node.results.reading import DocumentReference, EncodedResult, Reading, ResultKind
from tests.node.results import exams, report_exams, validators
from tests.node.results.test_structured_report import named, report

ATTRIBUTE_OF_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def groups_of(dataset: Dataset, name: str) -> list[Dataset]:
    return [item for item in named(dataset, "125007") if named(item, "112039")[0].TextValue == name]


def value_of(item: Dataset) -> tuple[float, str]:
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


@pytest.fixture(scope="module")
def made() -> Reading:
    return report_exams.whole()


@pytest.fixture(scope="module")
def dataset(made) -> Dataset:
    return report(made)


def test_millimetres_only_where_the_spacing_is_known(dataset):
    (known,) = named(groups_of(dataset, "RCC Mass 1")[0], "121242")
    (unknown,) = named(groups_of(dataset, "RMLO Mass 1")[0], "121242")
    assert value_of(known) == (31.3, "mm")
    assert value_of(unknown) == (44.0, "%")
    assert "share" in named(unknown, "121050")[0].TextValue


def test_a_lesion_behind_the_muscle_s_edge_passes_the_gate(made):
    """Its share of the depth is above 100 %."""
    first, *others = made.findings
    behind = replace(first, place=Place(1.058, None, Depth.POSTERIOR, None))
    result = structured_report.encode(replace(made, findings=(behind, *others)), exams.sources())
    (distance,) = named(groups_of(pydicom.dcmread(BytesIO(result.content)), "RCC Mass 1")[0], "121242")
    assert value_of(distance) == (105.8, "%")
    assert gate.own_problems(result) == []


def test_one_view_tells_a_half_and_two_tell_the_quadrant(dataset):
    def site(name: str) -> tuple[str, str, list[str]]:
        (item,) = named(groups_of(dataset, name)[0], "363698007")
        (side,) = named(item, "272741003")
        modifiers = [modifier.ConceptCodeSequence[0].CodeMeaning for modifier in named(item, "106233006")]
        return item.ConceptCodeSequence[0].CodeMeaning, side.ConceptCodeSequence[0].CodeMeaning, modifiers

    assert site("RCC Mass 1") == ("Breast", "Right", ["Lateral"])
    assert site("RMLO Mass 1") == ("Breast", "Right", ["Superior"])
    assert site("RCC Mass 1 and RMLO Mass 1") == ("Upper outer quadrant of breast", "Right", [])


def test_depth_of_each_region(dataset):
    depths = [item.ConceptCodeSequence[0].CodeMeaning for item in named(dataset, "111020")]
    assert depths == ["Middle"] * 3


def test_a_lesion_of_two_views_has_both_images_and_a_tracking_uid_of_its_own(dataset):
    (lesion,) = [item for item in named(dataset, "125007") if named(item, "111015")]
    images = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in named(lesion, "121112")]
    assert images == [exams.source(RCC).SOPInstanceUID, exams.source(RMLO).SOPInstanceUID]
    assert named(lesion, "111015")[0].ConceptCodeSequence[0].CodeValue == "129788004"
    tracked = [named(item, "112040")[0].UID for item in named(dataset, "125007")]
    assert tracked.count(named(lesion, "112040")[0].UID) == 1


@pytest.mark.parametrize(
    ("category", "code"), [("A", "129716005"), ("B", "129717001"), ("C", "129718006"), ("D", "129719003")]
)
def test_density_by_its_code(made, category, code):
    (group,) = groups_of(report(replace(made, density=BreastDensity(category, 0.5))), "Breast composition")
    assert named(group, "129715009")[0].ConceptCodeSequence[0].CodeValue == code


def test_no_density_where_the_model_gives_none():
    assert groups_of(report(exams.reading()), "Breast composition") == []


def referring_groups(dataset: Dataset) -> list[tuple[Dataset, Dataset]]:
    """Groups that refer to a segmentation, with the reference."""
    groups = [item for item in named(dataset, "125007") if named(item, "121200")]
    return [(group, named(group, "121200")[0].ReferencedSOPSequence[0]) for group in groups]


def with_segmentations(made: Reading, segmentations: Sequence[EncodedResult]) -> Dataset:
    return pydicom.dcmread(BytesIO(structured_report.encode(made, exams.sources(), segmentations).content))


def test_each_outline_refers_to_the_segment_of_its_finding(made):
    segmentations = segmentation.encode(made, exams.sources())
    segments = {
        (str(read.SOPInstanceUID), segment.SegmentNumber): str(segment.TrackingUID)
        for read in (pydicom.dcmread(BytesIO(each.content)) for each in segmentations)
        for segment in read.SegmentSequence
    }
    referring = referring_groups(with_segmentations(made, segmentations))
    assert len(referring) == len(made.findings) == 3
    for group, reference in referring:
        key = (str(reference.ReferencedSOPInstanceUID), reference.ReferencedSegmentNumber)
        assert segments[key] == named(group, "112040")[0].UID
        assert named(group, "111030")[0].GraphicType == "POLYLINE"


def test_each_outline_refers_to_the_label_map_that_tracks_its_finding(made):
    segmentations = labelmap.encode(made, exams.sources())
    tracked = {
        str(read.SOPInstanceUID): {str(segment.get("TrackingUID", "")) for segment in read.SegmentSequence}
        for read in (pydicom.dcmread(BytesIO(each.content)) for each in segmentations)
    }
    referring = referring_groups(with_segmentations(made, segmentations))
    assert len(referring) == 3
    for group, reference in referring:
        assert named(group, "112040")[0].UID in tracked[str(reference.ReferencedSOPInstanceUID)]
        assert "ReferencedSegmentNumber" not in reference


def test_each_search_refers_to_its_heat(made):
    heat = heatmap_segmentation.encode(made, exams.sources())
    referring = referring_groups(with_segmentations(made, heat))
    assert {str(reference.ReferencedSOPInstanceUID) for _, reference in referring} == {
        each.sop_instance_uid for each in heat
    }
    assert "RCC Mass" in [named(group, "112039")[0].TextValue for group, _ in referring]


@pytest.mark.parametrize("name", ["whole", "one view failed"])
def test_a_report_of_regions_alone_holds_no_group_without_coordinates(name):
    made = report_exams.READINGS[name]()
    full, alone = (structured_report.encode(made, exams.sources(), (), regions) for regions in (False, True))
    dataset = pydicom.dcmread(BytesIO(alone.content))
    groups = named(dataset, "125007")
    assert len(groups) == 2 * len(made.findings)
    assert all(named(group, "111030") for group in groups)
    assert alone.sop_instance_uid != full.sop_instance_uid
    assert named(dataset, "121111")[0].TextValue == named(report(made), "121111")[0].TextValue


def test_a_report_of_regions_alone_without_regions_has_no_measurements(tmp_path):
    result = structured_report.encode(exams.reading(lesions={}), exams.sources(), (), regions_only=True)
    dataset = pydicom.dcmread(BytesIO(result.content))
    assert named(dataset, "126010") == []
    assert len(named(dataset, "C0034375")) == 1
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "126001", "OHIF shows it as text under this title only"
    assert validators.iod_complaints(result.content, tmp_path) == []


def test_segmentations_are_evidence_and_part_of_the_reports_identity(made):
    segmentations = segmentation.encode(made, exams.sources())
    alone, whole = (structured_report.encode(made, exams.sources(), named) for named in ((), segmentations))
    assert alone.form == ""
    assert whole.form == uids.form_of(sorted(each.sop_instance_uid for each in segmentations))
    assert whole.sop_instance_uid != alone.sop_instance_uid
    assert {each.sop_instance_uid for each in segmentations} < evidence_of(whole)
    assert not {each.sop_instance_uid for each in segmentations} & evidence_of(alone)


def evidence_of(result: EncodedResult) -> set[str]:
    (study,) = pydicom.dcmread(BytesIO(result.content)).CurrentRequestedProcedureEvidenceSequence
    series = study.ReferencedSeriesSequence
    return {str(item.ReferencedSOPInstanceUID) for each in series for item in each.ReferencedSOPSequence}


def test_highdicom_finds_the_regions_of_a_report_with_segments(made):
    result = structured_report.encode(made, exams.sources(), segmentation.encode(made, exams.sources()))
    content = hd.sr.srread(BytesIO(result.content)).content
    tracked = uids.tracking_uid(made, "RCC Mass 1")
    groups = content.get_planar_roi_measurement_groups(tracking_uid=tracked)
    assert [group.roi.graphic_type.value for group in groups] == ["POLYLINE", "POINT"]


def test_the_image_that_was_read_stands_beside_the_one_displayed(made, dataset):
    twin = made.views[0].read_from
    assert twin.sop_instance_uid in evidence_of(structured_report.encode(made, exams.sources()))
    library = named(dataset, "126200")[0].ContentSequence
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in library][:2] == [
        made.views[0].sop_instance_uid,
        twin.sop_instance_uid,
    ]
    told = f"RCC: read from image {twin.sop_instance_uid}, marked on the one shown"
    assert told in [item.TextValue for item in named(dataset, "121106")]


def test_a_later_report_names_the_report_that_it_replaces():
    (study,) = report(report_exams.later()).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == exams.STUDY
    assert series.SeriesInstanceUID == "2.25.11"
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == ["2.25.12"]
    assert "PredecessorDocumentsSequence" not in report(exams.reading())


def test_of_several_forms_each_that_went_somewhere_is_replaced():
    made, kind, sop_class = report_exams.later(), ResultKind.STRUCTURED_REPORT, report_exams.REPORT_CLASS
    forms = {"": ("pacs",), "f": ("archive",), "g": ()}
    documents = tuple(
        DocumentReference(kind, form, f"2.25.3{number}", sop_class, f"2.25.4{number}", sent_to)
        for number, (form, sent_to) in enumerate(forms.items())
    )
    (study,) = report(replace(made, predecessor=replace(made.predecessor, documents=documents)))[
        "PredecessorDocumentsSequence"
    ].value
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == ["2.25.30", "2.25.31"]


def procedures(**changes: object) -> list[str]:
    headers = exams.sources()
    for header in headers.values():
        for keyword, value in changes.items():
            setattr(header, keyword, value)
    dataset = pydicom.dcmread(BytesIO(structured_report.encode(exams.reading(), headers).content))
    return [item.CodeMeaning for item in dataset.PerformedProcedureCodeSequence]


def test_the_performed_procedure_is_the_sources_or_mammography():
    stated, broken = Dataset(), Dataset()
    for keyword, value in zip(ATTRIBUTE_OF_CODE, ("24623002", "SCT", "Screening mammography"), strict=True):
        setattr(stated, keyword, value)
    broken.CodeMeaning = "MAM"
    assert procedures() == ["Mammography"]
    assert procedures(ProcedureCodeSequence=[stated, broken]) == ["Screening mammography"]
    assert procedures(ProcedureCodeSequence=[broken]) == ["Mammography"]


def test_a_finding_without_a_place_claims_none():
    made = exams.reading()
    unplaced = replace(made, findings=tuple(replace(finding, place=None) for finding in made.findings))
    dataset = report(unplaced)
    assert named(dataset, "111020") == named(dataset, "121242") == named(dataset, "106233006") == []
    assert LMLO in {finding.view for finding in unplaced.findings}
