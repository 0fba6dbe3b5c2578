"""demo-report/index.html: a page of its own with PNG files beside it; nothing is fetched from anywhere."""

import datetime
import html
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from string import Template

from deploy.demo import figures
from deploy.demo.cases import READ
from deploy.demo.outcome import Outcome
from deploy.demo.table import HEADINGS, compared, row

_TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture of the report."""

    file: str
    size: tuple[int, int]
    text: str


Captures = dict[str, tuple[Path, str]]
"""By key of an exam: the file of its Secondary Capture, and in words whose copy it is."""


def write_report(folder: Path, outcomes: Sequence[Outcome], captures: Captures, about: dict[str, str]) -> Path:
    """Write index.html and its pictures into `folder`; the page's path. `about`: facts for the head of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _draw(folder, outcomes, captures)
    wrong = [outcome for outcome in outcomes if not outcome.as_it_should]
    verdict = "Every exam ended as it should." if not wrong else f"{len(wrong)} of {len(outcomes)} exams went wrong."
    page = Template(_TEMPLATE.read_text()).substitute(
        verdict=html.escape(verdict),
        verdict_class="good" if not wrong else "bad",
        made=datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
        facts="".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in about.items()),
        headings="".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in HEADINGS),
        rows="".join(_table_row(outcome) for outcome in outcomes),
        sections="".join(_section(outcome, pictures[outcome.exam.key]) for outcome in outcomes),
    )
    index = folder / "index.html"
    index.write_text(page)
    return index


def _draw(folder: Path, outcomes: Sequence[Outcome], captures: Captures) -> dict[str, list[Figure]]:
    """All pictures, in two processes; by key of an exam."""
    with ProcessPoolExecutor(2) as pool:
        jobs = {o.exam.key: pool.submit(_figures, folder, o, captures.get(o.exam.key)) for o in outcomes}
        return {key: job.result() for key, job in jobs.items()}


def _figures(folder: Path, outcome: Outcome, capture: tuple[Path, str] | None) -> list[Figure]:
    exam = outcome.exam
    if exam.expected.status != READ:
        return []
    found = []
    if capture is not None:
        path, whose = capture
        name = f"{exam.key}-capture.png"
        text = f"{exam.title}: the Secondary Capture {whose}, with heatmap and marked regions."
        found.append(Figure(name, figures.save_capture(path, folder / name), text))
    name = f"{exam.key}-truth.png"
    text = f"{exam.title}: the images as sent with the node's marks and the known lesions: {compared(outcome)[2:]}."
    found.append(Figure(name, figures.save_comparison(exam, outcome.answer.marks, folder / name), text))
    return found


def _table_row(outcome: Outcome) -> str:
    first, *others = row(outcome)
    link = f'<a href="#{outcome.exam.key}">{html.escape(first.splitlines()[0])}</a>'
    form = f"<br><small>{html.escape(first.splitlines()[1])}</small>"
    cells = "".join(f"<td>{_lines(cell)}</td>" for cell in others)
    return f'<tr><th scope="row">{link}{form}</th>{cells}</tr>'


def _section(outcome: Outcome, pictures: Sequence[Figure]) -> str:
    exam = outcome.exam
    _, truth, said, holds, seconds = row(outcome)
    shown = "".join(_figure(picture) for picture in pictures)
    words = f"<dt>The report in words</dt><dd>{_lines(chr(10).join(outcome.answer.report))}</dd>"
    timing = f"<dt>Seconds from last image to last result</dt><dd>{seconds}</dd>" if seconds else ""
    return (
        f'<section id="{exam.key}"><h2>{html.escape(exam.title)}</h2><p>{html.escape(exam.form)}</p>'
        f"<dl><dt>Truth</dt><dd>{_lines(truth)}</dd><dt>The node said</dt><dd>{_lines(said)}</dd>"
        f"<dt>The PACS holds</dt><dd>{_lines(holds)}</dd>{words if outcome.answer.report else ''}{timing}</dl>"
        f'<div class="figures">{shown}</div></section>'
    )


def _figure(picture: Figure) -> str:
    text = html.escape(picture.text)
    width, height = picture.size
    return (
        f'<figure><a href="{picture.file}"><img src="{picture.file}" width="{width}" height="{height}" '
        f'loading="lazy" alt="{text}"></a><figcaption>{text}</figcaption></figure>'
    )


def _lines(text: str) -> str:
    return "<br>".join(html.escape(line) for line in text.splitlines())
