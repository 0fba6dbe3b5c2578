"""Numbers of two models on the same exams, against hand calculations and numpy."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from node.comparing import LEAST_FOR_A_PERCENTILE, Difference, Marked, compare, matched, overlap, spread, wilson


def finding(view: str = "LCC", kind: str = "mass", box: tuple[float, ...] = (0, 0, 10, 10)) -> dict[str, Any]:
    return {"view": view, "kind": kind, "box": list(box)}


def summary(probability: float | None, *findings: dict[str, Any]) -> dict[str, Any]:
    return {"exam_probability": probability, "findings": list(findings)}


def test_spread_of_many_exams_is_numpys_and_scipys() -> None:
    differences = np.random.default_rng(5).normal(0.02, 0.05, 200)
    said = spread(differences.tolist())
    mean, deviation = differences.mean(), differences.std(ddof=1)
    assert said.mean == pytest.approx(mean)
    assert said.mean_interval == pytest.approx(stats.t.interval(0.95, 199, mean, deviation / np.sqrt(200)))
    assert said.limits == pytest.approx(stats.t.interval(0.95, 199, mean, deviation * np.sqrt(1 + 1 / 200)))
    assert said.limits == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation), abs=0.002)
    assert said.mean_absolute == pytest.approx(np.abs(differences).mean())
    assert said.percentile_95_absolute == pytest.approx(np.percentile(np.abs(differences), 95))
    assert said.largest_absolute == pytest.approx(np.abs(differences).max())


def test_limits_hold_what_they_promise_for_five_exams() -> None:
    """Of a further exam's difference they hold 95 %; mean +- 1.96 standard deviations would hold 82 %."""
    draws = np.random.default_rng(7).normal(0.1, 0.3, (4000, 6))
    inside = 0
    for row in draws:
        limits = spread(row[:5].tolist()).limits
        assert limits is not None
        inside += limits[0] <= row[5] <= limits[1]
    assert inside / len(draws) == pytest.approx(0.95, abs=0.012)


def test_few_exams_say_no_more_than_they_can() -> None:
    nothing, one = spread([]), spread([0.25])
    assert (nothing.exams, nothing.mean, nothing.largest_absolute) == (0, None, None)
    assert (one.mean, one.mean_interval, one.limits, one.largest_absolute) == (0.25, None, None, 0.25)
    few, enough = spread([0.1] * (LEAST_FOR_A_PERCENTILE - 1)), spread([0.1] * LEAST_FOR_A_PERCENTILE)
    assert few.percentile_95_absolute is None
    assert enough.percentile_95_absolute == pytest.approx(0.1)


def test_equal_models_do_not_differ() -> None:
    said = spread([0.0, 0.0, 0.0])
    assert (said.mean, said.limits, said.mean_interval) == (0.0, (0.0, 0.0), (0.0, 0.0))


def test_interval_of_a_share_is_wilsons() -> None:
    for hits, count in ((0, 3), (3, 3), (7, 10), (180, 200)):
        known = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
        assert wilson(hits, count) == pytest.approx((known.low, known.high), abs=1e-6)
    assert Marked(0, 0, 0, 0).agreement is None
    assert Marked(2, 1, 0, 1).agreement == 0.75


def test_overlap_of_boxes() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    assert overlap((3, 3, 3, 3), (3, 3, 3, 3)) == 0.0


def test_findings_match_once_by_view_kind_and_place() -> None:
    first = [finding(), finding(box=(1, 0, 11, 10)), finding(view="LMLO")]
    candidate = [finding(box=(1, 0, 11, 10)), finding(view="LMLO", kind="suspicious_calcification")]
    said = matched(first, candidate)
    assert said[0][1:3] == (first[1], candidate[0])
    assert sorted((kind, one is None, other is None) for kind, one, other, _ in said[1:]) == [
        ("mass", False, True),
        ("mass", False, True),
        ("suspicious_calcification", True, False),
    ]


def test_a_comparison_counts_every_exam_and_orders_the_furthest_apart() -> None:
    far = finding(box=(100, 100, 120, 120))
    pairs = [
        ("1.2.1", summary(0.1), summary(0.1)),
        ("1.2.2", summary(0.2, finding()), summary(0.6, finding(), far)),
        ("1.2.3", summary(0.9, finding()), summary(0.4)),
        ("1.2.4", summary(0.3), summary(None, far)),
    ]
    said = compare(pairs, worst=2)
    assert (said.exams, said.not_assessed, said.spread.exams) == (4, 1, 3)
    assert said.worst == (Difference("1.2.3", 0.9, 0.4), Difference("1.2.2", 0.2, 0.6))
    assert said.spread.mean == pytest.approx(-0.1 / 3)
    assert said.marked == Marked(both=1, neither=1, first_only=1, candidate_only=1)
    assert (said.findings.both, said.findings.first_only, said.findings.candidate_only) == (1, 1, 2)
    assert said.findings.mean_overlap == 1.0
    assert set(said.by_kind) == {"mass"}
