"""Heat as FRACTIONAL segmentations: on the right stored pixels, in equal steps, and never taken for a finding."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from node.errors import EncodeError
from node.mammography.findings import FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import LCC, LMLO, RCC, RMLO
from node.results import heatmap_segmentation, uids
from node.results.heatmap_segmentation import LARGEST_BYTES, MAXIMUM_VALUE, STEPS, heat_values, rle_frame, spread
from node.results.panel import HEAT_FULL
from tests.node.results import exams
from tests.node.results.test_segmentation_frames import read

RNG = np.random.default_rng(20261122)


def random_placement(mirrored: bool) -> Placement:
    """A crop of a tall or wide image, scaled down or up and put somewhere in the model's image."""
    rows, columns = (int(n) for n in RNG.integers(300, 900, 2))
    left, top = int(RNG.integers(0, columns // 3)), int(RNG.integers(0, rows // 3))
    right, bottom = int(RNG.integers(columns // 2, columns + 1)), int(RNG.integers(rows // 2, rows + 1))
    scale_x, scale_y = (float(n) for n in RNG.uniform(0.15, 1.4, 2))
    across, down = round((right - left) * scale_x), round((bottom - top) * scale_y)
    shift_x, shift_y = (int(n) for n in RNG.integers(0, 12, 2))
    return Placement(
        stored_rows=rows,
        stored_columns=columns,
        crop_left=left,
        crop_top=top,
        crop_right=right,
        crop_bottom=bottom,
        scale_x=across / (right - left),
        scale_y=down / (bottom - top),
        shift_x=float(shift_x),
        shift_y=float(shift_y),
        mirrored=mirrored,
        model_rows=down + shift_y + 7,
        model_columns=across + shift_x + 5,
    )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("case", range(20))
def test_heat_at_a_model_point_is_at_its_stored_point(mirrored, case):
    place = random_placement(mirrored)
    inside = np.array(
        [
            RNG.uniform(place.crop_left + 30, place.crop_right - 30),
            RNG.uniform(place.crop_top + 30, place.crop_bottom - 30),
        ]
    )
    (u, v), *_ = place.to_model(inside[None])
    y, x = np.mgrid[: place.model_rows, : place.model_columns] + 0.5
    blob = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 1.5**2)).astype(np.float32)
    rows, which = spread(heat_values(blob, 31), place)
    found_y, found_x = ndimage.center_of_mass(rows[which].astype(float))
    assert abs(found_x + 0.5 - inside[0]) < max(1.0, 1.0 / place.scale_x)
    assert abs(found_y + 0.5 - inside[1]) < max(1.0, 1.0 / place.scale_y)


@pytest.mark.parametrize("mirrored", [False, True])
def test_each_stored_pixel_has_the_value_of_the_model_pixel_under_its_centre(mirrored):
    place = random_placement(mirrored)
    values = RNG.integers(1, 255, (place.model_rows, place.model_columns)).astype(np.uint8)
    rows, which = spread(values, place)
    stored = rows[which]
    assert stored.shape == (place.stored_rows, place.stored_columns)
    for _ in range(300):
        row, column = int(RNG.integers(place.stored_rows)), int(RNG.integers(place.stored_columns))
        in_crop = place.crop_left <= column < place.crop_right and place.crop_top <= row < place.crop_bottom
        (u, v), *_ = place.to_model(np.array([[column + 0.5, row + 0.5]]))
        assert stored[row, column] == (values[int(v), int(u)] if in_crop else 0)


def test_outside_the_crop_there_is_no_heat():
    place = random_placement(True)
    rows, which = spread(np.full((place.model_rows, place.model_columns), 9, np.uint8), place)
    outside = np.ones((place.stored_rows, place.stored_columns), bool)
    outside[place.crop_top : place.crop_bottom, place.crop_left : place.crop_right] = False
    assert ((rows[which] == 0) == outside).all()


@pytest.mark.parametrize("steps", STEPS)
def test_heat_is_written_in_equal_steps_and_clipped(steps):
    heat = np.linspace(-0.2, 2.0, 4001, dtype=np.float32)[None]
    values = heat_values(heat, steps)
    assert values[heat <= 0].max() == 0
    assert (values[heat >= HEAT_FULL] == MAXIMUM_VALUE[steps]).all()
    back = values * (HEAT_FULL / MAXIMUM_VALUE[steps])
    assert np.abs(back - np.clip(heat, 0, HEAT_FULL)).max() <= HEAT_FULL / steps / 2 + 1e-6
    assert len(np.unique(values)) == steps + 1


def test_each_row_is_compressed_by_itself():
    rows = np.zeros((2, 300), np.uint8)
    frame = rle_frame(rows, np.array([0, 1, 0]))
    one = bytes([0x81, 0, 0x81, 0, 0xD5, 0])  # 128 + 128 + 44 zeros
    assert frame[:8] == (1).to_bytes(4, "little") + (64).to_bytes(4, "little")
    assert frame[64:] == one * 3


def test_heat_lies_on_the_lesion_of_either_breast():
    for result, view in zip(
        heatmap_segmentation.encode(exams.reading(), exams.sources()), (RCC, RMLO, LMLO), strict=True
    ):
        dataset = read(result)
        kind, lesion_x, lesion_y = exams.LESIONS[view]
        y, x = ndimage.center_of_mass(dataset.pixel_array.astype(float) ** 4)
        assert np.hypot(x + 0.5 - lesion_x, y + 0.5 - lesion_y) < exams.ROWS / exams.H * 4
        assert len(dataset.SegmentSequence) == 1
        code = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue
        assert code == {FindingKind.MASS: "4147007", FindingKind.SUSPICIOUS_CALCIFICATION: "129769006"}[kind]


def test_a_frame_for_each_kind_with_heat_and_none_for_the_others():
    made = exams.reading()
    heat = made.views[0].heatmap
    both = replace(made.views[0], heatmap=np.stack([heat[0], 0.5 * heat[0]]))
    faint = replace(made.views[0], heatmap=np.stack([heat[0], 0.1 * heat[0]]))
    for view, frames in ((both, 2), (faint, 1)):
        dataset = read(heatmap_segmentation.encode(replace(made, views=(view,), findings=()), exams.sources())[0])
        assert int(dataset.NumberOfFrames) == len(dataset.SegmentSequence) == frames
        pixels = dataset.pixel_array.reshape(frames, exams.ROWS, exams.COLUMNS)
        for frame, layer in zip(pixels, view.heatmap, strict=False):
            rows, which = spread(heat_values(layer, 31), view.placement)
            assert (frame == rows[which]).all()


def test_a_view_without_heat_gives_no_object():
    made = exams.reading()
    cold = replace(made.views[1], heatmap=np.full_like(made.views[1].heatmap, 0.1))
    none = replace(made.views[2], heatmap=None)
    results = heatmap_segmentation.encode(
        replace(made, views=(made.views[0], cold, none), findings=()), exams.sources()
    )
    images = [read(result).ReferencedSeriesSequence[0].ReferencedInstanceSequence[0] for result in results]
    assert [image.ReferencedSOPInstanceUID for image in images] == [made.views[0].sop_instance_uid]
    assert made.views[1].view == LCC


def test_the_description_says_what_a_value_means_and_that_it_is_no_finding():
    made = exams.reading()
    for findings, marked in ((made.findings, 1), ((), 0)):
        dataset = read(heatmap_segmentation.encode(replace(made, findings=findings), exams.sources())[0])
        segment = dataset.SegmentSequence[0]
        assert segment.SegmentLabel == "Heat: mass"
        assert "not a finding and not a probability" in segment.SegmentDescription
        assert f"regions of this kind marked in this view: {marked}." in segment.SegmentDescription
        assert f"Value x 1.5 / {dataset.MaximumFractionalValue} = heat" in segment.SegmentDescription
        assert segment.TrackingID == "RCC Mass"
        assert segment.TrackingUID == uids.tracking_uid(made, "RCC Mass")
        assert "probability of" not in segment.SegmentDescription.lower()


def test_what_would_be_too_large_is_written_in_fewer_steps():
    place = Placement(4096, 3328, 0, 0, 3328, 4096, 456 / 3328, 760 / 4096, 0.0, 0.0, False, 760, 456)
    made = exams.reading()
    spots = ndimage.zoom(RNG.uniform(0, 1.5, (4, 48, 29)), (1, 16, 16), order=1)[:, :760, :456].astype(np.float32)
    kinds = tuple((kind, 0.1) for kind in FindingKind)
    view = replace(made.views[0], rows=4096, columns=3328, placement=place, heatmap=spots, finding_probabilities=kinds)
    headers = exams.sources() | {RCC: exams.source(RCC, Rows=4096, Columns=3328)}
    result, *_ = heatmap_segmentation.encode(replace(made, views=(view,), findings=()), headers)
    dataset = read(result)
    assert dataset.MaximumFractionalValue == MAXIMUM_VALUE[STEPS[-1]]
    assert len(np.unique(dataset.pixel_array)) <= 1 + STEPS[-1]


@pytest.mark.parametrize(("rows", "columns"), [(3328, 2560), (4096, 3328)])
def test_a_full_size_view_fits(rows, columns):
    scale = min(760 / rows, 456 / columns)
    across, down = round(columns * scale), round(rows * scale)
    place = Placement(rows, columns, 0, 0, columns, rows, across / columns, down / rows, 0.0, 0.0, True, 760, 456)
    y, x = np.mgrid[:760, :456]
    heat = np.stack([1.6 * np.exp(-((x - c) ** 2 + (y - 2 * c) ** 2) / 800.0) for c in (80, 150, 220, 300)])
    kinds = tuple((kind, 0.1) for kind in FindingKind)
    made = exams.reading()
    view = replace(
        made.views[0],
        rows=rows,
        columns=columns,
        placement=place,
        heatmap=heat.astype(np.float32),
        finding_probabilities=kinds,
    )
    headers = exams.sources() | {RCC: exams.source(RCC, Rows=rows, Columns=columns)}
    result, *_ = heatmap_segmentation.encode(replace(made, views=(view,), findings=()), headers)
    assert len(result.content) < LARGEST_BYTES
    dataset = read(result)
    assert (int(dataset.NumberOfFrames), dataset.MaximumFractionalValue) == (4, MAXIMUM_VALUE[31])


def test_heat_of_another_size_is_refused():
    made = exams.reading()
    raw = replace(made.views[0], heatmap=np.ones((2, 24, 14), np.float32))
    with pytest.raises(EncodeError, match="not registered"):
        heatmap_segmentation.encode(replace(made, views=(raw,), findings=()), exams.sources())
