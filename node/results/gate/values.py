"""Values that break their value representation (PS3.5 6.2), and codes that are none (PS3.3 section 8)."""

import math
from collections.abc import Iterator

from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.datadict import keyword_for_tag
from pydicom.valuerep import validate_value

from node.results.document import COPIED
from node.results.gate.tree import CODE_VALUES, Subject

_TEXT = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
_FLOATS = frozenset({"FD", "FL", "OF", "OD"})
_OF_THE_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def problems(subject: Subject) -> Iterator[str]:
    """What breaks its representation; what was copied from the source is the PACS's own and stays as it is."""
    dataset = subject.dataset
    yield from _of_file_meta(dataset)
    has_characters = bool(dataset.get("SpecificCharacterSet"))
    for element in dataset:
        if element.keyword not in COPIED:
            yield from _of_element(element, "", has_characters)


def _of_file_meta(dataset: Dataset) -> Iterator[str]:
    for element in dataset.file_meta:
        yield from _of_element(element, "file meta ", True)


def _of_element(element: DataElement, path: str, has_characters: bool) -> Iterator[str]:
    name = f"{path}{element.keyword or element.tag}"
    if element.VR == "SQ":
        for number, item in enumerate(element.value, start=1):
            yield from _of_item(element, item, f"{name}[{number}]", has_characters)
    elif element.VR == "UN" and keyword_for_tag(element.tag):
        yield f"{name} is written as UN: its {len(element.value or b'')} bytes are too long for its VR"
    elif element.VR in _TEXT:
        yield from _of_text(element, name, has_characters)
    elif element.VR in _FLOATS and not isinstance(element.value, bytes):
        values = element.value if element.VM > 1 else [element.value]
        if not all(value is None or math.isfinite(value) for value in values):
            yield f"{name} holds a value that is no finite number"


def _of_item(sequence: DataElement, item: Dataset, path: str, has_characters: bool) -> Iterator[str]:
    elements = list(item)
    if sequence.keyword.endswith("CodeSequence"):
        yield from _of_code({element.keyword for element in elements if not element.is_empty}, path)
    for element in elements:
        yield from _of_element(element, f"{path}.", has_characters)


def _of_code(filled: set[str], path: str) -> Iterator[str]:
    """`filled`: the keywords that have a value (PS3.3 8.1, 8.2, 8.3)."""
    if len(filled.intersection(CODE_VALUES)) != 1:
        yield f"{path} has no code value, or several"
    if not filled & {"CodingSchemeDesignator", "URNCodeValue"}:
        yield f"{path} has no coding scheme"
    if "CodeMeaning" not in filled:
        yield f"{path} has no code meaning"


def _of_text(element: DataElement, name: str, has_characters: bool) -> Iterator[str]:
    values = element.value if element.VM > 1 else [element.value]
    for value in values:
        text = "" if value is None else str(value)
        try:
            validate_value(element.VR, text, RAISE)
        except (ValueError, TypeError):
            yield f"{name} breaks its VR {element.VR} ({len(text)} characters)"
        if element.VR in _OF_THE_CHARACTER_SET and not has_characters and not text.isascii():
            yield f"{name} is not ASCII and no character set is stated"
