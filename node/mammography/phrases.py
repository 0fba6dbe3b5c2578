"""What a phrase says: a finding, where it lies, on which side and in which view, and whether it is denied.

The words are those of mammographic reports. Side, view, position and depth become a `Location`, for a mask (see
`place_words`); what is left names the finding, for the text tower.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from node.mammography.views import Laterality, ViewPosition

# fmt: off
POSITIONS = (
    "", "upper", "lower", "inner", "outer", "upper outer", "upper inner", "lower outer", "lower inner", "subareolar",
)
# fmt: on
"""What the report grammar says; a phrase may also say "central"."""
DEPTHS = ("", "anterior", "mid", "posterior")
SIDES: dict[Laterality, str] = {Laterality.RIGHT: "right", Laterality.LEFT: "left"}
_SIDE_OF = {"right": Laterality.RIGHT, "r": Laterality.RIGHT, "left": Laterality.LEFT, "l": Laterality.LEFT}


@dataclass(frozen=True, slots=True)
class Location:
    """Where: `position` of POSITIONS, `depth` of DEPTHS, "" where it is not said; `side` None where it is not said."""

    position: str = ""
    depth: str = ""
    side: Laterality | None = None

    def words(self, part: str = "breast") -> str:
        """ "upper outer right breast at mid depth"."""
        place = " ".join(word for word in (self.position, SIDES[self.side] if self.side else "", part) if word)
        return f"{place} at {self.depth} depth" if self.depth else place


@dataclass(frozen=True, slots=True)
class Statement:
    """What a phrase says: the finding's words without place and negation, where, and whether it is said not to be."""

    finding: str
    location: Location
    negated: bool
    view: str = ""
    """ "CC", "MLO", or ""."""


_NEGATION = (
    r"absence of|absent|negative for|free of|no evidence of|(?:is|are) not|not seen|not present|no|not|without|never|"
    r"nor|neither|none"
)
_EMPTY = (
    r"there (?:is|are)|(?:is|are) (?:seen|present|noted)|evidence of|seen|present|in|on|at|of|the|an|a|views?|images?|"
    r"depth|breasts?|quadrants?|regions?|thirds?|is|are|any|bilateral|both"
)
_WORDS = re.compile(rf"\b(?P<negation>{_NEGATION})\b|\b(?P<empty>{_EMPTY})\b|(?P<word>[a-z0-9][a-z0-9'-]*)")
_WHERE = ("axilla", "axillary", "tail")
"""Words of a finding that say where it is: "lymph node not seen in the axilla" denies one thing."""
_SPLIT = re.compile(r"\b(uoq|uiq|loq|liq)\b")
_QUADRANTS = {"uoq": "upper outer", "uiq": "upper inner", "loq": "lower outer", "liq": "lower inner"}
_VIEW = re.compile(r"\b(?:(r|l)?(cc|mlo)|(craniocaudal)|(mediolateral oblique))\b")
_SIDE = re.compile(r"\b(right|left)\b")
_DEPTH = re.compile(r"\b(anterior|mid|middle|posterior)\b")
_SUBAREOLAR = re.compile(r"\b(?:sub|retro|peri)-?areolar\b|\bbehind the nipple\b")
_CENTRAL = re.compile(r"\bcentral\b(?= (?:breast|region|third|quadrant|left|right)|$)")
_ALONG = re.compile(r"\b(upper|superior|lower|inferior|outer|lateral|inner|medial)\b")
_SAME = {"superior": "upper", "inferior": "lower", "lateral": "outer", "medial": "inner", "middle": "mid"}
_AXES = (("upper", "lower"), ("outer", "inner"))


def parse(phrase: str) -> Statement:
    """Read a phrase such as "no spiculated mass in the upper outer left breast".

    Raises ValueError, in words for whoever asked, without a finding, with two places, and where one thing is said to
    be there and another not ("mass without calcifications"): such phrases are asked for one at a time.
    """
    words = " ".join(re.sub(r"[^a-z0-9' -]", " ", phrase.lower()).split())
    words = _SPLIT.sub(lambda found: _QUADRANTS[found.group(1)], words)
    words, view, sided = _view(phrase, words)
    words, side = _side(words, sided)
    words, depth = _only(phrase, words, _DEPTH, "depths")
    words, position = _position(phrase, words)
    finding, negated = _finding(phrase, words)
    return Statement(finding, Location(position, depth, side), negated, view)


def _view(phrase: str, words: str) -> tuple[str, str, Laterality | None]:
    """The words without views; the one view, and the side that stands before it ("LMLO")."""
    found = list(_VIEW.finditer(words))
    views = {"CC" if match[2] == "cc" or match[3] else "MLO" for match in found}
    sides = {_SIDE_OF[match[1]] for match in found if match[1]}
    if len(sides) > 1:
        raise ValueError(f"{phrase!r} names two views; ask for one at a time, or for none to get all")
    # "CC and MLO" is every view.
    return _VIEW.sub(" ", words), views.pop() if len(views) == 1 else "", next(iter(sides), None)


def _side(words: str, sided: Laterality | None) -> tuple[str, Laterality | None]:
    sides = {_SIDE_OF[match[1]] for match in _SIDE.finditer(words)} | ({sided} if sided else set())
    # "Left and right" is both.
    return re.sub(r"\b(right|left)( and (right|left))?\b", " ", words), sides.pop() if len(sides) == 1 else None


def _only(phrase: str, words: str, pattern: re.Pattern[str], name: str) -> tuple[str, str]:
    """The words without what the pattern takes, and that, "" where there is none."""
    found = {_SAME.get(match[1], match[1]) for match in pattern.finditer(words)}
    if len(found) > 1:
        raise ValueError(f"{phrase!r} names two {name}; ask for one place at a time")
    return pattern.sub(" ", words), next(iter(found), "")


def _position(phrase: str, words: str) -> tuple[str, str]:
    for pattern, position in ((_SUBAREOLAR, "subareolar"), (_CENTRAL, "central")):
        if pattern.search(words):
            return pattern.sub(" ", words), position
    said = {_SAME.get(match[1], match[1]) for match in _ALONG.finditer(words)}
    if any(said >= set(axis) for axis in _AXES):
        raise ValueError(f"{phrase!r} names two places; ask for one place at a time")
    position = " ".join(word for axis in _AXES for word in axis if word in said)
    return re.sub(r"[ -]+", " ", _ALONG.sub(" ", words)) if said else words, position


def _finding(phrase: str, words: str) -> tuple[str, bool]:
    """The words that name the finding, and whether they are denied: by a negation before or after all of them."""
    parts = [(match.lastgroup, match[0]) for match in _WORDS.finditer(words)]
    letters = {"negation": "n", "word": "w"}
    kinds = "".join(letters.get(kind or "", "") for kind, word in parts if word not in _WHERE)
    named = " ".join(word for kind, word in parts if kind == "word")
    finding = re.sub(r"^(?:(?:and|or)\b\s*)+|(?:\s*\b(?:and|or))+$", "", named)
    if not finding:
        raise ValueError(f"{phrase!r} names no finding")
    if re.search("wn+w", kinds):
        raise ValueError(f"{phrase!r} denies one of several things; ask for one at a time")
    return finding, "n" in kinds


def view_of_statement(statement: Statement) -> ViewPosition | None:
    """The view that the phrase names."""
    return ViewPosition(statement.view) if statement.view else None


def unknown_words(finding: str, known: Collection[str]) -> tuple[str, ...]:
    """Words of a finding that stand in none of the phrases that a model was trained on, each once."""
    words = dict.fromkeys(re.findall(r"[a-z0-9]+", finding))
    return tuple(word for word in words if word not in known and word.removesuffix("s") not in known)
