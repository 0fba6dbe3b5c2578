"""Side and view by header: every code of CID 4014 and 4015 in every scheme, fallbacks, contradictions."""

import pydicom
import pytest
from pydicom.dataset import Dataset

from node.errors import ViewError
from node.mammography.view_codes import CODING_SCHEMES, MODIFIERS, SPECIMEN, VIEWS
from node.mammography.views import (
    LCC,
    LMLO,
    RCC,
    RMLO,
    STANDARD_VIEWS,
    ViewPosition,
    excluding_modifier,
    has_implant,
    is_implant_displaced,
    is_partial_view,
    is_quality_control_image,
    is_synthetic_2d,
    is_tomosynthesis,
    modifiers_of,
    view_of,
)
from tests.node.mammography.images import SHARED

SECOND_TRANSCRIPTION_OF_CID_4014 = """
ML    399260004 R-10224
MLO   399368009 R-10226
LM    399352003 R-10228
LMO   399099002 R-10230
CC    399162004 R-10242
FB    399196006 R-10244
SIO   399188001 R-102D0
ISO   441555000 R-40AAA
XCCL  399192008 R-1024A Y-X1770
XCCM  399101009 R-1024B Y-X1771
"""
SECOND_TRANSCRIPTION_OF_CID_4015 = """
399161006 R-102D2  cleavage
399011000 R-102D1  axillary tail
399197002 R-102D3  rolled lateral
399226006 R-102D4  rolled medial
414493004 R-102CA  rolled inferior
415670009 R-102C9  rolled superior
399209000 R-102D5  implant displaced
399163009 R-102D6  magnification
399055006 R-102D7  spot compression
399110001 R-102C2  tangential
442581004 R-40AB3  nipple in profile
441752004 P2-00161 anterior compression
442593008 R-40ABE  infra-mammary fold
442580003 R-40AB2  axillary tissue
"""
VIEW_ROWS = [line.split() for line in SECOND_TRANSCRIPTION_OF_CID_4014.split("\n") if line]
MODIFIER_ROWS = [line.split(maxsplit=2) for line in SECOND_TRANSCRIPTION_OF_CID_4015.split("\n") if line]


def code(value, scheme, modifiers=()):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "as coded"
    if modifiers:
        item.ViewModifierCodeSequence = [code(*modifier) for modifier in modifiers]
    return item


def header(side="L", view=("399162004", "SCT"), modifiers=(), **attributes):
    dataset = Dataset()
    if side is not None:
        dataset.ImageLaterality = side
    if view is not None:
        dataset.ViewCodeSequence = [code(*view, modifiers)]
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_tables_have_the_rows_of_the_standard():
    assert {row[0] for row in VIEW_ROWS} == set(VIEWS) == set(ViewPosition.__members__) - {"XCC"}
    assert {row[2] for row in MODIFIER_ROWS} == set(MODIFIERS)
    assert set(CODING_SCHEMES) == {"SCT", "SRT", "SNM3", "99SDM"}


def test_tables_agree_with_pydicom():
    from pydicom.sr._cid_dict import cid_concepts
    from pydicom.sr._concepts_dict import concepts

    def values(cid):
        return {value for name in cid_concepts[cid]["SCT"] for value in concepts["SCT"][name]}

    assert values(4014) == {codes.sct for codes in VIEWS.values()} | {SPECIMEN.sct}
    assert values(4015) == {modifier.codes.sct for modifier in MODIFIERS.values()}


@pytest.mark.parametrize("row", VIEW_ROWS, ids=lambda row: row[0])
def test_every_view_in_every_scheme(row):
    name, sct, *rt = row
    assert view_of(header("R", (sct, "SCT"))).name == f"R{name}"
    assert {view_of(header("R", (value, scheme))).name for value in rt for scheme in ("SRT", "SNM3", "99SDM")} == {
        f"R{name}"
    }


@pytest.mark.parametrize("row", MODIFIER_ROWS, ids=lambda row: row[2])
def test_every_modifier_in_every_scheme(row):
    sct, rt, name = row
    for modifier in ((sct, "SCT"), (rt, "SRT"), (rt, "SNM3")):
        assert modifiers_of(header(modifiers=[modifier])) == {name}
    excluded = name not in ("implant displaced", "nipple in profile")
    assert excluding_modifier(header(modifiers=[(sct, "SCT")])) == (name if excluded else None)


def test_a_modifier_beside_the_view_code_counts():
    dataset = header()
    dataset.ViewModifierCodeSequence = [code("R-102D6", "SRT")]
    assert excluding_modifier(dataset) == "magnification"


def test_a_code_of_another_scheme_is_none():
    with pytest.raises(ViewError, match=r"View Code 399162004 \(LN\) is not of CID 4014"):
        view_of(header(view=("399162004", "LN")))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("CC", "LCC"),
        ("CC ", "LCC"),
        ("MLO", "LMLO"),
        ("ML", "LML"),
        ("LM", "LLM"),
        ("LMO", "LLMO"),
        ("XCCL", "LXCCL"),
        ("CCID", "LCC"),
        ("MLOID", "LMLO"),
        ("MLO ID", "LMLO"),
        ("MCC", "LCC"),
        ("LCC", "LCC"),
        ("L MLO", "LMLO"),
        ("LMLO", "LMLO"),
        ("LML", "LML"),
    ],
)
def test_view_position_without_a_code(word, name):
    assert view_of(header(view=None, ViewPosition=word)).name == name


def test_view_position_after_an_unknown_code():
    assert view_of(header(view=("R-10206", "SRT"), ViewPosition="MLO")) == LMLO


def test_the_standard_views_in_order():
    dataset = [header("R"), header("L"), header("R", ("R-10226", "SNM3")), header("L", ("R-10226", "SRT"))]
    assert tuple(view_of(one) for one in dataset) == STANDARD_VIEWS == (RCC, LCC, RMLO, LMLO)


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (header(None), "no side: Image Laterality is missing"),
        (header(""), "no side"),
        (header("B"), "Image Laterality is B, not R or L"),
        (header("U"), "Image Laterality is U"),
        (header("B", Laterality="L"), "Image Laterality is B"),
        (header(None, Laterality="B"), "Laterality is B"),
        (header("R", Laterality="L"), "sides contradict: Image Laterality R, Laterality L"),
        (header("R", view=None, ViewPosition="LCC"), "sides contradict: Image Laterality R, View Position L"),
        (header(view=None), "no view: View Code Sequence is missing"),
        (header(view=None, ViewPosition=""), "no view"),
        (header(view=None, ViewPosition="FLATFIELD"), "View Position FLATFIELD is no view of CID 4014"),
        (header(view=None, ViewPosition="PA"), "View Position PA is no view of a breast"),
        (header(ViewPosition="MLO"), "views contradict: View Code CC, View Position MLO"),
        (header(ViewPosition="AP"), "views contradict: View Code CC, View Position AP"),
        (header(view=("G-8310", "SRT")), "tissue specimen"),
        (header(view=None, PatientOrientation="CC"), "no view"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_refusals_say_why(dataset, reason):
    with pytest.raises(ViewError, match=reason):
        view_of(dataset)


def test_two_view_codes_contradict():
    dataset = header()
    dataset.ViewCodeSequence = [code("R-10242", "SRT"), code("R-10226", "SRT")]
    with pytest.raises(ViewError, match="views contradict: View Code CC, View Code MLO"):
        view_of(dataset)


def test_frame_laterality_is_a_source_of_the_side():
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = "R"
    group.FrameAnatomySequence = [anatomy]
    assert view_of(header(None, SharedFunctionalGroupsSequence=[group])) == RCC
    with pytest.raises(ViewError, match="Frame Laterality R"):
        view_of(header("L", SharedFunctionalGroupsSequence=[group]))


def test_laterality_is_second_to_image_laterality():
    assert view_of(header(None, Laterality="R")) == RCC
    assert view_of(header("", Laterality="R")) == RCC
    assert view_of(header("R", Laterality="B")) == RCC


def test_patient_orientation_only_where_allowed_and_only_at_last():
    dataset = header(view=None, PatientOrientation="MLO")
    assert view_of(dataset, from_patient_orientation=True) == LMLO
    assert view_of(header(PatientOrientation="MLO"), from_patient_orientation=True) == LCC
    with pytest.raises(ViewError):
        view_of(header(view=None, PatientOrientation=["A", "F"]), from_patient_orientation=True)


@pytest.mark.parametrize("position", ["XCC", "XCCL"])
def test_exaggerated_views_agree(position):
    assert view_of(header(view=("R-1024A", "SRT"), ViewPosition=position)).position is ViewPosition.XCCL


def test_implants():
    assert is_implant_displaced(header(modifiers=[("399209000", "SCT")]))
    assert is_implant_displaced(header(view=None, ViewPosition="MLOID"))
    assert has_implant(header(BreastImplantPresent="YES"))
    assert not has_implant(header(BreastImplantPresent="NO"))
    assert not is_implant_displaced(header())


def test_flags_of_single_attributes():
    assert is_partial_view(header(PartialView="YES"))
    assert not is_partial_view(header())
    assert is_quality_control_image(header(QualityControlImage="BOTH"))
    assert not is_quality_control_image(header(QualityControlImage="NO"))


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        (["DERIVED", "PRIMARY", "STEREO", "LEFT"], "stereotactic"),
        (["ORIGINAL", "PRIMARY", "PREFIRE_MINUS"], "biopsy"),
        (["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"], "contrast subtraction"),
        (["ORIGINAL", "PRIMARY", "", "", "HIGH_ENERGY"], "contrast high energy"),
        (["ORIGINAL", "PRIMARY", "", "", "LOW_ENERGY"], None),
        (["ORIGINAL", "PRIMARY", ""], None),
    ],
)
def test_image_types_that_no_screening_image_has(image_type, reason):
    assert excluding_modifier(header(ImageType=image_type)) == reason


@pytest.mark.parametrize(
    ("attributes", "synthetic"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, True),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D", "", "", "", "", "150000"]}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "L CC C-View"}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "R MLO S-View"}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "Insight 2D"}, True),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D", "LEFT"], "Manufacturer": "HOLOGIC, Inc."}, False),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D", "LEFT"], "Manufacturer": "SIEMENS"}, True),
        ({"ImageType": ["ORIGINAL", "PRIMARY"], "SeriesDescription": "before C-View"}, False),
        ({"ImageType": ["DERIVED", "PRIMARY", ""], "SeriesDescription": "L CC"}, False),
        ({}, False),
    ],
)
def test_synthesised_2d(attributes, synthetic):
    assert is_synthetic_2d(header(**attributes)) is synthetic


def test_tomosynthesis_by_class_type_and_frames():
    assert is_tomosynthesis(header(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3"))
    assert is_tomosynthesis(header(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.5"))
    assert is_tomosynthesis(header(ImageType=["DERIVED", "PRIMARY", "TOMO_PROJ", "RIGHT"]))
    assert is_tomosynthesis(header(NumberOfFrames=4))
    assert not is_tomosynthesis(header(NumberOfFrames=1))


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")
@pytest.mark.parametrize(
    ("name", "view", "excluded", "tomosynthesis"),
    [
        ("fo-dicom/GH133.dcm", "RMLO", None, False),
        ("fo-dicom/OutOfBoundsOverlay.dcm", "LCC", "stereotactic", False),
        ("dbt/breast_tomosynthesis_j2k.dcm", "LCC", None, True),
        ("openrem/MG-Im-GE_Seno_1_ForPresentation.dcm", "LCC", None, False),
        ("openrem/MG-Im-GE_Seno_1_ForProcessing.dcm", "LCC", None, False),
        ("openrem/MG-Im-Hologic-PropProj.dcm", "RCC", None, False),
        ("wg04/MG1_J2KI.dcm", "LMLO", None, False),
    ],
)
def test_headers_of_real_machines(name, view, excluded, tomosynthesis):
    dataset = pydicom.dcmread(SHARED / "dicom" / name, stop_before_pixels=True)
    assert view_of(dataset).name == view
    assert excluding_modifier(dataset) == excluded
    assert is_tomosynthesis(dataset) is tomosynthesis
    assert is_quality_control_image(dataset) is ("Hologic" in name)
