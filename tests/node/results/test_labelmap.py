"""Label maps: one number in each pixel, the numbers of the BINARY object, no region without a pixel."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from node.mammography.findings import Box, Finding, FindingKind
from node.mammography.views import LMLO, RCC, RMLO
from node.results import labelmap, segmentation
from node.results.labelmap import label_map
from tests.node.results import exams
from tests.node.results.test_segmentation_frames import read, spaced


def square(left: float, top: float, right: float, bottom: float, probability: float) -> Finding:
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    centre = ((left + right) / 2, (top + bottom) / 2)
    return Finding(FindingKind.MASS, RCC, probability, 1.0, centre, corners, Box(left, top, right, bottom))


def test_regions_apart_have_their_numbers_and_nothing_else():
    labels = label_map([square(1, 1, 3, 3, 0.5), square(5, 6, 8, 9, 0.9)], 10, 12)
    assert (labels[1:3, 1:3] == 1).all()
    assert (labels[6:9, 5:8] == 2).all()
    assert np.count_nonzero(labels) == 4 + 9


@pytest.mark.parametrize(("first", "second", "winner"), [(0.5, 0.9, 2), (0.9, 0.5, 1), (0.7, 0.7, 1)])
def test_the_higher_probability_takes_a_pixel_of_two_regions_of_equal_ones_the_first(first, second, winner):
    labels = label_map([square(0, 0, 6, 6, first), square(4, 4, 9, 9, second)], 10, 10)
    assert (labels[4:6, 4:6] == winner).all()
    assert labels[0, 0] == 1
    assert labels[8, 8] == 2


def test_a_region_inside_a_stronger_one_keeps_its_centre():
    labels = label_map([square(3, 3, 6, 6, 0.5), square(0, 0, 10, 10, 0.9)], 10, 10)
    assert np.argwhere(labels == 1).tolist() == [[4, 4]]
    assert (labels == 2).sum() == 99


def test_regions_with_one_centre_each_keep_a_pixel():
    labels = label_map([square(3, 3, 6, 6, 0.5), square(3, 3, 6, 6, 0.6), square(0, 0, 10, 10, 0.9)], 10, 10)
    assert {1, 2, 3} <= set(np.unique(labels))
    assert labels[4, 4] in (1, 2)


def test_a_region_whose_only_pixel_is_anothers_only_pixel_takes_nothing():
    labels = label_map([square(3, 3, 4, 4, 0.5), square(3, 3, 4, 4, 0.9)], 10, 10)
    assert np.unique(labels).tolist() == [0, 2]


@pytest.mark.parametrize(("frame", "syntax"), [("source", JPEGLSLossless), ("own", ExplicitVRLittleEndian)])
def test_the_regions_are_those_of_the_binary_object(frame, syntax):
    made = spaced(exams.reading())
    binary = segmentation.encode(made, exams.sources(), frame)
    for here, there in zip(labelmap.encode(made, exams.sources(), frame), binary, strict=True):
        labels, regions = read(here), read(there)
        assert (labels.SegmentationType, labels.SegmentsOverlap) == ("LABELMAP", "NO")
        assert here.transfer_syntax_uid == labels.file_meta.TransferSyntaxUID == syntax
        assert (labels.pixel_array == regions.pixel_array).all()
        numbered = {item.SegmentNumber: item.get("TrackingUID") for item in labels.SegmentSequence}
        assert numbered == {0: None} | {item.SegmentNumber: item.TrackingUID for item in regions.SegmentSequence}


def test_every_value_in_the_pixels_is_a_described_segment():
    made = exams.reading()
    lesion = made.findings[0]
    beside = replace(lesion, centre=(200.0, 900.0), contour=square(150, 850, 250, 950, 0.4).contour, probability=0.4)
    result = labelmap.encode(replace(made, findings=(*made.findings, beside)), exams.sources())[0]
    dataset = read(result)
    assert np.unique(dataset.pixel_array).tolist() == [0, 1, 2]
    assert [item.SegmentNumber for item in dataset.SegmentSequence] == [1, 2, 0]
    background = dataset.SegmentSequence[2]
    assert background.SegmentedPropertyTypeCodeSequence[0].CodeValue == "125040"
    assert dataset.PixelPaddingValue == 0


def test_only_views_with_findings_have_one():
    made = labelmap.encode(exams.reading(), exams.sources())
    images = [
        pydicom.dcmread(BytesIO(result.content)).ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
        for result in made
    ]
    wanted = [exams.source(view).SOPInstanceUID for view in (RCC, RMLO, LMLO)]
    assert [image.ReferencedSOPInstanceUID for image in images] == wanted
    assert labelmap.encode(exams.reading(lesions={}), exams.sources()) == ()
