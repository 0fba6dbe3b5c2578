"""Segmentations: the pixels of the contours, at the source's size, in the source's frame where it has one."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from scipy import ndimage

from node.mammography.findings import Box, Finding, FindingKind
from node.mammography.views import LMLO, RCC, RMLO, STANDARD_VIEWS
from node.results import segmentation, structured_report
from node.results.segmentation import pack_bits, region_mask
from tests.node.results import exams
from tests.node.results.test_structured_report import named
from tests.node.results.validators import iod_errors


def finding(*points: tuple[float, float]) -> Finding:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    centre = (sum(xs) / len(xs), sum(ys) / len(ys))
    return Finding(
        FindingKind.MASS, RCC, 0.8, 1.0, centre, (*points, points[0]), Box(min(xs), min(ys), max(xs), max(ys))
    )


@pytest.fixture(scope="module")
def datasets() -> list[Dataset]:
    made = segmentation.encode(exams.reading(), exams.sources())
    return [pydicom.dcmread(BytesIO(result.content)) for result in made]


def test_a_square_of_whole_pixels_is_those_pixels():
    mask = region_mask(finding((2.0, 3.0), (5.0, 3.0), (5.0, 7.0), (2.0, 7.0)), 10, 8)
    assert mask.sum() == 12
    assert mask[3:7, 2:5].all()


def test_a_pixel_belongs_where_its_centre_lies_inside():
    mask = region_mask(finding((2.6, 3.4), (5.4, 3.4), (5.4, 6.6), (2.6, 6.6)), 10, 8)
    assert np.argwhere(mask).min(axis=0).tolist() == [3, 3]
    assert np.argwhere(mask).max(axis=0).tolist() == [6, 4]


def test_a_region_smaller_than_a_pixel_is_one_pixel():
    mask = region_mask(finding((2.1, 3.1), (2.3, 3.1), (2.2, 3.3)), 10, 8)
    assert np.argwhere(mask).tolist() == [[3, 2]]


def test_a_region_at_the_edge_stays_in_the_image():
    mask = region_mask(finding((0.0, 0.0), (8.0, 0.0), (8.0, 10.0), (0.0, 10.0)), 10, 8)
    assert mask.all()


def test_bits_are_packed_lowest_first_across_frames():
    masks = np.zeros((2, 3, 3), bool)
    masks[0, 0, 0] = masks[1, 2, 2] = True
    assert pack_bits(masks) == bytes([0b00000001, 0b00000000, 0b00000010, 0])


def test_frames_that_end_inside_a_byte_are_packed_as_one_row_of_bits():
    masks = np.random.default_rng(5).random((3, 7, 5)) > 0.5
    whole = np.packbits(masks.reshape(-1), bitorder="little").tobytes()
    assert pack_bits(iter(masks)) == whole + b"\0" * (len(whole) % 2)


def test_frames_are_the_contours_of_the_report(datasets):
    made = exams.reading()
    for dataset, finding_ in zip(datasets, made.findings, strict=True):
        mask = dataset.pixel_array.astype(bool)
        assert mask.shape == (exams.ROWS, exams.COLUMNS)
        assert (mask == region_mask(finding_, exams.ROWS, exams.COLUMNS)).all()
        contour = np.array(finding_.contour)
        x, y = contour[:, 0], contour[:, 1]
        area = 0.5 * abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
        assert mask.sum() == pytest.approx(area, rel=0.01)


def test_the_mask_lies_on_the_lesion_of_either_breast(datasets):
    for dataset, view in zip(datasets, (RCC, RMLO, LMLO), strict=True):
        y, x = ndimage.center_of_mass(dataset.pixel_array)
        _, lesion_x, lesion_y = exams.LESIONS[view]
        model_px = exams.ROWS / exams.H
        assert np.hypot(x + 0.5 - lesion_x, y + 0.5 - lesion_y) < 2 * model_px


def test_segments_carry_the_report_s_tracking(datasets):
    content = structured_report.encode(exams.reading(), exams.sources()).content
    report = pydicom.dcmread(BytesIO(content))
    in_report = {item.UID for item in named(report, "112040")}
    segments = [segment for dataset in datasets for segment in dataset.SegmentSequence]
    assert {segment.TrackingUID for segment in segments} <= in_report
    assert [segment.SegmentLabel for segment in segments] == [
        "RCC Mass 1",
        "RMLO Mass 1",
        "LMLO Calcification cluster 1",
    ]
    codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in segments]
    assert codes == ["4147007", "4147007", "129769006"]
    assert {segment.SegmentAlgorithmType for segment in segments} == {"AUTOMATIC"}


def test_orientation_is_written_and_no_frame_of_reference_is_made_up(datasets):
    assert [list(dataset.PatientOrientation) for dataset in datasets] == [["P", "L"], ["P", "FL"], ["A", "FR"]]
    assert not any("FrameOfReferenceUID" in dataset for dataset in datasets)


def test_an_unknown_orientation_is_empty_and_valid(tmp_path):
    headers = {view: exams.source(view, PatientOrientation="") for view in STANDARD_VIEWS}
    reading = exams.reading(headers=headers)
    blank = tuple(replace(view, orientation=()) for view in reading.views)
    made = segmentation.encode(replace(reading, views=blank), headers)
    assert [iod_errors(result.content, tmp_path) for result in made] == [[]] * 3
    assert not pydicom.dcmread(BytesIO(made[0].content)).PatientOrientation
