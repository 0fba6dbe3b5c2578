import csv
import string

import pytest

from node.mammography.wordpiece import UNKNOWN, load_wordpiece
from training.mammo_clip.readers import read_cesm_texts
from training.mammo_clip.vocabulary import (
    descriptors,
    grammar_sentences,
    own_tokenizer,
    phantom_sentences,
    train_vocabulary,
)


def test_every_sentence_of_the_grammar_is_known():
    tokenizer, words = own_tokenizer(), {word for sentence in grammar_sentences() for word in sentence.split()}
    assert len(words) > 80
    assert [word for word in sorted(words) if UNKNOWN in tokenizer.pieces(word)] == []
    assert UNKNOWN not in tokenizer.pieces(" ".join(grammar_sentences()))


def test_words_of_the_grammar_and_of_phantom_reports_are_whole_pieces():
    tokenizer = own_tokenizer()
    for sentence in ("there is a spiculated mass in the upper outer left breast at mid depth", "no calcifications"):
        assert tokenizer.pieces(sentence) == sentence.split()
    assert all(UNKNOWN not in tokenizer.pieces(sentence) for sentence in phantom_sentences(5))


def test_no_word_of_ascii_is_unknown():
    tokenizer = own_tokenizer()
    assert UNKNOWN not in tokenizer.pieces(string.printable)
    assert UNKNOWN not in tokenizer.pieces("Überraschung 4b5x7")


def test_real_findings_and_descriptors_are_known(crops_folder):
    data, tokenizer = crops_folder.parent, own_tokenizer()
    findings = read_cesm_texts(data / "reports/cdd-cesm-annotations.csv").rows
    assert all(UNKNOWN not in tokenizer.pieces(sentence) for _, _, sentence in findings)
    described = set(descriptors(crops_folder / "calc_case_description_train_set.csv"))
    assert "pleomorphic" in {word for words in described for word in words.lower().split()}
    assert all(UNKNOWN not in tokenizer.pieces(words) for words in described)


def test_training_gives_a_vocabulary_that_loads(tmp_path):
    pieces = train_vocabulary(["a mass in the breast", "no mass"] * 3, size=120)
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(pieces) + "\n")
    assert load_wordpiece(path, lower_case=True).pieces("The mass") == ["the", "mass"]
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_descriptors_of_a_table_without_them_are_empty(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["mass shape"], ["IRREGULAR-ARCHITECTURAL_DISTORTION"]])
    assert next(descriptors(path)) == "IRREGULAR ARCHITECTURAL DISTORTION"
    with pytest.raises(FileNotFoundError):
        list(descriptors(tmp_path / "none.csv"))
