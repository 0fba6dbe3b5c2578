"""The report's content: contours where the lesions are, values called what they are, nothing left unsaid."""

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from node.mammography import view_codes
from node.mammography.findings import FINDING_CODES, Box, Finding, FindingKind
from node.mammography.regions import contains
from node.mammography.views import LCC, RCC, RMLO
from node.results import codes, structured_report
from node.results.reading import Reading
from tests.node.results import exams


def report(reading: Reading) -> Dataset:
    return pydicom.dcmread(BytesIO(structured_report.encode(reading, exams.sources()).content))


def items(node: Dataset):
    yield node
    for child in node.get("ContentSequence", ()):
        yield from items(child)


def named(dataset: Dataset, value: str) -> list[Dataset]:
    return [
        item
        for item in items(dataset)
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == value
    ]


def outlines(dataset: Dataset) -> list[Dataset]:
    return [shape for shape in named(dataset, "111030") if shape.GraphicType == "POLYLINE"]


def regions_marked(dataset: Dataset) -> list[int]:
    return [int(item.MeasuredValueSequence[0].NumericValue) for item in named(dataset, codes.REGIONS_MARKED.value)]


def meanings(dataset: Dataset) -> set[str]:
    return {str(element.value) for element in dataset.iterall() if element.keyword == "CodeMeaning"}


@pytest.fixture(scope="module")
def made() -> Reading:
    return exams.reading()


@pytest.fixture(scope="module")
def dataset(made) -> Dataset:
    return report(made)


def test_highdicom_reads_it_back(made, dataset):
    content = hd.sr.srread(BytesIO(structured_report.encode(made, exams.sources()).content)).content
    regions = content.get_planar_roi_measurement_groups()
    assert len(regions) == 3 * 2
    assert len(content.get_image_measurement_groups()) == 1 + 2 + 4 * 2
    assert regions[0].finding_type == hd.sr.CodedConcept("4147007", "SCT", "Mass")


def test_contours_are_closed_and_around_the_lesions(made, dataset):
    shapes = outlines(dataset)
    assert len(shapes) == 3
    for shape, finding in zip(shapes, made.findings, strict=True):
        _, x, y = exams.LESIONS[finding.view]
        assert shape.GraphicType == "POLYLINE"
        assert shape["GraphicData"].VR == "FL"
        contour = np.array(shape.GraphicData).reshape(-1, 2)
        assert (contour[0] == contour[-1]).all()
        assert (contour == np.array(finding.contour)).all()
        assert contains(contour, (x, y))
        uid = shape.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert uid == exams.source(finding.view).SOPInstanceUID


def test_each_region_has_its_centre_under_the_same_tracking_identifier(made, dataset):
    groups = [item for item in named(dataset, "125007") if named(item, "111030")]
    pairs = list(zip(groups[::2], groups[1::2], strict=True))
    assert len(pairs) == len(made.findings)
    for (outline, centre), finding in zip(pairs, made.findings, strict=True):
        assert [named(group, "130400")[0].ConceptCodeSequence[0].CodeMeaning for group in (outline, centre)] == [
            "Outline",
            "Center",
        ]
        assert named(outline, "112040")[0].UID == named(centre, "112040")[0].UID
        (point,) = named(centre, "111030")
        assert point.GraphicType == "POINT"
        assert tuple(point.GraphicData) == finding.centre


def test_the_longest_contour_keeps_its_value_representation(made):
    angle = np.linspace(0.0, 2 * np.pi, 500)
    contour = np.stack([600 + 300 * np.cos(angle), 700 + 300 * np.sin(angle)], axis=1)
    contour[-1] = contour[0]
    points = tuple((float(x), float(y)) for x, y in contour)
    finding = Finding(FindingKind.MASS, RCC, 0.7, 1.0, (600.0, 700.0), points, Box(300.0, 400.0, 900.0, 1000.0))
    (shape,) = outlines(report(replace(made, findings=(finding,))))
    assert (shape["GraphicData"].VR, len(shape.GraphicData)) == ("FL", 1000)


def test_a_model_calibrated_on_phantoms_writes_no_probability(dataset):
    words = {word.lower() for word in meanings(dataset)}
    assert not any("probability" in word or "certainty" in word for word in words)
    values = named(dataset, codes.SUSPICION_INDEX.value)
    assert len(values) == 1 + 2 + 4 * 2 + 3
    assert {named(item, "121050")[0].TextValue for item in values} == {"Suspicion index, not calibrated on patients"}
    assert all(0.0 <= item.MeasuredValueSequence[0].NumericValue <= 1.0 for item in values)
    units = {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for item in values}
    assert units == {"1"}


@pytest.mark.parametrize("by", ["patients", "site"])
def test_probability_of_cancer_is_for_exam_and_breasts_alone(made, by):
    allowed = (
        replace(made, model=replace(made.model, calibrated_on_patients=True))
        if by == "patients"
        else replace(made, allow_probability=True)
    )
    dataset = report(allowed)
    values = [item.MeasuredValueSequence[0] for item in named(dataset, "111047")]
    expected = [made.exam_probability, *(breast.probability for breast in made.breasts)]
    assert [float(value.NumericValue) for value in values] == pytest.approx([100 * p for p in expected], abs=0.01)
    assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in values} == {"%"}
    assert len(named(dataset, "111012")) == 4 * 2 + 3
    assert named(dataset, codes.SUSPICION_INDEX.value) == []


def test_what_was_not_assessed_stands_in_words():
    partial = exams.reading(views=(RCC, LCC, RMLO))
    words = [item.TextValue for item in named(report(partial), codes.NOT_ASSESSED.value)]
    assert "LMLO: no image" in words
    assert "breast density: not given by this model" in words


def test_a_breast_without_views_has_no_value():
    partial = exams.reading(views=(RCC, RMLO))
    dataset = report(partial)
    tracked = [item.TextValue for item in named(dataset, "112039")]
    assert "Right breast" in tracked
    assert "Left breast" not in tracked
    assert "left breast: no image" in [item.TextValue for item in named(dataset, codes.NOT_ASSESSED.value)]


def test_an_exam_without_findings_says_what_was_looked_for():
    dataset = report(exams.reading(lesions={}))
    assert named(dataset, "111030") == []
    (scope,) = named(dataset, codes.LOOKED_FOR.value)
    assert scope.TextValue == "RCC, LCC, RMLO, LMLO: Mass, Calcification cluster; no region marked"
    assert regions_marked(dataset) == [0] * 8


def test_the_algorithm_and_its_parameters_stand_in_every_group(dataset):
    groups = named(dataset, "125007")
    for group in groups:
        texts = [item.TextValue for item in group.ContentSequence if item.ValueType == "TEXT"]
        assert {"exam_encoder", "1", f"weights SHA-256 {'5e' * 32}", "variant openvino bf16"} <= set(texts)


def test_each_thing_has_a_tracking_uid_of_its_own(dataset):
    uids = [item.UID for item in named(dataset, "112040")]
    identifiers = [item.TextValue for item in named(dataset, "112039")]
    assert len(uids) == 1 + 2 + 8 + 2 * 3
    assert len(set(uids)) == len(set(identifiers)) == len(set(zip(identifiers, uids, strict=True))) == 1 + 2 + 8 + 3


def test_evidence_and_library_hold_the_images_read(dataset):
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    evidence = [
        reference.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    ]
    (group,) = named(dataset, "126200")
    library = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in group.ContentSequence]
    assert evidence == library == [source.SOPInstanceUID for source in exams.sources().values()]


def test_flags_and_procedure(dataset):
    assert (dataset.CompletionFlag, dataset.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    (procedure,) = named(dataset, "121058")
    assert procedure.ConceptCodeSequence[0].CodeValue == "363679005"
    assert [item.ConceptCodeSequence[0].CodeMeaning for item in named(dataset, "121005")] == ["Device"]


def test_finding_codes_fit_a_code_meaning():
    assert all(len(code.meaning) <= 64 for code in FINDING_CODES.values())


def test_view_codes_are_those_that_headers_are_read_by():
    assert {position.value: code.value for position, code in codes.VIEWS.items()} == {
        name: view_codes.VIEWS[name].sct for name in ("CC", "MLO")
    }
