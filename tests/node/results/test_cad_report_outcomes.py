"""What a Mammography CAD SR says was tried: what succeeded, what failed, what nobody looked at; and its images."""

from dataclasses import replace

import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement

from node.mammography.findings import FINDING_KINDS, BreastDensity, Correspondence
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS
from node.results import cad_report
from node.results.reading import Outcome, Reading
from tests.node.results import cad_exams, exams
from tests.node.results.cad_exams import (
    BLANK,
    DEFAULT,
    FAINT,
    OPTIONAL,
    REQUIRED,
    VARIANTS,
    dataset,
    not_read,
    root,
    unread,
)
from tests.node.results.sr_tree import Node, tree
from tests.node.results.validators import iod_errors


@pytest.fixture(scope="module")
def made() -> Reading:
    return exams.reading()


@pytest.fixture(scope="module")
def paired(made) -> Reading:
    """The two masses of the right breast correspond."""
    return replace(made, correspondences=(Correspondence(0, 1),))


def performed(top: Node, concept: str) -> list[tuple[str, tuple[str, ...]]]:
    """Code and images of each detection or analysis in the containers called `concept`."""
    return [
        (each.value, tuple(node.value for node in each.children if not node.concept))
        for node in top.all(concept)
        for each in node.children
    ]


FOUR = ("1.2.1", "1.2.2", "1.2.3", "1.2.4")


def test_a_reading_of_all_views_succeeded(made):
    top = root(made)
    assert [top.one(concept).value for concept in ("111017", "111064", "111065")] == ["111242", "111222", "111222"]
    assert performed(top, "111063") == [("129793001", FOUR), ("129769006", FOUR), ("111101", FOUR)]
    assert top.all("111025") == top.all("111024") == []


def test_a_view_that_failed_stands_among_the_failed_with_its_reason():
    variant = VARIANTS["one view failed"]
    top = root(variant.reading())
    three, fourth = FOUR[:3], FOUR[3:]
    assert [top.one(concept).value for concept in ("111017", "111064", "111065")] == ["111244", "111223", "111223"]
    assert performed(top, "111063") == [("129793001", three), ("129769006", three), ("111101", three)]
    assert performed(top, "111025") == [("129793001", fourth), ("129769006", fourth), ("111101", fourth)]
    assert performed(top, "111024") == [("111234", fourth)]
    assert "Not assessed: LMLO: pixels cannot be decoded." in top.one("111033").value


def test_a_failed_view_without_findings_elsewhere_is_not_an_exam_without_findings():
    reading = exams.reading(views=(RCC, LCC, RMLO), lesions={}, unread=(unread(LMLO, "pixels cannot be decoded"),))
    assert root(reading).one("111017").value == "111243"


def test_a_refused_view_has_a_quality_finding_that_is_required():
    top = root(VARIANTS["one view refused"].reading())
    assert (top.one("111017").value, top.one("111064").value) == ("111244", "111223")
    found = top.one("111059")
    assert (found.value, found.one("111052").value) == ("111101", "111213")
    assert found.children[0].value == REQUIRED
    assert found.one("112039").value == "LMLO image quality"
    assert all(node.concept for node in found.children)
    assert not {"111010", "111012", "111041", "111047"} & {node.concept for node in found.walk()}


def test_a_view_that_was_read_all_the_same_has_an_optional_one():
    reading = cad_exams.with_view(exams.reading(lesions={}), RMLO, quality=(FAINT,))
    top = root(reading)
    assert (top.one("111017").value, top.one("111064").value) == ("111242", "111222")
    assert (top.one("111059").children[0].value, top.one("111052").value) == (OPTIONAL, "111211")
    assert "Note on RMLO: Deviation Index is -4." in top.one("111033").value


def test_an_exam_refused_for_quality_failed_to_detect_and_says_why():
    top = root(not_read(Outcome.REFUSED, "no view could be assessed", BLANK))
    assert [top.one(concept).value for concept in ("111017", "111064", "111065")] == ["111244", "111223", "111225"]
    assert performed(top, "111025") == [("129793001", FOUR), ("129769006", FOUR)]
    assert performed(top, "111063") == [("111101", FOUR)]
    assert len(top.all("111052")) == 4
    assert "refused for quality" in top.one("111033").value


def test_an_exam_that_failed_succeeded_in_nothing():
    top = root(not_read(Outcome.FAILED, "RCC: pixels cannot be decoded"))
    assert [top.one(concept).value for concept in ("111017", "111064", "111065")] == ["111245", "111224", "111225"]
    assert performed(top, "111025") == [("129793001", FOUR), ("129769006", FOUR)]
    assert "RCC: pixels cannot be decoded" in top.one("111033").value


def test_where_nobody_says_what_was_looked_for_nothing_is_taken_for_looked_at():
    reading = not_read(Outcome.FAILED, "out of memory")
    top = root(replace(reading, model=replace(reading.model, findings=())))
    looked_for = [node.value for node in top.all("111002") if node.value.startswith("looks for")]
    told = ", ".join(words.removeprefix("looks for ") for words in looked_for)
    assert sorted(told.split(", ")) == sorted(kind.value.replace("_", " ") for kind in FINDING_KINDS)


def test_an_exam_that_was_not_attempted_gives_its_reason_and_no_algorithm_that_ran():
    top = root(not_read(Outcome.NOT_ATTEMPTED, "views missing: LMLO"))
    assert [top.one(concept).value for concept in ("111017", "111064", "111065")] == ["111245", "111225", "111225"]
    assert top.one("111064").children == top.one("111065").children == []
    words = top.one("111033").value
    assert "views missing: LMLO" in words
    assert "needs a reader" in words
    assert len(top.one("111028").children) == 4


def test_cc_was_compared_with_mlo_only_where_there_was_something_to_compare(made, paired):
    bare = replace(made, findings=tuple(replace(each, place=None) for each in made.findings), correspondences=())
    assert "133884007" not in [code for code, _ in performed(root(bare), "111062")]
    assert ("133884007", ("1.2.1", "1.2.3")) in performed(root(paired), "111062")


def test_the_composition_has_its_code_where_the_model_gives_one(made):
    top = root(replace(made, density=BreastDensity("C", 0.7)))
    (found,) = [node for node in top.all("111059") if node.value == "129715009"]
    assert (found.one("129715009").value, found.one("111012").value) == ("129718006", "70")
    assert "133890006" in [code for code, _ in performed(top, "111062")]


def test_the_library_is_all_images_the_for_processing_one_beside_the_one_displayed(made):
    twin = cad_exams.TWIN
    reading = cad_exams.with_view(made, RCC, read_from=twin)
    top = root(reading)
    library = [node.value for node in top.one("111028").children]
    shown = [str(exams.source(view).SOPInstanceUID) for view in STANDARD_VIEWS]
    assert library == [shown[0], twin.sop_instance_uid, *shown[1:]]
    assert top.all("111059")[0].one("111010").children[0].value == "1.2.1"
    assert performed(top, "111063")[0][1] == ("1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.5")
    (study,) = dataset(reading).CurrentRequestedProcedureEvidenceSequence
    evidence = {
        str(series.SeriesInstanceUID): [str(each.ReferencedSOPInstanceUID) for each in series.ReferencedSOPSequence]
        for series in study.ReferencedSeriesSequence
    }
    assert evidence == {f"{exams.STUDY}.1": shown, f"{exams.STUDY}.2": [twin.sop_instance_uid]}


def test_a_for_processing_image_of_an_unknown_series_is_not_named(made):
    twin = replace(cad_exams.TWIN, series_instance_uid="")
    assert len(root(cad_exams.with_view(made, RCC, read_from=twin)).one("111028").children) == 4


def test_a_view_s_modifiers_stand_in_the_library_in_snomed_ct(made):
    headers = exams.sources()
    modifier, code = Dataset(), Dataset()
    modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = "R-102D5", "SRT", "Implant Displaced"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10242", "SRT", "cranio-caudal"
    code.ViewModifierCodeSequence = [modifier]
    headers[LCC].ViewCodeSequence = [code]
    top = root(made, DEFAULT, headers)
    assert [node.one("111031").all("111032")[0].value for node in top.all("IMAGE")[1:2]] == ["399209000"]


def test_what_a_header_does_not_say_is_left_out():
    top = root(cad_exams.odd_reading(), DEFAULT, cad_exams.odd_headers())
    stated = {node.concept for node in top.one("111028").walk()}
    assert stated == {"111028", "IMAGE", "111027", "111031", "111060"}
    measured = [node.item.MeasuredValueSequence[0] for node in top.walk() if node.value_type == "NUM"]
    assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in measured} == {"%"}


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize(
    ("keyword", "vr", "value", "concept"),
    [
        ("StudyDate", "DA", b"20261340", "111060"),
        ("ContentDate", "DA", b"2026.03.14", "111018"),
        ("ContentTime", "TM", b"99", "111019"),
        ("ImagerPixelSpacing", "DS", b"wide\\tall ", "111026"),
        ("ImagerPixelSpacing", "DS", b"0.0\\0.0 ", "111066"),
        ("ImagerPixelSpacing", "DS", b"0.14", "111026"),
    ],
)
def test_what_is_no_date_time_or_length_is_left_out_of_the_library(made, keyword, vr, value, concept, tmp_path):
    headers = exams.sources()
    tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
    headers[RCC][tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    result = cad_report.encode(made, headers, DEFAULT)
    assert concept not in {node.concept for node in tree(result.content).one("111028").children[0].children}
    assert iod_errors(result.content, tmp_path) == []


def test_content_date_and_time_and_spacing_are_the_image_s(made):
    headers = exams.sources()
    headers[RCC].ContentDate, headers[RCC].ContentTime = "20260314", "101733.5"
    headers[RCC].ImagerPixelSpacing = ["0.07", "0.05"]
    image = root(made, DEFAULT, headers).one("111028").children[0]
    values = {node.concept: node.value for node in image.children}
    assert (values["111018"], values["111019"]) == ("20260314", "101733.5")
    assert (values["111026"], values["111066"]) == ("0.05", "0.07")


def test_a_later_reading_names_the_report_that_it_replaces():
    written = dataset(cad_exams.everything())
    (study,) = written.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    first = cad_exams.first_report()
    assert series.SeriesInstanceUID == first.series_instance_uid
    assert document.ReferencedSOPInstanceUID == first.sop_instance_uid
    assert written.SeriesDescription.startswith("AI reading 2, replaces 11:05")
