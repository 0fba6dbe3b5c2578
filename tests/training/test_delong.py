import numpy as np
import pytest

from training import delong
from training.statistics import auc


def brute(first, second, positive):
    """DeLong's variance of the difference by its definition: structural components, with loops."""

    def components(logits):
        x, y = logits[positive], logits[~positive]
        psi = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
        return psi.mean(1), psi.mean(0)

    (v1, w1), (v2, w2) = components(first), components(second)
    return np.var(v1 - v2, ddof=1) / len(v1) + np.var(w1 - w2, ddof=1) / len(w1)


@pytest.mark.parametrize("seed", range(4))
def test_variance_is_delong_s_by_its_definition(seed):
    chance = np.random.default_rng(seed)
    positive = chance.random(60) < 0.4
    first = np.round(positive * 0.8 + chance.normal(size=60), 1)
    second = np.round(first + chance.normal(size=60), 1)
    made = delong.compare(first, second, positive)
    assert made.first == pytest.approx(auc(first, positive))
    assert made.second == pytest.approx(auc(second, positive))
    assert (made.high - made.low) / 2 == pytest.approx(1.959964 * brute(first, second, positive) ** 0.5, rel=1e-6)


def test_interval_covers_the_truth_as_often_as_it_says():
    chance = np.random.default_rng(1)
    truth, covered = 0.7602, 0
    for _ in range(400):
        positive = np.arange(120) < 60
        _, low, high = delong.interval(positive * 1.0 + chance.normal(size=120), positive)
        covered += low <= truth <= high
    assert 0.91 <= covered / 400 <= 0.985


def test_a_model_does_not_differ_from_itself():
    logits, positive = np.arange(10.0), np.arange(10) % 2 == 0
    same = delong.compare(logits, logits, positive)
    assert (same.difference, same.p) == (0.0, 1.0)


def test_an_empty_class_is_an_error():
    with pytest.raises(ValueError, match="positives and negatives"):
        delong.interval(np.arange(3.0), np.ones(3, bool))
