"""An image as training sees it, from DICOM and from PNG, against the published steps with OpenCV, in float64."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from node.mammography.views import Laterality
from tests.node.mammography.images import breast, data_set
from training.mammo_clip.images import ImageFile, decode
from training.mammo_clip.loading import Input
from training.mammo_clip.sampling import normalised

ROWS, COLUMNS = 1520, 912


def published(stored: np.ndarray, *, monochrome1: bool) -> np.ndarray:
    """Trim 5 pixels, invert, stretch the whole frame to 8 bits, crop, INTER_AREA to 1520 x 912."""
    trimmed = stored[5:-5, 5:-5].astype(np.float64)
    if monochrome1:
        trimmed = trimmed.max() - trimmed
    grey = ((trimmed - trimmed.min()) / (trimmed.max() - trimmed.min()) * 255).astype(np.uint8)
    working = grey.copy()
    working[working <= 40] = 0
    left, right = longest_run(working[central(len(grey))].std(axis=0) != 0)
    columns = working[:, left:right]
    top, bottom = longest_run(columns[:, central(right - left)].std(axis=1) != 0)
    crop = np.ascontiguousarray(grey[top:bottom, left:right])
    return cv2.resize(crop, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)


def central(size: int) -> slice:
    """The middle four fifths."""
    return slice(size // 2 - int(size * 0.4), size // 2 + int(size * 0.4))


def longest_run(varies: np.ndarray) -> tuple[int, int]:
    best, start = (0, 0), 0
    for end, there in enumerate([*varies.tolist(), False]):
        if not there:
            if end - start > best[1] - best[0]:
                best = (start, end)
            start = end + 1
    return best


def within_tolerance(plane: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(plane.astype(int) - expected.astype(int))
    assert (difference <= 1).mean() >= 0.999
    assert difference.max() <= 2


@pytest.mark.parametrize(("rows", "columns", "monochrome1"), [(1900, 1300, True), (900, 1400, False)])
def test_dicom_file_as_published(tmp_path, rows, columns, monochrome1):
    """Larger than the model's image, and larger in one direction alone; right breast, not mirrored."""
    rng = np.random.default_rng(rows)
    stored = (breast(rows, columns, reach=0.55, chest_wall="R") * 3000 + rng.integers(0, 60, (rows, columns))).astype(
        np.uint16
    )
    stored = 4095 - stored if monochrome1 else stored
    photometry = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset = data_set(stored, PhotometricInterpretation=photometry, WindowCenter=9, WindowWidth=3)
    dataset.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    expected = published(stored, monochrome1=monochrome1)
    file = ImageFile(tmp_path / "image.dcm", Laterality.RIGHT)
    within_tolerance(file.read(), expected)
    plane = decode([file], (ROWS, COLUMNS), tmp_path / "cache").planes[0]
    within_tolerance(plane, expected)
    assert np.array_equal(plane, file.read())


def test_png_of_the_published_size_is_not_touched(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "image.png")
    planes = decode([ImageFile(tmp_path / "image.png", Laterality.LEFT)], (ROWS, COLUMNS), tmp_path / "cache").planes
    assert np.array_equal(planes[0], grey)


@pytest.mark.parametrize("shape", [(1900, 1000), (800, 500), (1700, 600)])
def test_png_of_another_size_is_resized_as_opencv_does(tmp_path, shape):
    grey = (breast(*shape) * 200 + np.random.default_rng(1).integers(0, 50, shape)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "image.png")
    planes = decode([ImageFile(tmp_path / "image.png", Laterality.LEFT)], (ROWS, COLUMNS), tmp_path / "cache").planes
    assert planes.shape == (1, ROWS, COLUMNS)
    within_tolerance(planes[0], cv2.resize(grey, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA))


def test_colour_png_counts_as_the_grey_that_it_shows(tmp_path):
    grey = np.random.default_rng(2).integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "image.png")
    assert np.array_equal(ImageFile(tmp_path / "image.png", Laterality.LEFT).read(), grey)


@pytest.mark.parametrize("bits", [12, 16])
def test_png_of_more_than_8_bits_is_stretched_as_the_published_step_does(tmp_path, bits):
    stored = np.random.default_rng(3).integers(100, 1 << bits, (60, 40)).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "image.png")
    whole = stored.astype(np.float64)
    expected = ((whole - whole.min()) / (whole.max() - whole.min()) * 255).astype(np.uint8)
    assert np.array_equal(ImageFile(tmp_path / "image.png", Laterality.LEFT).read(), expected)


def test_image_is_normalised_by_its_own_least_and_greatest_value():
    """In float64 by the published scalars, the same for each of three equal channels."""
    grey = np.random.default_rng(4).integers(9, 240, (1, 30, 20), dtype=np.uint8)
    whole = grey.astype(np.float64)
    expected = ((whole - whole.min()) / (whole - whole.min()).max() - 0.3089279) / 0.25053555408335154
    assert np.abs(normalised(torch.tensor(whole)).numpy() - expected).max() < 1e-12
    given = Input("mammo-clip", 30, 20, "image", 3).normalise(grey)
    assert given.shape == (1, 3, 30, 20)
    assert np.abs(given.double().numpy() - expected[:, None]).max() < 1e-5
