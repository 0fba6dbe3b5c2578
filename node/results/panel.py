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
from node.mammography.findings import Finding, FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import Laterality
from node.results.names import KIND_WORDS
from node.results.reading import ViewReading

KIND_COLOURS: dict[FindingKind, tuple[int, int, int]] = {
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
class PanelMap:
    """Where a view lies in its panel: model box, panel box, and whether it is drawn flipped left to right."""

    model_box: tuple[float, float, float, float]
    """(left, top, right, bottom) of the image's content in model pixels."""
    panel_box: tuple[float, float, float, float]
    flipped: bool

    def to_panel(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Model points (N, 2) of (x, y) to panel pixels."""
        left, top, right, bottom = self.model_box
        panel_left, panel_top, panel_right, panel_bottom = self.panel_box
        across = (points[:, 0] - left) / (right - left)
        down = (points[:, 1] - top) / (bottom - top)
        across = 1.0 - across if self.flipped else across
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
    return PanelMap(box, (panel_left, panel_top, panel_left + drawn_width, panel_top + drawn_height), flipped)


def _wall_is_left(display: NDArray[np.float32], box: tuple[float, float, float, float]) -> bool:
    """Whether more tissue lies along the content's left edge than along its right edge."""
    left, top, right, bottom = (round(value) for value in box)
    content = display[top:bottom, left:right]
    edge = max(1, content.shape[1] // 6)
    return float(content[:, :edge].mean()) >= float(content[:, -edge:].mean())


def draw_panel(
    view: ViewReading, findings: Sequence[Finding], labels: Sequence[str], width: int, height: int, scale: float
) -> Image.Image:
    """RGB panel of one view: grey image, heat, a contour with the corners of its box, and a label for each finding."""
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
    _draw_marks(panel, view, findings, labels, where)
    return panel


def _placed(image: Image.Image, where: PanelMap, size: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    """The content of a model image, resized for the panel and flipped where the panel is."""
    resized = image.resize(size, filter_, box=where.model_box)
    return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if where.flipped else resized


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


def _draw_marks(
    panel: Image.Image, view: ViewReading, findings: Sequence[Finding], labels: Sequence[str], where: PanelMap
) -> None:
    if not findings:
        return
    factor = _SUPERSAMPLING
    layer = Image.new("RGBA", (panel.width * factor, panel.height * factor))
    draw = ImageDraw.Draw(layer)
    taken: list[tuple[float, float, float, float]] = []
    for finding, label in zip(findings, labels, strict=True):
        contour = where.to_panel(view.placement.to_model(np.array(finding.contour)))
        colour = KIND_COLOURS[finding.kind]
        _draw_contour(draw, contour * factor, colour, factor)
        box = (*contour.min(axis=0), *contour.max(axis=0))
        _draw_corners(draw, tuple(float(value) * factor for value in box), colour, factor)
        _draw_label(draw, box, label, colour, panel.size, taken, view.view.laterality, factor)
    smooth = layer.reduce(factor)
    panel.paste(smooth.convert("RGB"), (0, 0), smooth.getchannel("A"))


def _draw_contour(
    draw: ImageDraw.ImageDraw, contour: NDArray[np.float64], colour: tuple[int, int, int], factor: int
) -> None:
    points = [(float(x), float(y)) for x, y in contour]
    draw.line(points, fill=(0, 0, 0, 150), width=4 * factor, joint="curve")
    draw.line(points, fill=(*colour, 255), width=2 * factor, joint="curve")


def _draw_corners(draw: ImageDraw.ImageDraw, box: tuple[float, ...], colour: tuple[int, int, int], factor: int) -> None:
    """The box's four corners, a little outside the contour."""
    gap, arm = 6 * factor, 12 * factor
    left, top, right, bottom = box[0] - gap, box[1] - gap, box[2] + gap, box[3] + gap
    for x, towards_x in ((left, arm), (right, -arm)):
        for y, towards_y in ((top, arm), (bottom, -arm)):
            line = [(x + towards_x, y), (x, y), (x, y + towards_y)]
            draw.line(line, fill=(0, 0, 0, 150), width=4 * factor)
            draw.line(line, fill=(*colour, 255), width=2 * factor)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, ...],
    label: str,
    colour: tuple[int, int, int],
    panel_size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
    side: Laterality,
    factor: int,
) -> None:
    """The label beside the box, towards the nipple, where no other label stands, with a line to the box."""
    typeface = font(20 * factor)
    text_width = draw.textlength(label, font=typeface) / factor + 16
    text_height = 30.0
    outward = -1 if side is Laterality.RIGHT else 1
    x = box[2] + 34 if outward > 0 else box[0] - 34 - text_width
    x = min(max(x, 4.0), panel_size[0] - text_width - 4)
    y = min(max((box[1] + box[3] - text_height) / 2, 4.0), panel_size[1] - text_height - 4)
    place = _free_place((x, y, x + text_width, y + text_height), taken, panel_size[1])
    taken.append(place)
    left, top, right, bottom = (value * factor for value in place)
    anchor = (box[2] + 6 if outward > 0 else box[0] - 6) * factor
    middle = (top + bottom) / 2
    draw.line(
        [(anchor, (box[1] + box[3]) / 2 * factor), (left if outward > 0 else right, middle)],
        fill=(*colour, 255),
        width=factor,
    )
    draw.rounded_rectangle(
        (left, top, right, bottom), radius=5 * factor, fill=(12, 14, 18, 225), outline=(*colour, 255), width=factor
    )
    draw.text((left + 8 * factor, middle), label, font=typeface, fill=(*colour, 255), anchor="lm")


def _free_place(
    place: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]], height: int
) -> tuple[float, float, float, float]:
    """`place`, or the nearest one above or below it that overlaps no other label and lies in the panel."""
    left, top, right, bottom = place
    for step in range(40):
        for direction in (1, -1):
            shift = direction * step * 10.0
            moved = (left, top + shift, right, bottom + shift)
            inside = moved[1] >= 0 and moved[3] <= height
            if inside and not any(_overlap(moved, other) for other in taken):
                return moved
    return place


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] + 3 and b[1] < a[3] + 3


def finding_label(finding: Finding, as_probability: bool) -> str:
    """What stands beside a mark: "Mass 0.87", or "Mass 87 %" for a calibrated probability."""
    value = f"{100 * finding.probability:.0f} %" if as_probability else f"{finding.probability:.2f}"
    return f"{KIND_WORDS[finding.kind]} {value}"
