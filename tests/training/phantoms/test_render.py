import time

import numpy as np
import pytest

from node.mammography.findings import FindingKind
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality
from training.phantoms import make_exam, render_view
from training.phantoms.lesions import CALCIFICATION_PLEOMORPHIC, KINDS, MASS_OVAL, MASS_SPICULATED
from training.phantoms.texture import resampling


def _centroid_mm(mask, pixel_mm):
    rows, columns = np.nonzero(mask)
    return np.array([(columns.mean() + 0.5) * pixel_mm, (rows.mean() + 0.5) * pixel_mm])


def test_a_view_fills_the_detector_with_display_values():
    rendered = render_view(make_exam(1), LMLO, 0.56)
    assert rendered.pixels.shape == (512, 416)
    assert rendered.pixels.dtype == np.float32
    assert rendered.pixels.min() == 0.0
    assert 0.5 < rendered.pixels.max() <= 1.0
    assert (rendered.pixels[:, -20:] == 0).all()


@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
def test_the_chest_wall_stands_on_the_right_for_right_breasts(view):
    pixels = render_view(make_exam(2), view, 0.56).pixels
    left, right = pixels[:, :8].mean(), pixels[:, -8:].mean()
    assert (right > left) == (view.laterality is Laterality.RIGHT)
    assert min(left, right) == 0.0


def test_rendering_twice_gives_the_same_pixels():
    first, second = (render_view(make_exam(4), RCC, 0.56) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("kind", [MASS_OVAL, CALCIFICATION_PLEOMORPHIC], ids=lambda kind: kind.subtype)
def test_truth_is_the_same_in_millimetres_at_any_size(kind):
    exam = make_exam(6, kinds=[kind.on(Laterality.RIGHT)])
    for view in (RCC, RMLO):
        fine, coarse = render_view(exam, view, 0.14), render_view(exam, view, 0.56)
        places = [_centroid_mm(r.finding_mask(kind.finding), r.pixel_mm) for r in (fine, coarse)]
        assert np.abs(places[0] - places[1]).max() < 0.56
        areas = [r.finding_mask(kind.finding).sum() * r.pixel_mm**2 for r in (fine, coarse)]
        assert areas[1] == pytest.approx(areas[0], rel=0.1)


def test_pixels_agree_between_sizes_once_averaged():
    exam = make_exam(6, kinds=[MASS_OVAL.on(Laterality.LEFT)])
    fine, coarse = render_view(exam, LCC, 0.14).pixels, render_view(exam, LCC, 0.28).pixels
    averaged = fine.reshape(1024, 2, 832, 2).mean(axis=(1, 3))
    assert np.abs(averaged - coarse).mean() < 0.01
    assert np.corrcoef(averaged.ravel(), coarse.ravel())[0, 1] > 0.99


def test_a_mass_is_drawn_where_its_mask_says():
    exam = make_exam(9, kinds=[MASS_OVAL.on(Laterality.RIGHT)])
    bare = make_exam(9, kinds=())
    for view in (RCC, RMLO):
        rendered = render_view(exam, view, 0.28)
        added = rendered.pixels - render_view(bare, view, 0.28).pixels
        mask = rendered.finding_mask(FindingKind.MASS)
        assert added[mask].mean() > 0.03
        assert np.abs(added[~mask]).mean() < 0.001


def test_lesions_show_in_both_views_of_their_breast_and_in_no_other():
    exam = make_exam(11, kinds=[MASS_SPICULATED.on(Laterality.LEFT)])
    shown = [render_view(exam, view, 0.56).finding_mask(FindingKind.MASS).any() for view in STANDARD_VIEWS]
    assert shown == [False, True, False, True]


def test_truth_tells_lesions_from_what_is_none():
    for seed, kind in enumerate(KINDS):
        exam = make_exam(seed, kinds=[kind.on(Laterality.LEFT)])
        truth = render_view(exam, LCC, 0.56).truth
        lesions = [t for t in truth if t.finding is not None]
        assert [(t.finding, t.malignant, t.index) for t in lesions] == [(kind.finding, kind.malignant, 0)]
        assert all(t.mask.shape == (512, 416) and t.mask.any() for t in truth)


def test_resampling_keeps_constants_and_centres():
    for source, target in ((64, 256), (256, 64), (100, 37)):
        matrix = resampling(source, 1.0, target, source / target)
        assert np.allclose(matrix.sum(axis=1), 1.0, atol=1e-5)
        ramp = matrix @ (np.arange(source) + 0.5)
        expected = (np.arange(target) + 0.5) * source / target
        inner = slice(target // 8, -(target // 8))
        assert np.allclose(ramp[inner], expected[inner], atol=0.05)


@pytest.mark.benchmark
def test_a_working_view_takes_at_most_a_fifth_of_a_second_and_a_full_one_three():
    exam = make_exam(1)
    for pixel_mm, most_seconds in ((0.28, 0.2), (0.07, 3.0)):
        render_view(exam, LCC, pixel_mm)
        start = time.process_time()
        render_view(exam, LCC, pixel_mm)
        assert time.process_time() - start < most_seconds
