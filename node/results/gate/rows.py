"""How templates of PS3.16 are written down here: a row of the standard's table is a row of ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from node.results.gate.tree import Item


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a template's table.

    `level`: "", ">", ">>" as printed. `relationship`: as printed, "R-" in front where it is by reference; "" where the
    including row sets it. `value_type`: as printed, or INCLUDE. `concept`: "111036 DCM" and the meaning, "CID 6166" for
    any name of that context group, "" for any name; for INCLUDE the template. `times`: "1" or "1-n". `need`: M, U, or
    MC and UC with `condition`, a name in CONDITIONS. `values`: of CODE a context group or one code, of NUM the unit, of
    SCOORD the graphic types; "" for any.
    """

    level: str
    relationship: str
    value_type: str
    concept: str
    times: str
    need: str
    condition: str = ""
    values: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A template: its rows, and whether other content items may stand between them, and whether order counts."""

    rows: tuple[Row, ...]
    extensible: bool
    ordered: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """When a row of need MC is required and one of UC allowed, asked of the item that holds the row.

    `otherwise`: the row may be there all the same where the condition does not hold.
    """

    holds: Callable[[Item], bool]
    otherwise: bool = False


def has(*codes: str) -> Callable[[Item], bool]:
    """A child has one of these concept names (code values)."""
    return lambda item: any(child.name[0] in codes for child in item.children)


def lacks(*codes: str) -> Callable[[Item], bool]:
    """No child has one of these concept names."""
    return lambda item: not has(*codes)(item)


def is_any(*codes: str) -> Callable[[Item], bool]:
    """The item's own value is one of these."""
    return lambda item: item.value[0] in codes


def is_none(*codes: str) -> Callable[[Item], bool]:
    """The item's own value is none of these."""
    return lambda item: item.value[0] not in codes


Conditions = Mapping[str, Condition]
