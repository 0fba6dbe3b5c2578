"""The content tree of an SR document (PS3.3 C.17.3) as plain values, for the checks that walk it."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset

NO_CODE = ("", "")


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One content item, or a by-reference relationship to one: then `target` is its position and it has no value type.

    `position` is what Referenced Content Item Identifier (0040,DB73) says of it: (1,) the root, (1, 3) its third child.
    `name` and `value` are (Code Value, Coding Scheme Designator), NO_CODE where there is none.
    """

    position: tuple[int, ...]
    relationship: str
    value_type: str
    name: tuple[str, str]
    value: tuple[str, str]
    children: tuple["Item", ...]
    target: tuple[int, ...]
    dataset: Dataset

    @property
    def where(self) -> str:
        """The position as people write it: 1.3.2."""
        return ".".join(map(str, self.position))

    def walk(self) -> Iterator["Item"]:
        """Itself and all below it, in the order of the document."""
        yield self
        for child in self.children:
            yield from child.walk()


def read_tree(dataset: Dataset) -> Item:
    """The tree from its root."""
    return _read(dataset, (1,))


def by_position(root: Item) -> dict[tuple[int, ...], Item]:
    """Every item that is not a reference, by its position."""
    return {item.position: item for item in root.walk() if not item.target}


def _read(dataset: Dataset, position: tuple[int, ...]) -> Item:
    return Item(
        position=position,
        relationship=str(dataset.get("RelationshipType", "")),
        value_type=str(dataset.get("ValueType", "")),
        name=_code(dataset, "ConceptNameCodeSequence"),
        value=_code(dataset, "ConceptCodeSequence"),
        children=tuple(
            _read(child, (*position, number))
            for number, child in enumerate(dataset.get("ContentSequence") or (), start=1)
        ),
        target=_numbers(dataset),
        dataset=dataset,
    )


def _numbers(dataset: Dataset) -> tuple[int, ...]:
    """Referenced Content Item Identifier, () where there is none."""
    if "ReferencedContentItemIdentifier" not in dataset:
        return ()
    element = dataset["ReferencedContentItemIdentifier"]
    return tuple(map(int, element.value if element.VM > 1 else [element.value]))


def _code(dataset: Dataset, keyword: str) -> tuple[str, str]:
    items = dataset.get(keyword)
    return code_of(items[0]) if items else NO_CODE


def code_of(item: Dataset) -> tuple[str, str]:
    """Code Value (or its long forms) and Coding Scheme Designator of an item of a Code Sequence."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    return str(value), str(item.get("CodingSchemeDesignator", ""))
