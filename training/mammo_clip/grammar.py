"""Reports of screening as a small grammar: which sentences may be said of a finding, and what a sentence says.

The published sentence lists are finite expansions of attribute x subtype x position x depth x side (repository of
arXiv 2405.12255, `prompts.json`). Here the rules stand themselves, in words of their own: sentences are drawn from them
or enumerated, and `node.mammography.phrases.parse` reads one back. No sentence is both positive and negative.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from node.mammography.findings import Depth, Place, Sector
from node.mammography.phrases import DEPTHS, POSITIONS, Location, Statement, parse
from node.mammography.views import Laterality

__all__ = [
    "ATTRIBUTES",
    "DEPTHS",
    "NEGATIONS",
    "NO_FINDING",
    "POSITIONS",
    "Attribute",
    "Location",
    "Statement",
    "benign",
    "location_of",
    "locations",
    "mirrored",
    "negative",
    "negatives",
    "parse",
    "positive",
    "positives",
    "report",
]

PERIAREOLAR = "periareolar"
"""A position of the skin alone."""
_DEPTH_WORDS = {Depth.ANTERIOR: "anterior", Depth.MIDDLE: "mid", Depth.POSTERIOR: "posterior"}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One finding as sentences name it.

    `subtypes` stand before the `noun`, `benign` before it in sentences that say the finding is there and harmless.
    `parts` are where it can lie; `located` False: it has no position; `on_skin`: it has one, periareolar among them,
    and no depth. `plural` agrees the verb. `openings` may stand before the adjectives.
    """

    noun: str
    subtypes: tuple[str, ...]
    benign: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("breast",)
    located: bool = True
    plural: bool = False
    on_skin: bool = False
    openings: tuple[str, ...] = ("",)

    def places(self, side: Laterality | None) -> Iterator[Location]:
        """All locations that a sentence can name on one side."""
        if not self.located:
            return iter([Location(side=side)])
        if self.on_skin:
            return (Location(position, "", side) for position in (*POSITIONS, PERIAREOLAR))
        return locations(side)


ATTRIBUTES: dict[str, Attribute] = {
    "Mass": Attribute(
        "mass",
        (
            "", "suspicious", "possible", "questioned", "questionable", "obscured", "indeterminate", "irregular",
            "spiculated", "new",
        ),
        ("stable", "stable benign", "circumscribed benign", "biopsied benign"),
    ),
    "Suspicious_Calcification": Attribute(
        "calcifications",
        tuple(
            " ".join(word for word in pair if word)
            for pair in product(
                ("suspicious", "possible", "questioned", "questionable", "indeterminate", "pleomorphic"),
                ("", "new", "grouped", "clustered", "segmental", "linear"),
            )
        ),
        (
            "vascular", "skin", "rod-like", "dystrophic", "popcorn", "secretory", "rim", "eggshell", "suture",
            "diffusely scattered punctate", "stable benign",
        ),
        plural=True,
    ),
    "Architectural_Distortion": Attribute(
        "architectural distortion",
        ("", "suspicious", "possible", "questioned", "questionable"),
        ("post-surgical",),
        openings=("", "an area of"),
    ),
    "Global_Asymmetry": Attribute("global asymmetry", ("", "new", "increased", "increasing"), ("stable",)),
    "Focal_Asymmetry": Attribute(
        "focal asymmetry", ("", "suspicious", "possible", "questioned", "questionable", "indeterminate"), ("stable",)
    ),
    "Asymmetry": Attribute(
        "asymmetry",
        ("", "questionable", "possible", "suspicious", "indeterminate", "developing", "questioned"),
        ("stable",),
    ),
    "Suspicious_Lymph_Node": Attribute(
        "lymph node",
        ("suspicious", "possible", "questioned", "questionable", "enlarged", "rounded", "indeterminate"),
        ("normal",),
        parts=("axilla", "axillary tail", "breast"),
        located=False,
    ),
    "Nipple_Retraction": Attribute(
        "nipple retraction", ("", "new", "suspicious", "possible", "questioned"), ("longstanding",), located=False
    ),
    "Skin_Retraction": Attribute("skin retraction", ("", "new", "suspicious"), ("longstanding",), on_skin=True),
    "Skin_Thickening": Attribute(
        "skin thickening",
        ("", "new", "suspicious", "possible", "questioned", "questionable"),
        ("stable",),
        on_skin=True,
    ),
}  # fmt: skip
"""By the names of VinDr-Mammo's findings. A bare "calcifications" is in no list: it says neither."""

NEGATIONS = ("there is no {}", "no {} is seen", "no evidence of {}", "{} is not seen", "without {}")
NO_FINDING = ("no suspicious finding", "no mammographic evidence of malignancy", "negative mammogram")


def positive(name: str, subtype: str, location: Location, *, part: str = "", opening: str = "") -> str:
    """ "there is a spiculated mass in the upper outer right breast at mid depth". Raises KeyError, ValueError.

    `part` of the attribute's parts, the first where it is not said; `opening` of its openings.
    """
    attribute = ATTRIBUTES[name]
    for word, known, what in (
        (subtype, attribute.subtypes, "subtype"),
        (part or attribute.parts[0], attribute.parts, "part"),
        (opening, attribute.openings, "opening"),
    ):
        if word not in known:
            raise ValueError(f"{name} has no {what} {word!r}; known: {', '.join(map(repr, known))}")
    return _there_is(attribute, subtype, location, part or attribute.parts[0], opening)


def benign(name: str, kind: str, location: Location) -> str:
    """A sentence that names the finding and calls it harmless: negative for the suspicious finding."""
    attribute = ATTRIBUTES[name]
    if kind not in attribute.benign:
        raise ValueError(f"{name} has no benign kind {kind!r}; known: {', '.join(map(repr, attribute.benign))}")
    return _there_is(attribute, kind, location)


def negative(name: str, form: int = 0, side: Laterality | None = None) -> str:
    """ "there is no mass in the right breast"; `form` is an index in NEGATIONS."""
    attribute = ATTRIBUTES[name]
    words = NEGATIONS[form].format(f"suspicious {attribute.noun}" if attribute.plural else attribute.noun)
    words = words.replace(" is ", " are ") if attribute.plural else words
    return f"{words} in the {Location(side=side).words(attribute.parts[0])}" if side else words


def _there_is(attribute: Attribute, adjectives: str, location: Location, part: str = "", opening: str = "") -> str:
    phrase = " ".join(word for word in (opening, adjectives, attribute.noun) if word)
    verb = "are" if attribute.plural else "is"
    article = article_of(attribute, phrase)
    where = location if attribute.located else Location(side=location.side)
    return f"there {verb} {article}{phrase} in the {where.words(part or attribute.parts[0])}"


def article_of(attribute: Attribute, phrase: str) -> str:
    """ "a ", "an ", or nothing, before a phrase that ends in the attribute's noun."""
    if attribute.plural or attribute.noun.endswith(("tion", "ing")):
        return ""
    return "an " if phrase[0] in "aeiou" else "a "


def locations(side: Laterality | None) -> Iterator[Location]:
    """All 40 of one side."""
    return (Location(position, depth, side) for position, depth in product(POSITIONS, DEPTHS))


def positives(name: str, side: Laterality | None) -> tuple[str, ...]:
    """Every positive sentence of a finding on one side."""
    attribute = ATTRIBUTES[name]
    said = product(attribute.places(side), attribute.subtypes, attribute.parts, attribute.openings)
    return tuple(
        dict.fromkeys(positive(name, kind, place, part=part, opening=opening) for place, kind, part, opening in said)
    )


def negatives(name: str, side: Laterality | None) -> tuple[str, ...]:
    """Every negative sentence of a finding on one side: negations, and what is there and harmless."""
    attribute = ATTRIBUTES[name]
    harmless = (benign(name, kind, place) for place in attribute.places(side) for kind in attribute.benign)
    return tuple(dict.fromkeys([*(negative(name, form, side) for form in range(len(NEGATIONS))), *harmless]))


def report(
    found: Sequence[tuple[str, Location]], absent: Sequence[str], side: Laterality | None, chance: random.Random
) -> list[str]:
    """Sentences for one breast: one for each finding, one for each absent one, in any order.

    `found` are names with their locations: where a box or a mask tells the place, its words are true. Without a
    finding a general sentence stands for all negatives.
    """
    if not found:
        return [chance.choice(NO_FINDING)]
    sentences = [positive(name, chance.choice(ATTRIBUTES[name].subtypes), place) for name, place in found]
    sentences += [negative(name, chance.randrange(len(NEGATIONS)), side) for name in absent]
    chance.shuffle(sentences)
    return list(dict.fromkeys(sentences))


def location_of(place: Place | None, side: Laterality | None) -> Location:
    """The words that one view can tell: depth, and upper or lower in an MLO, inner or outer in a CC."""
    if place is None:
        return Location(side=side)
    sector = "" if place.sector in (None, Sector.CENTRAL) else str(place.sector)
    return Location(sector, _DEPTH_WORDS[place.depth], side)


def mirrored(sentence: str) -> str:
    """The sentence of the image flipped left to right: "left" and "right" change places."""
    swap = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda found: swap[found.group(1)], sentence)
