"""EMBED's clinical table (Jeong et al. 2023, codes of its data descriptor): what each breast of an exam has.

One row a finding; its side is R, L, or both where it is B or empty. A breast's rows are joined by OR.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.mammography.views import BREASTS, Laterality
from training.mammo_clip.tables import Record, read_table, text

_COLUMNS = ("empi_anon", "acc_anon", "side", "asses", "tissueden", "massshape", "calcfind", "path_severity")
_MASS = {"Mass": frozenset("GROX"), "Architectural_Distortion": frozenset("QA")}
_MASS |= {"Global_Asymmetry": frozenset("B"), "Focal_Asymmetry": frozenset("F"), "Asymmetry": frozenset("SV")}
_SUSPICIOUS = frozenset("AHFBIK")
"""Amorphous, coarse heterogeneous, fine linear, fine linear branching, fine pleomorphic, pleomorphic."""
_UNTOLD = frozenset("G")
"""Calcifications of a kind that is not told."""
_CANCER = ("0", "1")
"""Invasive and non-invasive cancer."""
_NO_CANCER = ("2", "3", "4", "5")
_DISMISSED = frozenset("NB")
"""Assessments negative and benign: without pathology they count as no cancer."""


@dataclass(frozen=True, slots=True)
class Clinical:
    """What is said of one breast; None where it is not known. `density` 0 to 3."""

    labels: Mapping[str, bool | None]
    density: int | None


@dataclass(frozen=True, slots=True)
class _Finding:
    exam: str
    sides: tuple[Laterality, ...]
    labels: Mapping[str, bool | None]
    density: int | None


def read_clinical(
    path: Path, *, strict: bool = False
) -> tuple[dict[tuple[str, Laterality], Clinical], tuple[str, ...]]:
    """By exam and side; and the problems of rows that were left out. Raises TableError."""
    table = read_table(path, _COLUMNS, _finding, strict=strict)
    groups: dict[tuple[str, Laterality], list[_Finding]] = defaultdict(list)
    for finding in table.rows:
        for side in finding.sides:
            groups[finding.exam, side].append(finding)
    return {key: _joined(found) for key, found in groups.items()}, tuple(map(str, table.problems))


def _finding(record: Record) -> _Finding:
    return _Finding(text(record, "acc_anon"), _sides(record), _labels(record), _density(record))


def _sides(record: Record) -> tuple[Laterality, ...]:
    sides = {"R": (Laterality.RIGHT,), "L": (Laterality.LEFT,), "B": BREASTS, "": BREASTS}
    if record["side"].upper() not in sides:
        raise ValueError(f"side is {record['side']!r}, not R, L, B or empty")
    return tuple(sides[record["side"].upper()])


def _labels(record: Record) -> dict[str, bool | None]:
    shapes, kinds = _codes(record["massshape"]), _codes(record["calcfind"])
    labels: dict[str, bool | None] = {name: bool(shapes & codes) for name, codes in _MASS.items()}
    suspicious = bool(kinds & _SUSPICIOUS)
    labels["Suspicious_Calcification"] = None if kinds & _UNTOLD and not suspicious else suspicious
    labels["cancer"] = _cancer(record)
    return labels


def _codes(cell: str) -> frozenset[str]:
    """A cell may hold several one-letter codes, parted or not."""
    return frozenset(cell.upper()) - frozenset(" ,;")


def _cancer(record: Record) -> bool | None:
    severity = record["path_severity"].removesuffix(".0")
    if severity in _CANCER:
        return True
    if severity in _NO_CANCER or (not severity and record["asses"].upper() in _DISMISSED):
        return False
    if severity not in ("", "6"):
        raise ValueError(f"path_severity is {record['path_severity']!r}, not 0 to 6")
    return None


def _density(record: Record) -> int | None:
    """1 to 4 for A to D; 5, a man's breast, and an empty cell tell none."""
    value = record["tissueden"].removesuffix(".0")
    if value in ("", "5"):
        return None
    if value not in ("1", "2", "3", "4"):
        raise ValueError(f"tissueden is {record['tissueden']!r}, not 1 to 5")
    return int(value) - 1


def _joined(findings: list[_Finding]) -> Clinical:
    labels = {name: any_known([one.labels[name] for one in findings]) for name in findings[0].labels}
    densities = [one.density for one in findings if one.density is not None]
    return Clinical(labels, densities[0] if densities else None)


def any_known(values: list[bool | None]) -> bool | None:
    """OR of what may be unknown: True with one True, None with an unknown one and no True."""
    if any(values):
        return True
    return None if any(value is None for value in values) else False
