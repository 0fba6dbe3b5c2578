"""The page of pictures: RCC LCC over RMLO LMLO as hung, with heat, marks and values. No patient and no date on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from node.mammography.views import LCC, LMLO, RCC, RMLO, Laterality, View
from node.results import names
from node.results.captions import (
    AMBER,
    DARK,
    GREY,
    HEAT_SCALE_PX,
    LINE,
    WHITE,
    draw_heat_scale,
    draw_kinds,
    draw_view_words,
    draw_wrapped,
    marks_of,
    meaning_words,
    model_words,
    number_words,
)
from node.results.document import DISCLAIMER
from node.results.panel import content_size, draw_panel, font
from node.results.reading import Reading, ViewReading

PANEL_WIDTH, PANEL_HEIGHT = 800, 860
HEADER_HEIGHT, FOOTER_HEIGHT, GAP = 104, 72, 4
PAGE_WIDTH = 2 * PANEL_WIDTH + GAP
PAGE_HEIGHT = HEADER_HEIGHT + 2 * PANEL_HEIGHT + GAP + FOOTER_HEIGHT

_HUNG: tuple[tuple[View, View], tuple[View, View]] = ((RCC, LCC), (RMLO, LMLO))
_MARGIN = 16
_LARGEST_SCALE_RATIO = 1.6
"""Views whose pixels differ more than this are each drawn as large as they fit: another detector or film scan."""


def render_page(reading: Reading, later: str = "") -> NDArray[np.uint8]:
    """The page as RGB (PAGE_HEIGHT, PAGE_WIDTH, 3). `later`: document.later_reading_words of a later reading."""
    page = Image.new("RGB", (PAGE_WIDTH, PAGE_HEIGHT), DARK)
    draw = ImageDraw.Draw(page)
    _draw_header(draw, reading, later)
    scales = _scales(reading.views)
    for row, pair in enumerate(_HUNG):
        for column, view in enumerate(pair):
            at = column * (PANEL_WIDTH + GAP), HEADER_HEIGHT + row * (PANEL_HEIGHT + GAP)
            page.paste(_panel(reading, view, scales), at)
    _draw_footer(page, draw, reading)
    return np.asarray(page, dtype=np.uint8).copy()


def fitting_scale(view: ViewReading, width: int, height: int) -> float:
    """Panel pixels for one stored pixel at which the view just fits."""
    content_width, content_height = content_size(view.placement)
    return min(width / content_width, height / content_height)


def _scales(views: Sequence[ViewReading]) -> dict[View, float]:
    """One scale for all views, so that sizes compare, unless their pixels differ too much."""
    scales = {view.view: fitting_scale(view, PANEL_WIDTH, PANEL_HEIGHT) for view in views}
    smallest, largest = min(scales.values(), default=1.0), max(scales.values(), default=1.0)
    if largest <= _LARGEST_SCALE_RATIO * smallest:
        return dict.fromkeys(scales, smallest)
    return scales


def _panel(reading: Reading, view: View, scales: dict[View, float]) -> Image.Image:
    """The view as read, or why it was not."""
    read = next((known for known in reading.views if known.view == view), None)
    if read is not None:
        return _view_panel(reading, read, scales[view])
    unread = next((known for known in reading.unread if known.view == view), None)
    if unread is not None:
        return _empty_panel(f"{view.name} not read:", unread.reason)
    return _empty_panel(f"not assessed: {view.name}", "no image of this view was read")


def _view_panel(reading: Reading, view: ViewReading, scale: float) -> Image.Image:
    panel = draw_panel(view, marks_of(reading, view.view), PANEL_WIDTH, PANEL_HEIGHT, scale)
    x = _MARGIN if view.view.laterality is Laterality.RIGHT else PANEL_WIDTH - _MARGIN
    draw_view_words(ImageDraw.Draw(panel), reading, view, x, 12)
    return panel


def _empty_panel(title: str, reason: str) -> Image.Image:
    panel = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT))
    draw = ImageDraw.Draw(panel)
    draw.rectangle((24, 24, PANEL_WIDTH - 25, PANEL_HEIGHT - 25), outline=LINE, width=2)
    centre = (PANEL_WIDTH / 2, PANEL_HEIGHT / 2)
    draw.text(centre, title, font=font(34), fill=AMBER, anchor="ms")
    draw_wrapped(draw, (centre[0], centre[1] + 14), reason, 20, GREY, PANEL_WIDTH - 100)
    return panel


def _draw_header(draw: ImageDraw.ImageDraw, reading: Reading, later: str) -> None:
    draw.text((_MARGIN, 14), later or "AI reading of mammograms", font=font(34), fill=AMBER if later else WHITE)
    draw.text((_MARGIN, 62), meaning_words(reading), font=font(22), fill=AMBER)
    right, left = reading.breasts
    tiles = [("Exam", reading.exam_probability), ("Right breast", right.probability), ("Left breast", left.probability)]
    width = 330
    for index, (title, probability) in enumerate(tiles):
        x = PAGE_WIDTH - _MARGIN - (len(tiles) - index) * width + 20
        _draw_tile(draw, x, width - 20, title, probability, names.writes_probability(reading))


def _draw_tile(
    draw: ImageDraw.ImageDraw, x: int, width: int, title: str, probability: float | None, as_probability: bool
) -> None:
    """Title, value, and a bar as long as the value."""
    draw.text((x, 16), title, font=font(22), fill=GREY)
    size_px = 22 if probability is None else 36
    draw.text((x + width, 46), number_words(probability, as_probability), font=font(size_px), fill=WHITE, anchor="rs")
    draw.rectangle((x, 70, x + width, 82), fill=LINE)
    if probability is not None:
        draw.rectangle((x, 70, x + round(width * probability), 82), fill=WHITE)


def _draw_footer(page: Image.Image, draw: ImageDraw.ImageDraw, reading: Reading) -> None:
    top = PAGE_HEIGHT - FOOTER_HEIGHT
    draw.text((_MARGIN, top + 8), DISCLAIMER, font=font(26), fill=AMBER)
    draw.text((_MARGIN, top + 42), model_words(reading), font=font(18), fill=GREY)
    draw_heat_scale(page, draw, PAGE_WIDTH - _MARGIN - HEAT_SCALE_PX, top + 12)
    kinds = list(dict.fromkeys(kind for view in reading.views for kind, _ in view.finding_probabilities))
    above_model_words = len(kinds) > 2  # more names than fit beside those of the model
    draw_kinds(draw, kinds, PAGE_WIDTH - 360.0, top + (12 if above_model_words else 28))
