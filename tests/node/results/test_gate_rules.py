"""The tables of templates and relationships: each row catches what breaks it, and says where."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from io import BytesIO

import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.sr.codedict import codes as standard

from node.destinations import CadProfile
from node.mammography.findings import BreastDensity, Correspondence
from node.mammography.views import RCC, RMLO
from node.results import cad_report, key_objects, structured_report
from node.results.gate import cad_templates, relationships, report_templates, structure
from node.results.gate.rows import Row
from node.results.gate.tree import NO_CODE, Item, by_position, read_tree, subject_of
from node.results.reading import EncodedResult, ResultKind
from tests.node.results import cad_exams, exams, report_exams

PROFILE = CadProfile(required_at=(("mass", 0.9), ("suspicious_calcification", 0.9)), below="optional")
WRONG_CODE = {"CodeValue": "999999", "CodingSchemeDesignator": "99X", "CodeMeaning": "Something else"}


def _cad() -> EncodedResult:
    return cad_report.encode(cad_exams.everything(), exams.sources(), PROFILE)


def _failed() -> EncodedResult:
    return cad_report.encode(cad_exams.VARIANTS["one view refused"].reading(), exams.sources(), PROFILE)


def _report() -> EncodedResult:
    """Of two views: a short tree with every kind of group."""
    reading, sources = exams.reading(views=(RCC, RMLO)), exams.sources()
    reading = replace(reading, correspondences=(Correspondence(0, 1),), density=BreastDensity("C", 0.61))
    return structured_report.encode(reading, sources, exams.encode_all(reading, sources, "SEG"))


def _keys() -> EncodedResult:
    return key_objects.encode(
        exams.reading(), exams.sources(), exams.encode_all(exams.reading(), exams.sources(), "SC")
    )


def _rejection() -> EncodedResult:
    return key_objects.reject(report_exams.later(), exams.sources(), report_exams.DOCUMENTS)


DOCUMENTS: dict[str, Callable[[], EncodedResult]] = {
    "CAD SR": _cad, "CAD SR, a view refused": _failed, "report": _report, "key objects": _keys, "rejection": _rejection,
}  # fmt: skip


@cache
def _made(name: str) -> tuple[EncodedResult, Dataset]:
    result = DOCUMENTS[name]()
    dataset = pydicom.dcmread(BytesIO(result.content))
    read_tree(dataset)
    return result, dataset


def fresh(name: str, position: tuple[int, ...] = (1,)) -> Dataset:
    """The document, with new data sets from its root to the item at `position`; the others are shared."""
    return _renewed(_made(name)[1], position[1:])


def _renewed(dataset: Dataset, path: tuple[int, ...]) -> Dataset:
    renewed = Dataset()
    for element in dataset:
        renewed.add(element if path or element.keyword == "ContentSequence" else deepcopy(element))
    children = list(dataset.get("ContentSequence") or ())
    if path:
        children[path[0] - 1] = _renewed(children[path[0] - 1], path[1:])
    if children:
        renewed.add(DataElement(0x0040A730, "SQ", children))
    return renewed


def problems(name: str, dataset: Dataset) -> list[str]:
    return list(structure.problems(subject_of(_made(name)[0], dataset)))


def at(dataset: Dataset, position: tuple[int, ...]) -> Dataset:
    for number in position[1:]:
        dataset = dataset.ContentSequence[number - 1]
    return dataset


@cache
def items(name: str) -> tuple[Item, ...]:
    """All below the root, references left out."""
    return tuple(item for item in read_tree(_made(name)[1]).walk() if not item.target and len(item.position) > 1)


def rows() -> Iterator[tuple[str, str, Row]]:
    """Each row that names one concept, with a document in which an item has that name."""
    tables = {"CAD SR": cad_templates, "CAD SR, a view refused": cad_templates, "report": report_templates,
              "key objects": report_templates}  # fmt: skip
    seen = set()
    for name, table in tables.items():
        here = {item.name for item in items(name)}
        for template, rules in table.TEMPLATES.items():
            for row in rules.rows:
                is_here = tuple(row.concept.split(" ")[:2]) in here and row.value_type != "INCLUDE"
                if is_here and (table, template, row) not in seen:
                    seen.add((table, template, row))
                    yield name, template, row


ROWS = list(rows())
IDS = [f"{name}: {template} {row.concept}" for name, template, row in ROWS]


def first_of(name: str, row: Row) -> Item:
    return next(item for item in items(name) if item.name == tuple(row.concept.split(" ")[:2]))


def without(dataset: Dataset, position: tuple[int, ...]) -> Dataset:
    del at(dataset, position[:-1]).ContentSequence[position[-1] - 1]
    return dataset


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_as_it_was_made_has_no_problem(name: str) -> None:
    assert problems(name, fresh(name)) == []


def test_most_rows_are_reached_by_a_document() -> None:
    """The rest are rows for what no document here holds: calcification type, operating point tables, follow-up."""
    reached = {template for _, template, _ in ROWS}
    assert {"TID 4000", "TID 4001", "TID 4002", "TID 4003", "TID 4004", "TID 4005", "TID 4006", "TID 4014", "TID 4015",
            "TID 4016", "TID 4017", "TID 4018", "TID 4019", "TID 4020", "TID 4021", "TID 4108", "TID 1204", "TID 1001",
            "TID 1500", "TID 1501", "TID 1600", "TID 1601"} <= reached  # fmt: skip


@pytest.mark.parametrize(("name", "template", "row"), ROWS, ids=IDS)
def test_a_required_item_that_is_missing_is_named(name: str, template: str, row: Row) -> None:
    item = first_of(name, row)
    found = problems(name, without(fresh(name, item.position), item.position))
    if row.need == "M" and row.times == "1" and not _in_repeated_template(template):
        assert any(f"lacks {row.concept}" in words or f"({row.concept})" in words for words in found)
    else:
        assert not any("out of order" in words for words in found)


@pytest.mark.parametrize(("name", "template", "row"), ROWS, ids=IDS)
def test_an_item_of_another_value_type_is_found(name: str, template: str, row: Row) -> None:
    item = first_of(name, row)
    dataset = fresh(name, item.position)
    at(dataset, item.position).ValueType = "TEXT" if item.value_type != "TEXT" else "UIDREF"
    assert any(words.startswith(item.where) for words in problems(name, dataset))


@pytest.mark.parametrize(("name", "template", "row"), ROWS, ids=IDS)
def test_an_item_in_another_relationship_is_found(name: str, template: str, row: Row) -> None:
    item = first_of(name, row)
    dataset = fresh(name, item.position)
    other = "HAS PROPERTIES" if item.relationship != "HAS PROPERTIES" else "HAS OBS CONTEXT"
    at(dataset, item.position).RelationshipType = other
    assert any(words.startswith(item.where) for words in problems(name, dataset))


@pytest.mark.parametrize(("name", "template", "row"), ROWS, ids=IDS)
def test_an_item_that_stands_there_twice_is_found(name: str, template: str, row: Row) -> None:
    item = first_of(name, row)
    dataset = fresh(name, item.position)
    siblings = at(dataset, item.position[:-1]).ContentSequence
    siblings.insert(item.position[-1], deepcopy(siblings[item.position[-1] - 1]))
    found = problems(name, dataset)
    if row.times == "1" and not _in_repeated_template(template):
        assert any("times" in words or "lacks" in words for words in found)
    else:
        assert not any(words.startswith(item.where) and "lacks" in words for words in found)


def _in_repeated_template(template: str) -> bool:
    """A template of one row that may be included often, as groups, findings and images are."""
    return template in ("TID 1501", "TID 1601", "TID 4003", "TID 4004", "TID 4006", "TID 4014", "TID 4017", "TID 4018",
                        "TID 4020")  # fmt: skip


CODED = [(name, template, row) for name, template, row in ROWS if row.value_type == "CODE" and row.values]


@pytest.mark.parametrize(("name", "template", "row"), CODED, ids=[f"{n}: {t} {r.concept}" for n, t, r in CODED])
def test_a_code_outside_the_row_s_value_set_is_found(name: str, template: str, row: Row) -> None:
    item = first_of(name, row)
    dataset = fresh(name, item.position)
    for keyword, value in WRONG_CODE.items():
        setattr(at(dataset, item.position).ConceptCodeSequence[0], keyword, value)
    assert f"{item.where} {row.concept} has a value that is none of {row.values}" in problems(name, dataset)


NUMBERS = [(name, template, row) for name, template, row in ROWS if row.value_type == "NUM" and row.values]


@pytest.mark.parametrize(("name", "template", "row"), NUMBERS, ids=[f"{n}: {t} {r.concept}" for n, t, r in NUMBERS])
def test_another_unit_is_found(name: str, template: str, row: Row) -> None:
    item = first_of(name, row)
    dataset = fresh(name, item.position)
    at(dataset, item.position).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "furlong"
    assert f"{item.where} {row.concept} has a value that is none of {row.values}" in problems(name, dataset)


@pytest.mark.parametrize("name", ["CAD SR", "CAD SR, a view refused"])
def test_neighbours_that_change_places_are_found_where_order_counts(name: str) -> None:
    """Every two siblings of different name or kind, except properties of an image that no row puts before another."""
    root, unnoticed = read_tree(_made(name)[1]), []
    for parent in root.walk():
        for left, right in zip(parent.children, parent.children[1:], strict=False):
            if (left.name, left.relationship, left.value_type) == (right.name, right.relationship, right.value_type):
                continue
            dataset = fresh(name, parent.position)
            siblings, first = at(dataset, parent.position).ContentSequence, left.position[-1] - 1
            siblings[first], siblings[first + 1] = siblings[first + 1], siblings[first]
            if not problems(name, dataset):
                unnoticed.append((left.where, left.name, right.name))
    assert unnoticed == []


def test_what_no_row_has_is_found_where_a_template_is_not_extensible() -> None:
    for item in items("CAD SR"):
        if item.value_type not in ("CODE", "CONTAINER"):
            continue
        dataset = fresh("CAD SR", item.position)
        holder = at(dataset, item.position)
        extra = Dataset()
        extra.RelationshipType = "HAS PROPERTIES" if item.value_type == "CODE" else "CONTAINS"
        extra.ValueType, extra.TextValue = "TEXT", "something"
        extra.ConceptNameCodeSequence = [Dataset()]
        for keyword, value in WRONG_CODE.items():
            setattr(extra.ConceptNameCodeSequence[0], keyword, value)
        holder.ContentSequence = [*(holder.get("ContentSequence") or []), extra]
        assert any("999999 99X is not what the template has there" in words for words in problems("CAD SR", dataset))


def test_a_report_may_hold_what_no_row_has() -> None:
    dataset = fresh("report")
    comment = deepcopy(next(item for item in items("report") if item.value_type == "TEXT")).dataset
    comment = deepcopy(comment)
    comment.RelationshipType = "CONTAINS"
    for keyword, value in WRONG_CODE.items():
        setattr(comment.ConceptNameCodeSequence[0], keyword, value)
    dataset.ContentSequence.append(comment)
    assert problems("report", dataset) == []


def test_a_template_that_is_not_stated_is_found() -> None:
    for name in ("CAD SR", "report", "key objects"):
        dataset = fresh(name)
        dataset.ContentTemplateSequence[0].TemplateIdentifier = "4100"
        assert any("ContentTemplateSequence does not state" in words for words in problems(name, dataset))


def references(name: str) -> list[Item]:
    return [item for item in read_tree(_made(name)[1]).walk() if item.target]


@pytest.mark.parametrize("target", [[1, 99], [1], [1, 2, 1, 1, 1]], ids=["nothing", "an ancestor", "another kind"])
def test_a_reference_that_leads_astray_is_found(target: list[int]) -> None:
    assert references("CAD SR")
    for reference in references("CAD SR"):
        dataset = fresh("CAD SR", reference.position)
        at(dataset, reference.position).ReferencedContentItemIdentifier = target
        assert any(words.startswith(reference.where) for words in problems("CAD SR", dataset))


@pytest.mark.parametrize("value_type", ["DATETIME", "SCOORD3D", "TCOORD", "WAVEFORM", "TABLE", ""])
def test_a_value_type_that_a_cad_sr_may_not_hold_is_found(value_type: str) -> None:
    item = next(item for item in items("CAD SR") if item.value_type == "DATE")
    dataset = fresh("CAD SR", item.position)
    at(dataset, item.position).ValueType = value_type
    assert any(words.startswith(item.where) for words in problems("CAD SR", dataset))


VALUES = [(value_type, keyword) for value_type, keywords in relationships.VALUE_OF.items() for keyword in keywords]


@pytest.mark.parametrize(("value_type", "keyword"), VALUES)
def test_an_item_without_its_value_is_found(value_type: str, keyword: str) -> None:
    for name in DOCUMENTS:
        item = next((item for item in items(name) if item.value_type == value_type), None)
        if item is None:
            continue
        dataset = fresh(name, item.position)
        del at(dataset, item.position)[keyword]
        assert f"{item.where}: {keyword} of a {value_type} is missing" in problems(name, dataset)
        return
    assert value_type in ("DATETIME", "PNAME")


@pytest.mark.parametrize(
    ("points", "kind"), [([1.0, 2.0, 3.0], "POINT"), ([1.0, 2.0, 3.0, 4.0], "POINT"), ([1.0, 2.0], "POLYLINE"),
                         ([1.0, 2.0, 3.0, 4.0], "ELLIPSE"), ([1.0, 2.0], "SQUARE")]
)  # fmt: skip
def test_graphics_with_too_few_or_too_many_points_are_found(points: list[float], kind: str) -> None:
    item = next(item for item in items("CAD SR") if item.value_type == "SCOORD")
    dataset = fresh("CAD SR", item.position)
    at(dataset, item.position).GraphicType, at(dataset, item.position).GraphicData = kind, points
    assert f"{item.where}: {kind} with {len(points) // 2} points" in problems("CAD SR", dataset)


def test_a_percentage_above_100_is_found() -> None:
    item = next(item for item in items("CAD SR") if item.value_type == "NUM" and item.name[0] == "111012")
    dataset = fresh("CAD SR", item.position)
    at(dataset, item.position).MeasuredValueSequence[0].NumericValue = "101"
    assert f"{item.where}: 101 %" in problems("CAD SR", dataset)


def test_a_name_is_asked_of_all_that_must_have_one() -> None:
    item = next(item for item in items("CAD SR") if item.value_type == "TEXT")
    dataset = fresh("CAD SR", item.position)
    del at(dataset, item.position).ConceptNameCodeSequence
    assert f"{item.where}: TEXT has no concept name" in problems("CAD SR", dataset)
    assert read_tree(dataset).name != NO_CODE


def test_a_rejection_without_its_reason_is_found() -> None:
    modifier = next(item for item in items("rejection") if item.name[0] == "113011")
    dataset = without(fresh("rejection", modifier.position), modifier.position)
    assert any("lacks 113011" in words for words in problems("rejection", dataset))


CONDITIONS = [
    ("attempted", "111064", "111225", "111222"),
    ("summary tells of findings", "111017", "111241", "111242"),
    ("some succeeded", "111064", "111224", "111222"),
    ("some failed", "111064", "111222", "111224"),
    ("optional", "111056", "111150", "111151"),
    ("suspicious finding", "111059", "111101", "129793001"),
    ("finding with a place", "111059", "111101", "129793001"),
    ("composition", "111059", "129793001", "129715009"),
    ("quality", "111059", "129793001", "111101"),
    ("lesion", "111015", "111102", "129788004"),
]


@pytest.mark.parametrize(("condition", "concept", "no", "yes"), CONDITIONS)
def test_conditions_look_at_the_parent_s_value(condition: str, concept: str, no: str, yes: str) -> None:
    def parent(value: str) -> Item:
        return Item((1,), "", "CODE", (concept, "DCM"), (value, "DCM"), (), (), Dataset())

    holds = cad_templates.CONDITIONS[condition].holds
    assert (holds(parent(no)), holds(parent(yes))) == (False, True)


@pytest.mark.parametrize("table", [cad_templates, report_templates])
def test_the_tables_name_only_what_there_is(table: object) -> None:
    """Included templates, conditions and context groups exist; codes of DCM and SCT are in pydicom's tables."""
    known = {code.value for scheme in ("DCM", "SCT") for code in _codes(scheme)}
    for rules in table.TEMPLATES.values():  # type: ignore[attr-defined]
        for row in rules.rows:
            assert not row.condition or row.condition in table.CONDITIONS  # type: ignore[attr-defined]
            if row.value_type == "INCLUDE":
                assert row.concept in table.TEMPLATES  # type: ignore[attr-defined]
                continue
            for words in (row.concept, row.values):
                if words.startswith("CID "):
                    assert structure.members(words)
            value, _, scheme = row.concept.partition(" ")
            if scheme.split(" ")[0] in ("DCM", "SCT"):
                assert value in known, row


def _codes(scheme: str) -> list[object]:
    concepts = getattr(standard, scheme)
    return [getattr(concepts, name) for name in concepts.dir()]


def test_positions_are_those_that_references_use() -> None:
    root = read_tree(_made("CAD SR")[1])
    library = by_position(root)
    assert all(library[item.target].value_type in ("IMAGE", "CODE") for item in references("CAD SR"))
    assert ResultKind.CAD_REPORT is _made("CAD SR")[0].kind
