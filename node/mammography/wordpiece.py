"""WordPiece as BERT splits text (Devlin et al. 2019, arXiv 1810.04805): from a vocabulary file, nothing else needed.

The vocabulary is a text file with one piece a line; its line number is the token id. Pieces that continue a word begin
with "##". The one tokenizer of training and node.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.errors import SettingsError

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
LONGEST_WORD = 100
"""Characters; a longer word is unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class WordPiece:
    """A tokenizer. `ids` maps pieces to token ids; with `lower_case` text is lowered and loses its accents."""

    ids: dict[str, int]
    lower_case: bool

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text, without [CLS] and [SEP]."""
        return [piece for word in _words(text, self.lower_case) for piece in self._split(word)]

    def encode(self, text: str, max_length: int) -> list[int]:
        """Token ids with [CLS] and [SEP], cut to `max_length` tokens."""
        inner = [self.ids[piece] for piece in self.pieces(text)][: max_length - 2]
        return [self.ids[START], *inner, self.ids[END]]

    def batch(
        self, texts: Sequence[str], max_length: int, *, pad_to: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and mask (1 for a token), int64 (B, T); T is that of the longest text, or `pad_to`."""
        encoded = [self.encode(text, max_length) for text in texts]
        width = pad_to or max(map(len, encoded))
        token_ids = np.full((len(encoded), width), self.ids[PAD], np.int64)
        mask = np.zeros((len(encoded), width), np.int64)
        for row, ids in enumerate(encoded):
            token_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        return token_ids, mask

    def _split(self, word: str) -> list[str]:
        """The longest piece first, again and again; [UNK] where no piece fits."""
        if len(word) > LONGEST_WORD:
            return [UNKNOWN]
        found, start = [], 0
        while start < len(word):
            lead = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if lead + word[start:end] in self.ids), None)
            if end is None:
                return [UNKNOWN]
            found.append(lead + word[start:end])
            start = end
        return found


def load_wordpiece(path: Path, *, lower_case: bool) -> WordPiece:
    """The tokenizer of a vocabulary file. Raises SettingsError where a special piece is missing or one stands twice."""
    try:
        return wordpiece_of(path.read_bytes(), str(path), lower_case=lower_case)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read as a vocabulary: {error}") from error


def wordpiece_of(vocabulary: bytes, name: str, *, lower_case: bool) -> WordPiece:
    """As `load_wordpiece`, of a file's bytes; `name` is what an error calls it."""
    try:
        lines = vocabulary.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}: cannot be read as a vocabulary: {error}") from error
    ids = {line: number for number, line in enumerate(lines)}
    for special in (PAD, UNKNOWN, START, END):
        if special not in ids:
            raise SettingsError(f"{name}: no vocabulary: {special} is missing")
    if len(ids) != len(lines):
        raise SettingsError(f"{name}: no vocabulary: a piece stands in it twice")
    return WordPiece(ids, lower_case)


def _words(text: str, lower_case: bool) -> Iterator[str]:
    """Words and single punctuation marks."""
    for chunk in _spaced(text).split():
        plain = _without_accents(chunk.lower()) if lower_case else chunk
        word = ""
        for character in plain:
            if _is_punctuation(character):
                if word:
                    yield word
                yield character
                word = ""
            else:
                word += character
        if word:
            yield word


def _spaced(text: str) -> str:
    """White space of all kinds as blanks, control characters gone, ideographs as words of their own."""
    return "".join(_spaced_character(character) for character in text)


def _spaced_character(character: str) -> str:
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if character in "\0\ufffd" or unicodedata.category(character).startswith("C"):
        return ""
    return f" {character} " if _is_ideograph(ord(character)) else character


_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _is_ideograph(code: int) -> bool:
    return any(first <= code <= last for first, last in _IDEOGRAPHS)


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def _is_punctuation(character: str) -> bool:
    """All ASCII that is neither letter, digit nor blank, and what Unicode calls punctuation."""
    is_ascii = "!" <= character <= "/" or ":" <= character <= "@" or "[" <= character <= "`" or "{" <= character <= "~"
    return is_ascii or unicodedata.category(character).startswith("P")
