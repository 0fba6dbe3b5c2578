import numpy as np

from node.mammography.views import LCC, RCC
from training.phantoms import make_exam, render_view
from training.phantoms.difficulty import auc, cross_validated_auc, image_statistics, unmirrored


def test_auc_counts_pairs_and_shares_ties():
    logits = np.array([0.1, 0.4, 0.4, 0.9])
    assert auc(logits, np.array([False, True, False, True])) == 0.875
    assert auc(-logits, np.array([False, True, False, True])) == 0.125


def test_the_logistic_regression_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    exam = np.arange(400) // 4
    assert cross_validated_auc(x, x[:, 2] > 0, exam, 1.0) > 0.97
    assert abs(cross_validated_auc(x, rng.random(400) > 0.5, exam, 1.0) - 0.5) < 0.1


def test_statistics_are_finite_and_blind_to_the_side():
    exam = make_exam(1)
    right, left = (unmirrored(render_view(exam, view, 0.28)) for view in (RCC, LCC))
    values = image_statistics(right)
    assert np.isfinite(values).all()
    assert values.shape == image_statistics(left).shape
    assert right[:, :10].mean() > 0.1
    assert np.array_equal(values, image_statistics(unmirrored(render_view(exam, RCC, 0.28))))
