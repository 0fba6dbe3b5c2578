import numpy as np
import pytest

from node.mammography.anatomy import Landmarks, breast_coordinates, hung_orientation, place
from node.mammography.phrases import parse
from node.mammography.pixels import Placement, PreparedView
from node.mammography.place_words import place_mask
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality

ROWS, COLUMNS = 200, 120
MARKS = Landmarks((100.0, 100.0), (0.0, 100.0), None)
"""Nipple on the right at mid height, chest wall on the left edge: 100 pixels of depth."""


def prepared():
    placement = Placement(ROWS, COLUMNS, 0, 0, COLUMNS, ROWS, 1.0, 1.0, 0.0, 0.0, False, ROWS, COLUMNS)
    return PreparedView(np.zeros((ROWS, COLUMNS), np.float32), placement, Laterality.LEFT, ())


def mask(phrase, view, landmarks=MARKS, orientation=None):
    words = hung_orientation(view, Laterality.LEFT) if orientation is None else orientation
    return place_mask(parse(phrase), view, prepared(), landmarks, words)


@pytest.mark.parametrize(
    ("phrase", "view", "inside", "outside"),
    [
        ("mass in the outer breast", LCC, (50, 50), (150, 50)),
        ("mass in the inner breast", RCC, (150, 50), (50, 50)),
        ("mass in the upper breast", LMLO, (50, 50), (150, 50)),
        ("mass in the lower breast", RMLO, (150, 50), (50, 50)),
        ("posterior mass", LCC, (100, 10), (100, 60)),
        ("mass at mid depth", LCC, (100, 50), (100, 90)),
        ("anterior mass", LMLO, (100, 90), (100, 40)),
        ("subareolar mass", LCC, (110, 85), (100, 50)),
        ("mass in the central breast", LCC, (105, 20), (150, 20)),
        ("mass in the outer breast at posterior depth", LCC, (40, 10), (40, 80)),
    ],
)
def test_a_word_masks_what_it_does_not_say(phrase, view, inside, outside):
    found = mask(phrase, view)
    assert found.asked
    assert found.remarks == ()
    assert found.inside[inside]
    assert not found.inside[outside]


@pytest.mark.parametrize("view", STANDARD_VIEWS)
def test_a_centre_lies_in_the_mask_of_its_own_words(view):
    orientation = hung_orientation(view, Laterality.LEFT)
    rng = np.random.default_rng(0)
    for x, y in rng.uniform((5, 10), (95, 190), (40, 2)):
        words = place((x, y), view, MARKS, orientation)
        depth = {"anterior": "anterior", "middle": "mid", "posterior": "posterior"}[str(words.depth)]
        found = mask(f"mass in the {words.sector} breast at {depth} depth", view)
        assert found.inside[int(y), int(x)]


def test_what_a_view_cannot_show_is_said_and_masks_nothing():
    found = mask("mass in the upper outer breast", LMLO)
    assert found.remarks == ("outer: not applied, a view MLO cannot show it",)
    assert np.array_equal(found.inside, mask("mass in the upper breast", LMLO).inside)


@pytest.mark.parametrize(
    ("phrase", "words"),
    [("mass in the right breast", "right breast, this is LCC"), ("mass in the MLO", "asked for the MLO")],
)
def test_another_side_or_view_is_not_asked(phrase, words):
    found = mask(phrase, LCC)
    assert not found.asked
    assert not found.inside.any()
    assert words in found.remarks[0]


def test_without_landmarks_orientation_or_view_words_are_said_and_not_applied():
    phrase = "mass in the outer breast at posterior depth"
    assert "outer, posterior: not applied, nipple" in mask(phrase, LCC, landmarks=None).remarks[0]
    turned = mask(phrase, LCC, orientation=())
    assert turned.remarks == ("outer: not applied, the orientation of LCC is not known",)
    assert not turned.inside[100, 80]
    unknown = place_mask(parse("left upper mass"), None, prepared(), None)
    assert unknown.inside.all()
    assert unknown.remarks == ("upper, left: not applied, side and view of this image are not known",)


def test_a_phrase_without_a_place_masks_nothing():
    assert mask("mass", LCC).inside.all()


def test_coordinates_are_shares_of_the_depth():
    points = np.array([[100.0, 100.0], [0.0, 100.0], [50.0, 60.0]])
    found = breast_coordinates(points, LCC, MARKS, ("A", "R"))
    assert found.share.tolist() == [0.0, 1.0, 0.5]
    assert found.aside[2] == pytest.approx(0.4)
    assert found.from_nipple[2] == pytest.approx(np.hypot(0.5, 0.4))
    assert found.depth == 100.0
