"""Rows, images, breasts, exams: the same values, other figures."""

from pathlib import Path

import numpy as np
import pytest

from node.mammography.views import Laterality, ViewPosition
from training.mammo_clip.images import ImageFile
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.units import grouped, grouped_density

R, L = Laterality.RIGHT, Laterality.LEFT


def image(name: str, side: Laterality | None, truth: bool | None, *, patient: str = "p", density: int | None = None):
    picture = ImageFile(Path(name), side or R)
    return LabelledImage(picture, name, patient, "e", side, ViewPosition.CC, {"Mass": truth}, density)


IMAGES = (image("a", R, True), image("a", R, False), image("b", R, False), image("c", L, False), image("d", L, False))
VALUES = np.array([0.9, 0.5, 0.1, 0.3, 0.5])


@pytest.mark.parametrize(
    ("unit", "values", "truth"),
    [
        ("row", [0.9, 0.5, 0.1, 0.3, 0.5], [1, 0, 0, 0, 0]),
        ("image", [0.7, 0.1, 0.3, 0.5], [1, 0, 0, 0]),
        ("breast", [0.5, 0.4], [1, 0]),
        ("exam", [0.5], [1]),
    ],
)
def test_values_are_joined_by_unit(unit, values, truth):
    found = grouped(VALUES, IMAGES, "Mass", unit)
    assert found.values == pytest.approx(values)
    assert found.truth.tolist() == truth
    assert sorted(row for rows in found.members for row in rows) == [0, 1, 2, 3, 4]


def test_an_exams_value_is_that_of_its_larger_breast_and_not_a_mean():
    images = (image("a", R, False), image("b", R, False), image("c", L, True))
    assert grouped(np.array([0.2, 0.4, 0.9]), images, "Mass", "exam").values == pytest.approx([0.9])


def test_a_unit_of_which_nothing_is_known_is_left_out_and_one_positive_image_suffices():
    images = (image("a", R, None), image("b", R, False), image("c", L, None), image("d", L, True))
    found = grouped(np.arange(4.0), images, "Mass", "breast")
    assert (found.truth.tolist(), found.members) == ([1], ((2, 3),))


def test_patients_are_numbered_and_films_without_a_side_are_breasts_of_their_own():
    images = (
        image("a", None, True, patient="p"),
        image("b", None, False, patient="p"),
        image("c", R, False, patient="q"),
    )
    found = grouped(np.arange(3.0), images, "Mass", "breast")
    assert (len(found.values), found.patients.tolist()) == (3, [0, 0, 1])


def test_density_is_the_mean_of_its_probabilities():
    images = (image("a", R, False, density=1), image("b", L, False, density=1), image("c", R, False, patient="q"))
    found = grouped_density(np.array([[0.2, 0.8, 0, 0], [0.6, 0.4, 0, 0], [1, 0, 0, 0]]), images, "exam")
    assert found.values == pytest.approx(np.array([[0.4, 0.6, 0, 0]]))
    assert found.truth.tolist() == [1]


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit is 'woman'; there are row, image, breast, exam"):
        grouped(VALUES, IMAGES, "Mass", "woman")
