"""Presentation states, read back from bytes: marks, words beside and never on a lesion, and the source's grey."""

import itertools
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from node.mammography.findings import Box, Correspondence, FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import LCC, LMLO, RCC, RMLO, View
from node.results import presentation_state
from node.results.document import DISCLAIMER
from node.results.reading import EncodedResult, Predecessor, Reading
from node.results.text_places import text_box
from tests.node.results import exams
from tests.node.results.validators import entity_errors, iod_complaints


def encode(made: Reading, headers: dict[View, Dataset] | None = None) -> tuple[EncodedResult, ...]:
    return presentation_state.encode(made, headers or exams.sources())


def states(made: Reading, headers: dict[View, Dataset] | None = None) -> dict[View, Dataset]:
    read = [pydicom.dcmread(BytesIO(result.content)) for result in encode(made, headers)]
    return {view.view: dataset for view, dataset in zip(made.views, read, strict=True)}


def graphics(state: Dataset, kind: str) -> list[np.ndarray]:
    """Points (N, 2) of all graphics of one type."""
    return [
        np.array(graphic.GraphicData).reshape(-1, 2)
        for annotation in state.GraphicAnnotationSequence
        for graphic in annotation.get("GraphicObjectSequence", [])
        if graphic.GraphicType == kind
    ]


def texts(state: Dataset) -> list[Dataset]:
    return [text for item in state.GraphicAnnotationSequence for text in item.get("TextObjectSequence", [])]


def words(state: Dataset) -> list[list[str]]:
    return [text.UnformattedTextValue.split("\r\n") for text in texts(state)]


def box(text: Dataset) -> Box:
    return Box(*text.BoundingBoxTopLeftHandCorner, *text.BoundingBoxBottomRightHandCorner)


def overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def test_each_view_read_has_one_that_refers_to_its_image_alone():
    made = exams.reading(views=(RCC, LCC, RMLO))
    found = states(made)
    assert list(found) == [RCC, LCC, RMLO]
    for view, state in found.items():
        source = exams.source(view)
        (series,) = state.ReferencedSeriesSequence
        (image,) = series.ReferencedImageSequence
        named = (series.SeriesInstanceUID, image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID)
        assert named == (source.SeriesInstanceUID, source.SOPClassUID, source.SOPInstanceUID)
        for item in (*state.GraphicAnnotationSequence, *state.DisplayedAreaSelectionSequence):
            assert item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_they_pass_dciodvfy_without_a_warning_and_dcentvfy_between_them(tmp_path):
    results = encode(exams.reading())
    assert [iod_complaints(result.content, tmp_path) for result in results] == [[]] * 4
    files = [tmp_path / f"{number}.dcm" for number in range(4)]
    for file, result in zip(files, results, strict=True):
        file.write_bytes(result.content)
    assert [line for line in entity_errors(files) if "Missing SOPInstanceUID" not in line] == []


def test_dcmtk_finds_no_fault_with_the_presentation_state(tmp_path):
    for result in encode(exams.reading()):
        dataset = pydicom.dcmread(BytesIO(result.content))
        # dcmpschk 3.6.7 refuses each DT that has an offset, also where its own pattern fits.
        del dataset.ContributingEquipmentSequence[0].ContributionDateTime
        dataset.save_as(tmp_path / "state.dcm")
        done = subprocess.run(["dcmpschk", str(tmp_path / "state.dcm")], capture_output=True, text=True, check=False)
        assert "Test passed" in done.stderr, done.stderr


def test_the_contour_and_the_centre_are_the_finding_s():
    made = exams.reading()
    for finding in made.findings:
        state = states(made)[finding.view]
        contour, *cross = graphics(state, "POLYLINE")
        (centre,) = graphics(state, "POINT")
        assert contour == pytest.approx(np.array(finding.contour), abs=1e-3)
        assert centre[0] == pytest.approx(finding.centre, abs=1e-3)
        assert [line.mean(axis=0) for line in cross] == [pytest.approx(finding.centre, abs=1e-3)] * 2
        assert {item.GraphicAnnotationUnits for item in state.GraphicAnnotationSequence[0].GraphicObjectSequence} == {
            "PIXEL"
        }


def test_a_contour_of_500_points_stays_whole():
    made = exams.reading()
    angle = np.linspace(0.0, 2.0 * np.pi, 500)
    ring = np.stack([700 + 90 * np.cos(angle), 480 + 90 * np.sin(angle)], axis=1)
    ring[-1] = ring[0]
    finding = replace(made.findings[0], contour=tuple(map(tuple, ring.tolist())))
    state = states(replace(made, findings=(finding,)))[RCC]
    assert graphics(state, "POLYLINE")[0] == pytest.approx(ring, abs=1e-3)


def test_marks_and_words_have_a_layer_each():
    state = states(exams.reading())[RCC]
    assert [layer.GraphicLayer for layer in state.GraphicLayerSequence] == ["AI_MARKS", "AI_TEXT"]
    assert [layer.GraphicLayerOrder for layer in state.GraphicLayerSequence] == [1, 2]
    assert [item.GraphicLayer for item in state.GraphicAnnotationSequence] == ["AI_MARKS", "AI_TEXT"]
    for layer in state.GraphicLayerSequence:
        assert layer.GraphicLayerRecommendedDisplayGrayscaleValue == 0xFFFF
        assert len(layer.GraphicLayerRecommendedDisplayCIELabValue) == 3


def test_a_finding_is_named_with_its_value_and_its_other_view():
    made = replace(exams.reading(), correspondences=(Correspondence(cc=0, mlo=1),))
    found = states(made)
    index = f"index {made.findings[0].probability:.2f}"
    assert words(found[RCC])[0] == ["1 Mass", index, "also in RMLO"]
    assert words(found[RMLO])[0] == ["1 Mass", index, "also in RCC"]
    assert words(found[LMLO])[0][0] == "2 Calcification cluster"


def test_a_probability_is_written_only_where_it_may_be():
    made = exams.reading()
    percent = f"{100 * made.findings[0].probability:.0f} %"
    assert percent not in words(states(made)[RCC])[0]
    assert "index 0 to 1, not calibrated on patients" in words(states(made)[RCC])[-1]
    allowed = states(replace(made, allow_probability=True))[RCC]
    assert words(allowed)[0][1] == percent
    assert "index 0 to 1, not calibrated on patients" not in words(allowed)[-1]


def test_a_view_without_findings_says_that_nothing_was_marked():
    state = states(exams.reading())[LCC]
    assert graphics(state, "POLYLINE") == graphics(state, "POINT") == []
    (said,) = words(state)
    assert said == [DISCLAIMER, "AI: no region marked", "looked for: Mass, Calcification cluster"]


def test_every_state_says_what_it_is_and_what_it_replaces():
    before = Predecessor(1, datetime(2026, 3, 14, 14, 5, tzinfo=UTC), ())
    for made, later in ((exams.reading(), False), (replace(exams.reading(), number=2, predecessor=before), True)):
        for state in states(made).values():
            said = words(state)[-1]
            assert said[0] == DISCLAIMER
            assert ("AI reading 2, replaces 14:05" in said) is later
            assert state.ContentDescription == DISCLAIMER
            assert state.ContentQualification == "RESEARCH"


def test_what_a_reader_should_know_stands_in_the_state_too():
    made = exams.reading()
    flagged = replace(made.views[0], flags=("For Processing image",))
    state = states(replace(made, views=(flagged, *made.views[1:])))[RCC]
    assert words(state)[-1][-1] == "For Processing image"


def test_words_lie_inside_the_image_and_cover_neither_lesion_nor_words():
    made = exams.reading()
    crowd = [
        replace(made.findings[0], box=Box(x, y, x + 150, y + 130), contour=corners(x, y), centre=(x + 75, y + 65))
        for x, y in ((620, 400), (800, 420), (640, 580), (950, 1380), (1000, 5))
    ]
    state = states(replace(made, findings=tuple(crowd)))[RCC]
    boxes = [box(text) for text in texts(state)]
    assert len(boxes) == len(crowd) + 1
    for place in boxes:
        assert min(place.left, place.top) >= 0
        assert place.right <= exams.COLUMNS
        assert place.bottom <= exams.ROWS
        assert not any(overlap(place, finding.box) for finding in crowd)
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))


def corners(x: float, y: float) -> tuple[tuple[float, float], ...]:
    return ((x, y), (x + 150, y), (x + 150, y + 130), (x, y + 130), (x, y))


def test_each_text_is_tied_to_its_own_lesion():
    state = states(exams.reading())[RCC]
    text = texts(state)[0]
    (contour, *_) = graphics(state, "POLYLINE")
    assert np.abs(contour - np.array(text.AnchorPoint)).sum(axis=1).min() < 1e-3
    assert (text.AnchorPointAnnotationUnits, text.AnchorPointVisibility) == ("PIXEL", "Y")
    assert "AnchorPoint" not in texts(state)[-1]


@pytest.mark.parametrize(("rows", "columns"), [(40, 30), (64, 2000), (3000, 50)])
def test_words_that_are_larger_than_the_image_are_cut_to_it(rows, columns):
    view = exams.reading().views[0]
    small = replace(
        view,
        rows=rows,
        columns=columns,
        placement=Placement(rows, columns, 0, 0, columns, rows, 1.0, 1.0, 0.0, 0.0, False, rows, columns),
        display=np.ones((rows, columns), np.float32),
    )
    for lesion in (None, Box(2, 2, 20, 20)):
        place = text_box(small, (600.0, 90.0), [], lesion, 10.0)
        assert (place.left, place.top) >= (0, 0)
        assert place.right <= columns
        assert place.bottom <= rows


def test_words_stand_over_air_rather_than_over_tissue():
    made = exams.reading()
    place = box(texts(states(made)[RCC])[0])
    middle = np.array([[(place.left + place.right) / 2, (place.top + place.bottom) / 2]])
    (x, y) = made.views[0].placement.to_model(middle)[0]
    inside = 0 <= x < exams.W and 0 <= y < exams.H
    assert not inside or made.views[0].display[int(y), int(x)] < 0.02


def test_the_whole_image_is_shown_counted_from_one():
    state = states(exams.reading())[RCC]
    (area,) = state.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [exams.COLUMNS, exams.ROWS]
    assert area.PresentationSizeMode == "SCALE TO FIT"
    assert list(area.PresentationPixelAspectRatio) == [1, 1]


def test_spacing_is_given_where_it_is_known_and_nowhere_else():
    made = exams.reading()
    known = replace(made.views[0], spacing_mm=(0.07, 0.0712345678))
    (area,) = states(replace(made, views=(known, *made.views[1:])))[RCC].DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [0.07, 0.0712346]
    assert "PresentationPixelAspectRatio" not in area


def test_each_breast_has_a_series_that_states_its_side():
    found = states(exams.reading())
    assert [state.Laterality for state in found.values()] == ["R", "L", "R", "L"]
    assert found[RCC].SeriesInstanceUID == found[RMLO].SeriesInstanceUID
    assert found[RCC].SeriesInstanceUID != found[LCC].SeriesInstanceUID
    assert {int(state.SeriesNumber) for state in found.values()} == {9004}


def test_times_are_the_reading_s_and_bytes_the_same_twice():
    made = exams.reading()
    for first, second in zip(encode(made), encode(made), strict=True):
        assert first.content == second.content
        state = pydicom.dcmread(BytesIO(first.content))
        assert (state.PresentationCreationDate, state.PresentationCreationTime) == ("20260314", "123015.250000")


def test_asymmetries_and_distortions_have_words_too():
    made = exams.reading()
    for kind, said in (
        (FindingKind.ASYMMETRY, "1 Asymmetry"),
        (FindingKind.ARCHITECTURAL_DISTORTION, "1 Architectural distortion"),
    ):
        state = states(replace(made, findings=(replace(made.findings[0], kind=kind),)))[RCC]
        assert words(state)[0][0] == said
