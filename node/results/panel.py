"""One view as it is hung, with heat and marks drawn over it.

A panel is drawn in panel pixels, continuous, (x, y) = (column, row). The right breast hangs with its chest wall on the
right edge, the left breast on the left, however the image was stored and whatever the model saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from node.errors import EncodeError
from node.mammography.findings import FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import Laterality
from node.results.orientation import is_upside_down
from node.results.reading import ViewReading

Colour = tuple[int, int, int]
KIND_COLOURS: dict[FindingKind, Colour] = {
    FindingKind.MASS: (64, 224, 255),
    FindingKind.SUSPICIOUS_CALCIFICATION: (186, 255, 96),
    FindingKind.ARCHITECTURAL_DISTORTION: (255, 255, 255),
    FindingKind.ASYMMETRY: (255, 160, 235),
}
"""Contours and labels: none of them a colour of the heat scale."""

HEAT_FULL = 1.5
"""Heat shown in the scale's last colour; 1.0 is the median peak at true lesions of the validation set."""
HEAT_CLEAR = 0.15
"""Heat up to which the overlay is clear."""
HEAT_OPACITY = 0.45

_SCALE = np.array(
    [(40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164)],
    dtype=np.float32,
)
"""Perceptually ordered dark to light: points of a blackbody-like scale, dark purple to pale yellow."""

_SUPERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """One region as it is drawn: `number` is that of the lesion, the same in each view that shows it."""

    contour: tuple[tuple[float, float], ...]
    """As `Finding.contour`: closed, stored pixels."""
    number: int
    label: str
    """For example "Mass 0.87"."""
    colour: Colour


@dataclass(frozen=True, slots=True)
class PanelMap:
    """Where a view lies in its panel: model box, panel box, and whether it is drawn flipped or upside down."""

    model_box: tuple[float, float, float, float]
    """(left, top, right, bottom) of the image's content in model pixels."""
    panel_box: tuple[float, float, float, float]
    """The same in panel pixels."""
    flipped: bool
    """Left to right, as against the model image."""
    upside_down: bool = False
    """Top to bottom."""

    def to_panel(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Model points (N, 2) of (x, y) to panel pixels."""
        left, top, right, bottom = self.model_box
        panel_left, panel_top, panel_right, panel_bottom = self.panel_box
        across = (points[:, 0] - left) / (right - left)
        down = (points[:, 1] - top) / (bottom - top)
        across = 1.0 - across if self.flipped else across
        down = 1.0 - down if self.upside_down else down
        x = panel_left + across * (panel_right - panel_left)
        y = panel_top + down * (panel_bottom - panel_top)
        return np.stack([x, y], axis=1)


def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: the same on every machine."""
    return ImageFont.load_default(size_px)


def content_size(placement: Placement) -> tuple[int, int]:
    """(width, height) of the part of the stored image that the model saw, in stored pixels."""
    return placement.crop_right - placement.crop_left, placement.crop_bottom - placement.crop_top


def panel_map(view: ViewReading, width: int, height: int, panel_px_per_stored_px: float) -> PanelMap:
    """The view at the given scale, its chest wall on the panel's inner edge, in the middle of the panel's height."""
    place = view.placement
    corners = np.array(
        [(place.crop_left, place.crop_top), (place.crop_right, place.crop_bottom)],
        dtype=np.float64,
    )
    model = place.to_model(corners)
    left, top = np.maximum(model.min(axis=0), 0.0)
    right, bottom = np.minimum(model.max(axis=0), (place.model_columns, place.model_rows))
    content_width, content_height = content_size(place)
    drawn_width, drawn_height = content_width * panel_px_per_stored_px, content_height * panel_px_per_stored_px
    wall_at_right = view.view.laterality is Laterality.RIGHT
    panel_left = width - drawn_width if wall_at_right else 0.0
    panel_top = (height - drawn_height) / 2
    box = (float(left), float(top), float(right), float(bottom))
    flipped = _wall_is_left(view.display, box) == wall_at_right
    panel_box = (panel_left, panel_top, panel_left + drawn_width, panel_top + drawn_height)
    return PanelMap(box, panel_box, flipped, is_upside_down(view.orientation, view.view))


def _wall_is_left(display: NDArray[np.float32], box: tuple[float, float, float, float]) -> bool:
    """Whether more tissue lies along the content's left edge than along its right edge."""
    left, top, right, bottom = (round(value) for value in box)
    content = display[top:bottom, left:right]
    edge = max(1, content.shape[1] // 6)
    return float(content[:, :edge].mean()) >= float(content[:, -edge:].mean())


def draw_panel(
    view: ViewReading, marks: Sequence[Mark], width: int, height: int, scale: float, enlarged: float = 1.0
) -> Image.Image:
    """RGB panel of one view: grey image, heat, and for each mark a contour, the corners of its box, and a label.

    `scale`: panel pixels for one stored pixel. `enlarged`: factor on the size of lines and letters.
    """
    if view.heatmap is not None and view.heatmap.shape[1:] != view.display.shape:
        raise EncodeError(f"heat of {view.view} is not registered on the model's pixels: {view.heatmap.shape}")
    where = panel_map(view, width, height, scale)
    panel = Image.new("RGB", (width, height))
    left, top, right, bottom = (round(value) for value in where.panel_box)
    size = (max(1, right - left), max(1, bottom - top))
    grey = Image.fromarray(np.round(np.clip(view.display, 0.0, 1.0) * 255.0).astype(np.uint8))
    picture = _placed(grey, where, size, Image.Resampling.BICUBIC).convert("RGB")
    panel.paste(picture, (left, top))
    if view.heatmap is not None and len(view.heatmap):
        heat = Image.fromarray(np.ascontiguousarray(view.heatmap.max(axis=0), dtype=np.float32))
        colours, opacity = heat_colours(np.asarray(_placed(heat, where, size, Image.Resampling.BILINEAR)))
        panel.paste(Image.fromarray(colours), (left, top), Image.fromarray(opacity))
    _draw_marks(panel, view, marks, where, enlarged)
    return panel


def _placed(image: Image.Image, where: PanelMap, size: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    """The content of a model image, resized for the panel and flipped where the panel is."""
    picture = image.resize(size, filter_, box=where.model_box)
    if where.flipped:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if where.upside_down else picture


def heat_colours(heat: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Heat (h, w) to colours (h, w, 3) and opacity (h, w); clear up to HEAT_CLEAR."""
    colours, opacity = _heat_tables()
    index = (np.clip(heat, 0.0, HEAT_FULL) * np.float32(255.0 / HEAT_FULL)).astype(np.uint8)
    return colours[index], opacity[index]


@cache
def _heat_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours (256, 3) and opacity (256,) for heat from 0 to HEAT_FULL."""
    heat = np.linspace(0.0, HEAT_FULL, 256)
    points = np.linspace(0.0, HEAT_FULL, len(_SCALE))
    colours = np.stack([np.interp(heat, points, _SCALE[:, channel]) for channel in range(3)], axis=1)
    ramp = np.clip((heat - HEAT_CLEAR) / (0.7 - HEAT_CLEAR), 0.0, 1.0)
    opacity = HEAT_OPACITY * ramp * ramp * (3.0 - 2.0 * ramp)
    return np.round(colours).astype(np.uint8), np.round(opacity * 255.0).astype(np.uint8)


def _draw_marks(panel: Image.Image, view: ViewReading, marks: Sequence[Mark], where: PanelMap, enlarged: float) -> None:
    """Drawn larger and reduced, so that lines are smooth. No label stands on a finding or on another label."""
    if not marks:
        return
    layer = Image.new("RGBA", (panel.width * _SUPERSAMPLING, panel.height * _SUPERSAMPLING))
    pen = _Pen(ImageDraw.Draw(layer), _SUPERSAMPLING, enlarged, panel.size)
    contours = [where.to_panel(view.placement.to_model(np.array(mark.contour))) for mark in marks]
    boxes = [_box_of(contour) for contour in contours]
    taken = list(boxes)
    for mark, contour, box in zip(marks, contours, boxes, strict=True):
        pen.line([(float(x), float(y)) for x, y in contour], mark.colour)
        _draw_corners(pen, box, mark.colour)
        taken.append(_draw_label(pen, box, mark, taken, view.view.laterality))
    smooth = layer.reduce(_SUPERSAMPLING)
    panel.paste(smooth.convert("RGB"), (0, 0), smooth.getchannel("A"))


PanelBox = tuple[float, float, float, float]
"""(left, top, right, bottom) in panel pixels."""


@dataclass(frozen=True, slots=True)
class _Pen:
    """Draws in panel pixels on a layer that is `factor` times as large."""

    draw: ImageDraw.ImageDraw
    factor: int
    enlarged: float
    panel_size: tuple[int, int]

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width_px: float = 2.0) -> None:
        """A line with a dark rim."""
        at = [(x * self.factor, y * self.factor) for x, y in points]
        width = round(width_px * self.enlarged * self.factor)
        self.draw.line(at, fill=(0, 0, 0, 150), width=2 * width, joint="curve")
        self.draw.line(at, fill=(*colour, 255), width=width, joint="curve")

    def font(self, size_px: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """The typeface at this size in panel pixels."""
        return font(round(size_px * self.factor))

    def text_width(self, text: str, size_px: float) -> float:
        """In panel pixels."""
        return self.draw.textlength(text, font=self.font(size_px)) / self.factor

    def scaled(self, box: PanelBox) -> PanelBox:
        """The box on the layer."""
        left, top, right, bottom = (value * self.factor for value in box)
        return left, top, right, bottom


def _box_of(contour: NDArray[np.float64]) -> PanelBox:
    (left, top), (right, bottom) = contour.min(axis=0), contour.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _draw_corners(pen: _Pen, box: PanelBox, colour: Colour) -> None:
    """The box's four corners, a little outside the contour."""
    gap, arm = 6 * pen.enlarged, 12 * pen.enlarged
    left, top, right, bottom = box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap
    for x, towards_x in ((left, arm), (right, -arm)):
        for y, towards_y in ((top, arm), (bottom, -arm)):
            pen.line([(x + towards_x, y), (x, y), (x, y + towards_y)], colour)


def _draw_label(pen: _Pen, box: PanelBox, mark: Mark, taken: Sequence[PanelBox], side: Laterality) -> PanelBox:
    """The label beside the box, towards the nipple, where nothing else stands, with a line to the box."""
    colour = mark.colour
    unit, letters = pen.enlarged, 20 * pen.enlarged
    width, height = pen.text_width(mark.label, letters) + 46 * unit, 30 * unit
    is_left = side is Laterality.RIGHT
    x = box[0] - 34 * unit - width if is_left else box[2] + 34 * unit
    x = min(max(x, 4.0), pen.panel_size[0] - width - 4)
    y = min(max((box[1] + box[3] - height) / 2, 4.0), pen.panel_size[1] - height - 4)
    place = _free_place((x, y, x + width, y + height), taken, pen.panel_size[1])
    middle = (place[1] + place[3]) / 2
    from_box = (box[0] - 6 * unit if is_left else box[2] + 6 * unit, (box[1] + box[3]) / 2)
    pen.line([from_box, (place[2] if is_left else place[0], middle)], colour, 1.0)
    left, top, right, bottom = pen.scaled(place)
    rim = round(pen.factor * unit)
    pen.draw.rounded_rectangle(
        (left, top, right, bottom), radius=5 * rim, fill=(12, 14, 18, 225), outline=(*colour, 255), width=rim
    )
    disc = (place[0] + 4 * unit, place[1] + 4 * unit, place[0] + 26 * unit, place[3] - 4 * unit)
    pen.draw.ellipse(pen.scaled(disc), fill=(*colour, 255))
    on_disc = ((disc[0] + disc[2]) / 2 * pen.factor, middle * pen.factor)
    pen.draw.text(on_disc, str(mark.number), font=pen.font(0.85 * letters), fill=(12, 14, 18, 255), anchor="mm")
    at = ((place[0] + 34 * unit) * pen.factor, middle * pen.factor)
    pen.draw.text(at, mark.label, font=pen.font(letters), fill=(*colour, 255), anchor="lm")
    return place


def _free_place(place: PanelBox, taken: Sequence[PanelBox], height: int) -> PanelBox:
    """`place`, or the nearest one above or below it that overlaps nothing that is taken and lies in the panel."""
    left, top, right, bottom = place
    for step in range(100):
        for direction in (1, -1):
            shift = direction * step * 10.0
            moved = (left, top + shift, right, bottom + shift)
            inside = moved[1] >= 0 and moved[3] <= height
            if inside and not any(_overlap(moved, other) for other in taken):
                return moved
    return place


def _overlap(a: PanelBox, b: PanelBox) -> bool:
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] + 3 and b[1] < a[3] + 3
