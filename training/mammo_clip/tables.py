"""Tables of the field, checked row by row: a problem names the file, the row and the cure.

A row that does not hold is listed and left out; with `strict` the first one stops.
"""

import ast
import csv
import math
import warnings
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
    read_row: Callable[[Record], Row | None],
    *,
    strict: bool = False,
    key: Callable[[Row], object] | None = None,
    facts: Callable[[Row], object] | None = None,
) -> Table[Row]:
    """Read a CSV file with a header. `read_row` raises ValueError for a row that does not hold; None leaves out, in
    silence, one that holds and is of another kind.

    `key` names a row; a later one of the same key with other `facts` (without: with any other content) conflicts with
    it. Raises TableError where the file cannot be read or lacks a column, where no row is left, and with `strict` at
    the first problem.
    """
    records = list(_records(path, tuple(columns)))
    rows: list[Row] = []
    problems: list[Problem] = []
    lines: list[int] = []
    seen: dict[object, tuple[int, object]] = {}
    for line, record in records:
        try:
            if _MORE in record:
                raise ValueError(f"has more cells than the header: {record[_MORE]:.60}; put commas in quotes")
            row = read_row(record)
            if row is None:
                continue
            if key is not None:
                _check_conflict(seen, key(row), line, row if facts is None else facts(row))
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
            reader = csv.DictReader(file, restkey=_MORE)
            twice = sorted({name for name in columns if (reader.fieldnames or []).count(name) > 1})
            if twice:
                raise TableError(f"{path}: column {', '.join(twice)} stands twice in the header. Leave one out")
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise TableError(
                    f"{path}: column missing: {', '.join(missing)}. The table needs {', '.join(columns)}; it has "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for record in reader:
                yield reader.line_num, {name: _cell(value) for name, value in record.items() if name}
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error


_MORE = "more cells than columns"
"""Key of a record under which its cells without a column stand."""


def _cell(value: str | list[str] | None) -> str:
    return ", ".join(value) if isinstance(value, list) else (value or "").strip()


def _check_conflict(seen: dict[object, tuple[int, object]], key: object, line: int, facts: object) -> None:
    if key not in seen:
        seen[key] = (line, facts)
    elif seen[key][1] != facts:
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes in strings
            value = ast.literal_eval(record[column])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
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
    try:
        is_there = path.is_file()
    except OSError as error:
        raise ValueError(f"no image at {str(path)[:200]}: {error.strerror}") from error
    if not is_there:
        raise ValueError(f"no image at {path}")
    return path


def image_below(folder: Path, *names: str) -> Path:
    """The image of these names below a folder, never outside of it. Raises ValueError."""
    path = folder.joinpath(*names)
    if path.is_absolute() != folder.is_absolute() or ".." in Path(*names).parts or not path.is_relative_to(folder):
        raise ValueError(f"{'/'.join(names):.200} leads out of {folder}")
    return existing(path)
