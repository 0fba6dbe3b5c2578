"""Required attributes, values and our own promises: what is taken away or spoilt in an object is named."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from io import BytesIO

import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE, disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian

from node.results import gate
from node.results.document import COPIED
from node.results.gate import attributes
from node.results.gate.tree import Subject, subject_of
from node.results.reading import EncodedResult, ResultKind
from tests.node.results import exams

KINDS = ("CADSR", "SR", "GSPS", "SC", "SEG", "LABELMAP", "HEATMAP", "KOS")


@cache
def _made() -> dict[str, tuple[EncodedResult, Dataset]]:
    """One object of each kind, as bytes and parsed; its elements take any value."""
    made = exams.encode_all(exams.reading(), exams.sources(), *(kind for kind in KINDS if kind != "SEG"))
    with disable_value_validation():
        parsed = {result.kind.value: (result, pydicom.dcmread(BytesIO(result.content))) for result in made}
        assert all(element.validation_mode == IGNORE for _, dataset in parsed.values() for element in dataset.iterall())
    return parsed


def problems(kind: str, change: Callable[[Dataset], object]) -> list[str]:
    """What the gate finds after `change`."""
    result, dataset = _made()[kind]
    changed = deepcopy(dataset)
    with disable_value_validation():
        change(changed)
        return gate.problems_of(subject_of(result, changed))


def required(kind: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(path of sequences, keyword, type) of each attribute that the tables require where the object has the path."""
    result, dataset = _made()[kind]
    modules = attributes.required_attributes()[attributes._iod_of(result.sop_class_uid)]
    for module in modules:
        yield from _required_in(dataset, module, ())


def _required_in(
    dataset: Dataset, module: dict[str, attributes.Attribute], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for keyword, attribute in module.items():
        if attribute.type:
            yield path, keyword, attribute.type
        if attribute.items and keyword in dataset and dataset[keyword].value:
            yield from _required_in(dataset[keyword].value[0], attribute.items, (*path, keyword))


def _holder(dataset: Dataset, path: tuple[str, ...]) -> Dataset:
    for keyword in path:
        dataset = dataset[keyword].value[0]
    return dataset


def asked(kind: str) -> dict[tuple[tuple[str, ...], str], str]:
    """Each required attribute once, with its strictest type."""
    types: dict[tuple[tuple[str, ...], str], str] = {}
    for path, keyword, type_ in required(kind):
        types[path, keyword] = min(type_, types.get((path, keyword), type_))
    return types


def said(kind: str, path: tuple[str, ...], keyword: str, element: DataElement | None) -> tuple[str, list[str]]:
    """The attribute's name, and what is missing where `element`, or nothing, stands in its place."""
    result, dataset = _made()[kind]
    holder = _holder(dataset, path)
    kept = holder.pop(keyword)
    if element is not None:
        holder.add(element)
    try:
        found = list(attributes.problems(Subject(result, dataset, None)))
    finally:
        holder[keyword] = kept
    return "".join(f"{each}[1]." for each in path) + keyword, found


@pytest.mark.parametrize("kind", KINDS)
def test_each_required_attribute_that_is_missing_is_named(kind: str) -> None:
    assert len(asked(kind)) > 15
    for (path, keyword), _ in asked(kind).items():
        name, found = said(kind, path, keyword, None)
        assert any(words.startswith(f"{name} is missing (type ") for words in found)


@pytest.mark.parametrize("kind", KINDS)
def test_each_attribute_of_type_1_that_is_empty_is_named_and_none_of_type_2(kind: str) -> None:
    for (path, keyword), type_ in asked(kind).items():
        tag = pydicom.datadict.tag_for_keyword(keyword)
        vr = pydicom.datadict.dictionary_VR(keyword).split(" ")[0]
        empty = DataElement(tag, vr, [] if vr == "SQ" else None)
        name, found = said(kind, path, keyword, empty)
        assert (f"{name} is empty (type 1)" in found) == (type_ == "1"), name


@pytest.mark.parametrize(
    ("kind", "keyword"),
    [
        ("CADSR", "CompletionFlag"), ("CADSR", "StudyInstanceUID"), ("CADSR", "AccessionNumber"),
        ("SR", "PerformedProcedureCodeSequence"), ("GSPS", "ContentLabel"),
        ("GSPS", "DisplayedAreaSelectionSequence"), ("SC", "ConversionType"), ("SC", "Rows"),
        ("SEG", "SegmentSequence"), ("SEG", "SegmentationType"), ("SEG", "DimensionOrganizationSequence"),
        ("HEATMAP", "ImageType"), ("LABELMAP", "PixelRepresentation"), ("KOS", "ReferencedRequestSequence"),
    ],
)  # fmt: skip
def test_what_the_standard_requires_is_in_the_tables(kind: str, keyword: str) -> None:
    """A second transcription, from the module tables of PS3.3, of some that matter."""
    if keyword == "ReferencedRequestSequence":
        assert keyword not in {name for _, name in asked(kind)}
    else:
        assert keyword in {name for _, name in asked(kind)}


def test_a_class_that_the_node_does_not_make_is_refused() -> None:
    result, dataset = _made()["SC"]
    other = replace(result, sop_class_uid="1.2.840.10008.5.1.4.1.1.2")
    assert list(attributes.problems(subject_of(other, dataset))) == [
        "no table of required attributes for SOP class 1.2.840.10008.5.1.4.1.1.2"
    ]


def _code(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    return item


def _graphic(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    return item


def _mark(dataset: Dataset) -> Dataset:
    """The first SCOORD of a report."""
    todo = [dataset]
    while todo:
        item = todo.pop(0)
        if item.get("ValueType") == "SCOORD":
            return item
        todo += item.get("ContentSequence") or []
    raise AssertionError("no SCOORD")


SPOILT: list[tuple[str, str, Callable[[Dataset], object], str]] = [
    ("UID", "SR", lambda d: setattr(d, "SeriesInstanceUID", "1.02.3"), "SeriesInstanceUID breaks its VR UI"),
    (
        "long UID",
        "SC",
        lambda d: setattr(d, "FrameOfReferenceUID", "1." + "2" * 63),
        "UID breaks its VR UI (65",
    ),
    ("LO", "SC", lambda d: setattr(d, "SeriesDescription", "x" * 65), "SeriesDescription breaks its VR LO (65"),
    ("CS", "SC", lambda d: setattr(d, "BodyPartExamined", "breast"), "BodyPartExamined breaks its VR CS"),
    ("DA", "SC", lambda d: setattr(d, "ContentDate", "2026-03-14"), "ContentDate breaks its VR DA"),
    ("meaning", "SC", lambda d: setattr(_code(d), "CodeMeaning", "x" * 65), "CodeMeaning breaks its VR LO (65"),
    ("no meaning", "SC", lambda d: setattr(_code(d), "CodeMeaning", ""), "CodeSequence[1] has no code meaning"),
    ("no scheme", "SC", lambda d: delattr(_code(d), "CodingSchemeDesignator"), "CodeSequence[1] has no coding scheme"),
    ("no code", "SC", lambda d: delattr(_code(d), "CodeValue"), "CodeSequence[1] has no code value, or several"),
    ("two codes", "SC", lambda d: setattr(_code(d), "LongCodeValue", "1"), "has no code value, or several"),
    ("no number", "GSPS", lambda d: setattr(_graphic(d), "GraphicData", [float("nan"), 1.0]), "is no finite number"),
    (
        "file meta",
        "SC",
        lambda d: setattr(d.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"),
        "InstanceUID is not 2.25",
    ),
    ("class", "SC", lambda d: setattr(d, "SOPClassUID", "1.2.3"), "SOPClassUID is not 1.2.840"),
    (
        "syntax",
        "SC",
        lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2"),
        "SyntaxUID is not",
    ),
    ("qualification", "CADSR", lambda d: setattr(d, "ContentQualification", "PRODUCT"), "ContentQualification is not"),
    ("ours", "KOS", lambda d: delattr(d, "ContributingEquipmentSequence"), "does not name this node"),
    ("series", "GSPS", lambda d: setattr(d, "SeriesNumber", 1), "SeriesNumber is not 9004"),
    ("annotation", "SC", lambda d: setattr(d, "BurnedInAnnotation", "YES"), "BurnedInAnnotation is not NO"),
    ("image type", "SEG", lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY"]), "ImageType is not DERIVED"),
    ("short pixels", "SC", lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "PixelData has"),
    ("frames", "HEATMAP", lambda d: setattr(d, "NumberOfFrames", d.NumberOfFrames + 1), "PixelData holds"),
    ("evidence", "SR", lambda d: setattr(d, "CurrentRequestedProcedureEvidenceSequence", []), "not in the evidence"),
    (
        "another study",
        "KOS",
        lambda d: setattr(d.CurrentRequestedProcedureEvidenceSequence[0], "StudyInstanceUID", "1.2.3"),
        "the evidence names another study",
    ),
    ("outside", "SR", lambda d: setattr(_mark(d), "GraphicData", [5000.0, 5.0] * 4), "a mark outside its image"),
    ("left of it", "SR", lambda d: setattr(_mark(d), "GraphicData", [-3.0, 5.0] * 4), "a mark outside its image"),
    ("GSPS outside", "GSPS", lambda d: setattr(_graphic(d), "GraphicData", [5.0, 9000.0]), "an annotation outside"),
    ("units", "GSPS", lambda d: setattr(_graphic(d), "GraphicAnnotationUnits", "DISPLAY"), "not in PIXEL units"),
    (
        "no area",
        "GSPS",
        lambda d: setattr(d.DisplayedAreaSelectionSequence[0], "ReferencedImageSequence", []),
        "which has no displayed area",
    ),
]


@pytest.mark.parametrize(("kind", "change", "words"), [case[1:] for case in SPOILT], ids=[case[0] for case in SPOILT])
def test_what_is_spoilt_is_named(kind: str, change: Callable[[Dataset], object], words: str) -> None:
    assert problems(kind, lambda dataset: None) == []
    assert any(words in problem for problem in problems(kind, change))


@pytest.mark.filterwarnings("ignore:The value for the data element")
def test_graphics_that_are_too_long_for_their_vr_are_found_in_the_bytes() -> None:
    """More than 65,534 bytes of GraphicData become UN without a word (PS3.5 6.2.2)."""
    result, dataset = _made()["SR"]
    changed = deepcopy(dataset)
    _mark(changed).GraphicType, _mark(changed).GraphicData = "POLYLINE", [5.0, 6.0] * 8200
    content = BytesIO()
    pydicom.dcmwrite(content, changed, enforce_file_format=True)
    (problem,) = (words for words in gate.own_problems(replace(result, content=content.getvalue())) if "UN" in words)
    assert problem.endswith("GraphicData is written as UN: its 65600 bytes are too long for its VR")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "P" * 80), ("PatientSex", "female"), ("StudyID", "4711/" * 9), ("AccessionNumber", "A" * 30)],
)
def test_what_was_copied_from_the_source_is_no_problem_of_ours(keyword: str, value: str) -> None:
    assert keyword in COPIED
    assert problems("CADSR", lambda dataset: setattr(dataset, keyword, value)) == []


def test_our_own_words_need_a_character_set_where_they_are_not_ascii() -> None:
    def without_characters(dataset: Dataset) -> None:
        del dataset.SpecificCharacterSet
        dataset.SeriesDescription = "Befund für KI"

    assert "SeriesDescription is not ASCII and no character set is stated" in problems("SC", without_characters)


def test_the_identity_is_that_of_the_result() -> None:
    result, dataset = _made()["SC"]
    other = replace(result, sop_instance_uid="2.25.1", series_instance_uid="2.25.2", transfer_syntax_uid="2.25.3")
    assert list(gate.problems_of(subject_of(other, dataset)))[:4] == [
        "SOPInstanceUID is not 2.25.1",
        "SeriesInstanceUID is not 2.25.2",
        "MediaStorageSOPInstanceUID is not 2.25.1",
        "TransferSyntaxUID is not 2.25.3",
    ]
    assert result.transfer_syntax_uid == ExplicitVRLittleEndian
    assert result.kind is ResultKind.SECONDARY_CAPTURE
