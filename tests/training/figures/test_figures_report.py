"""Sentences, plots and the page of a report."""

import numpy as np
import pytest
from PIL import Image

from training.figures.heat_page import MARK, TRUTH, HeatView, pair, write_heat_page
from training.figures.intervals import Interval, auc_interval
from training.figures.meaning import meaning_section, verdict
from training.figures.plots import Roc, roc_plot
from training.figures.report import Measured, Section, write_report


def measured(what, value, low, high, figure="AUC", unit="image", n=4000, positives=800, patients=1000, **more):
    interval = Interval(value, low, high, n, positives, patients, "bootstrap by patient, 2000 draws")
    return Measured(what, figure, interval, unit, **more).as_table()


def section(source, *rows):
    return Section(f"figures of {source}", figures=rows, source=source)


@pytest.mark.parametrize(
    ("low", "high", "more", "wanted"),
    [
        (0.82, 0.9, {}, "ranks well"),
        (0.7, 0.9, {}, "ranks fairly"),
        (0.51, 0.6, {}, "ranks better than chance, weakly"),
        (0.45, 0.6, {}, "not told apart from chance"),
        (0.3, 0.4, {}, "worse than chance: the order is reversed"),
        (0.82, 0.9, {"positives": 9}, "too few to say"),
        (0.82, 0.9, {"n": 805}, "too few to say"),
    ],
)
def test_an_area_is_called_what_its_interval_carries(low, high, more, wanted):
    assert verdict(measured("Mass, linear probe", (low + high) / 2, low, high, **more)) == wanted


def test_sentences_follow_the_figures():
    phantoms = section("phantoms", measured("Mass, text-prompted", 0.85, 0.83, 0.87))
    films = section("mini-mias", measured("Mass, zero-shot", 0.52, 0.44, 0.6, n=162, positives=60, patients=81))
    words = " ".join(meaning_section([phantoms, films]).paragraphs)
    assert "phantoms, ranks well: Mass, text-prompted AUC 0.850 (0.830 to 0.870), 800 of 4000 positive." in words
    assert "targets reached by the lower end of the interval: Mass, text-prompted, AUC 0.850" in words
    assert "falls to 0.520 (0.440 to 0.600) on mini-mias" in words
    assert "These weights say nothing about patients." in words
    good = section("mini-mias", measured("Mass, zero-shot", 0.8, 0.74, 0.86, n=162, positives=60, patients=81))
    words = " ".join(meaning_section([phantoms, good]).paragraphs)
    assert "1 of 1 areas lie above chance" in words
    assert "falls" not in words
    assert "Nothing follows for patients" in meaning_section([phantoms]).paragraphs[-1]


def test_targets_are_not_judged_on_few_exams():
    few = section("phantoms", measured("Mass, text-prompted", 0.85, 0.83, 0.87, patients=60))
    assert "Phantom targets hold for 1000 test exams at least; here are 60." in meaning_section([few]).paragraphs


def test_pointing_is_told_beside_chance_and_the_filter():
    note = "area chance 0.013; the one chosen on validation"
    rows = [
        measured("Mass, FActOR seed 3", 0.66, 0.64, 0.68, "pointing", "view", note=note, chance=0.013),
        measured("Mass, Laplacian of Gaussian, no network", 0.75, 0.7, 0.8, "pointing", "view"),
    ]
    words = " ".join(meaning_section([section("phantoms", *rows)]).paragraphs)
    assert "more than by chance (0.013); worse than a filter without a network, 0.750" in words


def test_marks_are_judged_by_their_upper_end():
    row = measured("all findings, FActOR", 0.28, 0.25, 0.31, "marks per normal view", "normal view")
    assert "not told apart from the 0.3" in " ".join(meaning_section([section("phantoms", row)]).paragraphs)


def test_markdown_and_json_say_the_same(tmp_path):
    row = measured("Mass | left", float("nan"), float("nan"), float("nan"))
    markdown, record = write_report(tmp_path, "A report", {"model": "m"}, [section("phantoms", row)])
    assert "| Mass \\| left | AUC | not defined | image | 4000 | 800 | 1000 |" in markdown.read_text()
    assert '"value": null' in record.read_text()


def test_a_roc_plot_leaves_out_what_has_one_class(tmp_path):
    logits, truth = np.arange(20.0), np.arange(20) % 3 > 0
    curves = [
        Roc("both", logits, truth, auc_interval(logits, truth, np.arange(20))),
        Roc("one", logits, np.ones(20, bool), auc_interval(logits, np.ones(20, bool), np.arange(20))),
    ]
    with Image.open(roc_plot(tmp_path / "roc.png", "title", curves)) as picture:
        assert min(picture.size) > 500


def test_a_page_shows_truth_heat_and_marks_where_they_lie(tmp_path):
    image = np.full((420, 300), 90, np.uint8)
    truth, heat = np.zeros((420, 300), bool), np.zeros((420, 300), np.float32)
    truth[100:150, 50:100] = True
    heat[300:340, 200:240] = 1.5
    view = HeatView("phantom 7 <RCC>", "Mass: shown", image, heat, truth, marks=[(200.0, 300.0, 240.0, 340.0)])
    pixels = np.asarray(pair(view))
    assert tuple(pixels[98, 75]) == TRUTH
    assert tuple(pixels[300, 302 + 220]) == MARK
    red, _, blue = pixels[320, 302 + 220].astype(int)
    assert red > blue + 50
    assert tuple(pixels[320, 220]) == tuple(pixels[20, 302 + 20]) == (90, 90, 90)
    page, sheet = write_heat_page(tmp_path, "Heat", "words", [view])
    assert "phantom 7 &lt;RCC&gt;" in page.read_text()
    assert sheet.exists()
