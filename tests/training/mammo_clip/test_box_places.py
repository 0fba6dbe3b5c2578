"""Boxes of a published table in words of place."""

import numpy as np
import pytest
from PIL import Image

from node.mammography.views import Laterality, ViewPosition
from tests.node.mammography.images import breast
from training.mammo_clip.box_places import box_locations
from training.mammo_clip.grammar import Location, parse
from training.mammo_clip.label_breasts import label_breasts
from training.mammo_clip.readers import VINDR_FINDINGS, ImageRow
from training.mammo_clip.tables import Table

RIGHT, LEFT = Laterality.RIGHT, Laterality.LEFT
CC, MLO = ViewPosition.CC, ViewPosition.MLO


def row(folder, side, position, *boxes, **labels) -> ImageRow:
    """A picture 380 x 228 of a breast that hangs as usual; boxes by the share of the 912 x 1520 canvas they lie at."""
    path = folder / f"{side}{position}.png"
    Image.fromarray((breast(380, 228, chest_wall=side.value) * 255).astype(np.uint8)).save(path)
    named = {name: float(labels.get(name, 0)) for name in VINDR_FINDINGS}
    placed = tuple((name, (x * 912 - 40, y * 1520 - 40, x * 912 + 40, y * 1520 + 40)) for name, x, y in boxes)
    return ImageRow(path, "p1", side, position, tuple(named.items()), placed, split="training", fold=0)


@pytest.mark.parametrize(
    ("side", "position", "x", "y", "place", "depth"),
    [
        (LEFT, CC, 0.55, 0.3, "outer", "anterior"),
        (LEFT, CC, 0.1, 0.7, "inner", "posterior"),
        (RIGHT, CC, 0.9, 0.25, "outer", "posterior"),
        (RIGHT, MLO, 0.45, 0.75, "lower", "anterior"),
        (LEFT, MLO, 0.35, 0.25, "upper", "mid"),
    ],
)
def test_box_is_told_by_what_its_view_shows(tmp_path, side, position, x, y, place, depth):
    """The chest wall is on the breast's own edge; outer is up in a CC; the nipple lies at .7 of the width."""
    found = box_locations(row(tmp_path, side, position, ("Mass", x, y)))
    assert found == (("Mass", Location(place, depth, side)),)


def test_image_without_boxes_or_that_cannot_be_read_tells_no_place(tmp_path):
    assert box_locations(row(tmp_path, LEFT, CC)) == ()
    broken = row(tmp_path, LEFT, CC, ("Mass", 0.3, 0.3))
    broken.image.write_bytes(b"nothing")
    assert box_locations(broken) == (("Mass", Location(side=LEFT)),)
    Image.new("L", (228, 380), 0).save(broken.image)
    assert box_locations(broken) == (("Mass", Location(side=LEFT)),)


def test_sentences_name_the_place_of_a_box_and_none_without(tmp_path):
    image = row(tmp_path, LEFT, CC, ("Mass", 0.55, 0.3), ("Mass", 0.1, 0.7), Mass=1, Asymmetry=1)
    (made,) = label_breasts(Table((image,), (), (2,)))
    (seen,) = made.said.views
    said = {(one.name, one.location) for one in seen}
    assert said == {
        ("Mass", Location("outer", "anterior", LEFT)),
        ("Mass", Location("inner", "posterior", LEFT)),
        ("Asymmetry", Location(side=LEFT)),
    }
    first, _ = made.said.first((0, 0))
    assert "mass in the outer left breast at anterior depth" in first
    assert parse(seen[0].first()).location == seen[0].location
