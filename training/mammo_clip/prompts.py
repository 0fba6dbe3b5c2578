"""What a class is told by: the published pairs, and ensembles of sentences of our own.

Sets: "published" (the authors' evaluation: one prompt a class), "grammar" (every sentence of the report grammar for a
finding against its negations), "phrases" (the phrases of our own models, without a place, against their negations).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from node.mammography.views import Laterality
from training.mammo_clip.grammar import (
    ATTRIBUTES,
    NEGATIONS,
    NO_FINDING,
    Location,
    benign,
    negative,
    positive,
    positives,
)
from training.mammo_clip.phrases import Phrase, negated_phrases, phrases
from training.mammo_clip.pretraining_recipe import RecipeError

DENSITY = "density"
_SIDES = (Laterality.RIGHT, Laterality.LEFT)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of one class after another: two for a finding (negative first), four for density."""

    name: str
    classes: tuple[tuple[str, ...], ...]


PUBLISHED: tuple[Prompts, ...] = (
    Prompts("Mass", (("no mass",), ("mass",))),
    Prompts("Suspicious_Calcification", (("no suspicious calcification",), ("suspicious calcification",))),
    Prompts("cancer", (("no malignancy",), ("malignancy",))),
    Prompts(
        DENSITY,
        (
            ("the breasts being almost entirely fatty",),
            ("scattered areas of fibroglandular density",),
            ("the breast tissue is heterogeneously dense",),
            ("the breasts are extremely dense",),
        ),
    ),
)
"""The pairs and the four classes of the authors' evaluation."""

_DENSITY_WORDS = (
    ("almost entirely fatty breasts", "the breast tissue is almost entirely fat", "fatty breasts, density a"),
    ("scattered fibroglandular tissue", "breasts with scattered fibroglandular densities", "breast density b"),
    ("heterogeneously dense breasts", "the breasts are heterogeneously dense", "breast density c"),
    ("extremely dense breasts", "the breast tissue is extremely dense", "breast density d"),
)
_SUSPECT = {
    "Mass": ("suspicious", "irregular", "spiculated"),
    "Suspicious_Calcification": ("pleomorphic grouped", "pleomorphic segmental", "suspicious linear"),
    "Architectural_Distortion": ("suspicious",),
    "Focal_Asymmetry": ("suspicious",),
}
"""What a finding is called where it is thought malignant."""


def prompts_of(kind: str, label: str, *, sided: bool) -> Prompts | None:
    """The prompts of one label in one set, None where the set has none. `sided`: sentences for right and for left, as
    models of unmirrored images read them. Raises RecipeError for a set that is not known.
    """
    if kind not in SETS:
        raise RecipeError(f"prompts is {kind!r}; there are {', '.join(SETS)}")
    return SETS[kind](label, sided)


def _published(label: str, sided: bool) -> Prompts | None:
    return next((found for found in PUBLISHED if found.name == label), None)


def _grammar(label: str, sided: bool) -> Prompts | None:
    sides: tuple[Laterality | None, ...] = _SIDES if sided else (None,)
    if label == DENSITY:
        return Prompts(label, _DENSITY_WORDS)
    if label == "cancer":
        return Prompts(label, (tuple(_harmless(sides)), tuple(_suspect(sides))))
    if label not in ATTRIBUTES:
        return None
    absent = [negative(label, form, side) for side in sides for form in range(len(NEGATIONS))]
    there = [sentence for side in sides for sentence in positives(label, side)]
    return Prompts(label, ((*absent, *NO_FINDING), tuple(there)))


def _harmless(sides: tuple[Laterality | None, ...]) -> Iterator[str]:
    yield from NO_FINDING
    for side in sides:
        for name in _SUSPECT:
            yield from (benign(name, kind, Location(side=side)) for kind in ATTRIBUTES[name].benign)


def _suspect(sides: tuple[Laterality | None, ...]) -> Iterator[str]:
    for side in sides:
        for name, kinds in _SUSPECT.items():
            yield from (positive(name, kind, Location(side=side)) for kind in kinds)


def _phrases(label: str, sided: bool) -> Prompts | None:
    """These name no side and no place."""
    there = [one for one in phrases() if one.name == label and not one.located]
    absent = [one for one in negated_phrases() if one.name == label]
    if not there or not absent:
        return None
    return Prompts(label, (_said(absent), _said(there)))


def _said(found: list[Phrase]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words for one in found for words in one.wordings))


SETS: dict[str, Callable[[str, bool], Prompts | None]] = {
    "published": _published,
    "grammar": _grammar,
    "phrases": _phrases,
}
