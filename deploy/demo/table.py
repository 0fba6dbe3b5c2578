"""The outcome as text: a table for the terminal, and the same words for the report."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from deploy.demo.cases import READ
from deploy.demo.outcome import Outcome, hits, marks_elsewhere, summary_of_kinds

HEADINGS = ("exam", "truth", "the node said", "the PACS holds", "seconds")
_SHARES = (0.24, 0.20, 0.34, 0.14, 0.08)


def row(outcome: Outcome) -> tuple[str, str, str, str, str]:
    """The five cells of one exam; lines inside a cell are separated by newlines."""
    exam = outcome.exam
    seconds = "" if outcome.seconds is None else f"{outcome.seconds:.1f}"
    wanted = outcome.held or exam.expected.status == READ or exam.expected.explained
    holds = summary_of_kinds(outcome.held) if wanted else "nothing, as it should"
    return f"{exam.title}\n{exam.form}", exam.truth, said(outcome), holds, seconds


def said(outcome: Outcome) -> str:
    """What the node said of the exam, one statement a line."""
    answer = outcome.answer
    if answer.status != READ:
        return "\n".join([f"{answer.status}: {answer.reason}".strip(": "), *map(_wrong, outcome.problems)])
    lines = [f"breasts: right {_number(answer.right)}, left {_number(answer.left)}"]
    for view in dict.fromkeys(mark.view for mark in answer.marks):
        counts = Counter(f"{_word(m.finding)} {m.probability:.2f}" for m in answer.marks if m.view == view)
        marks = (f"{text} (at {count} places)" if count > 1 else text for text, count in counts.items())
        lines.append(f"{view}: {', '.join(marks)}")
    if not answer.marks:
        lines.append("no region marked")
    lines += [compared(outcome), *map(_wrong, outcome.problems)]
    return "\n".join(lines)


def compared(outcome: Outcome) -> str:
    """Marks beside the truth, in words."""
    found = hits(outcome.exam, outcome.answer.marks)
    elsewhere = marks_elsewhere(outcome.exam, outcome.answer.marks)
    parts = [f"{sum(hit for _, hit in found)} of {len(found)} lesion boxes hit"] if found else []
    if elsewhere or not found:
        parts.append(f"{elsewhere} mark{'' if elsewhere == 1 else 's'} elsewhere")
    return "= " + ", ".join(parts)


def render(outcomes: Sequence[Outcome], width: int) -> str:
    """The table in at most `width` characters, at least 90."""
    widths = [int(share * (max(width, 90) - 2 * len(_SHARES))) for share in _SHARES]
    rule = "  ".join("-" * w for w in widths)
    blocks = [_block(HEADINGS, widths), rule]
    for outcome in outcomes:
        blocks += [_block(row(outcome), widths), rule]
    return "\n".join(blocks)


def _block(cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = [
        [piece for line in cell.splitlines() for piece in textwrap.wrap(line, width, subsequent_indent="  ")]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(map(len, columns))
    lines = []
    for index in range(height):
        parts = [(c[index] if index < len(c) else "").ljust(w) for c, w in zip(columns, widths, strict=True)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not assessed" if value is None else f"{value:.2f}"


def _word(finding: str) -> str:
    return finding.replace("_", " ")


def _wrong(problem: str) -> str:
    return f"WRONG: {problem}"
