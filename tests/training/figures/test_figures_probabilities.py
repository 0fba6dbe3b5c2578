import numpy as np
import pytest

from training.figures.calibration import calibration, wilson
from training.figures.intervals import auc_interval
from training.figures.subgroups import subgroups
from training.figures.thresholds import at_threshold, roc_points, threshold_for_sensitivity, threshold_for_specificity
from training.statistics import auc, calibration_error


def honest(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 1.5, n)
    return logits, rng.random(n) < 1 / (1 + np.exp(-logits)), np.arange(n)


def test_probabilities_that_made_the_truth_are_calibrated():
    logits, truth, patients = honest()
    found = calibration(1 / (1 + np.exp(-logits)), truth, patients, 200)
    assert found.slope.low < 1.0 < found.slope.high
    assert found.intercept.low < 0.0 < found.intercept.high
    assert found.error.value == pytest.approx(calibration_error(1 / (1 + np.exp(-logits)), truth))
    assert found.brier.value == pytest.approx(np.mean((1 / (1 + np.exp(-logits)) - truth) ** 2))
    assert sum(row.n for row in found.table) == 3000
    assert sum(row.low <= row.probability <= row.high for row in found.table) >= 8


def test_too_sure_probabilities_have_a_slope_below_one():
    logits, truth, patients = honest()
    found = calibration(1 / (1 + np.exp(-3.0 * logits - 1.0)), truth, patients, 200)
    assert found.slope.value == pytest.approx(1 / 3, abs=0.05)
    assert found.intercept.value == pytest.approx(-1 / 3, abs=0.15)


def test_classes_that_a_threshold_separates_have_no_line():
    truth = np.arange(20) >= 10
    found = calibration(np.where(truth, 0.9, 0.1) + np.linspace(0, 0.05, 20), truth, np.arange(20), 50)
    assert np.isnan(found.slope.value)


def test_wilson_by_hand():
    # Newcombe 1998, table I, 81 of 263: .2553 to .3662.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_thresholds_hold_what_they_promise_and_no_less():
    logits, truth, _ = honest(200)
    low = threshold_for_specificity(logits, truth, 0.9)
    assert (logits[~truth] < low).mean() >= 0.9
    assert (logits[~truth] < np.sort(logits)[np.searchsorted(np.sort(logits), low) - 1]).mean() < 0.9
    high = threshold_for_sensitivity(logits, truth, 0.8)
    assert (logits[truth] >= high).mean() >= 0.8
    assert (logits[truth] > high).mean() < 0.8


def test_a_threshold_is_told_with_both_sides_counted():
    found = at_threshold(np.array([1.0, 2, 3, 4]), np.array([False, True, False, True]), np.arange(4), 2.5)
    assert (found.sensitivity.value, found.specificity.value) == (0.5, 0.5)
    assert (found.sensitivity.n, found.specificity.n) == (2, 2)


def test_the_area_below_the_roc_points_is_the_auc():
    logits, truth, _ = honest(300)
    false, true = roc_points(np.round(logits, 1), truth)
    assert np.trapezoid(true, false) == pytest.approx(auc(np.round(logits, 1), truth))


def test_small_groups_are_shown_and_called_small():
    logits, truth, patients = honest(300)
    groups = ["B"] * 200 + ["D"] * 8 + [None] * 92
    found = subgroups("density", groups, lambda r: auc_interval(logits[r], truth[r], patients[r], 50))
    assert [(one.group, one.small, one.figure.n) for one in found] == [
        ("B", False, 200),
        ("D", True, 8),
        ("not known", False, 92),
    ]
