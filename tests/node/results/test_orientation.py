"""Patient Orientation: copied where it is one, derived where side, view and chest wall agree, else empty."""

import pytest
from pydicom import Dataset

from node.mammography.views import LCC, LMLO, RCC, RMLO, Laterality, View, ViewPosition
from node.results.orientation import patient_orientation

RIGHT, LEFT = Laterality.RIGHT, Laterality.LEFT


def header(value: object) -> Dataset:
    dataset = Dataset()
    if value is not None:
        dataset.PatientOrientation = value
    return dataset


@pytest.mark.parametrize("stated", [["P", "L"], ["A", "FR"], ["PL", "F"], ["A", "HFR"[1:]], ["P", "FLA"[:2]]])
def test_two_directions_are_copied(stated):
    assert patient_orientation(header(stated), RCC, LEFT) == tuple(stated)


@pytest.mark.parametrize(
    "stated",
    [None, "", "CC", "MLO", ["R", "MLO"], ["A", ""], ["A"], ["A", "R", "F"], ["AP", "R"], ["A", "A"], ["LL", "F"]],
)
def test_anything_else_is_derived(stated):
    assert patient_orientation(header(stated), LMLO, LEFT) == ("A", "FR")


@pytest.mark.parametrize(
    ("view", "chest_wall", "expected"),
    [
        (RCC, RIGHT, ("P", "L")),
        (LCC, LEFT, ("A", "R")),
        (RMLO, RIGHT, ("P", "FL")),
        (LMLO, LEFT, ("A", "FR")),
        (View(RIGHT, ViewPosition.ML), RIGHT, ("P", "F")),
        (View(LEFT, ViewPosition.LM), LEFT, ("A", "F")),
        (RCC, LEFT, ()),
        (LMLO, RIGHT, ()),
        (LCC, None, ()),
        (View(LEFT, ViewPosition.SIO), LEFT, ()),
    ],
)
def test_orientation_of_an_image_as_hung(view, chest_wall, expected):
    assert patient_orientation(header(None), view, chest_wall) == expected
