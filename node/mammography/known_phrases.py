"""What a model that takes any phrase was trained on, so that a question far from it can be told as such.

A JSON file beside the text encoder: `phrases`, the texts of training; `words`, every word in them; `least_cosine`, how
near at least a phrase's embedding comes to the nearest of theirs.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import SettingsError
from node.mammography.phrases import unknown_words


@dataclass(frozen=True, slots=True)
class KnownPhrases:
    """See above. `least_cosine` in [-1, 1]."""

    phrases: tuple[str, ...]
    words: frozenset[str]
    least_cosine: float

    def remarks(self, finding: str, cosine: float | None) -> tuple[str, ...]:
        """What must be said of a finding in words: which of them are unknown, and whether it lies far from what was
        trained; `cosine` is that of its embedding with the nearest of `phrases`, None where it was not computed.
        """
        unknown = unknown_words(finding, self.words)
        found = []
        if unknown:
            found.append(f"not among the words that were trained: {', '.join(unknown)}; trust the answer less")
        if cosine is not None and cosine < self.least_cosine:
            found.append(
                f"far from every phrase that was trained (cosine {cosine:.2f}, below {self.least_cosine:.2f}); trust "
                "the answer less"
            )
        return tuple(found)


def nearest(embedding: NDArray[np.float32], known: NDArray[np.float32]) -> tuple[int, float]:
    """The nearest of unit vectors (P, D) to a unit vector (D,): its number and cosine."""
    cosines = known @ embedding
    number = int(np.argmax(cosines))
    return number, float(cosines[number])


def load_known_phrases(path: Path) -> KnownPhrases:
    """Read the file. Raises SettingsError where it is none."""
    try:
        return known_phrases_of(path.read_bytes(), str(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error


def known_phrases_of(content: bytes, name: str) -> KnownPhrases:
    """Of a file's bytes; `name` is what an error calls it. Raises SettingsError."""
    try:
        table = json.loads(content)
        phrases, words, least = table["phrases"], table["words"], float(table["least_cosine"])
        if not all(isinstance(word, str) for word in (*phrases, *words)) or not -1.0 <= least <= 1.0:
            raise ValueError("phrases and words are texts, least_cosine is from -1 to 1")
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{name}: is no file of known phrases: {type(error).__name__}: {error}") from error
    return KnownPhrases(tuple(phrases), frozenset(words), least)


def known_phrases_json(known: KnownPhrases) -> str:
    """The file's text."""
    table = {"phrases": list(known.phrases), "words": sorted(known.words), "least_cosine": round(known.least_cosine, 4)}
    return json.dumps(table, indent=0) + "\n"
