"""The square that CLIP sees of a view."""

import numpy as np
import pytest
from PIL import Image

from node.mammography.breast import find_breast
from node.mammography.views import Laterality
from training.multi_view.squares import bicubic, square_of_display, square_of_plane


def breast(side: Laterality, rows: int = 300, columns: int = 200) -> np.ndarray:
    """Half an ellipse on the chest wall, brighter towards it, with one bright square."""
    y, x = np.mgrid[:rows, :columns]
    inside = ((x / (0.7 * columns)) ** 2 + ((y - rows / 2) / (0.4 * rows)) ** 2) < 1
    image = np.where(inside, 0.6 - 0.2 * x / columns, 0.0).astype(np.float32)
    image[rows // 2 : rows // 2 + 12, 40:52] = 0.95
    return image if side is Laterality.LEFT else np.ascontiguousarray(image[:, ::-1])


@pytest.mark.parametrize("size", [224, 448, 64])
def test_right_breasts_are_mirrored_to_the_chest_wall_on_the_left(size: int):
    left, right = (square_of_display(breast(side), side, size) for side in (Laterality.LEFT, Laterality.RIGHT))
    assert left.pixels.shape == (size, size)
    np.testing.assert_allclose(left.pixels, right.pixels, atol=1.5 / 255)
    assert left.pixels[:, : size // 4].mean() > 3 * left.pixels[:, -size // 4 :].mean()
    assert not left.placement.mirrored
    assert right.placement.mirrored


@pytest.mark.parametrize("side", list(Laterality))
def test_the_placement_leads_to_the_bright_square_and_back(side: Laterality):
    display = breast(side)
    prepared = square_of_display(display, side, 224)
    rows, columns = np.nonzero(display > 0.9)
    centre = np.array([[columns.mean() + 0.5, rows.mean() + 0.5]])
    bright_rows, bright_columns = np.nonzero(prepared.pixels > 0.8)
    found = prepared.placement.to_model(centre)
    np.testing.assert_allclose(found, [[bright_columns.mean() + 0.5, bright_rows.mean() + 0.5]], atol=1)
    np.testing.assert_allclose(prepared.placement.to_stored(found), centre, atol=1e-6)
    assert (prepared.placement.model_rows, prepared.placement.model_columns) == (224, 224)


def test_pixels_are_pils_bicubic_of_the_eight_bit_crop():
    display = breast(Laterality.LEFT)
    found = find_breast(display)
    assert found is not None
    crop = display[found.top : found.bottom, found.left : found.right]
    side = max(crop.shape)
    top = (side - crop.shape[0]) // 2
    padded = np.zeros((side, side), np.uint8)
    padded[top : top + crop.shape[0], : crop.shape[1]] = np.round(crop * 255)
    expected = np.asarray(Image.fromarray(padded).resize((64, 64), Image.Resampling.BICUBIC))
    got = square_of_display(display, Laterality.LEFT, 64).pixels * 255
    assert np.abs(got - np.round(got)).max() < 1e-4
    assert (np.abs(got - expected) <= 1).mean() > 0.99


def test_an_image_without_a_breast_is_still_a_square_with_its_flag():
    prepared = square_of_display(np.zeros((50, 40), np.float32), Laterality.LEFT, 32)
    assert prepared.pixels.shape == (32, 32)
    assert prepared.flags == ("constant image",)


def test_a_cached_plane_is_padded_on_the_right_or_above_and_below():
    tall, wide = np.full((76, 46), 200, np.uint8), np.full((20, 80), 200, np.uint8)
    square = square_of_plane(tall, 76)
    assert (square[:, :46] == 200).all()
    assert (square[:, 46:] == 0).all()
    square = square_of_plane(wide, 80)
    assert (square[30:50] == 200).all()
    assert (square[:30] == 0).all()
    assert (square[50:] == 0).all()
    assert square_of_plane(tall, 32).shape == (32, 32)


def test_a_plane_of_the_wanted_size_is_left_alone():
    plane = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert bicubic(plane, 8) is plane
