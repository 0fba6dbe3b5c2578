"""What became of an exam, whether that is as it should be, and how it compares with the truth. Pure functions."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.demo.cases import READ, DemoExam, TruthBox
from node.mammography.findings import Box
from node.results.document import SERIES_NUMBERS
from node.results.reading import ResultKind

LEAST_OVERLAP = 0.2
"""Share of the union of a marked and a true box from which a lesion counts as hit."""
REQUIRED_KINDS = ("CADSR", "SR", "GSPS", "SC", "SCVIEW", "KOS")
"""Every reading brings these."""
KINDS_OF_MARKS = ("SEG",)
"""These come only where something was marked."""
KINDS_OF_EXPLANATION = ("CADSR", "SR")
"""An exam that was not read brings these, where the PACS is to be told why."""
KINDS = {number: kind.value for kind, number in SERIES_NUMBERS.items()}
"""Series Number (0020,0011) of a result to its kind: several kinds share a SOP class."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A region that the node marked in one view, in stored pixels."""

    view: str
    finding: str
    probability: float
    box: Box


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node says of one exam. Probabilities are None where not assessed."""

    status: str = ""
    reason: str = ""
    exam_probability: float | None = None
    right: float | None = None
    left: float | None = None
    marks: tuple[Mark, ...] = ()
    undelivered: tuple[str, ...] = ()
    """Results that did not reach the PACS, with the reason."""
    promised: int = 0
    """Results that are to be delivered."""
    delivered_kinds: tuple[str, ...] = ()
    """Kinds of result that the PACS has answered with success."""
    last_delivery: float | None = None
    """Time of the last of them, seconds since the epoch."""
    model: str = ""
    """Which model read, in words."""
    calibrated_on_patients: bool = False
    capture: str = ""
    """Path of the node's own copy of the Secondary Capture, below its data folder or absolute."""
    report: tuple[str, ...] = ()
    """The report in words, or why there is none; empty where nothing was written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One exam from the first image to what the PACS holds."""

    exam: DemoExam
    answer: Answer
    held: tuple[str, ...]
    """Kinds of object that the PACS holds of the study."""
    seconds: float | None
    """From the answer to the last image to the last result in the PACS."""
    problems: tuple[str, ...] = ()

    @property
    def as_it_should(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def problems_of(exam: DemoExam, answer: Answer, held: Sequence[str], unreadable: Sequence[str]) -> tuple[str, ...]:
    """What is not as it should be, in words; whether a lesion was found is no part of it."""
    found = list(unreadable)
    if answer.status != exam.expected.status:
        said = f" ({answer.reason})" if answer.reason else ""
        found.append(f"ended as {answer.status or 'unknown to the node'}{said}, expected: {exam.expected.status}")
    elif not re.search(re.escape(exam.expected.reason), answer.reason):
        found.append(f"the reason is {answer.reason!r}, expected: {exam.expected.reason!r}")
    wanted = _wanted(exam, answer)
    found += [f"the PACS holds no {kind}" for kind in wanted if kind not in held]
    if not wanted and held:
        found.append(f"the PACS holds {summary_of_kinds(held)}, which nobody asked for")
    found += [f"not delivered: {problem}" for problem in answer.undelivered]
    return tuple(found)


def _wanted(exam: DemoExam, answer: Answer) -> tuple[str, ...]:
    """Kinds that the PACS must hold."""
    if exam.expected.status == READ:
        return REQUIRED_KINDS + (KINDS_OF_MARKS if answer.marks else ())
    return KINDS_OF_EXPLANATION if exam.expected.explained else ()


def hits(exam: DemoExam, marks: Sequence[Mark]) -> list[tuple[TruthBox, bool]]:
    """Each lesion's box, and whether a marked region of its view lies on it."""
    return [(truth, any(m.view == truth.view and is_on(m.box, truth.box) for m in marks)) for truth in exam.lesions]


def marks_elsewhere(exam: DemoExam, marks: Sequence[Mark]) -> int:
    """How many marked regions lie on no lesion."""
    return sum(not any(m.view == t.view and is_on(m.box, t.box) for t in exam.lesions) for m in marks)


def is_on(marked: Box, truth: Box) -> bool:
    """The marked box's centre lies in the true one, or the two share at least a fifth of their union."""
    x, y = (marked.left + marked.right) / 2, (marked.top + marked.bottom) / 2
    if truth.left <= x <= truth.right and truth.top <= y <= truth.bottom:
        return True
    width = min(marked.right, truth.right) - max(marked.left, truth.left)
    height = min(marked.bottom, truth.bottom) - max(marked.top, truth.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared >= LEAST_OVERLAP * (_area(marked) + _area(truth) - shared)


def summary_of_kinds(held: Sequence[str]) -> str:
    """For example "CADSR 1, SR 1, SC 1, SEG 2"."""
    counts = Counter(held)
    order = [kind for kind in ResultKind if counts[kind]] + sorted(set(counts) - set(ResultKind))
    return ", ".join(f"{kind} {counts[kind]}" for kind in order) or "nothing"


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def model_words(outcomes: Sequence[Outcome]) -> str:
    """The models that read, in words."""
    return "; ".join(dict.fromkeys(o.answer.model for o in outcomes if o.answer.model)) or "none has read"


def number_words(outcomes: Sequence[Outcome]) -> str:
    """What the numbers of the readings are."""
    read = [outcome.answer for outcome in outcomes if outcome.answer.status == READ]
    if read and all(answer.calibrated_on_patients for answer in read):
        return "calibrated probability of malignancy in each breast, 0 to 1"
    return "suspicion index of each breast, 0 to 1, calibrated on phantoms: no probability of cancer"
