"""Where frames of segmentations lie: in the source's frame, in one of our own, or as the source image alone says."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import pydicom
import pytest
from pydicom import Dataset

from node.mammography.views import STANDARD_VIEWS, View
from node.results import heatmap_segmentation, labelmap, segmentation, uids
from node.results.reading import EncodedResult, Reading, ResultKind
from tests.node.results import exams
from tests.node.results.test_encode import part10
from tests.node.results.validators import entity_errors, iod_complaints, iod_errors

SPACING = (0.0652, 0.0655)
ENCODERS = (segmentation.encode, labelmap.encode, heatmap_segmentation.encode)
Encode = Callable[..., tuple[EncodedResult, ...]]


def spaced(reading: Reading, spacing: tuple[float, float] | None = SPACING) -> Reading:
    return replace(reading, views=tuple(replace(view, spacing_mm=spacing) for view in reading.views))


def with_plane() -> dict[View, Dataset]:
    return {
        view: exams.source(
            view,
            FrameOfReferenceUID=f"{exams.STUDY}.9.{number}",
            PositionReferenceIndicator="",
            ImagePositionPatient=[0.0, 0.0, 0.0],
            ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 0.0, -1.0],
            PixelSpacing=[0.14, 0.14],
        )
        for number, view in enumerate(STANDARD_VIEWS)
    }


def read(result: EncodedResult) -> Dataset:
    return pydicom.dcmread(BytesIO(result.content))


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("frame", ["source", "own"])
def test_dciodvfy_has_no_complaint(encode: Encode, frame: str, tmp_path):
    made = encode(spaced(exams.reading()), exams.sources(), frame)
    assert [iod_complaints(result.content, tmp_path) for result in made] == [[]] * 3


def test_all_forms_and_their_sources_are_one_patient_and_study(tmp_path):
    made = spaced(exams.reading())
    contents = [part10(source) for source in exams.sources().values()]
    contents += [
        result.content
        for encode in ENCODERS
        for frame in ("source", "own")
        for result in encode(made, exams.sources(), frame)
    ]
    files = [tmp_path / f"{number}.dcm" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert entity_errors(files) == []


@pytest.mark.parametrize("encode", ENCODERS)
def test_without_a_frame_of_reference_none_is_made_up(encode: Encode):
    for dataset in map(read, encode(spaced(exams.reading()), exams.sources())):
        assert "FrameOfReferenceUID" not in dataset
        assert (dataset.Rows, dataset.Columns) == (exams.ROWS, exams.COLUMNS)
        assert len(dataset.SharedFunctionalGroupsSequence[0]) == 0
        assert "PlanePositionSequence" not in dataset.PerFrameFunctionalGroupsSequence[0]


@pytest.mark.parametrize("encode", ENCODERS)
def test_our_own_frame_is_the_image_s_plane_in_millimetres(encode: Encode):
    for dataset in map(read, encode(spaced(exams.reading()), exams.sources(), "own")):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == list(SPACING)
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            assert frame.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 0]
        assert (dataset.Rows, dataset.Columns) == (exams.ROWS, exams.COLUMNS)


def test_objects_on_one_view_share_our_frame_and_views_do_not():
    made = spaced(exams.reading())
    found: dict[str, set[str]] = {}
    for encode in ENCODERS:
        for dataset in map(read, encode(made, exams.sources(), "own")):
            image = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
            found.setdefault(image, set()).add(dataset.FrameOfReferenceUID)
    ours = {view.sop_instance_uid: {uids.frame_of_reference_uid(made, view.view)} for view in made.views}
    assert found == {image: frames for image, frames in ours.items() if image in found}
    assert len(found) == 3


@pytest.mark.parametrize("encode", ENCODERS)
def test_the_forms_hold_the_same_pixels_under_other_uids(encode: Encode):
    made = spaced(exams.reading())
    source, own = (encode(made, exams.sources(), frame) for frame in ("source", "own"))
    assert [result.form for result in (*source, *own)] == [""] * 3 + ["own"] * 3
    assert not {result.sop_instance_uid for result in source} & {result.sop_instance_uid for result in own}
    assert not {result.series_instance_uid for result in source} & {result.series_instance_uid for result in own}
    for here, there in zip(source, own, strict=True):
        assert (read(here).pixel_array == read(there).pixel_array).all()


@pytest.mark.parametrize("encode", ENCODERS)
def test_unknown_spacing_gives_the_form_of_the_source_byte_for_byte(encode: Encode):
    made = spaced(exams.reading(), None)
    wanted = encode(made, exams.sources(), "own")
    assert {result.form for result in wanted} == {""}
    assert [result.content for result in wanted] == [result.content for result in encode(made, exams.sources())]


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_complete_frame_of_reference_is_the_source_s(encode: Encode, tmp_path):
    headers = with_plane()
    made = encode(spaced(exams.reading(headers=headers)), headers, "own")
    assert {result.form for result in made} == {""}
    assert [iod_complaints(result.content, tmp_path) for result in made] == [[]] * 3
    first = read(made[0])
    assert first.FrameOfReferenceUID == f"{exams.STUDY}.9.0"
    shared = first.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("frame", ["source", "own"])
def test_each_view_has_a_series_that_begins_with_its_name(encode: Encode, frame: str):
    made = encode(spaced(exams.reading()), exams.sources(), frame)
    assert len({result.series_instance_uid for result in made}) == len(made) == 3
    named = [read(result).SeriesDescription for result in made]
    assert [name.split()[0] for name in named] == ["RCC", "RMLO", "LMLO"]


@pytest.mark.parametrize("encode", ENCODERS)
def test_every_frame_names_its_source_image_and_keeps_its_places(encode: Encode):
    for dataset in map(read, encode(exams.reading(), exams.sources())):
        image = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        assert len(dataset.PerFrameFunctionalGroupsSequence) == int(dataset.NumberOfFrames)
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            assert (source.ReferencedSOPInstanceUID, source.SpatialLocationsPreserved) == (image, "YES")


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("frame", ["source", "own"])
def test_patient_orientation_is_written_and_empty_where_unknown(encode: Encode, frame: str, tmp_path):
    made = spaced(exams.reading())
    stated = [list(read(result).PatientOrientation) for result in encode(made, exams.sources(), frame)]
    assert stated == [["P", "L"], ["P", "FL"], ["A", "FR"]]
    blank = replace(made, views=tuple(replace(view, orientation=()) for view in made.views))
    empty = encode(blank, exams.sources(), frame)[0]
    assert iod_complaints(empty.content, tmp_path) == []
    assert not read(empty).PatientOrientation


@pytest.mark.parametrize("kind", [ResultKind.SEGMENTATION, ResultKind.LABELMAP, ResultKind.HEATMAP])
def test_a_destination_s_frame_is_the_form_it_gets(kind: ResultKind):
    made = spaced(exams.reading())
    for frame, form in (("source", ""), ("own", "own")):
        where = exams.destination(kind.value, segmentation_frame=frame)
        shipped = [item.result for item in exams.shipments(made, exams.sources(), where) if item.result.kind is kind]
        assert [result.form for result in shipped] == [form] * 3


BROKEN_PLANES = {
    "ImagePositionPatient": [0.0, 0.0],
    "ImageOrientationPatient": [1.0, 0.0, 0.0],
    "PixelSpacing": None,
    "FrameOfReferenceUID": "",
}


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("keyword", BROKEN_PLANES)
def test_a_frame_of_reference_that_is_not_complete_is_none(encode: Encode, keyword: str):
    headers = with_plane()
    for header in headers.values():
        setattr(header, keyword, BROKEN_PLANES[keyword])
    made = spaced(exams.reading(headers=headers))
    assert not any("FrameOfReferenceUID" in read(result) for result in encode(made, headers))
    assert {result.form for result in encode(made, headers, "own")} == {"own"}


ODD_HEADERS: dict[str, dict[str, object]] = {
    "nothing optional": {"PatientOrientation": None, "ImagerPixelSpacing": None, "StudyDescription": None},
    "empty": {"PatientName": "", "PatientID": "", "StudyDate": "", "StudyID": "", "ReferringPhysicianName": ""},
    "no character set": {"SpecificCharacterSet": None, "PatientName": "Muller^Anne", "ReferringPhysicianName": "W"},
    "64-character UIDs": {"SeriesInstanceUID": "1.2." + "3" * 60},
    "lossy": {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "8",
        "LossyImageCompressionMethod": "ISO_10918_1",
    },
}


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("changes", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_odd_headers_give_valid_objects(encode: Encode, changes: dict[str, object], tmp_path):
    headers = {view: exams.source(view, **changes) for view in STANDARD_VIEWS}
    made = spaced(exams.reading(headers=headers))
    for frame in ("source", "own"):
        assert iod_errors(encode(made, headers, frame)[0].content, tmp_path) == []
