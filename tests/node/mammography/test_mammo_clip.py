"""Preset mammo-clip against its published steps, written down a second time with OpenCV."""

import cv2
import numpy as np
import pytest

from node.mammography import mammo_clip
from node.mammography.pixels import CROP_TIED, prepare, prepare_display, preset
from node.mammography.views import Laterality
from tests.node.mammography.images import breast, data_set, through_bytes

PRESET = preset("mammo-clip")


def published(stored, monochrome1):
    """Trim, invert, stretch, crop by the standard deviation of what is above grey 40, INTER_AREA."""
    trimmed = stored[5:-5, 5:-5].astype(np.float64)
    if monochrome1:
        trimmed = trimmed.max() - trimmed
    grey = ((trimmed - trimmed.min()) / (trimmed.max() - trimmed.min()) * 255).astype(np.uint8)
    working = np.where(grey <= 40, 0, grey)
    half = int(grey.shape[0] * 0.4)
    middle = working[grey.shape[0] // 2 - half : grey.shape[0] // 2 + half]
    columns = longest(middle.std(axis=0) != 0)
    cropped = working[:, columns]
    half = int(cropped.shape[1] * 0.4)
    middle = cropped[:, cropped.shape[1] // 2 - half : cropped.shape[1] // 2 + half]
    crop = grey[:, columns][longest(middle.std(axis=1) != 0)]
    return cv2.resize(np.ascontiguousarray(crop), (912, 1520), interpolation=cv2.INTER_AREA)


def longest(varies):
    runs, start = [], None
    for index, value in enumerate([*varies, False]):
        if value and start is None:
            start = index
        if not value and start is not None:
            runs.append((index - start, start, index))
            start = None
    _, first, end = max(runs, key=lambda run: run[0])
    return slice(first, end)


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1800, 1200), (700, 500), (1700, 600)])
def test_pixels_as_published(rows, columns, monochrome1):
    stored = (breast(rows, columns, reach=0.6, chest_wall="R") * 3000 + 200).astype(np.uint16)
    stored = 4095 - stored if monochrome1 else stored
    photometry = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset = through_bytes(data_set(stored, PhotometricInterpretation=photometry, WindowCenter=5, WindowWidth=2))
    prepared = prepare(dataset, Laterality.RIGHT, PRESET)
    difference = np.abs(np.rint(prepared.pixels * 255).astype(int) - published(stored, monochrome1))
    assert (difference <= 1).mean() >= 0.999
    assert difference.max() <= 2
    assert not prepared.placement.mirrored


def test_display_values_give_the_same_crop():
    stored = (breast(500, 400) * 255).astype(np.uint8)
    by_display = prepare_display(stored.astype(np.float32) / 255, Laterality.LEFT, PRESET)
    by_stored = prepare(data_set(stored, bits_stored=8), Laterality.LEFT, PRESET)
    assert by_display.placement == by_stored.placement
    assert np.array_equal(by_display.pixels, by_stored.pixels)


def test_tied_runs_take_the_first_and_say_so():
    grey = np.zeros((100, 100), np.uint8)
    grey[20:80:2, 10:20] = 200
    grey[20:80:2, 60:70] = 200
    crop = mammo_clip.find_crop(grey)
    assert (crop.left, crop.right, crop.tied) == (10, 20, True)
    assert CROP_TIED in prepare_display(grey.astype(np.float32) / 255, Laterality.LEFT, PRESET).flags


def test_a_black_image_is_taken_whole():
    assert mammo_clip.find_crop(np.zeros((50, 40), np.uint8)) == mammo_clip.Crop(0, 0, 40, 50, False)
