"""Figures against plain sums written out pair by pair."""

import numpy as np
import pytest

from training import delong, statistics
from training.figures import resampling
from training.figures.intervals import (
    auc_difference,
    auc_interval,
    balanced_accuracy,
    delong_interval,
    macro_auc,
    share_interval,
)


def rows(patients=40, each=3, seed=0):
    """Logits with ties, truth, patients."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"p{number}" for number in range(patients)], each)
    truth = rng.random(names.size) < 0.4
    return np.round(truth + rng.standard_normal(names.size), 1), truth, names


def plain_auc(logits, truth):
    pairs = [(a > b) + 0.5 * (a == b) for a in logits[truth] for b in logits[~truth]]
    return sum(pairs) / len(pairs)


def plain_average_precision(logits, truth):
    total, before = 0.0, 0.0
    for threshold in sorted(set(logits.tolist()), reverse=True):
        called = logits >= threshold
        recall = truth[called].sum() / truth.sum()
        total += (recall - before) * truth[called].mean()
        before = recall
    return total


@pytest.mark.parametrize(
    ("statistic", "plain"),
    [(resampling.auc, plain_auc), (resampling.average_precision, plain_average_precision)],
)
def test_a_draw_gives_what_the_plain_sum_gives_on_the_rows_drawn(statistic, plain):
    logits, truth, names = rows()
    compiled = statistic(logits, truth)
    assert compiled(resampling.once(truth.size))[0] == pytest.approx(plain(logits, truth))
    for counts in next(resampling.drawn(names, 3, 5)):
        again = np.repeat(np.arange(truth.size), counts.astype(int))
        assert compiled(counts[None])[0] == pytest.approx(plain(logits[again], truth[again]))


def test_limits_are_those_of_a_loop_over_patients():
    logits, truth, names = rows()
    numbers = np.unique(names, return_inverse=True)[1]
    low, high = statistics.bootstrap(lambda drawn: statistics.auc(logits[drawn], truth[drawn]), numbers, 300)
    found = auc_interval(logits, truth, names, 300)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.n, found.positives, found.patients) == (120, truth.sum(), 40)
    assert found.method == "bootstrap by patient, 300 draws"


def test_rows_of_one_patient_widen_the_interval():
    logits, truth, names = rows(300, 1)
    one, three = (
        auc_interval(logits, truth, names),
        auc_interval(*(np.repeat(part, 3) for part in (logits, truth, names))),
    )
    alone = auc_interval(*(np.repeat(part, 3) for part in (logits, truth)), np.arange(900))
    assert three.high - three.low == pytest.approx(one.high - one.low)
    assert alone.high - alone.low < 0.8 * (one.high - one.low)


def test_delong_takes_one_row_a_patient():
    logits, truth, names = rows(200, 1)
    assert delong_interval(logits, truth, names).low == delong.interval(logits, truth)[1]
    with pytest.raises(ValueError, match="one row a patient"):
        delong_interval(*rows())


def test_difference_of_a_model_with_itself_is_nothing_and_with_noise_is_positive():
    logits, truth, names = rows()
    same = auc_difference(logits, logits, truth, names)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    better = auc_difference(logits, np.random.default_rng(3).standard_normal(truth.size), truth, names)
    assert better.low > 0.0


def test_balanced_accuracy_and_macro_auc_by_hand():
    truth, predicted = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 0])
    found = balanced_accuracy(predicted, truth, np.arange(6))
    assert found.value == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    logits = np.random.default_rng(0).standard_normal((6, 3))
    wanted = np.mean([plain_auc(logits[:, index], truth == index) for index in range(3)])
    assert macro_auc(logits, truth, np.arange(6)).value == pytest.approx(wanted)


def test_what_cannot_be_told_says_so():
    logits, truth, names = rows()
    assert str(auc_interval(logits, np.ones_like(truth), names)) == "not defined"
    assert auc_interval(logits[:3], truth[:3], names[:3]).method == "no interval: one patient"
    nothing = share_interval(truth, names, among=np.zeros_like(truth))
    assert (nothing.n, nothing.as_table()["value"]) == (0, None)
