"""The gate as a whole: what the encoders make passes, whatever the reading; what is broken does not."""

import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from node.results import gate
from node.results.gate import program
from node.results.reading import EncodedResult, ResultKind
from node.results.rendering import Rendering
from tests.node.results import cad_exams, exams, report_exams

OBJECTS = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "LABELMAP", "HEATMAP", "KOS")
WITHOUT_PICTURES = ("CADSR", "SR", "GSPS", "LABELMAP", "HEATMAP", "KOS")
"""LABELMAP brings SEG for those that refuse it."""


@pytest.fixture(scope="module")
def results() -> dict[ResultKind, EncodedResult]:
    """One object of each kind."""
    made = exams.encode_all(exams.reading(), exams.sources(), *OBJECTS)
    return {result.kind: result for result in made}


def test_one_of_each_kind_passes_all_checks(results: dict[ResultKind, EncodedResult]) -> None:
    assert {result.kind.value: gate.problem_of(result) for result in results.values()} == dict.fromkeys(
        ("SEG", *OBJECTS), ""
    )


@pytest.mark.parametrize("name", [*cad_exams.VARIANTS, "outside the template"])
def test_every_outcome_in_every_kind_passes_the_own_checks(name: str) -> None:
    variant = cad_exams.VARIANTS.get(name, cad_exams.OUTSIDE_THE_TEMPLATE)
    reading = variant.reading()
    if len({finding.kind for finding in reading.findings}) > len(exams.KINDS):
        reading = replace(reading, views=tuple(replace(view, heatmap=None) for view in reading.views))
    where = exams.destination(*WITHOUT_PICTURES, cad=variant.profile, explain_unread=True, retract=True)
    rendering = Rendering(reading, variant.headers(), lambda result: "; ".join(gate.own_problems(result)))
    shipped = [shipment.result for shipment in rendering.shipments(where)]
    assert {"CADSR", "SR"} <= {result.kind.value for result in shipped}
    assert {result.kind.value: result.problem for result in shipped if result.problem} == {}


@pytest.mark.parametrize("frame", ["source", "own"])
def test_reports_of_all_that_may_stand_in_them_pass_the_own_checks(frame: str) -> None:
    for reading in (report_exams.whole(), report_exams.later(), report_exams.partial(), report_exams.many()):
        where = exams.destination("SR", "SEG", "KOS", segmentation_frame=frame, retract=True)
        shipped = exams.shipments(reading, exams.sources(), where)
        assert [gate.own_problems(shipment.result) for shipment in shipped] == [[]] * len(shipped)


def test_an_object_takes_little_time(results: dict[ResultKind, EncodedResult]) -> None:
    """4 to 12 ms, a CAD SR 38 ms, a report of 80 kB 105 ms, 70 of them in pydicom; here other work runs beside it."""
    for result in results.values():
        gate.own_problems(result)
        began = time.process_time()
        gate.own_problems(result)
        assert time.process_time() - began < 0.4, result.kind


def test_what_is_no_dicom_is_said_to_be_none(results: dict[ResultKind, EncodedResult]) -> None:
    report = results[ResultKind.STRUCTURED_REPORT]
    assert gate.problem_of(replace(report, content=b"nothing")) == "cannot be parsed: InvalidDicomError"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_was_cut_off_does_not_pass(results: dict[ResultKind, EncodedResult], share: float) -> None:
    for result in results.values():
        cut = replace(result, content=result.content[: int(len(result.content) * share)])
        assert gate.own_problems(cut) != [], result.kind


def test_the_words_are_few_and_name_no_patient(results: dict[ResultKind, EncodedResult]) -> None:
    broken = results[ResultKind.STRUCTURED_REPORT].content.replace(b"CONTAINS", b"CONTEINS")
    problem = gate.problem_of(replace(results[ResultKind.STRUCTURED_REPORT], content=broken))
    assert problem.count(";") == gate.MOST_WORDS
    assert problem.endswith("more")
    assert not any(word in problem for word in ("ller", "P-000123", "19610504"))


def test_dciodvfy_has_the_last_word(results: dict[ResultKind, EncodedResult]) -> None:
    if program.found() is None:
        pytest.skip("dciodvfy is not installed")
    picture = results[ResultKind.SECONDARY_CAPTURE]
    broken = replace(picture, content=picture.content.replace(b"RGB ", b"RGX "))
    assert gate.own_problems(broken) == []
    assert gate.problem_of(broken).startswith("dciodvfy: </PhotometricInterpretation(0028,0004)[1]>")


def _script(folder: Path, text: str) -> str:
    path = folder / "dciodvfy"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kill -SEGV $$", ["dciodvfy ended with status -11"]),
        ("echo 'Warning - something' >&2", []),
        ("echo 'Error - </PatientName(0010,0010)[1]> - bad = <Doe>' >&2; exit 1", []),
        ("echo 'Error - </Modality(0008,0060)> - bad = <MR>' >&2; exit 1", ["dciodvfy: </Modality(0008,0060)> - bad "]),
    ],
)
def test_a_program_that_crashes_or_complains_is_a_problem(tmp_path: Path, text: str, said: list[str]) -> None:
    assert list(program.problems(b"", _script(tmp_path, text))) == said


def test_a_program_that_hangs_is_ended_and_says_nothing_of_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(program, "TIMEOUT_SECONDS", 0.3)
    assert list(program.problems(b"", _script(tmp_path, "exec sleep 60"))) == []
    assert "did not end within 0.3 s" in caplog.text


@pytest.mark.parametrize("text", ["exit 3", None])
def test_a_program_that_does_not_work_is_logged_and_stops_no_object(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "dciodvfy").write_text("no program")
    command = str(tmp_path / "dciodvfy") if text is None else _script(tmp_path, text)
    assert list(program.problems(b"", command)) == []
    assert "without its word" in caplog.text
