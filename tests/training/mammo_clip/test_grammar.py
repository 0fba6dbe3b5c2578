import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.mammography.findings import Depth, Place, Sector
from node.mammography.views import Laterality
from training.mammo_clip import grammar
from training.mammo_clip.grammar import ATTRIBUTES, Location, parse

RIGHT, LEFT = Laterality.RIGHT, Laterality.LEFT
SIDES = (RIGHT, LEFT, None)
# fmt: off
_WORDS = (
    "left", "right", "upper", "outer", "no", "mass", "in", "the", "CC", "mlo", "view", "at", "mid", "depth", "third",
    "posterior", "breast", "retroareolar", "not", "without", "superior", "medial", "quadrant", "-", ",", "both", "\n",
)
# fmt: on


PUBLISHED = {
    "Mass": 400,
    "Suspicious_Calcification": 1440,
    "Architectural_Distortion": 400,
    "Global_Asymmetry": 160,
    "Focal_Asymmetry": 240,
    "Asymmetry": 280,
    "Suspicious_Lymph_Node": 21,
    "Nipple_Retraction": 5,
    "Skin_Retraction": 33,
    "Skin_Thickening": 66,
}
"""Positive sentences of one side in the published lists."""


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_there_are_as_many_sentences_as_in_the_published_lists(side):
    assert {name: len(grammar.positives(name, side)) for name in ATTRIBUTES} == PUBLISHED
    assert all(
        f" {side.name.lower()} " in sentence for name in ATTRIBUTES for sentence in grammar.positives(name, side)
    )


def test_no_sentence_is_positive_and_negative():
    said = {s for name in ATTRIBUTES for side in SIDES for s in grammar.positives(name, side)}
    denied = {s for name in ATTRIBUTES for side in SIDES for s in grammar.negatives(name, side)}
    assert not said & (denied | set(grammar.NO_FINDING))


def test_a_sentence_reads_as_a_radiologist_writes_it():
    where = Location("upper outer", "mid", RIGHT)
    assert grammar.positive("Mass", "irregular", where) == (
        "there is an irregular mass in the upper outer right breast at mid depth"
    )
    assert grammar.positive("Suspicious_Calcification", "suspicious linear", Location(side=LEFT)) == (
        "there are suspicious linear calcifications in the left breast"
    )
    assert grammar.negative("Suspicious_Calcification", 0, LEFT) == (
        "there are no suspicious calcifications in the left breast"
    )
    assert grammar.negative("Architectural_Distortion") == "there is no architectural distortion"


@given(
    st.sampled_from(sorted(ATTRIBUTES)),
    st.integers(0, 100),
    st.sampled_from(grammar.POSITIONS),
    st.sampled_from(grammar.DEPTHS),
    st.sampled_from(SIDES),
)
def test_parsing_gives_back_what_was_said(name, choice, position, depth, side):
    attribute = ATTRIBUTES[name]
    subtype = attribute.subtypes[choice % len(attribute.subtypes)]
    where = Location(position, depth, side) if attribute.located else Location(side=side)
    statement = parse(grammar.positive(name, subtype, where))
    assert statement.location == where
    assert not statement.negated
    part = "" if attribute.parts[0] == "breast" else f" {attribute.parts[0]}"
    assert statement.finding == f"{subtype} {attribute.noun}".strip() + part


@given(st.sampled_from(sorted(ATTRIBUTES)), st.integers(0, len(grammar.NEGATIONS) - 1), st.sampled_from(SIDES))
def test_negations_are_read_as_negations(name, form, side):
    statement = parse(grammar.negative(name, form, side))
    assert statement.negated
    assert statement.location.side is side
    assert ATTRIBUTES[name].noun in statement.finding


@pytest.mark.parametrize(
    ("phrase", "finding", "location", "view"),
    [
        ("spiculated mass", "spiculated mass", Location(), ""),
        ("Left MLO: mass, superior", "mass", Location("upper", "", LEFT), "MLO"),
        ("retroareolar calcifications in the CC view", "calcifications", Location("subareolar"), "CC"),
        ("mass in the posterior third of the right breast", "mass", Location("", "posterior", RIGHT), ""),
        ("lateral asymmetry", "asymmetry", Location("outer"), ""),
    ],
)
def test_phrases_of_people_are_read(phrase, finding, location, view):
    assert parse(phrase) == grammar.Statement(finding, location, False, view)


@pytest.mark.parametrize("phrase", ["", "in the left breast", "no"])
def test_a_phrase_without_a_finding_is_an_error(phrase):
    with pytest.raises(ValueError, match="names no finding"):
        parse(phrase)


def test_unknown_subtypes_are_errors_that_name_the_known_ones():
    with pytest.raises(ValueError, match=r"Mass has no subtype 'purple'; known: .*'spiculated'"):
        grammar.positive("Mass", "purple", Location())


def test_openings_parts_and_places_of_the_skin():
    assert grammar.positive("Architectural_Distortion", "suspicious", Location("upper"), opening="an area of") == (
        "there is an area of suspicious architectural distortion in the upper breast"
    )
    assert grammar.positive("Suspicious_Lymph_Node", "enlarged", Location(side=LEFT), part="axillary tail") == (
        "there is an enlarged lymph node in the left axillary tail"
    )
    assert "there is skin thickening in the periareolar left breast" in grammar.positives("Skin_Thickening", LEFT)
    with pytest.raises(ValueError, match="Mass has no part 'axilla'; known: 'breast'"):
        grammar.positive("Mass", "", Location(), part="axilla")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_sentences_are_read_as_what_they_say(name, side):
    """Side, and whether the finding is said to be there: of positive, harmless and negative sentences."""
    attribute, chance = ATTRIBUTES[name], random.Random(name)
    assert not any(parse(sentence).negated for sentence in chance.sample(grammar.positives(name, side), 5))
    said = grammar.negatives(name, side)
    for sentence in (*said[: len(grammar.NEGATIONS)], *chance.sample(said, 4)):
        statement = parse(sentence)
        assert statement.location.side is side
        assert attribute.noun in statement.finding
        assert statement.negated or any(kind in sentence for kind in attribute.benign)


@settings(max_examples=150, deadline=None)
@given(st.text() | st.lists(st.sampled_from(_WORDS)).map(" ".join))
def test_nothing_but_a_value_error_comes_of_any_phrase(phrase):
    with contextlib.suppress(ValueError):
        statement = parse(phrase)
        assert statement.finding == statement.finding.strip() != ""
        assert statement.location.position in grammar.POSITIONS
        assert statement.location.depth in grammar.DEPTHS
        assert statement.view in ("", "CC", "MLO")


def test_a_report_says_what_was_found_and_what_was_not():
    sentences = grammar.report([("Mass", Location("upper", "mid", LEFT))], ["Asymmetry"], LEFT, random.Random(3))
    assert len(sentences) == 2
    assert {parse(sentence).negated for sentence in sentences} == {True, False}
    assert grammar.report([], ["Mass"], LEFT, random.Random(3))[0] in grammar.NO_FINDING


def test_place_words_are_those_that_the_view_shows():
    place = Place(0.5, None, Depth.MIDDLE, Sector.OUTER)
    assert grammar.location_of(place, RIGHT) == Location("outer", "mid", RIGHT)
    assert grammar.location_of(Place(0.9, None, Depth.POSTERIOR, Sector.CENTRAL), None) == Location("", "posterior")
    assert grammar.location_of(None, LEFT) == Location(side=LEFT)


@given(st.sampled_from(sorted(ATTRIBUTES)), st.sampled_from((RIGHT, LEFT)))
def test_a_flipped_image_has_the_other_side_in_its_text(name, side):
    for sentence in grammar.positives(name, side)[:50]:
        assert parse(grammar.mirrored(sentence)).location.side is not side
        assert grammar.mirrored(grammar.mirrored(sentence)) == sentence
