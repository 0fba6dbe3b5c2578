"""The gate: what is looked at in every object before it may leave. Each check is a file of its own.

`problem_of` says in words what is wrong, or "". The words name attributes, content items and UIDs, never the patient.
"""

import struct
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError

from node.results.gate.attributes import problems as of_attributes
from node.results.gate.attributes import required_attributes
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


_NO_DICOM = (
    *(InvalidDicomError, struct.error, OSError, EOFError, UserWarning),
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError),
)
"""What pydicom raises at bytes that are no object of DICOM, or not the whole of one."""


def load_tables() -> None:
    """Read the tables of required attributes, 0.3 s once in a process, before the first object asks for them."""
    required_attributes()


def problem_of(result: EncodedResult) -> str:
    """What is wrong with `result`, in words; "" where it may leave. dciodvfy is asked where nothing else was found."""
    found = own_problems(result)
    if not found and result.kind is not ResultKind.MESSAGE:
        found = list(of_program(result.content))
    told = list(dict.fromkeys(found))
    more = f"; and {len(told) - MOST_WORDS} more" if len(told) > MOST_WORDS else ""
    return "; ".join(told[:MOST_WORDS]) + more


def own_problems(result: EncodedResult) -> list[str]:
    """What the checks that need no program find."""
    if result.kind is ResultKind.MESSAGE:
        return list(of_message(result.content))
    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="End of file")
            return problems_of(subject_of(result, pydicom.dcmread(BytesIO(result.content))))
    except _NO_DICOM as error:
        return [f"cannot be parsed: {type(error).__name__}"]


def problems_of(subject: Subject) -> list[str]:
    """What all CHECKS find in an object that was parsed."""
    return [problem for check in CHECKS for problem in check(subject)]
