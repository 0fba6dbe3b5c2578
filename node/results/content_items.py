"""Content items of an SR document (PS3.3 C.17.3), one function for each value type, and the reference to one."""

import math
from collections.abc import Iterable, Sequence
from datetime import date as Date
from enum import StrEnum
from itertools import chain

from pydicom import Dataset
from pydicom.uid import UID

from node.mammography.findings import Code
from node.results.codes import code_item

MAX_POINTS = 65534 // 8
"""Graphic Data (0070,0022) is FL, two of 4 bytes for a point, and its length field has 16 bits (PS3.5 7.1.2)."""


class Relationship(StrEnum):
    """Relationship Type (0040,A010) of a content item to its parent (PS3.3 C.17.3.2.4)."""

    CONTAINS = "CONTAINS"
    HAS_PROPERTIES = "HAS PROPERTIES"
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
    HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
    INFERRED_FROM = "INFERRED FROM"
    SELECTED_FROM = "SELECTED FROM"


def _item(
    relationship: Relationship | None, value_type: str, concept: Code | None, children: Iterable[Dataset]
) -> Dataset:
    item = Dataset()
    if relationship is not None:
        item.RelationshipType = relationship.value
    item.ValueType = value_type
    if concept is not None:
        item.ConceptNameCodeSequence = [code_item(concept)]
    contained = list(children)
    if contained:
        item.ContentSequence = contained
    return item


def container(relationship: Relationship | None, concept: Code, *children: Dataset) -> Dataset:
    """CONTAINER, its content separate. No relationship: the root."""
    item = _item(relationship, "CONTAINER", concept, children)
    item.ContinuityOfContent = "SEPARATE"
    return item


def code(relationship: Relationship, concept: Code, value: Code, *children: Dataset) -> Dataset:
    """CODE."""
    item = _item(relationship, "CODE", concept, children)
    item.ConceptCodeSequence = [code_item(value)]
    return item


def text(relationship: Relationship, concept: Code, value: str, *children: Dataset) -> Dataset:
    """TEXT."""
    item = _item(relationship, "TEXT", concept, children)
    item.TextValue = value
    return item


def number(relationship: Relationship, concept: Code, value: float, unit: Code, *children: Dataset) -> Dataset:
    """NUM, six significant digits (DS has 16 characters)."""
    item = _item(relationship, "NUM", concept, children)
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = [code_item(unit)]
    measured.NumericValue = f"{value:.6g}"
    item.MeasuredValueSequence = [measured]
    return item


def date(relationship: Relationship, concept: Code, value: str | Date) -> Dataset:
    """DATE, of a DA."""
    item = _item(relationship, "DATE", concept, ())
    item.Date = value
    return item


def time(relationship: Relationship, concept: Code, value: str) -> Dataset:
    """TIME, of a TM."""
    item = _item(relationship, "TIME", concept, ())
    item.Time = value
    return item


def uid_reference(relationship: Relationship, concept: Code, uid: str) -> Dataset:
    """UIDREF."""
    item = _item(relationship, "UIDREF", concept, ())
    item.UID = UID(uid)
    return item


def image(relationship: Relationship, sop_class_uid: str, sop_instance_uid: str, *children: Dataset) -> Dataset:
    """IMAGE without a concept name."""
    item = _item(relationship, "IMAGE", None, children)
    reference = Dataset()
    reference.ReferencedSOPClassUID = UID(sop_class_uid)
    reference.ReferencedSOPInstanceUID = UID(sop_instance_uid)
    item.ReferencedSOPSequence = [reference]
    return item


def point(relationship: Relationship, concept: Code, at: tuple[float, float], *children: Dataset) -> Dataset:
    """SCOORD POINT: (column, row), 0.0\\0.0 the top-left corner of the top-left pixel (PS3.3 C.18.6.1.1)."""
    return _coordinates(relationship, concept, "POINT", [at], children)


def outline(
    relationship: Relationship, concept: Code, points: Sequence[tuple[float, float]], *children: Dataset
) -> Dataset:
    """SCOORD POLYLINE that ends where it begins, thinned where it has more points than Graphic Data holds."""
    closed = [*points] if points[0] == points[-1] else [*points, points[0]]
    step = max(1, math.ceil((len(closed) - 1) / (MAX_POINTS - 1)))
    return _coordinates(relationship, concept, "POLYLINE", [*closed[:-1:step], closed[-1]], children)


def _coordinates(
    relationship: Relationship,
    concept: Code,
    graphic_type: str,
    points: Sequence[tuple[float, float]],
    children: Iterable[Dataset],
) -> Dataset:
    item = _item(relationship, "SCOORD", concept, children)
    item.GraphicType = graphic_type
    item.GraphicData = [float(value) for value in chain.from_iterable(points)]
    return item


def by_reference(relationship: Relationship, position: Sequence[int]) -> Dataset:
    """A relationship to an item that stands elsewhere in the tree (PS3.3 C.17.3.2.5): (1, 2, 3) is the third child of
    the second child of the root.
    """
    item = Dataset()
    item.RelationshipType = relationship.value
    item.ReferencedContentItemIdentifier = list(position)
    return item
