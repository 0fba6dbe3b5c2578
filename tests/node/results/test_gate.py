"""The gate: what the encoders make passes, and each thing that can be wrong is found and named."""

import pytest

from node.results import gate
from node.results.reading import EncodedResult, ResultKind
from tests.node.results import exams

OBJECTS = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "SEG", "LABELMAP", "HEATMAP", "KOS")


@pytest.fixture(scope="module")
def results() -> tuple[EncodedResult, ...]:
    return exams.encode_all(exams.reading(), exams.sources(), *OBJECTS)


def test_what_the_encoders_make_passes(results: tuple[EncodedResult, ...]) -> None:
    assert {result.kind.value: gate.problem_of(result) for result in results} == dict.fromkeys(OBJECTS, "")


def test_what_is_no_dicom_is_said_to_be_none() -> None:
    nothing = EncodedResult(ResultKind.STRUCTURED_REPORT, "1.2.3", "1.2.4", "1.2.5", b"nothing", "1.2.6")
    assert gate.problem_of(nothing) == "cannot be parsed: InvalidDicomError"
