"""The Mammography CAD SR's content: where marks stand, what is required, what was tried, what nobody looked at."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node.destinations import CadProfile
from node.errors import EncodeError
from node.mammography.findings import Correspondence, FindingKind
from node.mammography.views import LCC, RCC
from node.results import cad_report, content_items, names, uids
from node.results.codes import OUTLINE
from node.results.reading import Outcome, Reading, ResultKind
from tests.node.results import cad_exams, exams
from tests.node.results.cad_exams import (
    DEFAULT,
    NOT_SHOWN,
    OPTIONAL,
    REQUIRED,
    VARIANTS,
    finding,
    not_read,
    root,
)
from tests.node.results.sr_tree import Node, tree
from tests.node.results.validators import entity_errors, iod_complaints, iod_errors

ALL_BUT_MASSES = CadProfile(required_at=(("mass", 0.95),))


@pytest.fixture(scope="module")
def made() -> Reading:
    return exams.reading()


@pytest.fixture(scope="module")
def paired(made) -> Reading:
    """The two masses of the right breast correspond."""
    return replace(made, correspondences=(Correspondence(0, 1),))


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_breaks_its_iod_or_its_study(name, tmp_path):
    variant = VARIANTS[name]
    headers = variant.headers()
    content = cad_report.encode(variant.reading(), headers, variant.profile).content
    complaints = iod_complaints(content, tmp_path)
    assert [line for line in complaints if "needed to build DICOMDIR" not in line] == []
    files = [tmp_path / "object.dcm"]
    also = [cad_exams.twin()] if name == "everything" else []
    for header in (*headers.values(), *also):
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        files.append(tmp_path / f"{header.SOPInstanceUID}.dcm")
        pydicom.dcmwrite(files[-1], header, enforce_file_format=True)
    if name == "everything":
        files.append(tmp_path / "replaced.dcm")
        files[-1].write_bytes(cad_exams.first_report().content)
    assert entity_errors(files) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_every_reference_leads_to_an_image_of_the_library_and_no_time_is_a_datetime(name):
    variant = VARIANTS[name]
    top = root(variant.reading(), variant.profile, variant.headers())
    references = [node for node in top.walk() if "ReferencedContentItemIdentifier" in node.item]
    assert all(top.at(list(map(int, node.value.split(".")))).concept == "IMAGE" for node in references)
    assert all(node.value.startswith("1.2.") for node in references)
    assert "DATETIME" not in {node.value_type for node in top.walk()}


def test_it_says_what_it_is(made):
    result = cad_report.encode(made, exams.sources(), DEFAULT)
    written = pydicom.dcmread(BytesIO(result.content))
    assert written.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.50"
    assert (written.Modality, int(written.SeriesNumber)) == ("SR", 9003)
    assert (written.CompletionFlag, written.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert written.ContentQualification == "RESEARCH"
    (template,) = written.ContentTemplateSequence
    assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "4000")
    top = tree(result.content)
    assert top.children[0].concept == "121049"
    assert top.children[0].value == "en"


def test_the_same_reading_gives_the_same_bytes(made):
    first, second = (cad_report.encode(made, exams.sources(), ALL_BUT_MASSES) for _ in range(2))
    assert first.content == second.content


def test_marks_stand_on_their_images_where_the_lesions_are(made):
    top = root(made)
    found = top.all("111059")
    assert len(found) == 3
    for node, lesion in zip(found, made.findings, strict=True):
        centre, outline = node.one("111010"), node.one("111041")
        assert tuple(centre.item.GraphicData) == lesion.centre
        assert (np.array(outline.item.GraphicData).reshape(-1, 2) == np.array(lesion.contour)).all()
        assert outline.item["GraphicData"].VR == "FL"
        for shape in (centre, outline):
            (reference,) = shape.children
            assert reference.relationship == "SELECTED FROM"
            image = top.at(list(map(int, reference.value.split("."))))
            assert image.value == exams.source(lesion.view).SOPInstanceUID


def test_findings_bear_the_names_and_uids_of_the_other_objects(made):
    top = root(made)
    expected = names.finding_names(made)
    assert [node.value for node in top.all("112039")] == list(expected)
    assert [node.value for node in top.all("112040")] == [uids.tracking_uid(made, name) for name in expected]


def test_a_mass_in_one_view_is_a_density_and_in_two_a_mass(made, paired):
    assert [node.value for node in root(made).all("111059")] == ["129793001", "129793001", "129769006"]
    assert root(made).all("111015") == []
    composite = root(paired).one("111015")
    assert composite.value == "129788004"
    assert [node.value for node in composite.all("111059")] == ["129793001"] * 2
    assert composite.one("111016").value == "111154"


def test_no_feature_of_two_views_of_one_breast_has_a_code_that_means_two_breasts():
    composites = root(cad_exams.pairs_of_all_kinds()).all("111015")
    assert [node.value for node in composites] == ["129788004", "129769006", "129792006", "129793001"]
    assert {node.one("111016").value for node in composites} == {"111154"}


@pytest.mark.parametrize("allow", [False, True])
def test_a_finding_has_a_certainty_and_no_probability_of_cancer(made, allow):
    top = root(replace(made, allow_probability=allow))
    assert [float(node.value) for node in top.all("111012")] == pytest.approx(
        [100.0 * each.probability for each in made.findings], abs=0.001
    )
    assert top.all("111047") == []


def intents(top: Node) -> list[str]:
    return [node.one("111059").children[0].value for node in top.all("111034")]


def test_every_mark_is_required_where_the_site_says_nothing(made):
    top = root(made)
    assert intents(top) == [REQUIRED] * 3
    assert top.all("111071") == top.all("111072") == []


def test_marks_below_the_threshold_are_optional_with_operating_points(made):
    top = root(made, ALL_BUT_MASSES)
    assert intents(top) == [OPTIONAL, OPTIONAL, REQUIRED]
    assert [node.value for node in top.all("111071")] == ["1", "1"]
    density, cluster, quality = top.all("111022")
    assert (density.one("111072").value, density.one("111092").value) == ("1", "0")
    assert cluster.all("111072") == quality.all("111072") == []


def test_marks_below_the_threshold_may_not_be_shown(made):
    top = root(made, replace(ALL_BUT_MASSES, below="not"))
    assert intents(top) == [NOT_SHOWN, NOT_SHOWN, REQUIRED]
    assert top.all("111071") == top.all("111072") == []


def test_marks_below_the_threshold_may_be_left_out(made):
    profile = CadProfile(required_at=(("mass", 0.95), ("suspicious_calcification", 0.95)), below="omit")
    top = root(made, profile)
    assert top.all("111034") == []
    assert top.one("111017").value == "111241"


def test_of_a_lesion_in_two_views_the_greater_probability_decides(paired):
    weak = replace(paired, findings=(replace(paired.findings[0], probability=0.2), *paired.findings[1:]))
    top = root(weak, CadProfile(required_at=(("mass", 0.8),), below="omit"))
    assert {node.value for node in top.one("111015").all("111056")} == {REQUIRED}


def test_the_exam_s_values_stand_in_words_by_their_algorithm(made):
    summary = root(made).one("111017")
    (words,) = [node for node in summary.children if node.concept == "111033"]
    assert "AI research result, not for diagnosis." in words.value
    assert "exam index 0.82; right breast index 0.82; left breast index 0.60" in words.value
    assert "is no probability" in words.value
    assert [node.value for node in summary.children if node.concept in ("111001", "111003")] == ["exam_encoder", "1"]


def test_calibrated_values_are_called_probabilities(made):
    words = root(replace(made, allow_probability=True)).one("111033").value
    assert "Probability of cancer: exam 82 %; right breast 82 %; left breast 60 %." in words
    assert "index" not in words


def test_a_site_may_want_no_exam_value(made):
    assert root(made, CadProfile(exam_value="none")).all("111033") == []


@pytest.mark.parametrize(("allow", "concept", "factor"), [(False, "246262008", 1.0), (True, "111047", 100.0)])
def test_a_site_may_want_the_exam_values_as_numbers(made, allow, concept, factor):
    top = root(replace(made, allow_probability=allow), CadProfile(exam_value="number"))
    numbers = top.all(concept)
    values = [made.exam_probability, *(breast.probability for breast in made.breasts)]
    assert [float(node.value) for node in numbers] == pytest.approx([factor * value for value in values], abs=0.001)
    assert [node.one("272741003").value for node in numbers] == ["63762007", "73056007", "80248007"]
    assert {node.relationship for node in numbers} == {"HAS PROPERTIES"}
    assert top.all("111033") != []


def test_the_name_of_a_form_tells_profiles_apart_that_give_other_bytes():
    assert cad_report.form(DEFAULT) == cad_report.form(CadProfile(below="omit")) == ""
    forms = {
        cad_report.form(profile)
        for profile in (
            DEFAULT,
            ALL_BUT_MASSES,
            replace(ALL_BUT_MASSES, below="not"),
            CadProfile(exam_value="number"),
            CadProfile(required_at=(("mass", 0.5),)),
        )
    }
    assert len(forms) == 5
    one, other = (("mass", 0.5), ("asymmetry", 0.6)), (("asymmetry", 0.6), ("mass", 0.5))
    assert cad_report.form(CadProfile(required_at=one)) == cad_report.form(CadProfile(required_at=other))


def test_a_form_has_identifiers_of_its_own(made):
    plain, other = (cad_report.encode(made, exams.sources(), profile) for profile in (DEFAULT, ALL_BUT_MASSES))
    assert plain.sop_instance_uid != other.sop_instance_uid
    assert plain.series_instance_uid != other.series_instance_uid
    assert (plain.form, other.form) == ("", cad_report.form(ALL_BUT_MASSES))


def test_a_contour_of_500_points_and_many_findings_fit(tmp_path):
    angles = np.linspace(0.0, 2.0 * np.pi, 500)
    ring = np.stack([600.0 + 300.0 * np.cos(angles), 700.0 + 300.0 * np.sin(angles)], axis=1)
    ring[-1] = ring[0]
    contour = tuple((float(x), float(y)) for x, y in ring)
    found = replace(finding(FindingKind.MASS, RCC, (600.0, 700.0)), contour=contour)
    result = cad_report.encode(replace(exams.reading(lesions={}), findings=(found,) * 200), exams.sources(), DEFAULT)
    outlines = tree(result.content).all("111041")
    assert [len(node.item.GraphicData) for node in outlines] == [1000] * 200
    assert iod_errors(result.content, tmp_path) == []


def test_a_contour_longer_than_graphic_data_is_thinned_and_stays_closed():
    points = tuple((float(number), 5.0) for number in range(20_000))
    item = content_items.outline(content_items.Relationship.HAS_PROPERTIES, OUTLINE, points)
    assert len(item.GraphicData) <= 2 * content_items.MAX_POINTS
    assert item.GraphicData[:2] == item.GraphicData[-2:] == [0.0, 5.0]


def test_a_missing_source_is_refused(made):
    headers = exams.sources()
    del headers[LCC]
    with pytest.raises(EncodeError, match="no source data set for LCC"):
        cad_report.encode(made, headers, DEFAULT)


def test_a_breast_workstation_gets_it_in_its_own_form(made):
    where = exams.destination("CADSR", cad=ALL_BUT_MASSES)
    (shipment,) = exams.shipments(made, exams.sources(), where)
    assert shipment.result.kind is ResultKind.CAD_REPORT
    assert shipment.result.form == cad_report.form(ALL_BUT_MASSES)
    assert shipment.result.content == cad_report.encode(made, exams.sources(), ALL_BUT_MASSES).content


def test_an_exam_that_was_not_read_is_explained_only_to_who_wants_to_know():
    reading = not_read(Outcome.NOT_ATTEMPTED, "views missing: LMLO")
    told = exams.shipments(reading, exams.sources(), exams.destination("CADSR", explain_unread=True))
    untold = exams.shipments(reading, exams.sources(), exams.destination("CADSR", explain_unread=False))
    assert [shipment.result.kind for shipment in told] == [ResultKind.CAD_REPORT]
    assert untold == ()
