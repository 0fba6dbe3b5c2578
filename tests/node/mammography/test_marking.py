"""One lesion, one mark: which regions of a view are shown."""

import numpy as np
import pytest

from node.mammography.findings import FindingKind
from node.mammography.marking import FURTHER_SHARE, at_one_place, marks_of
from node.mammography.regions import HeatGrid, Region, find_regions

MASS, CALCIFICATION, DISTORTION, ASYMMETRY = FindingKind


def square(x: float, y: float, half: float = 10.0, heat: float = 1.0) -> Region:
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    return Region(heat, (x, y), np.array([(x + half * a, y + half * b) for a, b in corners], np.float64))


def shown(**regions: list[Region]) -> list[tuple[FindingKind, tuple[FindingKind, ...]]]:
    marks = marks_of({FindingKind(name): found for name, found in regions.items()})
    return [(mark.kind, mark.associated) for mark in marks]


def test_a_spiculated_mass_is_one_mark_that_names_its_distortion():
    here = [square(50, 50)]
    assert shown(mass=here, architectural_distortion=[square(54, 52, 20.0)], asymmetry=[square(48, 50, 15.0)]) == [
        (MASS, (DISTORTION,))
    ]


def test_a_distortion_without_a_mass_leads_and_an_asymmetry_beside_it_is_left_out():
    assert shown(architectural_distortion=[square(50, 50)], asymmetry=[square(52, 50)]) == [(DISTORTION, ())]
    assert shown(asymmetry=[square(52, 50)]) == [(ASYMMETRY, ())]


def test_what_lies_elsewhere_keeps_its_mark():
    assert shown(
        mass=[square(50, 50)],
        architectural_distortion=[square(150, 50), square(50, 55)],
        asymmetry=[square(50, 200), square(150, 55)],
    ) == [(MASS, (DISTORTION,)), (DISTORTION, ()), (ASYMMETRY, ())]


def test_calcifications_keep_their_mark_wherever_they_lie():
    here = [square(50, 50)]
    assert shown(mass=here, suspicious_calcification=[square(50, 50, 4.0)], asymmetry=[square(51, 50)]) == [
        (MASS, ()),
        (CALCIFICATION, ()),
    ]
    assert shown(suspicious_calcification=here, asymmetry=[square(50, 50)]) == [(CALCIFICATION, ()), (ASYMMETRY, ())]


def test_two_regions_of_one_kind_at_one_place_stay_two():
    assert shown(mass=[square(50, 50, 10.0), square(55, 50, 10.0)]) == [(MASS, ()), (MASS, ())]


@pytest.mark.parametrize(("x", "half", "same"), [(58.0, 3.0, True), (71.0, 30.0, True), (65.0, 10.0, False)])
def test_one_place_is_a_centre_in_the_other_s_contour(x, half, same):
    first, second = square(50, 50), square(x, 50, half)
    assert at_one_place(first, second) is same
    assert at_one_place(second, first) is same


def test_a_further_region_is_about_as_hot_as_the_first():
    heat = np.zeros((40, 40), np.float32)
    for row, peak in ((5, 1.0), (20, FURTHER_SHARE + 0.02), (35, FURTHER_SHARE - 0.02)):
        heat[row - 1 : row + 2, 4:7] = 0.6 * peak
        heat[row, 5] = peak
    grid, inside = HeatGrid((1.0, 1.0), (0.5, 0.5)), np.ones(heat.shape, bool)
    assert [region.peak_heat for region in find_regions(heat, heat, grid, inside, 0.5, 3, FURTHER_SHARE)] == [
        pytest.approx(1.0),
        pytest.approx(FURTHER_SHARE + 0.02),
    ]
    assert len(find_regions(heat, heat, grid, inside, 0.5, 3)) == 3
