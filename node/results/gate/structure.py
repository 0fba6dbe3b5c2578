"""The content tree of our SR documents against the tables: templates, relationships, value types, references."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pydicom.sr.codedict import codes

from node.results.gate import cad_templates, report_templates
from node.results.gate.relationships import (
    COMPREHENSIVE_3D_SR,
    KEY_OBJECT_SELECTION,
    MAMMOGRAPHY_CAD_SR,
    MAY_LACK_NAME,
    POINTS_OF,
    RELATIONS,
    VALUE_OF,
    Relation,
)
from node.results.gate.rows import Conditions, Row, Template
from node.results.gate.tree import Item, Subject, by_position, code_of

Templates = Mapping[str, Template]
ROOTS: dict[str, tuple[str, Templates, Conditions]] = {
    MAMMOGRAPHY_CAD_SR: ("TID 4000", cad_templates.TEMPLATES, cad_templates.CONDITIONS),
    COMPREHENSIVE_3D_SR: ("TID 1500", report_templates.TEMPLATES, report_templates.CONDITIONS),
    KEY_OBJECT_SELECTION: ("TID 2010", report_templates.TEMPLATES, report_templates.CONDITIONS),
}

MOST_PERCENT = {"121242": 1000.0}
"""By Code Value of the concept. Distance from nipple, as a share of the breast's depth: a lesion may lie behind the
pectoral muscle's edge, which ends the depth (findings.Place)."""


def problems(subject: Subject) -> Iterator[str]:
    """What is wrong with the tree; nothing for an object that has none."""
    root, sop_class_uid = subject.root, subject.result.sop_class_uid
    if sop_class_uid not in ROOTS or root is None:
        return
    name, templates, conditions = ROOTS[sop_class_uid]
    stated = [str(item.get("TemplateIdentifier", "")) for item in subject.dataset.get("ContentTemplateSequence") or ()]
    if stated != [name.removeprefix("TID ")]:
        yield f"ContentTemplateSequence does not state {name}"
    positions = by_position(root)
    yield from _of_items(root, RELATIONS[sop_class_uid], positions)
    yield from _Checker(templates, conditions, positions).level([root], _root(name), root, templates[name])


def _of_items(root: Item, relations: Sequence[Relation], positions: Mapping[tuple[int, ...], Item]) -> Iterator[str]:
    """What the IOD says whatever the template."""
    yield from _of_value(root)
    for source in root.walk():
        for child in source.children:
            target = positions.get(child.target) if child.target else child
            if target is None or (child.target and child.target == source.position[: len(child.target)]):
                yield f"{child.where} refers to {'.'.join(map(str, child.target))}, which is no other content item"
                continue
            related = (source.value_type, child.relationship, target.value_type, bool(child.target))
            if not any(relation.allows(*related) for relation in relations):
                how = "by reference " if child.target else ""
                yield f"{child.where}: {source.value_type} {child.relationship} {how}{target.value_type} is not allowed"
            if not child.target:
                yield from _of_value(child)


def _of_value(item: Item) -> Iterator[str]:
    """What the value type asks for."""
    needed = VALUE_OF.get(item.value_type)
    if needed is None:
        yield f"{item.where}: value type {item.value_type or 'missing'} is not written by this node"
        return
    for keyword in needed:
        if keyword not in item.dataset or (keyword != "MeasuredValueSequence" and item.dataset[keyword].is_empty):
            yield f"{item.where}: {keyword} of a {item.value_type} is missing"
    if not item.name[0] and (item.value_type not in MAY_LACK_NAME or not item.relationship):
        yield f"{item.where}: {item.value_type} has no concept name"
    if item.value_type == "SCOORD":
        yield from _of_points(item)
    if item.value_type == "NUM":
        yield from _of_number(item)


def _of_points(item: Item) -> Iterator[str]:
    kind = str(item.dataset.get("GraphicType", ""))
    least, most = POINTS_OF.get(kind, (0, 0))
    count, odd = divmod(len(item.dataset.get("GraphicData") or ()), 2)
    if odd or count < least or (most is not None and count > most):
        yield f"{item.where}: {kind or 'no graphic type'} with {count} points"


def _of_number(item: Item) -> Iterator[str]:
    for value in item.dataset.get("MeasuredValueSequence") or ():
        unit = code_of(value.MeasurementUnitsCodeSequence[0])[0] if value.get("MeasurementUnitsCodeSequence") else ""
        number = value.get("NumericValue")
        if not unit or number is None:
            yield f"{item.where}: a number without value or unit"
        elif unit == "%" and not 0.0 <= float(number) <= MOST_PERCENT.get(item.name[0], 100.0):
            yield f"{item.where}: {number} %"


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """A row with the rows nested in it, or with those of the template that it includes."""

    row: Row
    relationship: str
    nested: tuple[Row, ...]


@lru_cache(512)
def _slots_of(rows: tuple[Row, ...], relationship: str) -> tuple[_Slot, ...]:
    """The rows of the outermost level; those under them are nested, one ">" less."""
    slots: list[_Slot] = []
    for row in rows:
        if row.level:
            above = slots[-1]
            slots[-1] = replace(above, nested=(*above.nested, replace(row, level=row.level[1:])))
        else:
            slots.append(_Slot(row, row.relationship or relationship, ()))
    return tuple(slots)


def _root(name: str) -> tuple[_Slot, ...]:
    """The one slot of a document's root: it includes the root template."""
    return (_Slot(Row("", "", "INCLUDE", name, "1", "M"), "", ()),)


@lru_cache(128)
def members(group: str) -> frozenset[tuple[str, str]]:
    """(Code Value, Coding Scheme Designator) of a context group, from pydicom's tables of PS3.16 annex B."""
    known = getattr(codes, group.lower().replace(" ", ""))
    return frozenset((code.value, code.scheme_designator) for code in (getattr(known, each) for each in known.dir()))


def _is_named(concept: str, name: tuple[str, str]) -> bool:
    if not concept:
        return True
    return name in members(concept) if concept.startswith("CID ") else name == tuple(concept.split(" ", 2)[:2])


@dataclass(frozen=True, slots=True, eq=False)
class _Checker:
    """Walks one document along its templates."""

    templates: Templates
    conditions: Conditions
    positions: Mapping[tuple[int, ...], Item]

    def level(self, items: Sequence[Item], slots: Sequence[_Slot], parent: Item, rules: Template) -> Iterator[str]:
        """`items`, siblings under `parent`, against the rows of their level."""
        found: dict[int, list[Item]] = {index: [] for index in range(len(slots))}
        last = 0
        for item in items:
            index = self._slot_of(item, slots, last)
            if index is None:
                if not rules.extensible or self._is_known(item, slots):
                    yield f"{item.where} {_said(item)} is not what the template has there"
                continue
            if index < last:
                yield f"{item.where} {_said(item)} is out of order"
            last = max(last, index) if rules.ordered else 0
            found[index].append(item)
        for index, slot in enumerate(slots):
            yield from self._of_slot(slot, found[index], parent, rules)

    def _slot_of(self, item: Item, slots: Sequence[_Slot], last: int) -> int | None:
        """The first row from `last` on that describes the item, or else the first of all."""
        fitting = [index for index, slot in enumerate(slots) if self._fits(item, slot)]
        return next((index for index in fitting if index >= last), fitting[0] if fitting else None)

    def _fits(self, item: Item, slot: _Slot) -> bool:
        if slot.row.value_type == "INCLUDE":
            return any(self._fits(item, inner) for inner in self._included(slot))
        by_reference = slot.relationship.startswith("R-")
        target = self.positions.get(item.target) if item.target else item
        return (
            target is not None
            and bool(item.target) == by_reference
            and item.relationship == slot.relationship.removeprefix("R-")
            and target.value_type == slot.row.value_type
            and _is_named(slot.row.concept, target.name)
        )

    def _included(self, slot: _Slot) -> tuple[_Slot, ...]:
        return _slots_of(self.templates[slot.row.concept].rows, slot.relationship)

    def _is_known(self, item: Item, slots: Sequence[_Slot]) -> bool:
        """Whether a row has this name with another value type or relationship."""
        for slot in slots:
            if slot.row.value_type == "INCLUDE":
                if self._is_known(item, self._included(slot)):
                    return True
            elif (
                slot.row.concept and not slot.row.concept.startswith("CID ") and _is_named(slot.row.concept, item.name)
            ):
                return True
        return False

    def _of_slot(self, slot: _Slot, items: Sequence[Item], parent: Item, rules: Template) -> Iterator[str]:
        if slot.row.value_type != "INCLUDE":
            yield from self._times(slot.row, len(items), parent)
            for item in items:
                yield from self._of_item(item, slot, rules)
            return
        included = self._included(slot)
        repeated = self._repetitions(items, included)
        yield from self._times(slot.row, len(repeated), parent, f"{slot.row.concept} ({_name(included[0].row)})")
        for repetition in repeated:
            yield from self.level(repetition, included, parent, self.templates[slot.row.concept])

    def _repetitions(self, items: Sequence[Item], included: Sequence[_Slot]) -> list[list[Item]]:
        """Each begins with the template's first row, where that stands once; what follows goes with it."""
        repeated: list[list[Item]] = []
        for item in items:
            begins = included[0].row.times == "1" and self._fits(item, included[0])
            if begins or not repeated:
                repeated.append([item])
            else:
                repeated[-1].append(item)
        return repeated

    def _times(self, row: Row, count: int, parent: Item, name: str = "") -> Iterator[str]:
        condition = self.conditions[row.condition] if row.condition else None
        holds = condition is None or condition.holds(parent)
        name = name or _name(row)
        if count == 0 and (row.need == "M" or (row.need == "MC" and holds)):
            yield f"{parent.where} {_said(parent)} lacks {name}"
        elif count and condition is not None and not holds and not condition.otherwise:
            yield f"{parent.where} {_said(parent)} may not have {name}"
        if count > 1 and row.times == "1":
            yield f"{parent.where} {_said(parent)} has {count} times {name}"

    def _of_item(self, item: Item, slot: _Slot, rules: Template) -> Iterator[str]:
        if item.target:
            return
        if slot.row.values and not _has_value(item, slot.row.values):
            yield f"{item.where} {_name(slot.row)} has a value that is none of {slot.row.values}"
        yield from self.level(item.children, _slots_of(slot.nested, ""), item, rules)


def _has_value(item: Item, values: str) -> bool:
    if item.value_type == "CODE":
        return _is_named(values, item.value)
    if item.value_type == "SCOORD":
        return str(item.dataset.get("GraphicType", "")) in values.split()
    measured = item.dataset.get("MeasuredValueSequence") or ()
    units = [code_of(unit)[0] for value in measured for unit in value.get("MeasurementUnitsCodeSequence") or ()]
    return all(unit in values.split() for unit in units)


def _name(row: Row) -> str:
    return row.concept or f"{row.relationship} {row.value_type}".strip()


def _said(item: Item) -> str:
    """Relationship, value type and concept name: nothing of the value, which may be anything."""
    kind = item.value_type or "reference"
    return " ".join(word for word in (item.relationship, kind, *item.name) if word)
