"""The page of pictures: marks on lesions, breasts as hung, missing views said, no patient."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest

from node.mammography.findings import Correspondence, FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality
from node.results import captions, names, page, panel, secondary_capture
from node.results.panel import draw_panel, heat_colours, panel_map
from node.results.reading import Predecessor, UnreadView, ViewReading
from tests.node.results import exams

WIDTH, HEIGHT, SCALE = 400, 430, 430 / exams.ROWS


def view_with_spot(view, mirrored: bool, wall_left: bool) -> tuple[ViewReading, np.ndarray]:
    """A view whose model image has one bright spot, and the spot's place in model pixels."""
    display = np.zeros((exams.H, exams.W), np.float32)
    display[:, : exams.W // 2] = 0.3
    spot = np.array([60.0, 140.0])
    if not wall_left:
        display = display[:, ::-1].copy()
        spot = np.array([exams.W - 60.0, 140.0])
    y, x = np.mgrid[: exams.H, : exams.W] + 0.5
    display += 0.7 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 20.0).astype(np.float32)
    made = exams.reading(lesions={}).views[STANDARD_VIEWS.index(view)]
    place = made.placement
    fields = {name: getattr(place, name) for name in place.__slots__} | {"mirrored": mirrored}
    return replace(made, display=display, placement=Placement(**fields), heatmap=None), spot


@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("wall_left", [False, True])
def test_marks_fall_on_what_is_drawn_and_breasts_hang_as_they_should(view, mirrored, wall_left):
    made, spot = view_with_spot(view, mirrored, wall_left)
    drawn = np.asarray(draw_panel(made, [], WIDTH, HEIGHT, SCALE)).max(axis=2)
    brightest = np.argwhere(drawn >= drawn.max() - 2).mean(axis=0)[::-1] + 0.5
    where = panel_map(made, WIDTH, HEIGHT, SCALE)
    through_stored = made.placement.to_model(made.placement.to_stored(spot[None]))
    assert np.hypot(*(where.to_panel(through_stored)[0] - brightest)) < 1.5
    tissue = np.flatnonzero((drawn > 50).any(axis=0))
    if view.laterality is Laterality.RIGHT:
        assert tissue[-1] == WIDTH - 1
        assert tissue[0] > WIDTH // 2
    else:
        assert tissue[0] == 0
        assert tissue[-1] < WIDTH // 2


def test_the_page_has_its_size_and_shows_heat_where_lesions_are():
    made = exams.reading()
    with_heat, without = page.render_page(made), page.render_page(exams.reading(lesions={}))
    assert with_heat.shape == (page.PAGE_HEIGHT, page.PAGE_WIDTH, 3)
    assert with_heat.dtype == np.uint8
    quiet = page.HEADER_HEIGHT + page.PANEL_HEIGHT // 4
    lcc = np.s_[quiet : page.HEADER_HEIGHT + page.PANEL_HEIGHT, page.PANEL_WIDTH + page.GAP :]
    rcc = np.s_[quiet : page.HEADER_HEIGHT + page.PANEL_HEIGHT, : page.PANEL_WIDTH]
    assert (with_heat[lcc] == without[lcc]).all()
    assert (with_heat[rcc] != without[rcc]).any()


def test_a_missing_view_says_so_and_another_does_not():
    made = page.render_page(exams.reading(views=tuple(view for view in STANDARD_VIEWS if view != LMLO)))
    lmlo = made[page.HEADER_HEIGHT + page.PANEL_HEIGHT + page.GAP : -page.FOOTER_HEIGHT, page.PANEL_WIDTH + page.GAP :]
    amber = (lmlo == captions.AMBER).all(axis=2)
    assert amber.sum() > 500
    assert lmlo[100:200, 100:200].max() == 0


def test_low_heat_is_clear_and_the_scale_rises():
    colours, opacity = heat_colours(np.array([[0.0, 0.1, 0.5, 1.0, 1.5, 9.0]], np.float32))
    assert opacity[0, :2].tolist() == [0, 0]
    assert (np.diff(opacity[0].astype(int)) >= 0).all()
    luminance = colours[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) >= 0).all()


def test_labels_overlap_neither_each_other_nor_a_finding_and_stay_in_the_panel(monkeypatch):
    made = exams.reading()
    (mark,) = captions.marks_of(made, RCC)
    drawn = []
    draw_label = panel._draw_label
    monkeypatch.setattr(panel, "_draw_label", lambda *args: drawn.append(draw_label(*args)) or drawn[-1])
    draw_panel(made.views[0], [mark] * 5, WIDTH, HEIGHT, SCALE)
    where = panel_map(made.views[0], WIDTH, HEIGHT, SCALE)
    contour = where.to_panel(made.views[0].placement.to_model(np.array(mark.contour)))
    boxes = [*drawn, (*contour.min(axis=0), *contour.max(axis=0))]
    assert len(boxes) == 6
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert min(left, top) >= 0
        assert right <= WIDTH
        assert bottom <= HEIGHT
        for other in boxes[:number]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]


def test_findings_of_one_lesion_carry_one_number():
    made = replace(exams.reading(), correspondences=(Correspondence(cc=0, mlo=1),))
    assert [finding.view for finding in made.findings] == [RCC, RMLO, LMLO]
    assert names.lesion_numbers(made) == (1, 1, 2)
    assert [mark.number for view in STANDARD_VIEWS for mark in captions.marks_of(made, view)] == [1, 1, 2]
    assert names.lesion_numbers(replace(made, correspondences=())) == (1, 2, 3)


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
def test_an_image_that_stands_on_its_head_is_hung_upright(view, upside_down):
    made, spot = view_with_spot(view, mirrored=False, wall_left=True)
    row, column = made.orientation
    column = {"L": "R", "R": "L", "FL": "HR", "FR": "HL"}[column] if upside_down else column
    made = replace(made, orientation=(row, column))
    drawn = np.asarray(draw_panel(made, [], WIDTH, HEIGHT, SCALE)).max(axis=2)
    brightest = np.argwhere(drawn >= drawn.max() - 2).mean(axis=0)[::-1] + 0.5
    where = panel_map(made, WIDTH, HEIGHT, SCALE)
    assert np.hypot(*(where.to_panel(spot[None])[0] - brightest)) < 1.5
    assert bool(brightest[1] > HEIGHT / 2) == upside_down


def test_a_view_that_was_not_read_says_why():
    whole = exams.reading()
    made = replace(whole, views=whole.views[:3], findings=whole.findings[:2])
    source = exams.source(LMLO)
    unread = UnreadView(
        LMLO, str(source.SOPInstanceUID), str(source.SOPClassUID), exams.ROWS, exams.COLUMNS, (), "constant image"
    )
    missing = page.render_page(made)
    explained = page.render_page(replace(made, unread=(unread,)))
    changed = np.argwhere((missing != explained).any(axis=2))
    assert changed[:, 0].min() > page.HEADER_HEIGHT + page.PANEL_HEIGHT
    assert changed[:, 1].min() > page.PANEL_WIDTH
    otherwise = page.render_page(replace(made, unread=(replace(unread, reason="pixels cannot be read"),)))
    assert (otherwise != explained).any()


def test_a_later_reading_says_so_in_the_pixels():
    made = exams.reading()
    before = Predecessor(1, datetime(2026, 3, 14, 14, 5, tzinfo=UTC), ())
    first = pydicom.dcmread(BytesIO(secondary_capture.encode(made, exams.sources()).content)).pixel_array
    later = replace(made, number=2, predecessor=before)
    second = pydicom.dcmread(BytesIO(secondary_capture.encode(later, exams.sources()).content)).pixel_array
    changed = np.argwhere((first != second).any(axis=2))
    assert changed[:, 0].max() < page.HEADER_HEIGHT
    assert (second == page.render_page(later, "AI reading 2, replaces 14:05")).all()


def test_the_capture_is_the_page_and_no_mammogram():
    made = exams.reading()
    dataset = pydicom.dcmread(BytesIO(secondary_capture.encode(made, exams.sources()).content))
    assert (dataset.pixel_array == page.render_page(made)).all()
    assert dataset.Modality == "OT"
    assert dataset.BurnedInAnnotation == "NO"
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert dataset.PhotometricInterpretation == "RGB"
    uids = [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence]
    assert uids == [view.sop_instance_uid for view in made.views]


def test_the_page_knows_no_patient():
    renamed = {view: exams.source(view, PatientName="Other^Name", PatientID="X") for view in STANDARD_VIEWS}
    here = pydicom.dcmread(BytesIO(secondary_capture.encode(exams.reading(), exams.sources()).content))
    there = pydicom.dcmread(BytesIO(secondary_capture.encode(exams.reading(headers=renamed), renamed).content))
    assert here.PixelData == there.PixelData


def test_a_right_view_shows_its_lesion_left_of_its_chest_wall():
    made = exams.reading()
    where = panel_map(made.views[0], WIDTH, HEIGHT, SCALE)
    _, x, y = exams.LESIONS[RCC]
    (at,) = where.to_panel(made.views[0].placement.to_model(np.array([[x, y]])))
    assert at == pytest.approx([WIDTH - (exams.COLUMNS - x) * SCALE, y * SCALE], abs=0.5)


def test_four_kinds_are_named_in_the_footer_beside_the_longest_words_of_a_model():
    kinds = tuple((kind, 0.5) for kind in FindingKind)
    made = exams.reading(lesions={})
    four = replace(made, views=tuple(replace(view, finding_probabilities=kinds) for view in made.views))
    named = replace(four, model=replace(four.model, name="m" * 64, version="v" * 64))
    unnamed = replace(four, model=replace(four.model, name=" ", version=" ", weights_hash=" ", variant=" "))
    none = replace(unnamed, views=tuple(replace(view, finding_probabilities=()) for view in made.views))
    bare, with_kinds, with_model = (page.render_page(each)[-page.FOOTER_HEIGHT :] for each in (none, unnamed, named))
    of_kinds, of_model = (with_kinds != bare).any(axis=2), (with_model != with_kinds).any(axis=2)
    assert of_kinds.sum() > 500
    assert of_model.sum() > 500
    assert not (of_kinds & of_model).any()
