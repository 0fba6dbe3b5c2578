import dataclasses
import json
from pathlib import Path

import pytest

from deploy.demo.answer import answer_of
from deploy.demo.cases import DemoExam, Expected, Run, TruthBox
from deploy.demo.outcome import Answer, Mark, Outcome, hits, is_on, marks_elsewhere, problems_of, summary_of_kinds
from deploy.demo.table import render, row
from node.mammography.findings import Box

READ_EXAM = DemoExam(
    "mass",
    "Phantom, malignant mass",
    "JPEG 2000 lossless",
    "spiculated mass right, malignant",
    "2.25.1",
    (),
    (),
    Expected("read"),
    lesions=(TruthBox("2.25.11", "RCC", Box(100, 200, 180, 260), "spiculated mass", True),),
)
SKIPPED_EXAM = dataclasses.replace(
    READ_EXAM, key="incomplete", expected=Expected("skipped", "views missing: LMLO"), lesions=()
)
EXPLAINED_EXAM = dataclasses.replace(SKIPPED_EXAM, expected=Expected("skipped", "views missing: LMLO", explained=True))
ALWAYS = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "KOS")
ON = Mark("RCC", "mass", 0.9, Box(130, 210, 220, 280))
BESIDE = Mark("RCC", "mass", 0.7, Box(500, 210, 560, 280))
OTHER_VIEW = Mark("LCC", "mass", 0.7, Box(130, 210, 170, 250))


@pytest.mark.parametrize(
    ("exam", "answer", "held", "problem"),
    [
        (READ_EXAM, Answer("read"), ALWAYS, None),
        (READ_EXAM, Answer("read", marks=(ON,)), (*ALWAYS, "SEG"), None),
        (READ_EXAM, Answer("read", marks=(ON,)), ALWAYS, "the PACS holds no SEG"),
        (READ_EXAM, Answer("read"), ("SC",), "the PACS holds no CADSR"),
        (READ_EXAM, Answer("read", undelivered=("SR: away",)), ALWAYS, "not delivered: SR: away"),
        (READ_EXAM, Answer("skipped", "views missing: RCC"), (), "ended as skipped (views missing: RCC)"),
        (READ_EXAM, Answer(), (), "ended as unknown to the node"),
        (SKIPPED_EXAM, Answer("skipped", "views missing: LMLO"), (), None),
        (SKIPPED_EXAM, Answer("skipped", "views missing: RMLO"), (), "the reason is"),
        (SKIPPED_EXAM, Answer("read"), ("SR", "SC"), "ended as read"),
        (SKIPPED_EXAM, Answer("skipped", "views missing: LMLO"), ("SR",), "the PACS holds SR 1, which nobody asked"),
        (EXPLAINED_EXAM, Answer("skipped", "views missing: LMLO"), ("CADSR", "SR"), None),
        (EXPLAINED_EXAM, Answer("skipped", "views missing: LMLO"), ("SR",), "the PACS holds no CADSR"),
    ],
)
def test_what_is_not_as_it_should_be(
    exam: DemoExam, answer: Answer, held: tuple[str, ...], problem: str | None
) -> None:
    found = problems_of(exam, answer, held, [])
    assert (problem is None) == (found == ())
    assert problem is None or any(problem in text for text in found)


def test_an_object_that_does_not_parse_is_a_problem() -> None:
    assert problems_of(READ_EXAM, Answer("read"), ALWAYS, ["SR in the PACS: truncated"]) == (
        "SR in the PACS: truncated",
    )


def test_a_mark_counts_where_it_lies() -> None:
    assert hits(READ_EXAM, (BESIDE, OTHER_VIEW)) == [(READ_EXAM.lesions[0], False)]
    assert hits(READ_EXAM, (BESIDE, ON)) == [(READ_EXAM.lesions[0], True)]
    assert marks_elsewhere(READ_EXAM, (ON, BESIDE, OTHER_VIEW)) == 2


@pytest.mark.parametrize(
    ("marked", "hit"),
    [
        (Box(100, 200, 180, 260), True),
        (Box(130, 220, 140, 230), True),  # a small one inside
        (Box(110, 210, 260, 300), True),  # centre outside, but much is shared
        (Box(0, 0, 2000, 2000), False),  # half the breast hits nothing
        (Box(170, 250, 260, 330), False),  # a corner
        (Box(300, 200, 380, 260), False),
    ],
)
def test_a_lesion_is_hit_by_what_is_about_its_size(marked: Box, hit: bool) -> None:
    assert is_on(marked, Box(100, 200, 180, 260)) is hit


def test_kinds_are_counted_in_a_fixed_order() -> None:
    assert summary_of_kinds(("SEG", "SC", "SEG", "SR", "CADSR")) == "CADSR 1, SR 1, SC 1, SEG 2"
    assert summary_of_kinds(()) == "nothing"


def test_the_table_shows_hits_and_misses() -> None:
    answer = Answer("read", right=0.91, left=None, marks=(ON, BESIDE))
    text = render([Outcome(READ_EXAM, answer, ("SR", "SC", "SEG"), 4.25)], 120)
    assert row(Outcome(READ_EXAM, answer, (), None))[2].startswith("breasts: right 0.91, left not assessed\n")
    assert "RCC: mass 0.90, mass 0.70" in text
    assert "1 of 1 lesion boxes hit, 1" in text
    twice = Outcome(READ_EXAM, dataclasses.replace(answer, marks=(ON, ON)), (), None)
    assert "RCC: mass 0.90 (at 2 places)" in row(twice)[2]
    assert max(map(len, text.splitlines())) <= 120
    assert row(Outcome(READ_EXAM, answer, (), 4.25))[4] == "4.2"


def test_a_skip_is_shown_in_its_words() -> None:
    outcome = Outcome(SKIPPED_EXAM, Answer("skipped", "views missing: LMLO"), (), None)
    assert row(outcome)[2:4] == ("skipped: views missing: LMLO", "nothing, as it should")


def test_two_runs_share_no_uid() -> None:
    first, second = Run("a" * 32, Path("x")), Run("b" * 32, Path("x"))
    assert first.uid("mass", "study") == Run("a" * 32, Path("y")).uid("mass", "study")
    assert first.uid("mass", "study") != second.uid("mass", "study")
    assert len(first.uid("mass", "study")) <= 64


def test_the_answer_comes_from_status_json() -> None:
    exam = {
        "study_instance_uid": "2.25.1",
        "status": "read",
        "reason": "",
        "waiting_for": "",
        "reading": {
            "exam_probability": 0.8,
            "breasts": {"R": 0.8, "L": None},
            "calibrated_on_patients": False,
            "findings": [{"view": "RCC", "kind": "mass", "probability": 0.9, "box": [1, 2, 3, 4]}],
            "model": {"name": "exam_encoder", "version": "1.0.0", "variant": "openvino f32", "weights_hash": "ab"},
            "results": [{"kind": "SC", "path": "results/x.dcm"}],
            "report": ["Right CC: mass."],
        },
        "deliveries": [
            {"kind": "SR", "status": "sent", "sent_at": "2026-11-22T10:00:00+00:00", "reason": ""},
            {"kind": "SC", "status": "failed", "sent_at": None, "reason": "refused"},
            {"kind": "KOS", "status": "quarantined", "sent_at": None, "reason": "names nothing"},
            {"kind": "SEG", "status": "not needed", "sent_at": None, "reason": "takes LABELMAP"},
        ],
    }
    status = json.loads(json.dumps({"exams": [exam]}))
    answer = answer_of(status, "2.25.1")
    assert (answer.right, answer.left, answer.promised) == (0.8, None, 3)
    assert answer.marks == (Mark("RCC", "mass", 0.9, Box(1, 2, 3, 4)),)
    assert answer.undelivered == ("SC: refused", "KOS: names nothing")
    assert answer.report == ("Right CC: mass.",)
    assert answer.delivered_kinds == ("SR",)
    assert answer_of(status, "2.25.2") == Answer()
