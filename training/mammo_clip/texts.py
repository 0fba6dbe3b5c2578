"""Report sections to training text: cleaned, kept as sentences, shuffled for real, paired as published (section 3).

The published cleaning joins a section's sentences without periods, so that nothing is left to shuffle; here a section
stays a tuple of sentences until it is drawn.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.mammo_clip.grammar import mirrored

BACK_TRANSLATION_CHANCE = 0.5
Section = tuple[str, ...]
"""The sentences of one report section, in order."""


def clean_section(raw: str, *, keep_short: bool = False) -> Section:
    """Sentences in lower case, ASCII tokens parted by blanks, without periods; those of one or two tokens are dropped.

    "BI-RADS" is one token, "birads". () where nothing is left. `keep_short` keeps sentences of one or two tokens.
    """
    joined = " ".join(raw.replace("BI-RADS", "BIRADS").replace("\ufeff", "").split())
    sentences = (_tokens(part) for part in joined.split(". "))
    return tuple(" ".join(tokens) for tokens in sentences if len(tokens) > (0 if keep_short else 2))


def _tokens(sentence: str) -> list[str]:
    """Words and runs of punctuation; what is not ASCII is left out, and so are periods."""
    found = re.findall(r"\w+|[^\w\s]+", sentence.lower())
    ascii_only = (token.encode("ascii", "ignore").decode() for token in found)
    return [token for token in (text.replace(".", "") for text in ascii_only) if token]


@dataclass(frozen=True, slots=True)
class Report:
    """The sections of one report, and each section translated there and back, where such a column exists."""

    sections: tuple[Section, ...]
    augmented: tuple[Section, ...] = ()

    def other(self, index: int) -> Section:
        """The back-translation of a section, the section itself where there is none."""
        return self.augmented[index] if index < len(self.augmented) and self.augmented[index] else self.sections[index]


def report_of(texts: Sequence[str], augmented: Sequence[str]) -> Report:
    """Cleaned sections; empty ones are left out, with their back-translations. Raises ValueError where none is left."""
    pairs = [
        (clean_section(text), clean_section(augmented[i]) if i < len(augmented) else ()) for i, text in enumerate(texts)
    ]
    kept = [(section, other) for section, other in pairs if section]
    if not kept:
        raise ValueError("the report is empty once it is cleaned")
    return Report(tuple(section for section, _ in kept), tuple(other for _, other in kept))


def reordered(sentence: str, chance: random.Random) -> tuple[str, str]:
    """One report in two orders of its sentences, which " . " parts."""
    parts = sentence.split(" . ")
    return " ".join(chance.sample(parts, len(parts))), " ".join(chance.sample(parts, len(parts)))


def draw_texts(report: Report, chance: random.Random, *, shuffle: bool = True) -> tuple[str, str]:
    """Two texts of one report, as published: of several sections two drawn with replacement, each translated with
    probability .5; of one section itself and its back-translation, in any order. `shuffle` mixes the sentences.
    """
    if len(report.sections) == 1:
        drawn = [report.sections[0], report.other(0)]
        chance.shuffle(drawn)
    else:
        drawn = [_drawn_section(report, chance) for _ in range(2)]
    first, second = (_joined(section, chance if shuffle else None) for section in drawn)
    return first, second


def first_texts(report: Report) -> tuple[str, str]:
    """What validation takes: the first section, and the second where there is one; nothing drawn, nothing mixed."""
    return _joined(report.sections[0], None), _joined(report.sections[min(1, len(report.sections) - 1)], None)


def _drawn_section(report: Report, chance: random.Random) -> Section:
    index = chance.randrange(len(report.sections))
    return report.other(index) if chance.random() < BACK_TRANSLATION_CHANCE else report.sections[index]


def _joined(section: Section, chance: random.Random | None) -> str:
    sentences = list(section)
    if chance is not None:
        chance.shuffle(sentences)
    return " ".join(sentences)


def flipped(texts: tuple[str, str]) -> tuple[str, str]:
    """The texts of images that were flipped left to right."""
    return mirrored(texts[0]), mirrored(texts[1])
