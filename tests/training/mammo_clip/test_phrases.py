import random

import numpy as np

from training.mammo_clip.grammar import Location, parse
from training.mammo_clip.phrases import (
    Phrase,
    drawn_phrases,
    main_phrases,
    negated_phrases,
    phrases,
    shown,
    truth_of,
    truth_table,
)
from training.mammo_clip.seen import Seen

SPICULATED = Seen(
    "Mass",
    ("", "suspicious", "spiculated"),
    Location("outer", "posterior"),
    "12 mm irregular mass with spiculated margins in the outer breast , posterior depth",
    "irregular mass with spiculated margins",
)
PUNCTATE = Seen(
    "Suspicious_Calcification", ("indeterminate grouped",), Location("inner"), "", "grouped punctate calcifications"
)


def mass(words="", **place):
    return Phrase("Mass", words, Location(**place))


def test_more_than_two_hundred_different_texts():
    texts = [phrase.text for phrase in phrases()]
    assert len(texts) == len(set(texts)) >= 200


def test_every_wording_is_read_back_by_the_grammar_as_it_was_meant():
    for phrase in (*phrases(), *negated_phrases()):
        for wording in phrase.wordings:
            said = parse(wording)
            assert (said.finding, said.negated) == (phrase.bare, phrase.negated), wording
            assert (said.location.position, said.location.depth) == (phrase.location.position, phrase.location.depth)


def test_finding_is_shown_by_its_words_and_by_those_of_its_description():
    view = [SPICULATED]
    assert shown(mass(), view)
    assert shown(mass("spiculated"), view)
    assert shown(mass("irregular spiculated"), view)
    assert not shown(mass("round"), view)
    assert not shown(Phrase("Focal_Asymmetry", "", Location()), view)


def test_place_must_agree():
    assert shown(mass(position="outer"), [SPICULATED])
    assert shown(mass(position="outer", depth="posterior"), [SPICULATED])
    assert not shown(mass(position="inner"), [SPICULATED])
    assert not shown(mass(depth="anterior"), [SPICULATED])


def test_calcifications_are_suspicious_by_name_whatever_they_are_like():
    assert shown(Phrase("Suspicious_Calcification", "suspicious", Location()), [PUNCTATE])
    assert not shown(Phrase("Suspicious_Calcification", "suspicious grouped", Location()), [PUNCTATE])


def test_negated_phrase_holds_where_the_finding_is_missing():
    no_mass, no_calcification = negated_phrases()[:2]
    assert not shown(no_mass, [SPICULATED])
    assert shown(no_calcification, [SPICULATED])
    assert shown(no_mass, [])


def test_places_of_a_tile_and_findings_that_were_not_looked_for_are_not_known():
    truth = truth_of((SPICULATED,), ("Mass",), placed=False)
    every = (*phrases(), *negated_phrases())
    unknown = {number for number, one in enumerate(every) if one.located or one.name != "Mass"}
    assert set(np.flatnonzero(truth == -1)) == unknown
    assert truth[main_phrases()[0]] == 1


def test_truth_table_has_a_row_a_view_and_a_column_a_phrase():
    table = truth_table([mass(), mass("round")], [[SPICULATED], [], [PUNCTATE]])
    assert table.tolist() == [[True, False], [False, False], [False, False]]


def test_drawn_phrases_begin_with_each_finding_and_its_denial():
    numbers = drawn_phrases(40, random.Random(1))
    every = (*phrases(), *negated_phrases())
    first = [every[number] for number in numbers[:8]]
    assert [one.name for one in first[:4]] == [one.name for one in first[4:]]
    assert [one.negated for one in first] == [False] * 4 + [True] * 4
    assert len(numbers) == len(set(numbers)) == 40
    assert any(every[number].located for number in numbers)
