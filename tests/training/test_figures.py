import numpy as np
import pytest

from training.cache import CachedExam, TruthBox, prepare_exam
from training.localisation import box_hit, log_response, marks, overlap, point
from training.statistics import auc, auc_estimate, bootstrap, calibration_error, fit_platt, share_estimate


def exam_with(box, kind=0, view=1):
    """A plain bright breast with one lesion box."""
    images = np.zeros((4, 160, 120), np.uint8)
    images[:, 10:150, :100] = 120
    flags = np.zeros_like(images)
    left, top, right, bottom = box
    flags[view, top:bottom, left:right] = 1 << kind
    images[view, top:bottom, left:right] = 220
    return CachedExam(7, images, flags, (TruthBox(view, kind, False, *box),), (False, False), 0)


def heat_at(row, column, size=2):
    heat = np.zeros((4, 20, 15), np.float32)
    heat[1, row : row + size, column : column + size] = 1.0
    return heat


@pytest.mark.parametrize(
    ("logits", "positive", "wanted"),
    [([1, 2, 3, 4], [0, 0, 1, 1], 1.0), ([1, 1, 1, 1], [0, 1, 0, 1], 0.5), ([3, 1, 2, 0], [0, 1, 0, 1], 0.0)],
)
def test_auc_by_hand(logits, positive, wanted):
    assert auc(np.array(logits, float), np.array(positive, bool)) == wanted


def test_auc_of_one_class_is_no_number():
    assert np.isnan(auc(np.arange(3.0), np.ones(3, bool)))


def test_interval_holds_the_value_and_counts_patients_not_rows():
    rng = np.random.default_rng(0)
    positive = np.repeat(rng.random(100) < 0.5, 4)
    logits = positive + rng.standard_normal(400)
    by_patient = auc_estimate(logits, positive, np.repeat(np.arange(100), 4))
    assert by_patient.low < by_patient.value < by_patient.high
    few = bootstrap(lambda rows: float(rows.size), np.repeat(np.arange(10), [1] * 5 + [9] * 5), 200)
    assert few[1] > few[0]


def test_share_of_nothing_is_no_number():
    assert np.isnan(share_estimate(np.zeros(0, bool), np.zeros(0, np.int64)).value)


def test_platt_finds_the_line_that_made_the_labels():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20000)
    positive = rng.random(20000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    a, b = fit_platt(logits, positive)
    assert a == pytest.approx(0.5, abs=0.05)
    assert b == pytest.approx(-1, abs=0.1)
    assert calibration_error(1 / (1 + np.exp(-(a * logits + b))), positive) < 0.02


def test_heat_on_the_lesion_points_and_hits():
    exam = exam_with((40, 64, 56, 80))
    (found,) = point(exam, heat_at(8, 5), 0, "mass")
    assert found.heat
    assert found.log_filter
    assert found.box
    assert found.area == pytest.approx(16 * 16 / (140 * 100), rel=0.2)


def test_heat_beside_the_lesion_does_not():
    (found,) = point(exam_with((40, 64, 56, 80)), heat_at(13, 5), 0, "mass")
    assert not found.heat
    assert not found.box


def test_marks_are_counted_as_the_node_marks():
    exam = exam_with((40, 64, 56, 80))
    heat = np.maximum(heat_at(8, 5), heat_at(14, 2))
    found = marks(exam, heat, 0, 0.5)
    assert sorted(mark.on_lesion for mark in found) == [False, True]
    assert marks(exam, heat, 0, 1.5) == []


def test_no_heat_no_box():
    assert not box_hit(np.zeros((20, 15), np.float32), np.ones((160, 120), bool), [(0, 0, 9, 9)])


def test_overlap_by_hand():
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


def test_specks_draw_the_calcification_filter():
    image = np.full((80, 80), 0.3, np.float32)
    image[30:40:3, 50:60:3] = 0.9
    row, column = np.unravel_index(log_response(image, "suspicious_calcification").argmax(), image.shape)
    assert 25 < row < 45
    assert 45 < column < 65


def test_a_phantoms_truth_lies_where_it_is_bright():
    exam = prepare_exam(4, pixel_mm=0.56, preset_name="fit-380x228")
    assert exam.images.shape == (4, 380, 228)
    lesions = [box for box in exam.boxes if box.kind >= 0]
    assert lesions
    for box in lesions:
        mask = exam.mask(box.view, box.kind)
        assert mask[box.top : box.bottom, box.left : box.right].any()
        assert (exam.images[box.view][mask] > 10).mean() > 0.9
