import numpy as np
import pytest

from node.mammography.regions import HeatGrid
from tests.training.mammo_clip import tiny_served
from training.finish import MARKS_PER_NORMAL_VIEW, upper_rate
from training.mammo_clip.operating import (
    LEVELS,
    NEVER,
    MarkTable,
    OperatingChoice,
    _within,
    mark_table,
    marks_at,
    most_marks,
    operating_points,
    phrase_heat_level,
    share,
)

GRID = HeatGrid((8.0, 8.0), (4.0, 4.0))


def option(false, lesions):
    return OperatingChoice(0.5, 1.0, false, lesions, 0.0, 0.0)


def best_by_trying(options, budget):
    reached = [()]
    for own in options:
        reached = [(*chosen, one) for chosen in reached for one in own]
    allowed = [chosen for chosen in reached if sum(one.false_marks for one in chosen) <= budget]
    return max(sum(one.lesions for one in chosen) for chosen in allowed)


def test_the_quota_goes_where_it_marks_most_lesions():
    rng = np.random.default_rng(0)
    for _ in range(20):
        options = [
            [
                NEVER,
                *(option(int(a), int(b)) for a, b in zip(rng.integers(1, 30, 5), rng.integers(1, 40, 5), strict=True)),
            ]
            for _ in range(3)
        ]
        chosen = share(options, 25)
        assert sum(one.false_marks for one in chosen) <= 25
        assert sum(one.lesions for one in chosen) == best_by_trying(options, 25)


def test_without_a_quota_nothing_is_marked():
    assert share([[NEVER, option(1, 9)], [NEVER, option(2, 9)]], 0) == (NEVER, NEVER)


@pytest.mark.parametrize("views", [10, 300, 5000])
def test_the_most_marks_keep_the_margin_and_one_more_does_not(views):
    most = most_marks(views)
    assert upper_rate(most / views, views) <= MARKS_PER_NORMAL_VIEW
    assert upper_rate((most + 1) / views, views) > MARKS_PER_NORMAL_VIEW


@pytest.fixture(scope="module")
def exams(tmp_path_factory):
    paths = tiny_served.fill(tmp_path_factory.mktemp("cache"), 0, 12)
    findings = np.stack([tiny_served.exam(seed).findings(4) for seed in range(12)])
    heat = np.zeros((12, 4, 4, 12, 8), np.float32)
    for seed in range(12):
        for box in tiny_served.exam(seed).boxes:
            row, column = (box.top + box.bottom) // 16, (box.left + box.right) // 16
            heat[seed, box.view, box.kind, row - 1 : row + 1, column - 1 : column + 1] = 1.05
        heat[seed, :, 0, 10, 1] = 0.65
    return paths, heat, findings


def test_marks_are_counted_at_each_level(exams):
    paths, heat, findings = exams
    marks = mark_table(paths, heat, GRID)
    assert marks.hits[..., LEVELS.index(1.0)].any() == findings.any()
    assert (marks.hits[..., LEVELS.index(1.0)] <= findings).all()
    assert marks.hits[..., LEVELS.index(0.9)][findings].mean() > 0.8
    assert (marks.counts[..., 0, LEVELS.index(0.5)] >= 1).all()
    assert marks.counts[..., LEVELS.index(1.2)].sum() == 0


def test_points_mark_lesions_and_spare_normal_views(exams):
    paths, heat, findings = exams
    probabilities = np.where(findings, 0.8, 0.3).astype(np.float32)
    points = operating_points(paths, heat, GRID, probabilities, findings)
    assert all(point.lesions_marked > 0.8 for point in points)
    assert sum(point.false_marks for point in points) == 0
    assert points[0].heat > 0.65 or points[0].probability > 0.3


def test_marks_among_cells_are_those_among_pixels(exams):
    paths, heat, findings = exams
    table = mark_table(paths, heat, GRID)
    for level in (0.5, 1.0):
        exact = marks_at(paths, heat, GRID, [level] * 4, np.ones_like(findings))
        same = table.counts[..., LEVELS.index(level)] == exact.counts[..., 0]
        assert same.mean() > 0.95
        assert (table.hits[..., LEVELS.index(level)] == exact.hits[..., 0]).mean() > 0.95


def test_phrases_mark_from_the_least_heat_that_spares_normal_views():
    counts = np.zeros((100, 4, 4, len(LEVELS)), np.int64)
    counts[..., : LEVELS.index(0.9)] = 1
    table = MarkTable(counts, counts > 0, counts)
    assert phrase_heat_level(table, np.zeros((100, 4, 4), np.bool_)) == 0.9


def test_a_budget_is_found_where_the_node_marks_far_more_than_the_cells_told():
    """Each mark among cells becomes nine as counted: of some 100 in 400 views two options of 5 fit, no others."""
    options = [[NEVER, *(option(false, 10 + false) for false in range(5, 80, 7))] for _ in range(2)]
    normal = np.ones((100, 4), np.bool_)

    def counted(chosen):
        return tuple(
            OperatingChoice(one.probability, one.heat, 9 * one.false_marks, one.lesions, 9 * one.false_marks / 400, 0.0)
            for one in chosen
        )

    best = _within(options, counted, normal)
    assert 0 < sum(one.false_marks for one in best) <= most_marks(400)
    assert sum(one.lesions for one in best) == 30
