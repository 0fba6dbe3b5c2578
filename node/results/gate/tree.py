"""The content tree of an SR document (PS3.3 C.17.3) as plain values, for the checks that walk it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from node.results.reading import EncodedResult

NO_CODE = ("", "")
CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
"""One of them holds the value of a code (PS3.3 8.1)."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One object under examination; `root` where it has a content tree."""

    result: EncodedResult
    dataset: Dataset
    root: Item | None


def subject_of(result: EncodedResult, dataset: Dataset) -> Subject:
    """The object with its tree, read once for all checks."""
    return Subject(result, dataset, read_tree(dataset) if "ValueType" in dataset else None)


def read_tree(dataset: Dataset) -> Item:
    """The tree from its root."""
    return _read(dataset, (1,))


def by_position(root: Item) -> dict[tuple[int, ...], Item]:
    """Every item that is not a reference, by its position."""
    return {item.position: item for item in root.walk() if not item.target}


def _read(dataset: Dataset, position: tuple[int, ...]) -> Item:
    values = {element.keyword: element.value for element in dataset}
    children = enumerate(values.get("ContentSequence") or (), start=1)
    return Item(
        position=position,
        relationship=str(values.get("RelationshipType") or ""),
        value_type=str(values.get("ValueType") or ""),
        name=_first_code(values.get("ConceptNameCodeSequence")),
        value=_first_code(values.get("ConceptCodeSequence")),
        children=tuple(_read(child, (*position, number)) for number, child in children),
        target=_numbers(values.get("ReferencedContentItemIdentifier")),
        dataset=dataset,
    )


def _numbers(value: int | Iterable[int] | None) -> tuple[int, ...]:
    """Referenced Content Item Identifier, () where there is none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(map(int, value))


def _first_code(items: Sequence[Dataset] | None) -> tuple[str, str]:
    return code_of(items[0]) if items else NO_CODE


def code_of(item: Dataset) -> tuple[str, str]:
    """Code Value (or its long forms) and Coding Scheme Designator of an item of a Code Sequence."""
    values = {element.keyword: element.value for element in item}
    value = next((str(values[keyword]) for keyword in CODE_VALUES if values.get(keyword)), "")
    return value, str(values.get("CodingSchemeDesignator") or "")
