"""What the figures of a report mean, in sentences made from them: nothing is said that a number does not carry.

An interval that holds chance says "not told apart from chance"; a few rows say "too few".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.figures.report import Row, Section, told
from training.figures.subgroups import SMALL

PHANTOMS = "phantoms"
CHANCE_OF_AUC = 0.5
WELL, FAIRLY = 0.8, 0.65
"""Lower ends of intervals from which an area is called so."""
MARKS = "marks per normal view"
MOST_MARKS = 0.3
BOX_HIT = "box hit at IoU 0.25"
FEWEST_EXAMS = 1000
_TRUE_MASK = "true mask in the same cells"
_FILTER = "Laplacian of Gaussian, no network"
_CHOSEN = "the one chosen on validation"


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for on phantoms: the lower end of an interval, or for marks its upper one."""

    label: str
    how: str
    figure: str
    least: float


TARGETS = (
    Target("Mass", "text-prompted", "AUC", 0.80),
    Target("Suspicious_Calcification", "text-prompted", "AUC", 0.90),
    Target("Mass", "linear probe", "AUC", 0.90),
    Target("Suspicious_Calcification", "linear probe", "AUC", 0.95),
    Target("Mass", "FActOR", "pointing", 0.65),
    Target("Suspicious_Calcification", "FActOR", "pointing", 0.60),
)


def meaning_section(sections: Sequence[Section]) -> Section:
    """The first section of a report."""
    sources = list(dict.fromkeys(section.source for section in sections if section.source))
    lines = [line for source in sources for line in _of_source(source, _rows(sections, source))]
    lines += _targets(_rows(sections, PHANTOMS)) if PHANTOMS in sources else []
    lines += _falls(sections, sources)
    return Section("What the figures mean", (*lines, _end(sections, sources)))


def _rows(sections: Iterable[Section], source: str) -> list[Row]:
    return [row for section in sections if section.source == source for row in section.figures]


def areas(rows: Iterable[Row]) -> list[Row]:
    """Areas of whole sets by single images: no subgroup, no other unit, each label and way once."""
    single = [row for row in rows if row["figure"] == "AUC" and row["unit"] in ("image", "row")]
    found = [row for row in single if row["what"].count(",") == 1]
    return list({row["what"]: row for row in reversed(found)}.values())[::-1]


def verdict(row: Row) -> str:
    """An area in words, by its interval."""
    negatives = row["n"] - row["positives"]
    if row["value"] is None or min(row["positives"], negatives) < SMALL:
        return "too few to say"
    if row["low"] is None or row["low"] <= CHANCE_OF_AUC <= row["high"]:
        return "not told apart from chance"
    if row["high"] < CHANCE_OF_AUC:
        return "worse than chance: the order is reversed"
    if row["low"] >= WELL:
        return "ranks well"
    return "ranks fairly" if row["low"] >= FAIRLY else "ranks better than chance, weakly"


def _of_source(source: str, rows: Sequence[Row]) -> list[str]:
    lines = []
    found = areas(rows)
    for words in dict.fromkeys(verdict(row) for row in found):
        mine = [_with_numbers(row) for row in found if verdict(row) == words]
        lines.append(f"{source}, {words}: {'; '.join(mine)}.")
    lines += [line for row in rows if (line := _pointing(source, row, rows))]
    return lines + [line for row in rows if row["figure"] == MARKS and (line := _marks(source, row))]


def _with_numbers(row: Row) -> str:
    return f"{row['what']} {row['figure']} {told(row)}, {row['positives']} of {row['n']} positive"


def _pointing(source: str, row: Row, rows: Sequence[Row]) -> str:
    """The chosen mapper's pointing against chance and against a filter without a network."""
    if row["figure"] != "pointing" or _CHOSEN not in row["note"]:
        return ""
    label = row["what"].split(",")[0]
    line = f"{source}, {label}: the heat's maximum lies on the finding in {told(row)} of {row['n']} views"
    if row["n"] < SMALL or row["low"] is None:
        return f"{line}: too few to say."
    chance = row["chance"] or 0.0
    above = "more than" if row["low"] > chance else "not told apart from" if row["high"] >= chance else "less than"
    line += f", {above} by chance ({chance:.3f})"
    filters = [one for one in rows if one["figure"] == "pointing" and one["what"] == f"{label}, {_FILTER}"]
    return f"{line}; {_against(row, filters[0])}." if filters else f"{line}."


def _against(row: Row, other: Row) -> str:
    if other["low"] is None:
        return f"a filter without a network: {told(other)}"
    if row["low"] > other["high"]:
        word = "better than"
    else:
        word = "worse than" if row["high"] < other["low"] else "not told apart from"
    return f"{word} a filter without a network, {told(other)} of {other['n']} views"


def _marks(source: str, row: Row) -> str:
    if not row["what"].startswith("all findings") or row["low"] is None:
        return ""
    word = "more than" if row["low"] > MOST_MARKS else "not told apart from"
    word = "at most" if row["high"] <= MOST_MARKS else word
    return f"{source}: {told(row)} marks per normal view, {word} the {MOST_MARKS:g} that were aimed at."


def _targets(rows: Sequence[Row]) -> list[str]:
    """Lower ends of intervals against what was asked for; nothing where there are too few exams."""
    exams = max((row["patients"] for row in areas(rows)), default=0)
    if exams < FEWEST_EXAMS:
        return [f"Phantom targets hold for {FEWEST_EXAMS} test exams at least; here are {exams}."]
    reached: list[str] = []
    missed: list[str] = []
    for target in (*TARGETS, *_half_of_true_masks(rows)):
        row = _of_target(target, rows)
        if row is None or row["low"] is None:
            continue
        words = f"{target.label}, {target.how}, {target.figure} {told(row)} against {target.least:.2f}"
        (reached if row["low"] >= target.least else missed).append(words)
    lines = [f"Phantom targets reached by the lower end of the interval: {'; '.join(reached)}."] if reached else []
    return lines + ([f"Phantom targets missed: {'; '.join(missed)}."] if missed else [])


def _half_of_true_masks(rows: Sequence[Row]) -> list[Target]:
    """Boxes that are marked are to hit half as often as those of the true mask."""
    found = [row for row in rows if row["figure"] == BOX_HIT and row["what"].endswith(_TRUE_MASK)]
    return [Target(row["what"].split(",")[0], "FActOR", f"marked, {BOX_HIT}", row["value"] / 2) for row in found]


def _of_target(target: Target, rows: Sequence[Row]) -> Row | None:
    if target.figure == "AUC":
        wanted = f"{target.label}, {target.how}"
        return next((row for row in areas(rows) if row["what"] == wanted), None)
    chosen = (row for row in rows if row["figure"] == target.figure)
    if target.figure == "pointing":
        chosen = (row for row in chosen if _CHOSEN in row["note"])
    return next((row for row in chosen if row["what"].startswith(f"{target.label}, {target.how}")), None)


def _falls(sections: Sequence[Section], sources: Sequence[str]) -> list[str]:
    """Where the same label, told in the same way, is worse on a real set than on phantoms."""
    ours = {_alike(row): row for row in areas(_rows(sections, PHANTOMS))}
    lines = []
    for source in sources:
        pairs = [(ours[_alike(row)], row) for row in areas(_rows(sections, source)) if _alike(row) in ours]
        for phantom, real in pairs if source != PHANTOMS else []:
            if None in (phantom["low"], real["high"]) or real["high"] >= phantom["low"]:
                continue
            lines.append(f"{real['what']}: {told(phantom)} on phantoms falls to {told(real)} on {source}.")
    return lines


def _alike(row: Row) -> str:
    return str(row["what"]).replace("zero-shot", "text-prompted")


def _end(sections: Sequence[Section], sources: Sequence[str]) -> str:
    """What may be concluded for patients."""
    real = [source for source in sources if source != PHANTOMS]
    if not real:
        return "Nothing here was measured on real images. Nothing follows for patients."
    rows = [(source, row) for source in real for row in areas(_rows(sections, source))]
    good = [f"{row['what']} on {source}" for source, row in rows if verdict(row).startswith("ranks")]
    if not rows:
        return f"On real images ({', '.join(real)}) no area could be told. Nothing follows for patients."
    if not good:
        return (
            f"On real images ({', '.join(real)}) none of {len(rows)} areas is told apart from chance upwards. These "
            "weights say nothing about patients."
        )
    return (
        f"On real images {len(good)} of {len(rows)} areas lie above chance ({'; '.join(good)}). They come from small "
        "or selected sets, films among them, with other prevalences than screening: no basis of a decision."
    )
