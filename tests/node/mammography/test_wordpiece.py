import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import SettingsError
from node.mammography.wordpiece import load_wordpiece

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "mass",
    "masses",
    "the",
    "in",
    "upper",
    "outer",
    "left",
    "right",
    "breast",
    "calc",
    "##ification",
    "##s",
    "spic",
    "##ulated",
    "no",
    ".",
    ",",
    "-",
    "(",
    ")",
    "1",
    "##2",
    "é",
    "e",
    "t",
    "##h",
    "##e",
    "i",
    "##n",
    "m",
    "##a",
    "M",
    "##ass",
    "乳",
    "##乳",
    "s",
    "u",
    "p",
    "##p",
    "##er",
    "'",
    "!",
    "x",
    "##x",
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def both(request, vocabulary):
    """Ours, and the tokenizers library as the second opinion."""
    tokenizers = pytest.importorskip("tokenizers", reason="the training extra is not installed")
    theirs = tokenizers.BertWordPieceTokenizer(
        str(vocabulary), lowercase=request.param, strip_accents=request.param, handle_chinese_chars=True
    )
    return load_wordpiece(vocabulary, lower_case=request.param), theirs


TEXTS = (
    "no mass in the left breast.",
    "Spiculated mass, upper-outer (right) breast; 12 calcifications!",
    "É é Mass\tmasses\n乳乳 \u00a0 the\u200bmass \x07 ' x" + "x" * 120,
    "",
)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_those_of_the_reference(both, text):
    ours, theirs = both
    assert ours.encode(text, 512) == theirs.encode(text).ids


@given(st.text(st.sampled_from("amstheleftright .,-()É乳\t12xX' "), max_size=60))
def test_any_text_splits_as_the_reference_splits_it(both, text):
    ours, theirs = both
    assert ours.encode(text, 512) == theirs.encode(text).ids


def test_texts_are_cut_and_padded(vocabulary):
    tokenizer = load_wordpiece(vocabulary, lower_case=True)
    ids, mask = tokenizer.batch(["mass in the left breast", "mass"], 5)
    assert ids.shape == mask.shape == (2, 5)
    assert ids[0, -1] == tokenizer.ids["[SEP]"]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert np.array_equal(ids[1], [2, tokenizer.ids["mass"], 3, 0, 0])
    assert tokenizer.batch(["mass"], 256, pad_to=256)[0].shape == (1, 256)


@pytest.mark.parametrize(
    ("content", "problem"), [("a\nb\n", r"\[PAD\] is missing"), ("\n".join([*PIECES, "a"]), "twice")]
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content, problem):
    path = tmp_path / "vocab.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=problem):
        load_wordpiece(path, lower_case=True)
