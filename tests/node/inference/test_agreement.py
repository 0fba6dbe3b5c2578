"""How far two variants of a model are apart, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr

from node.inference.agreement import LIMITS, Calibrated, ExamOutputs, Truth, agreement, area, verdicts

NAMES = ("mass", "suspicious_calcification")
CALIBRATION = {
    name: Calibrated(1.0, 0.0)
    for name in ("exam_logit", "breast_logits", "finding_logits.mass", "finding_logits.suspicious_calcification")
}
GENERATOR = np.random.default_rng(4)


def some_outputs(exams: int = 12) -> ExamOutputs:
    return ExamOutputs(
        GENERATOR.normal(size=exams).astype(np.float32),
        GENERATOR.normal(size=(exams, 2)).astype(np.float32),
        GENERATOR.normal(size=(exams, 4, 2)).astype(np.float32),
        GENERATOR.random((exams, 4, 2, 5, 3), dtype=np.float32),
    )


def some_truth(exams: int = 12) -> Truth:
    breasts = GENERATOR.random((exams, 2)) < 0.4
    return Truth(np.asarray(breasts.any(1)), breasts, GENERATOR.random((exams, 4, 2)) < 0.3)


def test_a_model_agrees_with_itself() -> None:
    outputs, truth = some_outputs(), some_truth()
    found = agreement(outputs, outputs, CALIBRATION, NAMES, truth)
    assert (found.mean, found.high, found.largest) == (0, 0, 0)
    assert found.heat == pytest.approx(1)
    assert set(found.auc.values()) == {0.0}
    assert all(line.passed for line in verdicts(found, LIMITS["f32"]))


def test_differences_are_of_probabilities() -> None:
    outputs, truth = some_outputs(1), some_truth(1)
    other = replace(outputs, exam=outputs.exam + np.float32(1))
    found = agreement(outputs, other, CALIBRATION, NAMES, truth)
    first, second = (1 / (1 + np.exp(-float(one.exam[0]))) for one in (outputs, other))
    assert found.largest == pytest.approx(second - first, abs=1e-6)
    assert found.mean == pytest.approx((second - first) / 11, abs=1e-6)  # 1 exam, 2 breasts, 8 findings


def test_what_was_not_assessed_is_not_compared() -> None:
    outputs, truth = some_outputs(1), some_truth(1)
    assert outputs.findings is not None
    absent = outputs.findings.copy()
    absent[:, 2] = -30
    ours, theirs = replace(outputs, findings=absent), replace(outputs, findings=absent.copy())
    assert theirs.findings is not None
    theirs.findings[:, 2] = 5
    assert agreement(ours, theirs, CALIBRATION, NAMES, truth).largest == 0


def test_heat_is_the_worst_finding_s_correlation() -> None:
    outputs, truth = some_outputs(), some_truth()
    assert outputs.heat is not None
    other = outputs.heat.copy()
    other[:, :, 1] += 0.1 * GENERATOR.random(other[:, :, 1].shape, dtype=np.float32)
    found = agreement(outputs, replace(outputs, heat=other), CALIBRATION, NAMES, truth)
    assert found.heat == pytest.approx(
        pearsonr(outputs.heat[:, :, 1].ravel(), other[:, :, 1].ravel()).statistic, abs=1e-5
    )


def test_numbers_that_are_none_fail() -> None:
    outputs, truth = some_outputs(), some_truth()
    assert outputs.heat is not None
    broken = replace(outputs, exam=np.full_like(outputs.exam, np.nan), heat=outputs.heat * np.float32(np.nan))
    found = agreement(outputs, broken, CALIBRATION, NAMES, truth)
    assert (found.largest, found.heat) == (1.0, 0.0)
    assert [line.passed for line in verdicts(found, LIMITS["f16"])][:3] == [False, False, False]


def test_a_line_names_the_figure_and_its_limit() -> None:
    outputs, truth = some_outputs(), some_truth()
    found = replace(agreement(outputs, outputs, CALIBRATION, NAMES, truth), heat=0.99, auc={"exam_logit": -0.004})
    lines = [str(line) for line in verdicts(found, LIMITS["f16"])]
    assert "FAIL  correlation of heatmaps 0.990000 (at least 0.995)" in lines
    assert "FAIL  area under the curve of exam_logit -0.0040 (within 0.003)" in lines
    assert lines[0] == "PASS  mean change of probability 0.000000 (at most 0.01)"


def test_area_counts_ties_half() -> None:
    logits = np.array([1, 2, 2, 3], np.float32)
    assert area(logits, np.array([False, False, True, True])) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
