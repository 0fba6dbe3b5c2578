"""What is said of a breast whose findings are known by view and not by a report: sentences of the report grammar.

As for the published image-label rows, the first text comes from the first drawn view, the second from the second.
"""

import random
from dataclasses import dataclass

from node.mammography.views import Laterality
from training.mammo_clip.grammar import ATTRIBUTES, NEGATIONS, NO_FINDING, Location, negative, positive

ABSENT_MOST = 2
"""Findings at most that a text says are not there."""


def noun_phrase(name: str, words: str) -> str:
    """ "spiculated mass": a finding of the grammar with words before its noun."""
    return f"{words} {ATTRIBUTES[name].noun}".strip()


@dataclass(frozen=True, slots=True)
class Seen:
    """One finding as one view shows it: the grammar's name, what it may be called, where, and a report's words.

    `reported` is a whole sentence, `description` its words for the finding alone.
    """

    name: str
    subtypes: tuple[str, ...]
    location: Location
    reported: str = ""
    description: str = ""

    @property
    def is_calcification(self) -> bool:
        """Calcifications are named "suspicious" whatever they are like."""
        return self.name == "Suspicious_Calcification"

    def draw(self, chance: random.Random, report_chance: float) -> str:
        """The grammar's sentence, or the report's with a chance of `report_chance`."""
        if chance.random() < report_chance:
            return self.reported
        return positive(self.name, chance.choice(self.subtypes), self.location)

    def first(self) -> str:
        """The first of them."""
        return positive(self.name, self.subtypes[0], self.location)


@dataclass(frozen=True, slots=True)
class SeenViews:
    """What each view of a breast shows; () for a view without a finding.

    `known` are the findings that would be there if they were seen: those that a text may say are not there.
    `placed`: `Seen.location` tells where each lies; False for tiles, which show no place.
    """

    views: tuple[tuple[Seen, ...], ...]
    known: tuple[str, ...]
    side: Laterality | None = None
    report_chance: float = 0.0
    placed: bool = True

    def draw(self, views: tuple[int, int], chance: random.Random, *, shuffle: bool) -> tuple[str, str]:
        """One text for each of the two views: a sentence for each finding, up to two for what is not there."""
        first, second = (self._text(self.views[view], chance, shuffle) for view in views)
        return first, second

    def first(self, views: tuple[int, int]) -> tuple[str, str]:
        """One text for each of the two views, always the same."""
        first, second = (" ".join(seen.first() for seen in self.views[view]) or NO_FINDING[0] for view in views)
        return first, second

    def _text(self, seen: tuple[Seen, ...], chance: random.Random, shuffle: bool) -> str:
        sentences = [one.draw(chance, self.report_chance) for one in seen] or [chance.choice(NO_FINDING)]
        absent = [name for name in self.known if name not in {one.name for one in seen}]
        said = chance.sample(absent, chance.randint(0, min(ABSENT_MOST, len(absent))))
        sentences += [negative(name, chance.randrange(len(NEGATIONS)), self.side) for name in said]
        if shuffle:
            chance.shuffle(sentences)
        return " ".join(sentences)
