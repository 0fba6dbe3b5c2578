"""An SR content tree as plain values, to compare and to search."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import pydicom
from pydicom import Dataset


@dataclass
class Node:
    """One content item. `concept` is a Code Value, IMAGE for an image, "" for a reference; `value` is a Code Value, a
    number, a text, and of a reference the position it leads to.
    """

    relationship: str
    value_type: str
    concept: str
    value: str
    item: Dataset
    children: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, concept: str) -> list["Node"]:
        return [node for node in self.walk() if node.concept == concept]

    def one(self, concept: str) -> "Node":
        (node,) = self.all(concept)
        return node

    def at(self, position: Sequence[int]) -> "Node":
        """By Referenced Content Item Identifier; (1,) is the node itself."""
        node = self
        for number in position[1:]:
            node = node.children[number - 1]
        return node


def tree(content: bytes) -> Node:
    return _node(pydicom.dcmread(BytesIO(content)))


def _node(item: Dataset) -> Node:
    concept = item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else ""
    value_type = str(item.get("ValueType", ""))
    node = Node(str(item.get("RelationshipType", "")), value_type, concept or value_type, _value(item), item)
    node.children = [_node(child) for child in item.get("ContentSequence", ())]
    return node


def _value(item: Dataset) -> str:
    if "ReferencedContentItemIdentifier" in item:
        return ".".join(map(str, item.ReferencedContentItemIdentifier))
    readers = {
        "CODE": lambda: item.ConceptCodeSequence[0].CodeValue,
        "NUM": lambda: item.MeasuredValueSequence[0].NumericValue,
        "TEXT": lambda: item.TextValue,
        "UIDREF": lambda: item.UID,
        "DATE": lambda: item.Date,
        "TIME": lambda: item.Time,
        "SCOORD": lambda: item.GraphicType,
        "IMAGE": lambda: item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
    }
    return str(readers.get(item.ValueType, lambda: "")())
