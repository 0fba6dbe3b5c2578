import pytest

from node.errors import SettingsError
from node.mammography.known_phrases import (
    KnownPhrases,
    known_phrases_json,
    known_phrases_of,
    load_known_phrases,
    nearest,
)
from node.mammography.phrases import Location, Statement, parse, unknown_words, view_of_statement
from node.mammography.views import Laterality, ViewPosition

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT


@pytest.mark.parametrize(
    ("phrase", "finding", "location", "view"),
    [
        ("spiculated mass in the upper outer breast", "spiculated mass", Location("upper outer"), ""),
        ("LMLO: mass UOQ", "mass", Location("upper outer", "", LEFT), "MLO"),
        ("mass in upper-outer quadrant of left breast, middle third", "mass", Location("upper outer", "mid", LEFT), ""),
        ("anterior mass", "mass", Location("", "anterior"), ""),
        ("calcifications behind the nipple", "calcifications", Location("subareolar"), ""),
        ("mass in the central breast", "mass", Location("central"), ""),
        ("Mass in both breasts", "mass", Location(), ""),
        ("mass in the left and right breast", "mass", Location(), ""),
        ("mass seen in CC and MLO views", "mass", Location(), ""),
        ("rod-like calcifications, RCC", "rod-like calcifications", Location("", "", RIGHT), "CC"),
    ],
)
def test_words_of_place_are_told_from_the_finding(phrase, finding, location, view):
    assert parse(phrase) == Statement(finding, location, False, view)


@pytest.mark.parametrize(
    "phrase",
    [
        "no mass",
        "mass is not seen",
        "without mass",
        "absence of mass",
        "negative for mass",
        "there is no evidence of mass",
    ],
)
def test_denied_findings_are_read_as_denied(phrase):
    statement = parse(phrase)
    assert statement.negated
    assert statement.finding == "mass"


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ("in the left breast", "names no finding"),
        ("mass without calcifications", "denies one of several things"),
        ("no mass, no calcifications", "denies one of several things"),
        ("outer mass and inner calcifications", "names two places"),
        ("anterior or posterior mass", "names two depths"),
        ("mass in LCC and RMLO", "names two views"),
    ],
)
def test_phrases_that_say_two_things_are_errors_in_words(phrase, words):
    with pytest.raises(ValueError, match=words):
        parse(phrase)


def test_a_statement_s_view_is_a_position():
    assert view_of_statement(parse("mass in the MLO")) is ViewPosition.MLO
    assert view_of_statement(parse("mass")) is None


def test_unknown_words_are_told_once_and_plurals_are_known():
    assert unknown_words("zebra masses zebra mass", {"masse", "mass"}) == ("zebra",)


def test_a_phrase_far_from_what_was_trained_is_said():
    known = KnownPhrases(("mass",), frozenset({"mass"}), 0.8)
    assert known.remarks("mass", 0.9) == ()
    unknown, far = known.remarks("zebra mass", 0.31)
    assert "zebra" in unknown
    assert "cosine 0.31, below 0.80" in far
    assert known.remarks("mass", None) == ()


def test_the_file_of_known_phrases_reads_back(tmp_path):
    known = KnownPhrases(("mass", "no mass"), frozenset({"mass", "no"}), 0.75)
    path = tmp_path / "phrases.json"
    path.write_text(known_phrases_json(known), encoding="utf-8")
    assert load_known_phrases(path) == known


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"phrases": [1], "words": [], "least_cosine": 0}'])
def test_another_file_is_refused(content):
    with pytest.raises(SettingsError, match=r"x\.json: is no file of known phrases"):
        known_phrases_of(content, "x.json")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_known_phrases(tmp_path / "phrases.json")


def test_the_nearest_phrase_is_found():
    import numpy as np

    known = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    assert nearest(np.array([0.0, 1.0], np.float32), known) == (1, pytest.approx(0.8))
