"""Pictures of single views: as hung, marked, honest about what they are, and no patient in them."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from node.mammography.views import LCC, RCC, STANDARD_VIEWS
from node.results import view_capture
from node.results.panel import KIND_COLOURS
from node.results.reading import InstanceReference, Predecessor, Reading
from node.results.view_picture import FOOTER_HEIGHT, HEADER_HEIGHT, PANEL_HEIGHT, PANEL_WIDTH, render_view
from tests.node.results import exams
from tests.node.results.validators import iod_complaints

REPLACED_AT = datetime(2026, 3, 14, 14, 5, tzinfo=UTC)


def captures(made: Reading, headers: dict | None = None) -> list[Dataset]:
    results = view_capture.encode(made, headers or exams.sources())
    return [pydicom.dcmread(BytesIO(result.content)) for result in results]


def test_there_is_one_for_each_view_read_and_it_says_which():
    datasets = captures(exams.reading(views=STANDARD_VIEWS[:3]))
    assert [dataset.ImageComments.split(";")[0] for dataset in datasets] == ["RCC", "LCC", "RMLO"]
    assert [dataset.ImageLaterality for dataset in datasets] == ["R", "L", "R"]
    assert [list(dataset.PatientOrientation) for dataset in datasets] == [["P", "L"], ["A", "R"], ["P", "FL"]]
    assert [dataset.SourceImageSequence[0].ReferencedSOPInstanceUID for dataset in datasets] == [
        exams.source(view).SOPInstanceUID for view in STANDARD_VIEWS[:3]
    ]
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 1


def test_an_image_that_was_read_instead_of_the_displayed_one_is_named_too(tmp_path):
    made = exams.reading()
    raw = InstanceReference("1.2.840.10008.5.1.4.1.1.1.2.1", "1.2.3.4", "1.2.3")
    twin = replace(made, views=(replace(made.views[0], read_from=raw), *made.views[1:]))
    result = view_capture.encode(twin, exams.sources())[0]
    dataset = pydicom.dcmread(BytesIO(result.content))
    named = [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence]
    assert named == [exams.source(RCC).SOPInstanceUID, "1.2.3.4"]
    assert [item.SeriesInstanceUID for item in dataset.ReferencedSeriesSequence][1] == "1.2.3"
    assert iod_complaints(result.content, tmp_path) == []


def test_they_are_valid_and_without_a_warning(tmp_path):
    for result in view_capture.encode(exams.reading(), exams.sources()):
        assert iod_complaints(result.content, tmp_path) == []


def test_they_are_large_rgb_pictures_that_claim_no_identity():
    for dataset in captures(exams.reading()):
        assert (dataset.Rows, dataset.Columns) == (HEADER_HEIGHT + PANEL_HEIGHT + FOOTER_HEIGHT, PANEL_WIDTH)
        assert 1600 <= dataset.Rows <= 2000
        assert dataset.PhotometricInterpretation == "RGB"
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
        assert dataset.BurnedInAnnotation == "NO"
        assert dataset.ContentQualification == "RESEARCH"
        assert dataset.Modality == "OT"


def test_pixels_know_no_patient():
    renamed = {view: exams.source(view, PatientName="Other^Name", PatientID="X") for view in STANDARD_VIEWS}
    ours, theirs = captures(exams.reading()), captures(exams.reading(headers=renamed), renamed)
    assert [dataset.PixelData for dataset in ours] == [dataset.PixelData for dataset in theirs]


def test_a_later_reading_says_so_above_the_picture_and_nowhere_else():
    made = exams.reading()
    later = replace(made, number=2, predecessor=Predecessor(1, REPLACED_AT, ()))
    first, second = captures(made)[0], captures(later)[0]
    changed = np.argwhere((first.pixel_array != second.pixel_array).any(axis=2))
    assert changed[:, 0].max() < HEADER_HEIGHT
    assert (second.pixel_array == render_view(later, later.views[0], "AI reading 2, replaces 14:05")).all()


def test_marks_stand_in_their_own_view_only():
    made = exams.reading()
    mass = KIND_COLOURS[made.findings[0].kind]
    with_marks = [(render_view(made, view) == mass).all(axis=2).sum() for view in made.views]
    assert with_marks[0] > 200
    assert with_marks[1] == 0


@pytest.mark.parametrize(
    ("stated", "drawn"),
    [
        (("P", "L"), ["P", "L"]),
        (("A", "L"), ["P", "L"]),
        (("P", "R"), ["P", "L"]),
        (("A", "R"), ["P", "L"]),
        ((), []),
    ],
)
def test_patient_orientation_is_that_of_the_picture(stated, drawn):
    """A right CC view however it was stored: the picture's rows run to the back, its columns to the middle."""
    made = exams.reading()
    rcc = made.views[0]
    mirrored = rcc.placement.mirrored if stated[:1] != ("A",) else not rcc.placement.mirrored
    stored = replace(rcc, orientation=stated, placement=replace(rcc.placement, mirrored=mirrored))
    assert list(view_capture.hung_orientation(stored)) == drawn


def test_a_view_without_findings_says_that_nothing_was_marked():
    made = exams.reading(lesions={})
    quiet = render_view(made, made.views[STANDARD_VIEWS.index(LCC)])
    busy = exams.reading(lesions={LCC: exams.LESIONS[RCC]})
    loud = render_view(busy, busy.views[STANDARD_VIEWS.index(LCC)])
    corner = np.s_[20:60, PANEL_WIDTH - 250 :]
    assert (quiet[corner] != loud[corner]).any()
    assert (loud[corner] == loud[0, 0]).all()
