"""The area resize against OpenCV, against plain means, and under mirroring."""

import cv2
import numpy as np
import pytest

from node.mammography.resize import resize, resize_as_opencv
from tests.node.mammography.images import breast


@pytest.mark.parametrize(("rows", "columns"), [(76, 46), (600, 400), (299, 133), (1, 1), (7, 390)])
def test_shrinking_is_opencvs_area(rows, columns):
    image = breast()
    theirs = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(image, rows, columns) - theirs).max() < 1e-5


def test_whole_factors_are_plain_means():
    image = breast(60, 40)
    assert np.allclose(resize(image, 20, 10), image.reshape(20, 3, 10, 4).mean(axis=(1, 3)), atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(1200, 800), (1500, 900), (601, 401)])
def test_enlarging_is_opencvs_bilinear(rows, columns):
    image = breast()
    theirs = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(image, rows, columns) - theirs).max() < 1e-4


@pytest.mark.parametrize(("rows", "columns"), [(301, 123), (700, 123), (900, 500)])
def test_a_mirrored_image_gives_the_mirrored_result(rows, columns):
    image = breast(seed=3)
    assert np.allclose(resize(image[:, ::-1], rows, columns)[:, ::-1], resize(image, rows, columns), atol=1e-6)


def test_a_flat_image_stays_flat():
    assert np.allclose(resize(np.full((301, 203), 0.37, np.float32), 97, 61), 0.37, atol=1e-6)


@pytest.mark.parametrize("shape", [(3319, 1403), (2000, 1100), (1520, 912), (3040, 1824), (1500, 900), (700, 1300)])
def test_eight_bit_resize_within_opencvs_grey_levels(shape):
    grey = (breast(*shape, seed=shape[0]) * 255).astype(np.uint8)
    theirs = cv2.resize(grey, (912, 1520), interpolation=cv2.INTER_AREA).astype(int)
    difference = np.abs(resize_as_opencv(grey, 1520, 912).astype(int) - theirs)
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= 0.999
