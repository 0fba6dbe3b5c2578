import numpy as np
import pytest
import torch

from training.cache import CachedExam, TruthBox, save_exam
from training.exam_encoder import ExamHeads, descriptor_width
from training.finish import (
    MARKS_PER_NORMAL_VIEW,
    best_shift,
    calibration_table,
    head_logits,
    heat_of,
    heat_scales,
    operating_point,
    probability_of,
    upper_rate,
)
from training.summaries import ExamSummaries

ROWS = 8


def lesion_exam(seed):
    """A plain breast; view 0 has a mass at rows 64 to 96, columns 32 to 64."""
    images = np.zeros((4, 160, 120), np.uint8)
    images[:, 8:152, :104] = 120
    flags = np.zeros_like(images)
    flags[0, 64:96, 32:64] = 1
    return CachedExam(seed, images, flags, (TruthBox(0, 0, False, 32, 64, 64, 96),), (False, False), 0)


@pytest.fixture(scope="module")
def data():
    """Maps that know the mass, and a weaker spot in a view that has none."""
    maps = torch.full((ROWS, 4, 2, 20, 15), -6.0, dtype=torch.float16)
    maps[:, 0, 0, 8:12, 4:8] = 2.0
    maps[:4, 1, 0, 3:5, 3:5] = -1.0
    findings = torch.zeros(ROWS, 4, 2, dtype=torch.bool)
    findings[:, 0, 0] = True
    breasts = torch.arange(ROWS * 2).reshape(ROWS, 2) % 3 == 0
    wide = descriptor_width(8)
    return ExamSummaries(
        seeds=torch.arange(ROWS),
        descriptors=torch.randn(ROWS, 4, wide, generator=torch.Generator().manual_seed(0)),
        rings=torch.zeros(ROWS, 4, 5, 20),
        peaks=torch.randn(ROWS, 4, 5, generator=torch.Generator().manual_seed(1)),
        maps=maps,
        findings=findings,
        breasts=breasts,
        density=torch.zeros(ROWS, dtype=torch.long),
    )


@pytest.fixture
def paths(tmp_path):
    return tuple(save_exam(tmp_path, lesion_exam(seed)) for seed in range(ROWS))


def test_heat_is_one_at_the_median_lesion(data):
    scales = heat_scales(data, 4.0)
    assert scales[0] == 6.0
    assert heat_of(data, 4.0, [6.0, 1.0])[0, 0, 0].max() == 1.0


def test_the_shift_is_one_of_the_choices_and_hits(data, paths):
    assert best_shift(data, paths) in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def test_operating_point_marks_the_lesions_and_spares_normal_views(data, paths):
    heat = heat_of(data, 4.0, [6.0, 1.0])[:, :, 0]
    point = operating_point(0, np.full((ROWS, 4), 0.5, np.float32), data, heat, paths)
    assert point.lesions_marked == 1.0
    assert point.marks_per_normal_view == 0.0
    assert point.heat > 0.5


def test_a_rate_keeps_its_margin():
    assert upper_rate(0.0, 100) == 0.0
    assert MARKS_PER_NORMAL_VIEW / 2 < upper_rate(0.15, 300) < 0.19
    assert upper_rate(0.15, 300_000) == pytest.approx(0.15, abs=0.002)


def test_calibration_has_a_row_for_each_output_and_rises(data):
    torch.manual_seed(0)
    logits = head_logits(ExamHeads(8), data)
    table = calibration_table(logits, data)
    assert set(table) == {
        "exam_logit",
        "breast_logits",
        "finding_logits.mass",
        "finding_logits.suspicious_calcification",
    }
    assert all(row["a"] > 0 for row in table.values())
    assert table["breast_logits"]["prevalence"] == pytest.approx(float(data.breasts.float().mean()), abs=1e-4)


def test_probability_is_the_sigmoid_of_the_line():
    probability = probability_of(np.array([-1.0, 0.0, 400.0], np.float32), {"a": 2.0, "b": 1.0})
    assert probability == pytest.approx([1 / (1 + np.e), 1 / (1 + 1 / np.e), 1.0])
