import numpy as np
import pytest

from training.figures.detection import froc, view_marks, voc_average_precision

LESION, ELSEWHERE = (10, 10, 30, 30), (60, 60, 80, 80)


def scene():
    """Two views with lesions, two normal ones; the marks by falling logit: hit, false, false, hit, again."""
    return [
        view_marks("a", [LESION, (12, 12, 30, 30)], [5.0, 1.0], [LESION], iou=0.25),
        view_marks("b", [LESION, ELSEWHERE], [2.0, 4.0], [LESION, (100, 100, 120, 120)], iou=0.25),
        view_marks("c", [LESION], [3.0], [], iou=0.25),
        view_marks("d", [], [], [], iou=0.25),
    ]


def test_froc_by_hand():
    found = froc(scene(), rates=(0.0, 0.5))
    assert found.false_marks.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert found.sensitivity == pytest.approx([0.0, 1 / 3, 1 / 3, 2 / 3])
    assert [figure.value for _, figure in found.at] == pytest.approx([1 / 3, 2 / 3])
    assert (found.normal_views, found.at[0][1].positives, found.at[0][1].patients) == (2, 3, 4)


def test_marks_of_one_logit_are_one_threshold():
    views = [view_marks("a", [LESION], [1.0], [LESION], iou=0.25), view_marks("b", [LESION], [1.0], [], iou=0.25)]
    ((_, at_nothing),) = froc(views, rates=(0.0,)).at
    assert at_nothing.value == 0.0


def test_average_precision_of_boxes_by_hand():
    # By falling logit: right, wrong (beside), wrong (normal view), right, wrong (a second mark on a found lesion).
    precisions = (1 / 1, 2 / 4)
    assert voc_average_precision(scene()).value == pytest.approx(sum(precisions) / 3)


def test_precision_is_made_falling():
    views = [
        view_marks("a", [ELSEWHERE, LESION], [9.0, 8.0], [LESION], iou=0.25),
        view_marks("b", [LESION], [7.0], [LESION], iou=0.25),
    ]
    assert voc_average_precision(views).value == pytest.approx(2 / 3)


def test_a_mark_that_overlaps_too_little_lies_on_nothing():
    assert view_marks("a", [(10, 10, 30, 14)], [1.0], [LESION], iou=0.25).lesion.tolist() == [-1]
    assert view_marks("a", [(10, 10, 30, 16)], [1.0], [LESION], iou=0.25).lesion.tolist() == [0]


def test_views_without_marks_find_nothing():
    empty = [view_marks("a", [], [], [LESION], iou=0.5), view_marks("b", [], [], [], iou=0.5)]
    assert froc(empty).at[0][1].value == 0.0
    assert voc_average_precision(empty).value == 0.0
    assert np.array_equal(froc(empty).sensitivity, [0.0])
