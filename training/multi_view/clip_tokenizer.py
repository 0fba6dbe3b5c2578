"""CLIP's tokenizer: byte pairs (Radford et al. 2021) of a vocabulary file, nothing fetched.

A vocabulary is a text file, packed by gzip or not: one line of heading, then one merge a line, two pieces with a blank
between, the most frequent first. OpenAI's is bpe_simple_vocab_16e6.txt.gz, which the package open_clip_torch carries.
Ids: 256 bytes, 256 bytes that end a word, the merges, START, END; padding is 0.
"""

import gzip
import html
import importlib.util
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.mammo_clip.released import CheckpointError

START, END = "<|startoftext|>", "<|endoftext|>"
OPENAI_FILE = "bpe_simple_vocab_16e6.txt.gz"
OPENAI_MERGES = 49152 - 256 - 2
"""Lines of OpenAI's file that count; it has more."""
OWN_VOCABULARY = Path(__file__).with_name("vocabulary.txt")
_WORD_END = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True, eq=False)
class ClipTokenizer:
    """A tokenizer of `size` tokens; END has the greatest id, as `Clip.encode_text` wants."""

    pieces: Tokenizer
    size: int

    def encode(self, text: str, context: int) -> list[int]:
        """Token ids with START and END, cut to `context`; HTML's entities and white space are made plain."""
        plain = html.unescape(html.unescape(text)).strip()
        inner = self.pieces.encode(plain, add_special_tokens=False).ids[: context - 2]
        return [self.size - 2, *inner, self.size - 1]

    def batch(self, texts: Sequence[str], context: int) -> NDArray[np.int64]:
        """Token ids (N, context), 0 behind END."""
        token_ids = np.zeros((len(texts), context), np.int64)
        for row, text in enumerate(texts):
            ids = self.encode(text, context)
            token_ids[row, : len(ids)] = ids
        return token_ids


def load_clip_tokenizer(path: Path) -> ClipTokenizer:
    """The tokenizer of a vocabulary file. Raises CheckpointError that says what is wrong with it."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a vocabulary of CLIP: {error}") from error
    lines = [line for line in text.split("\n")[1 : OPENAI_MERGES + 1] if line.strip()]
    merges = [tuple(line.split()) for line in lines]
    if not merges or (odd := next((line for line, merge in zip(lines, merges, strict=True) if len(merge) != 2), None)):
        what = f"{odd[:60]!r} is no merge" if merges and odd else "there are no merges in it"
        raise CheckpointError(f"{path}: no vocabulary of CLIP: {what}; wanted is a file such as {OPENAI_FILE}")
    return _tokenizer([(first, second) for first, second in merges], str(path))


def packaged_vocabulary() -> Path:
    """OpenAI's vocabulary in the installed package open_clip_torch, which is not imported. Raises CheckpointError."""
    found = importlib.util.find_spec("open_clip")
    for folder in (found.submodule_search_locations or []) if found else []:
        if (path := Path(folder) / OPENAI_FILE).is_file():
            return path
    raise CheckpointError(
        f"no vocabulary of CLIP: give {OPENAI_FILE} as a file, or let `pip install --no-deps open_clip_torch` bring it"
    )


def train_vocabulary(texts: Iterable[str], merges: int, path: Path) -> None:
    """Learn at most `merges` merges from texts and write them as a vocabulary file of our own models."""
    learning = _untrained({START: 0}, [])
    learning.train_from_iterator(
        (html.unescape(text) for text in texts),
        trainers.BpeTrainer(
            vocab_size=merges + 2 * len(_alphabet()),
            initial_alphabet=_alphabet(),
            end_of_word_suffix=_WORD_END,
            show_progress=False,
        ),
    )
    learnt = _merges_of(learning)[:merges]
    lines = ["#version: own", *(" ".join(merge) for merge in learnt)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _merges_of(learning: Tokenizer) -> list[tuple[str, str]]:
    """What a trained tokenizer writes of itself."""
    content = json.loads(learning.to_str())["model"]["merges"]
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in content]


def _tokenizer(merges: list[tuple[str, str]], name: str) -> ClipTokenizer:
    alphabet = _alphabet()
    words = [*alphabet, *(byte + _WORD_END for byte in alphabet), *("".join(merge) for merge in merges), START, END]
    ids = {word: number for number, word in enumerate(words)}
    if len(ids) != len(words):
        raise CheckpointError(f"{name}: no vocabulary of CLIP: a merge stands in it twice")
    unknown = next((piece for merge in merges for piece in merge if piece not in ids), None)
    if unknown is not None:
        raise CheckpointError(f"{name}: no vocabulary of CLIP: {unknown!r} is merged but never made")
    return ClipTokenizer(_untrained(ids, merges), len(words))


def _untrained(ids: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """NFC, single blanks, lower case; words, single digits, runs of the rest; then byte pairs."""
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, end_of_word_suffix=_WORD_END, unk_token=END))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def _alphabet() -> list[str]:
    """A visible character for each byte, in the order of OpenAI's ids: those that are visible already come first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + number) for number in range(len(others))]
