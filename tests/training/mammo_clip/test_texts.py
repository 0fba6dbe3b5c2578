import random

import pytest

from training.mammo_clip import texts
from training.mammo_clip.texts import Report, clean_section, draw_texts, first_texts, report_of

RAW = "There is a mass, 2.5 cm.\nStable since 2019. BI-RADS 4. Überweisung empfohlen heute."


def test_section_is_cleaned_as_published_and_keeps_its_sentences():
    assert clean_section(RAW) == (
        "there is a mass , 2 5 cm",
        "stable since 2019",
        "berweisung empfohlen heute",
    )
    assert clean_section("BI-RADS 4.", keep_short=True) == ("birads 4",)
    assert clean_section("Impression: BI-RADS 4 suspicious") == ("impression : birads 4 suspicious",)


@pytest.mark.parametrize("raw", ["", " \n", "No.", "…"])
def test_nothing_is_left_of_nothing(raw):
    assert clean_section(raw) == ()
    with pytest.raises(ValueError, match="empty"):
        report_of([raw], [])


def test_empty_sections_go_with_their_back_translations():
    report = report_of(["", "there is a mass here"], ["never used at all", "a mass is found here"])
    assert report == Report((("there is a mass here",),), (("a mass is found here",),))


def test_one_section_is_paired_with_its_back_translation_in_any_order():
    report = Report((("a b c",),), (("d e f",),))
    drawn = {draw_texts(report, random.Random(seed)) for seed in range(20)}
    assert drawn == {("a b c", "d e f"), ("d e f", "a b c")}


def test_without_back_translation_the_text_is_paired_with_itself():
    assert draw_texts(Report((("a b c",),)), random.Random(0)) == ("a b c", "a b c")


def test_two_sections_are_drawn_with_replacement_and_translated_half_of_the_time():
    report = Report((("one",), ("two",)), (("eins",), ("zwei",)))
    drawn = [draw_texts(report, random.Random(seed)) for seed in range(2000)]
    words = [word for pair in drawn for word in pair]
    assert all(0.22 < words.count(word) / len(words) < 0.28 for word in ("one", "two", "eins", "zwei"))
    same = sum({pair[0], pair[1]} <= {"one", "eins"} or {pair[0], pair[1]} <= {"two", "zwei"} for pair in drawn)
    assert 0.45 < same / len(drawn) < 0.55


def test_sentences_are_really_shuffled():
    report = Report((("a a a", "b b b", "c c c"),))
    orders = {draw_texts(report, random.Random(seed))[0] for seed in range(60)}
    assert len(orders) == 6
    assert draw_texts(report, random.Random(1), shuffle=False)[0] == "a a a b b b c c c"
    assert first_texts(report) == ("a a a b b b c c c",) * 2


def test_flipped_images_have_flipped_texts():
    assert texts.flipped(("mass in the left breast", "right")) == ("mass in the right breast", "left")
