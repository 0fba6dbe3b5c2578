"""What was not read: the report says so in codes and in words, and says nothing of findings."""

from io import BytesIO

import highdicom as hd
import pydicom
import pytest
from pydicom import Dataset

from node.mammography.quality import CODES, QualityReason
from node.mammography.views import LMLO, RMLO
from node.results import segmentation, structured_report
from tests.node.results import cad_exams, exams, validators
from tests.node.results.report_exams import READINGS
from tests.node.results.test_structured_report import named, report

UNREAD = ("not attempted", "failed", "refused")


def coded(dataset: Dataset, value: str) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeValue for item in named(dataset, value)]


@pytest.fixture(scope="module")
def reports() -> dict[str, Dataset]:
    return {name: report(READINGS[name]()) for name in (*UNREAD, "one view failed", "findings", "whole")}


@pytest.mark.parametrize(
    ("name", "summary", "detections"),
    [
        ("not attempted", "111245", "111225"),
        ("failed", "111245", "111224"),
        ("refused", "111244", "111224"),
        ("one view failed", "111244", "111223"),
        ("findings", "111242", "111222"),
    ],
)
def test_summary_in_codes(reports, name, summary, detections):
    (evaluations,) = named(reports[name], "C0034375")
    assert coded(evaluations, "111017") == [summary]
    assert coded(evaluations, "111064") == [detections]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("not attempted", "Not attempted: views missing: LMLO"),
        ("failed", "Failed: the model did not answer"),
        ("refused", "Refused for quality: no view can be assessed"),
    ],
)
def test_the_reason_in_words(reports, name, words):
    assert [item.TextValue for item in named(reports[name], "111033")] == [words]


@pytest.mark.parametrize("name", UNREAD)
def test_an_exam_that_was_not_read_has_its_images_and_no_values(reports, name):
    dataset = reports[name]
    library = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in named(dataset, "126200")[0].ContentSequence
    ]
    assert library == [source.SOPInstanceUID for source in exams.sources().values()]
    assert [item for item in named(dataset, "125007") if named(item, "111030")] == []
    assert [item for item in named(dataset, "126010")[0].ContentSequence if "MeasuredValueSequence" in item] == []
    assert named(dataset, "111047") == named(dataset, "246262008") == named(dataset, "111022") == []


@pytest.mark.parametrize("name", UNREAD)
def test_highdicom_reads_it_back(name):
    made = structured_report.encode(READINGS[name](), exams.sources())
    assert len(hd.sr.srread(BytesIO(made.content)).content.get_image_measurement_groups()) == 4


def test_the_quality_finding_stands_with_the_image_that_it_concerns(reports):
    groups = [item for item in named(reports["one view failed"], "125007") if named(item, "111052")]
    found = {
        str(named(group, "121112")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID): coded(group, "111052")
        for group in groups
    }
    assert found == {
        str(exams.source(RMLO).SOPInstanceUID): [CODES[QualityReason.UNDER_EXPOSED].value],
        str(exams.source(LMLO).SOPInstanceUID): [CODES[QualityReason.CONSTANT_IMAGE].value],
    }


def test_a_view_that_was_not_assessed_is_said_beside_those_that_were(reports):
    dataset = reports["one view failed"]
    failed = [item for item in named(dataset, "125007") if coded(item, "111064") == ["111224"]]
    assert [named(item, "112039")[0].TextValue for item in failed] == ["LMLO image"]
    assert "LMLO: constant image" in [item.TextValue for item in named(dataset, "373121007")]
    assert "LMLO: every pixel has the value 0" in [item.TextValue for item in named(dataset, "121106")]


def test_the_report_in_words_stands_in_every_report(reports):
    for dataset in reports.values():
        (text,) = named(dataset, "121111")
        assert text.TextValue.startswith("AI research result, not for diagnosis.\r\n")
    assert "The exam was not read: views missing: LMLO." in named(reports["not attempted"], "121111")[0].TextValue


@pytest.mark.parametrize("name", UNREAD)
def test_the_same_reading_gives_the_same_bytes(name):
    first, second = (structured_report.encode(READINGS[name](), exams.sources()).content for _ in range(2))
    assert first == second
    assert pydicom.dcmread(BytesIO(first)).SOPInstanceUID.startswith("2.25.")


@pytest.mark.parametrize("name", READINGS)
def test_dciodvfy_finds_nothing_in_any_report(name, tmp_path):
    made = READINGS[name]()
    segmentations = segmentation.encode(made, exams.sources())
    content = structured_report.encode(made, exams.sources(), segmentations).content
    assert validators.iod_complaints(content, tmp_path) == []


def test_odd_headers_give_a_valid_report(tmp_path):
    headers = cad_exams.odd_headers()
    made = exams.reading(headers=headers)
    content = structured_report.encode(made, headers, segmentation.encode(made, headers)).content
    assert validators.iod_errors(content, tmp_path) == []
