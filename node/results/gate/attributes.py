"""Required attributes (PS3.5 7.4) of the modules that an IOD has, from the tables that come with highdicom.

Type 1 is there and has a value, type 2 is there; inside every sequence that is there too. Conditional types are left to
dciodvfy: whether their condition holds is not in the tables. Content items are checked by `structure`, by value type:
the tables have all value types of C.17.3 on one heap.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from pydicom import Dataset

from node.results.document import COPIED
from node.results.gate.tree import Subject

_TABLES = files("highdicom") / "_standard"
_BY_VALUE_TYPE = frozenset({"sr-document-content"})
_OF_MACROS = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})
"""Their items hold functional group macros, each in one of the two: what a macro holds is checked where it stands."""
_OTHER_NAMES: Mapping[str, str] = {"1.2.840.10008.5.1.4.1.1.66.7": "segmentation"}
"""IODs of SOP classes that the tables may not know yet."""


@dataclass(slots=True)
class Attribute:
    """Type "1", "2" or "" (not required), and what the items of a sequence hold."""

    type: str = ""
    items: dict[str, "Attribute"] = field(default_factory=dict)


def problems(subject: Subject) -> Iterator[str]:
    """What is missing or empty."""
    required = required_attributes().get(_iod_of(subject.result.sop_class_uid))
    if required is None:
        yield f"no table of required attributes for SOP class {subject.result.sop_class_uid}"
        return
    for module in required:
        yield from _missing(subject.dataset, module, "")


def _missing(dataset: Dataset, attributes: Mapping[str, Attribute], path: str) -> Iterator[str]:
    for keyword, attribute in attributes.items():
        if not path and keyword in COPIED:
            attribute = Attribute(attribute.type)
        if keyword not in dataset:
            if attribute.type:
                yield f"{path}{keyword} is missing (type {attribute.type})"
            continue
        element = dataset[keyword]
        if attribute.type == "1" and element.is_empty:
            yield f"{path}{keyword} is empty (type 1)"
        elif attribute.items and element.VR == "SQ":
            for number, item in enumerate(element.value, start=1):
                yield from _missing(item, attribute.items, f"{path}{keyword}[{number}].")


def _iod_of(sop_class_uid: str) -> str:
    return _OTHER_NAMES.get(sop_class_uid) or _iods().get(sop_class_uid, "")


@lru_cache(1)
def _iods() -> dict[str, str]:
    return dict(json.loads((_TABLES / "sop_class_iod_map.json").read_text()))


@lru_cache(1)
def required_attributes() -> dict[str, tuple[Mapping[str, Attribute], ...]]:
    """IOD to its modules; those that an object may lack (usage C, U) ask only for what is inside their sequences.

    The file holds every module there is, 22 MB: what our objects need of it is kept, the rest is let go.
    """
    modules_of = json.loads((_TABLES / "iod_module_map.json").read_text())
    attributes_of = json.loads((_TABLES / "module_attribute_map.json").read_text())
    return {
        iod: tuple(
            _module(attributes_of.get(module["key"], []), module["usage"] == "M")
            for module in modules_of[iod]
            if module["key"] not in _BY_VALUE_TYPE
        )
        for iod in _OURS
    }


_OURS = (
    "mammography-cad-sr",
    "comprehensive-3d-sr",
    "key-object-selection-document",
    "segmentation",
    "grayscale-softcopy-presentation-state",
    "secondary-capture-image",
)
"""IODs of the objects that the node makes."""


def _module(rows: list[Mapping[str, object]], mandatory: bool) -> dict[str, Attribute]:
    """One module as a tree, without what requires nothing."""
    top: dict[str, Attribute] = {}
    for row in rows:
        path = row["path"]
        assert isinstance(path, list)
        here = top
        for keyword in path:
            here = here.setdefault(str(keyword), Attribute()).items
        required = row["type"] in ("1", "2") and (path[-1] not in _OF_MACROS if path else mandatory)
        here.setdefault(str(row["keyword"]), Attribute()).type = str(row["type"]) if required else ""
    return _without_idle(top)


def _without_idle(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    kept = {}
    for keyword, attribute in attributes.items():
        attribute.items = _without_idle(attribute.items)
        if attribute.type or attribute.items:
            kept[keyword] = attribute
    return kept
