"""CLIP's byte pairs: from a file, from an installed package, and our own."""

import gzip
import json
import sys
from pathlib import Path

import pytest
import torch

from training.mammo_clip.released import CheckpointError
from training.multi_view.clip_tokenizer import (
    END,
    OPENAI_FILE,
    OWN_VOCABULARY,
    START,
    load_clip_tokenizer,
    packaged_vocabulary,
    train_vocabulary,
)

TEXTS = (
    "a spiculated mass in the left breast",
    "No  suspicious\tmass,\nno distortion; it's 12 mm (BI-RADS 2)!",
    "they'll compare: we're sure, I'd say she's fine''",
    "Größe 3½ cm, naïve café \u212b \u200b日本語 🙂",
    "...//--  ",
    "",
    "don't 'stop' 2024-01-05 x_y",
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bpe") / "vocabulary.txt"
    train_vocabulary([*TEXTS[:3], "masses and mass", "the breasts, the left one"] * 3, 80, path)
    return path


def test_ids_are_those_of_transformers(vocabulary: Path, tmp_path: Path):
    from transformers import CLIPTokenizer

    ours = load_clip_tokenizer(vocabulary)
    ids = ours.pieces.get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(vocabulary.read_text(encoding="utf-8"), encoding="utf-8")
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text, 99) == theirs(text)["input_ids"], text


def words_of(path: Path) -> list[str]:
    """Tokens by id, from a second reading of the file's description."""
    tokenizer = load_clip_tokenizer(path)
    return sorted(tokenizer.pieces.get_vocab(), key=tokenizer.pieces.get_vocab().__getitem__)


def test_ids_stand_in_openais_order(vocabulary: Path):
    words = words_of(vocabulary)
    assert words[:3] == ["!", '"', "#"]
    assert (words[93], words[94], words[187], words[188]) == ("~", "¡", "ÿ", "Ā")
    assert (words[256], words[511]) == ("!</w>", "Ń</w>")
    merges = vocabulary.read_text(encoding="utf-8").splitlines()[1:]
    assert words[512:-2] == [merge.replace(" ", "") for merge in merges]
    assert words[-2:] == [START, END]


def test_texts_are_cut_padded_and_end_with_the_greatest_id(vocabulary: Path):
    tokenizer = load_clip_tokenizer(vocabulary)
    ids = tokenizer.batch(["mass", TEXTS[1] * 3, ""], 8)
    assert ids.shape == (3, 8)
    assert ids.dtype == "int64"
    assert (ids[:, 0] == tokenizer.size - 2).all()
    assert ids[2].tolist() == [tokenizer.size - 2, tokenizer.size - 1, 0, 0, 0, 0, 0, 0]
    assert ids[1, 7] == tokenizer.size - 1
    assert torch.from_numpy(ids).argmax(1).tolist()[1:] == [7, 1]


def test_entities_and_case_are_made_plain(vocabulary: Path):
    tokenizer = load_clip_tokenizer(vocabulary)
    assert tokenizer.encode(" MASS &amp;amp; mass ", 30) == tokenizer.encode("mass & mass", 30)


def test_the_own_vocabulary_knows_the_words_of_our_reports():
    tokenizer = load_clip_tokenizer(OWN_VOCABULARY)
    assert tokenizer.size == 1329
    for word in ("mammograms", "malignant", "benign", "spiculated", "calcifications", "suspicious"):
        assert len(tokenizer.encode(word, 77)) == 3, word
    assert tokenizer.encode("quixotic", 77) != tokenizer.encode("chaotic", 77)


def test_the_packages_vocabulary_is_found_without_importing_it(tmp_path: Path, monkeypatch, vocabulary: Path):
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=f"give {OPENAI_FILE} as a file, or let `pip install --no-deps"):
        packaged_vocabulary()
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('torchvision is not there')")
    (package / OPENAI_FILE).write_bytes(gzip.compress(vocabulary.read_bytes()))
    found = load_clip_tokenizer(packaged_vocabulary())
    assert found.encode(TEXTS[1], 77) == load_clip_tokenizer(vocabulary).encode(TEXTS[1], 77)
    assert "open_clip" not in sys.modules


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there are no merges in it"),
        (b"#version\n", "there are no merges in it"),
        (b"[PAD]\n[UNK]\nmass\n", r"'\[UNK\]' is no merge; wanted is a file such as bpe_simple"),
        (b"#version\na b\na b\n", "a merge stands in it twice"),
        (b"#version\nab c\n", "'ab' is merged but never made"),
        (b"#version\n\xff\xfe\n", "cannot be read as a vocabulary of CLIP"),
        (gzip.compress(b"#version\na b\n")[:15], "cannot be read as a vocabulary of CLIP"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_clip_tokenizer(tmp_path / "file.txt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_clip_tokenizer(tmp_path / "none.txt")
