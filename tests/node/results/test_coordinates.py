"""One lesion, every object: from stored pixels through the model and back, whatever lies between.

The images are drawn in stored pixels, and put into the model's frame by matrices of this file's own: neither Placement
nor anything else that results are made with is asked where the lesion lies.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset

from node.destinations import CadProfile
from node.interpretation import interpret
from node.mammography.contract import Prediction
from node.mammography.findings import FindingKind
from node.mammography.pixels import Placement, PreparedView
from node.mammography.views import STANDARD_VIEWS, Laterality, View, ViewPosition
from node.results import (
    cad_report,
    heatmap_segmentation,
    labelmap,
    page,
    presentation_state,
    secondary_capture,
    segmentation,
    structured_report,
    view_capture,
    view_picture,
)
from node.results.reading import InstanceReference, ModelIdentity, Reading, ViewReading
from node.settings import ReadingSettings
from tests.node.results import exams
from tests.node.results.marked import Mark, contour_in_picture, marks_in

KINDS = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
SPREAD_PX = 8.0
"""Of the lesion's heat, in model pixels."""


@dataclass(frozen=True)
class Geometry:
    """An image as it is stored, what the model sees of it, and where the lesion is (stored pixels)."""

    view: View
    rows: int
    columns: int
    crop: tuple[int, int, int, int]
    """Left, top, right, bottom."""
    drawn: tuple[int, int]
    """Columns and rows that the crop has in the model image."""
    shift: tuple[int, int]
    model: tuple[int, int]
    """Columns and rows of the model image."""
    mirrored: bool
    wall_left: bool
    """The chest wall lies on the left edge of the stored image."""
    upside_down: bool
    lesion: tuple[float, float]

    @property
    def scale(self) -> NDArray[np.float64]:
        """Model pixels for one stored pixel, across and down."""
        left, top, right, bottom = self.crop
        return np.array([self.drawn[0] / (right - left), self.drawn[1] / (bottom - top)])

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Stored to model pixels, homogeneous: into the crop, reflected, scaled, shifted."""
        left, top, right, _ = self.crop
        into_crop = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        reflected = np.array([[-1, 0, right - left], [0, 1, 0], [0, 0, 1.0]]) if self.mirrored else np.eye(3)
        scaled = np.diag([*self.scale, 1.0])
        shifted = np.array([[1, 0, self.shift[0]], [0, 1, self.shift[1]], [0, 0, 1.0]])
        return shifted @ scaled @ reflected @ into_crop

    @property
    def placement(self) -> Placement:
        """The same in the product's words."""
        return Placement(
            self.rows, self.columns, *self.crop, *self.scale, *map(float, self.shift), self.mirrored, *self.model[::-1]
        )

    @property
    def orientation(self) -> tuple[str, str]:
        """Patient Orientation of the stored image."""
        medial = "L" if self.view.laterality is Laterality.RIGHT else "R"
        lateral = "R" if medial == "L" else "L"
        hung, turned = (medial, lateral) if self.view.position is ViewPosition.CC else (f"F{medial}", f"H{lateral}")
        return ("A" if self.wall_left else "P", turned if self.upside_down else hung)

    def stored(self) -> NDArray[np.float64]:
        """The image (rows, columns): tissue from the chest wall on, a bright disc at the lesion, air elsewhere."""
        left, top, right, bottom = self.crop
        y, x = np.mgrid[: self.rows, : self.columns] + 0.5
        from_wall = (x - left) if self.wall_left else (right - x)
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        picture = np.where(inside & (from_wall < 0.75 * (right - left)), 0.35 - 0.1 * from_wall / (right - left), 0.0)
        away = np.hypot((x - self.lesion[0]) * self.scale[0], (y - self.lesion[1]) * self.scale[1])
        return np.clip(picture + 0.6 * np.exp(-(away**2) / (2 * 2.5**2)), 0.0, 1.0)

    def seen(self) -> NDArray[np.float32]:
        """The model image (rows, columns): the stored pixel under the centre of each model pixel of the crop."""
        columns, rows = self.model
        v, u = np.mgrid[:rows, :columns] + 0.5
        points = np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
        x, y, _ = np.linalg.inv(self.matrix) @ points
        left, top, right, bottom = self.crop
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        seen = np.zeros(u.size, np.float32)
        seen[inside] = self.stored()[np.floor(y[inside]).astype(int), np.floor(x[inside]).astype(int)]
        return seen.reshape(rows, columns)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any side, mirror, crop, scale, shift, shape and way of storing; the lesion lies in the wall's half."""
    rows, columns = draw(st.integers(150, 420)), draw(st.integers(150, 420))
    whole = draw(st.booleans())
    left, top = (0, 0) if whole else (draw(st.integers(0, columns // 4)), draw(st.integers(0, rows // 4)))
    right = columns if whole else columns - draw(st.integers(0, columns // 4))
    bottom = rows if whole else rows - draw(st.integers(0, rows // 4))
    drawn = draw(st.integers(120, 220)), draw(st.integers(120, 220))
    room = draw(st.integers(0, 30)), draw(st.integers(0, 30))
    shift = draw(st.integers(0, room[0])), draw(st.integers(0, room[1]))
    wall_left = draw(st.booleans())
    from_wall, down = draw(st.floats(0.2, 0.38)), draw(st.floats(0.2, 0.8))
    across = from_wall if wall_left else 1 - from_wall
    return Geometry(
        view=draw(st.sampled_from(STANDARD_VIEWS)),
        rows=rows,
        columns=columns,
        crop=(left, top, right, bottom),
        drawn=drawn,
        shift=shift,
        model=(drawn[0] + room[0], drawn[1] + room[1]),
        mirrored=draw(st.booleans()),
        wall_left=wall_left,
        upside_down=draw(st.booleans()),
        lesion=(left + across * (right - left), top + down * (bottom - top)),
    )


def source(geometry: Geometry, **changes: object) -> Dataset:
    shape = {"Rows": geometry.rows, "Columns": geometry.columns, "PatientOrientation": list(geometry.orientation)}
    return exams.source(geometry.view, **(shape | changes))


def read(geometry: Geometry, stride: int = 4) -> Reading:
    """What the node makes of a model that sees the lesion in cells of `stride` model pixels."""
    columns, rows = geometry.model
    cells = -(-rows // stride), -(-columns // stride)
    offset = stride / 2
    contract = replace(
        exams.contract(),
        findings=KINDS,
        input_shape=(rows, columns),
        heatmap_shape=cells,
        heatmap_stride=(float(stride), float(stride)),
        heatmap_offset=(offset, offset),
    )
    u, v, _ = geometry.matrix @ (*geometry.lesion, 1.0)
    y, x = np.mgrid[: cells[0], : cells[1]] * stride + offset
    index = STANDARD_VIEWS.index(geometry.view)
    heat = np.zeros((4, len(KINDS), *cells), np.float32)
    heat[index, 0] = 1.2 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * SPREAD_PX**2))
    logits = np.full((4, len(KINDS)), -3.0, np.float32)
    logits[index, 0] = 2.0
    prediction = Prediction(1.0, np.zeros(8, np.float32), np.zeros(2, np.float32), logits, heat, None, None)
    wall = Laterality.LEFT if geometry.wall_left else Laterality.RIGHT
    prepared = {geometry.view: PreparedView(geometry.seen(), geometry.placement, wall, ())}
    orientations, spacings = {geometry.view: geometry.orientation}, {geometry.view: (0.14, 0.14)}
    meaning = interpret(
        prediction, contract, prepared, (), ReadingSettings(None, False), orientations=orientations, spacings=spacings
    )
    header = source(geometry)
    view = ViewReading(
        view=geometry.view,
        sop_instance_uid=str(header.SOPInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
        path="",
        rows=geometry.rows,
        columns=geometry.columns,
        placement=geometry.placement,
        display=prepared[geometry.view].pixels,
        heatmap=meaning.heatmaps[geometry.view],
        finding_probabilities=meaning.finding_probabilities[geometry.view],
        orientation=geometry.orientation,
        flags=(),
        spacing_mm=spacings[geometry.view],
    )
    return Reading(
        study_instance_uid=exams.STUDY,
        number=1,
        read_at=datetime(2026, 3, 14, 12, 30, 15, tzinfo=UTC),
        model=ModelIdentity("exam_encoder", "1", "5e" * 32, "f32", "fit", False),
        settings_hash="c0" * 32,
        selection=((view.sop_instance_uid, "ab" * 32),),
        exam_probability=meaning.exam_probability,
        breasts=meaning.breasts,
        views=(view,),
        not_assessed=meaning.not_assessed,
        findings=meaning.findings,
    )


def objects(reading: Reading, sources: dict[View, Dataset]) -> list[bytes]:
    """Every object that marks stored pixels, segmentations in both forms."""
    made = [cad_report.encode(reading, sources, CadProfile()), *presentation_state.encode(reading, sources)]
    for frame in ("source", "own"):
        made += segmentation.encode(reading, sources, frame)
        made += labelmap.encode(reading, sources, frame)
        made += heatmap_segmentation.encode(reading, sources, frame)
    made.append(structured_report.encode(reading, sources))
    return [result.content for result in made]


EXPECTED = [
    "BINARY region",
    "BINARY region with a plane",
    "CAD SR centre",
    "CAD SR outline",
    "FRACTIONAL region",
    "FRACTIONAL region with a plane",
    "GSPS centre",
    "GSPS outline",
    "LABELMAP region",
    "LABELMAP region with a plane",
    "report centre",
    "report outline",
]


def check_marks(geometry: Geometry, marks: list[Mark], image_uid: str) -> int:
    """Each mark is on the one image, and its middle on the lesion within one model pixel, and half a stored one where
    the object consists of pixels. Returns how many marks there are.
    """
    assert sorted({mark.what for mark in marks}) == EXPECTED
    for mark in marks:
        assert mark.image_uid == image_uid, mark.what
        off = np.abs(mark.middle - geometry.lesion)
        allowed = 1 / geometry.scale + (0.5 if "region" in mark.what else 0.02)
        assert (off <= allowed).all(), f"{mark.what} is off by {off} of {allowed} stored pixels"
    check_agreement(marks)
    return len(marks)


def check_agreement(marks: list[Mark]) -> None:
    """Outlines and centres are the same to a 64th of a pixel in every object; regions are what lies in the outline. A
    pixel whose centre is on the line itself may count as either.
    """
    first = next(mark for mark in marks if "outline" in mark.what)
    middle = next(mark for mark in marks if "centre" in mark.what).middle
    for mark in marks:
        if "outline" in mark.what:
            assert mark.points == pytest.approx(first.points, abs=1 / 64), mark.what
        elif "centre" in mark.what:
            assert mark.middle == pytest.approx(middle, abs=1 / 64), mark.what
        elif "FRACTIONAL" not in mark.what:
            differing = set(map(tuple, mark.points)) ^ set(map(tuple, pixels_inside(first.points)))
            assert all(distance(np.array(pixel), first.points) < 1e-9 for pixel in differing), mark.what


slow = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pixels_inside(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres (N, 2) of the pixels inside a closed line: it winds round them."""
    (left, top), (right, bottom) = np.floor(outline.min(axis=0)), np.ceil(outline.max(axis=0))
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    away = outline[:, :, None] - np.stack([x.ravel(), y.ravel()])
    start, end = away[:-1], away[1:]
    turns = np.arctan2(start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0], (start * end).sum(axis=1)).sum(axis=0)
    return np.stack([x.ravel(), y.ravel()], axis=1)[np.abs(turns) > np.pi]


def distance(point: NDArray[np.float64], outline: NDArray[np.float64]) -> float:
    """From a point to the nearest of an outline's sides."""
    start, side = outline[:-1], np.diff(outline, axis=0)
    square = np.maximum((side**2).sum(axis=1), 1e-12)
    along = np.clip(((point - start) * side).sum(axis=1) / square, 0.0, 1.0)
    return float(np.hypot(*(start + along[:, None] * side - point).T).min())


@slow
@given(geometries(), st.sampled_from([1, 4, 8]))
def test_every_object_marks_the_lesion_within_one_model_pixel(geometry, stride):
    reading = read(geometry, stride)
    assert len(reading.findings) == 1
    sources = {geometry.view: source(geometry)}
    marks = [mark for content in objects(reading, sources) for mark in marks_in(content)]
    assert check_marks(geometry, marks, str(sources[geometry.view].SOPInstanceUID)) >= len(EXPECTED)


@settings(slow, max_examples=8)
@given(geometries())
def test_pictures_show_the_mark_on_the_lesion_as_the_breast_is_hung(geometry):
    reading = read(geometry)
    sources = {geometry.view: source(geometry)}
    (single,) = view_capture.encode(reading, sources)
    sheet = secondary_capture.encode(reading, sources)
    bare = replace(reading, findings=(), views=(replace(reading.views[0], heatmap=None),))
    for content, unmarked, panel in (
        (single.content, view_picture.render_view(bare, bare.views[0]), view_panel()),
        (sheet.content, page.render_page(bare), page_panel(geometry.view)),
    ):
        drawn = pydicom.dcmread(BytesIO(content)).pixel_array
        expected = as_hung(geometry, panel)
        model_px = min(panel.width / width(geometry), panel.height / height(geometry)) / geometry.scale
        spot = brightest(unmarked, panel)
        assert (np.abs(spot - expected) <= model_px + 1.0).all()
        assert (np.abs(contour_in_picture(drawn, spot) - expected) <= model_px + 1.0).all()


@dataclass(frozen=True)
class Panel:
    """Where a picture shows one view."""

    left: int
    top: int
    width: int
    height: int


def view_panel() -> Panel:
    return Panel(0, view_picture.HEADER_HEIGHT, view_picture.PANEL_WIDTH, view_picture.PANEL_HEIGHT)


def page_panel(view: View) -> Panel:
    row, column = divmod(STANDARD_VIEWS.index(view), 2)
    return Panel(
        column * (page.PANEL_WIDTH + page.GAP),
        page.HEADER_HEIGHT + row * (page.PANEL_HEIGHT + page.GAP),
        page.PANEL_WIDTH,
        page.PANEL_HEIGHT,
    )


def width(geometry: Geometry) -> int:
    return geometry.crop[2] - geometry.crop[0]


def height(geometry: Geometry) -> int:
    return geometry.crop[3] - geometry.crop[1]


def as_hung(geometry: Geometry, panel: Panel) -> NDArray[np.float64]:
    """The lesion in the picture: chest wall on the inner edge, upright, as large as fits, at half height."""
    left, top, right, bottom = geometry.crop
    x, y = geometry.lesion
    scale = min(panel.width / width(geometry), panel.height / height(geometry))
    from_wall = (x - left if geometry.wall_left else right - x) * scale
    down = (bottom - y if geometry.upside_down else y - top) * scale
    across = panel.width - from_wall if geometry.view.laterality is Laterality.RIGHT else from_wall
    margin = (panel.height - height(geometry) * scale) / 2
    return np.array([panel.left + across, panel.top + margin + down])


def brightest(picture: NDArray[np.uint8], panel: Panel) -> NDArray[np.float64]:
    """The middle of the brightest part of a panel below its words: letters are whiter than any tissue."""
    part = picture[panel.top : panel.top + panel.height, panel.left : panel.left + panel.width].astype(int)
    grey = np.where(np.ptp(part, axis=2) == 0, part[..., 0], 0)
    rows, columns = np.nonzero(grey >= grey.max() - 3)
    return np.array([panel.left + columns.mean() + 0.5, panel.top + rows.mean() + 0.5])


@pytest.mark.parametrize("view", STANDARD_VIEWS, ids=str)
def test_marks_of_a_for_processing_image_stand_on_the_one_that_is_displayed(view):
    geometry = Geometry(
        view, 300, 240, (10, 20, 220, 290), (140, 170), (3, 4), (150, 180), True, False, False, (170.0, 130.0)
    )
    displayed = source(geometry)
    reading = read(geometry)
    raw = InstanceReference("1.2.840.10008.5.1.4.1.1.1.2.1", "1.2.3.4.5", f"{exams.STUDY}.77")
    twin = replace(reading.views[0], read_from=raw, flags=("For Processing image",))
    contents = objects(replace(reading, views=(twin,)), {view: displayed})
    marks = [mark for content in contents for mark in marks_in(content)]
    assert check_marks(geometry, marks, str(displayed.SOPInstanceUID)) >= len(EXPECTED)
