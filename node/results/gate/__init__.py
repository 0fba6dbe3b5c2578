"""The gate: what is looked at in every object before it may leave. Each check is a file of its own.

`problem_of` says in words what is wrong, or "". The words name attributes, content items and UIDs, never the patient.
"""

from collections.abc import Callable, Iterator
from io import BytesIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError

from node.results.gate.attributes import problems as of_attributes
from node.results.gate.content import of_coordinates, of_identity, of_own_rules
from node.results.gate.message import problems as of_message
from node.results.gate.program import problems as of_program
from node.results.gate.structure import problems as of_structure
from node.results.gate.tree import Subject, subject_of
from node.results.gate.values import problems as of_values
from node.results.reading import EncodedResult, ResultKind

Check = Callable[[Subject], Iterator[str]]

CHECKS: tuple[Check, ...] = (
    of_identity,
    of_attributes,
    of_values,
    of_own_rules,
    of_structure,
    of_coordinates,
)
"""In the order in which their words stand; the outside program comes last and only where these find nothing."""

MOST_WORDS = 5
"""Problems that are told of one object; a person looks at the object itself for more."""


def problem_of(result: EncodedResult) -> str:
    """What is wrong with `result`, in words; "" where it may leave."""
    if result.kind is ResultKind.MESSAGE:
        return _told(list(of_message(result.content)))
    try:
        with disable_value_validation():
            subject = subject_of(result, pydicom.dcmread(BytesIO(result.content)))
            found = [problem for check in CHECKS for problem in check(subject)]
    except (InvalidDicomError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError) as error:
        return f"cannot be parsed: {type(error).__name__}"
    return _told(found or list(of_program(result.content)))


def _told(problems: list[str]) -> str:
    told = list(dict.fromkeys(problems))
    more = f"; and {len(told) - MOST_WORDS} more" if len(told) > MOST_WORDS else ""
    return "; ".join(told[:MOST_WORDS]) + more
