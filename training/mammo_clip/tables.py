"""Tables of the field, checked row by row: a problem names the file, the row and the cure.

A row that does not hold is listed and left out; with `strict` the first one stops.
"""

import ast
import csv
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from node.mammography.views import Laterality, ViewPosition

Row = TypeVar("Row")
Record = Mapping[str, str]


class TableError(Exception):
    """A table that cannot be used. The message names the file, the row where there is one, and the cure."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row is left out. `line` is its line in the file, the header being line 1."""

    path: Path
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.words}"


@dataclass(frozen=True, slots=True)
class Table(Generic[Row]):
    """What a file holds: its good rows in order, and what was wrong with the others.

    `lines` are the good rows' lines in the file; () where rows of several lines were joined.
    """

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    lines: tuple[int, ...] = ()


def read_table(
    path: Path,
    columns: Iterable[str],
    read_row: Callable[[Record], Row],
    *,
    strict: bool = False,
    key: Callable[[Row], object] | None = None,
) -> Table[Row]:
    """Read a CSV file with a header. `read_row` raises ValueError for a row that does not hold.

    `key` names a row; a later one of the same key with other content conflicts with it. Raises TableError where the
    file cannot be read or lacks a column, where no row is left, and with `strict` at the first problem.
    """
    records = list(_records(path, tuple(columns)))
    rows: list[Row] = []
    problems: list[Problem] = []
    lines: list[int] = []
    seen: dict[object, tuple[int, Row]] = {}
    for line, record in records:
        try:
            row = read_row(record)
            if key is not None:
                _check_conflict(seen, key(row), line, row)
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
            if strict:
                raise TableError(f"{problems[-1]}. Mend the row, or leave --strict out to go on without it") from error
            continue
        rows.append(row)
        lines.append(line)
    if not rows:
        first = f"; the first: {problems[0]}" if problems else ""
        raise TableError(f"{path}: no usable row among {len(records)}{first}")
    return Table(tuple(rows), tuple(problems), tuple(lines))


def _records(path: Path, columns: tuple[str, ...]) -> Iterable[tuple[int, Record]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise TableError(
                    f"{path}: column missing: {', '.join(missing)}. The table needs {', '.join(columns)}; it has "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for record in reader:
                yield reader.line_num, {name: (value or "").strip() for name, value in record.items() if name}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error


def _check_conflict(seen: dict[object, tuple[int, Row]], key: object, line: int, row: Row) -> None:
    if key not in seen:
        seen[key] = (line, row)
    elif seen[key][1] != row:
        raise ValueError(f"contradicts line {seen[key][0]}, which says something else of {key}")


def side(record: Record, column: str) -> Laterality:
    """R, L, RIGHT or LEFT. Raises ValueError."""
    value = record[column].upper()
    if value in ("R", "RIGHT"):
        return Laterality.RIGHT
    if value in ("L", "LEFT"):
        return Laterality.LEFT
    raise ValueError(f"{column} is {record[column]!r}, not R or L")


def position(record: Record, column: str) -> ViewPosition:
    """CC or MLO: other views are not read. Raises ValueError."""
    value = record[column].upper()
    if value in ("CC", "MLO"):
        return ViewPosition(value)
    raise ValueError(f"{column} is {record[column]!r}, not CC or MLO")


def text(record: Record, column: str) -> str:
    """A value that must not be empty. Raises ValueError."""
    if not record[column]:
        raise ValueError(f"{column} is empty")
    return record[column]


def number(record: Record, column: str) -> float:
    """A finite number. Raises ValueError."""
    try:
        value = float(record[column])
    except ValueError as error:
        raise ValueError(f"{column} is {record[column]!r}, not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{column} is {record[column]!r}, not a number")
    return value


def optional_number(record: Record, column: str) -> float | None:
    """A finite number, None where the cell is empty. Raises ValueError."""
    return number(record, column) if record[column] else None


def whole(record: Record, column: str) -> int:
    """A whole number, also written as 3.0. Raises ValueError."""
    value = number(record, column)
    if value != int(value):
        raise ValueError(f"{column} is {record[column]!r}, not a whole number")
    return int(value)


def flag(record: Record, column: str) -> bool:
    """0 or 1. Raises ValueError."""
    value = number(record, column)
    if value not in (0.0, 1.0):
        raise ValueError(f"{column} is {record[column]!r}, not 0 or 1")
    return value == 1.0


def literal_list(record: Record, column: str) -> list[object]:
    """A list written as Python writes it; empty where the cell is. Never evaluated as code. Raises ValueError."""
    if not record[column]:
        return []
    try:
        value = ast.literal_eval(record[column])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{column} is no list: {record[column]:.60}") from error
    if not isinstance(value, list):
        raise ValueError(f"{column} is no list: {record[column]:.60}")
    return value


def texts(record: Record, column: str) -> tuple[str, ...]:
    """A list of strings. Raises ValueError."""
    values = literal_list(record, column)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{column} holds something that is no string")
    return tuple(str(value) for value in values)


def existing(path: Path) -> Path:
    """The path of an image that is there. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"no image at {path}")
    return path
