"""Phrases whose truth is known for what a view shows: for the phrase term of pretraining, for FActOR, for tests.

A phrase is a finding in words of the grammar or of a report, with or without a place. Located phrases are judged only
where places are said (whole views).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from training.mammo_clip.grammar import ATTRIBUTES, Location, article_of
from training.mammo_clip.seen import Seen, noun_phrase

PHANTOM_WORDS: dict[str, tuple[str, ...]] = {
    "Mass": (
        "", "possible", "questioned", "questionable", "indeterminate", "suspicious", "irregular", "spiculated",
        "round circumscribed", "oval circumscribed", "lobulated circumscribed", "round", "oval", "lobulated",
        "circumscribed", "irregular spiculated",
    ),
    "Suspicious_Calcification": (
        "suspicious", "indeterminate grouped", "possible grouped", "questionable clustered", "questioned grouped",
        "pleomorphic grouped", "suspicious grouped", "suspicious clustered", "suspicious linear",
        "indeterminate linear", "pleomorphic segmental", "suspicious segmental", "grouped punctate", "grouped round",
        "grouped fine pleomorphic", "fine linear branching", "segmental fine pleomorphic", "grouped", "linear",
        "segmental", "pleomorphic",
    ),
    "Architectural_Distortion": ("", "suspicious", "questionable"),
    "Focal_Asymmetry": ("", "possible", "indeterminate", "suspicious"),
}  # fmt: skip
"""Words before the noun of each finding; each is true of some kind of lesion of the phantoms."""
SECTORS = ("upper", "lower", "inner", "outer")
DEPTHS = ("anterior", "mid", "posterior")


@dataclass(frozen=True, slots=True)
class Phrase:
    """`name` of the grammar's findings, `words` before its noun, where; `negated`: the finding is said not to be there.

    `text` is what the text tower reads, `wordings` are other ways to say it, for training.
    """

    name: str
    words: str
    location: Location
    negated: bool = False

    @property
    def located(self) -> bool:
        """Whether it says where."""
        return self.location != Location()

    @property
    def bare(self) -> str:
        """ "spiculated mass"."""
        return noun_phrase(self.name, self.words)

    @property
    def text(self) -> str:
        """ "spiculated mass in the outer breast at posterior depth", "no mass"."""
        return self.wordings[0]

    @property
    def wordings(self) -> tuple[str, ...]:
        """The text and other ways to say it."""
        attribute = ATTRIBUTES[self.name]
        verb = "are" if attribute.plural else "is"
        if self.negated:
            return (
                f"no {self.bare}",
                f"there {verb} no {self.bare}",
                f"no {self.bare} {verb} seen",
                f"without {self.bare}",
            )
        place = f" in the {self.location.words()}" if self.located else ""
        return (
            f"{self.bare}{place}",
            f"there {verb} {article_of(attribute, self.bare)}{self.bare}{place}",
            f"{self.bare} {verb} seen{place}",
        )


@lru_cache(1)
def phrases() -> tuple[Phrase, ...]:
    """Every phrase that is said to be there, always in the same order: first those without a place."""
    nowhere = [Phrase(name, words, Location()) for name, kinds in PHANTOM_WORDS.items() for words in kinds]
    one_word = [Location(sector) for sector in SECTORS] + [Location(depth=depth) for depth in DEPTHS]
    placed = [Phrase(one.name, one.words, place) for place in (*one_word, Location("subareolar")) for one in nowhere]
    both = [Location(sector, depth) for sector, depth in product(SECTORS, DEPTHS)]
    first = [Phrase(name, kinds[0], place) for place in both for name, kinds in PHANTOM_WORDS.items()]
    return (*nowhere, *placed, *first)


@lru_cache(1)
def negated_phrases() -> tuple[Phrase, ...]:
    """ "no mass" and the like, one for each finding."""
    return tuple(Phrase(name, kinds[0], Location(), negated=True) for name, kinds in PHANTOM_WORDS.items())


def shown(phrase: Phrase, seen: Sequence[Seen]) -> bool:
    """Whether one view, or tile, that shows `seen` shows what the phrase says."""
    named = [one for one in seen if one.name == phrase.name]
    if phrase.negated:
        return not named
    return any(_says(one, phrase.words) and _lies(one.location, phrase.location) for one in named)


def _says(seen: Seen, words: str) -> bool:
    """The words are the grammar's for this kind, or all stand in its description."""
    wanted = set(words.split()) - ({"suspicious"} if words == "suspicious" and seen.is_calcification else set())
    return words in seen.subtypes or wanted <= set(seen.description.split())


def _lies(where: Location, wanted: Location) -> bool:
    position = not wanted.position or wanted.position in where.position.split()
    return position and (not wanted.depth or wanted.depth == where.depth)


@lru_cache(1 << 14)
def truth_of(seen: tuple[Seen, ...], known: tuple[str, ...], *, placed: bool) -> NDArray[np.int8]:
    """Int8 (P,), for every one of `phrases()`, then of `negated_phrases()`: 1 shown, 0 not shown, -1 not known.

    Known are phrases of the findings `known`; those with a place only where `placed`.
    """
    return np.array(
        [
            int(shown(one, seen)) if one.name in known and (placed or not one.located) else -1
            for one in (*phrases(), *negated_phrases())
        ],
        np.int8,
    )


def main_phrases() -> list[int]:
    """Where the phrase of each finding stands in `phrases()`: "mass", "suspicious calcifications", ..."""
    every = phrases()
    return [every.index(Phrase(name, kinds[0], Location())) for name, kinds in PHANTOM_WORDS.items()]


def drawn_phrases(count: int, chance: random.Random) -> list[int]:
    """Numbers of phrases: the findings' own, their negations, and up to `count` others, half of them without place."""
    main = main_phrases()
    negations = [len(phrases()) + index for index in range(len(main))]
    wordy = sum(not one.located for one in phrases())
    others = [number for number in range(wordy) if number not in main]
    placed = range(wordy, len(phrases()))
    left = max(0, count - 2 * len(main))
    near = chance.sample(others, min(left - left // 2, len(others)))
    return [*main, *negations, *near, *chance.sample(placed, min(left - len(near), len(placed)))]


def truth_table(chosen: Sequence[Phrase], views: Sequence[Sequence[Seen]]) -> NDArray[np.bool_]:
    """Bool (len(views), len(chosen))."""
    return np.array([[shown(phrase, seen) for phrase in chosen] for seen in views], dtype=np.bool_).reshape(
        len(views), len(chosen)
    )
