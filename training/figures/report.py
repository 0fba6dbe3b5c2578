"""A report: sections of figures, each with unit, number, positives, patients and method, as Markdown and as JSON.

A section is plain data, so a part of an evaluation that is done is kept as JSON and the report is written from that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.figures.intervals import Interval
from training.figures.subgroups import SMALL, Subgroup

Row = dict[str, Any]
_COLUMNS = ("what", "figure", "value (95 % interval)", "unit", "n", "positive", "patients", "interval by", "note")


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of a report: what was measured of what, in which unit, and what must be known to read it."""

    what: str
    figure: str
    interval: Interval
    unit: str
    note: str = ""
    chance: float | None = None
    """What chance gives, where it is not told by the figure itself."""

    def as_table(self) -> Row:
        """For JSON."""
        return {
            "what": self.what,
            "figure": self.figure,
            "unit": self.unit,
            **self.interval.as_table(),
            "note": self.note,
            "chance": self.chance,
        }


def of_group(what: str, figure: str, unit: str, group: Subgroup) -> Measured:
    """A subgroup's figure as a row of a report."""
    note = f"small: fewer than {SMALL} positive or {SMALL} negative" if group.small else ""
    return Measured(f"{what}, {group.name} {group.group}", figure, group.figure, unit, note)


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part: paragraphs, figures, tables of words, and pictures (file name in the folder, caption)."""

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Row, ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    source: str = ""
    """The set that the figures are of, where they are of one."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Section":
        """What `dataclasses.asdict` and JSON made of one."""
        return cls(
            table["title"],
            tuple(table["paragraphs"]),
            tuple(table["figures"]),
            tuple((name, caption) for name, caption in table["pictures"]),
            tuple((name, caption) for name, caption in table["links"]),
            table.get("source", ""),
        )


def write_report(folder: Path, title: str, facts: Mapping[str, Any], sections: Sequence[Section]) -> tuple[Path, Path]:
    """`report.md` and `report.json`; pictures and links are files that stand in the folder already."""
    markdown, record = folder / "report.md", folder / "report.json"
    table = {"title": title, "facts": dict(facts), "sections": [asdict(section) for section in sections]}
    record.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for section in sections:
        lines += _section(section)
    markdown.write_text("\n".join(lines), encoding="utf-8")
    return markdown, record


def _section(section: Section) -> list[str]:
    lines = [f"## {section.title}", ""]
    for paragraph in section.paragraphs:
        lines += [paragraph, ""]
    if section.figures:
        lines += [_cells(_COLUMNS), _cells(["---"] * len(_COLUMNS)), *map(_row, section.figures), ""]
    for name, caption in section.pictures:
        lines += [f"![{caption}]({name})", ""]
    for name, caption in section.links:
        lines += [f"[{caption}]({name})", ""]
    return lines


def _row(row: Row) -> str:
    counted = (row["n"], row["positives"], row["patients"])
    return _cells((row["what"], row["figure"], told(row), row["unit"], *counted, row["method"], row["note"]))


def told(row: Row) -> str:
    """The figure of a row in words: "0.812 (0.790 to 0.833)"."""
    if row["value"] is None:
        return "not defined"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _cells(values: Sequence[object]) -> str:
    return "| " + " | ".join(str(value).replace("|", "\\|").replace("\n", " ") for value in values) + " |"
