"""The page of pictures: RCC LCC over RMLO LMLO as hung, with heat, marks and values. No patient and no date on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from node.mammography.findings import Finding
from node.mammography.views import LCC, LMLO, RCC, RMLO, Laterality, View
from node.results import names
from node.results.document import DISCLAIMER
from node.results.panel import (
    HEAT_CLEAR,
    HEAT_FULL,
    KIND_COLOURS,
    content_size,
    draw_panel,
    finding_label,
    font,
    heat_colours,
)
from node.results.reading import Reading, ViewReading

PANEL_WIDTH, PANEL_HEIGHT = 800, 860
HEADER_HEIGHT, FOOTER_HEIGHT, GAP = 104, 72, 4
PAGE_WIDTH = 2 * PANEL_WIDTH + GAP
PAGE_HEIGHT = HEADER_HEIGHT + 2 * PANEL_HEIGHT + GAP + FOOTER_HEIGHT

_HUNG: tuple[tuple[View, View], tuple[View, View]] = ((RCC, LCC), (RMLO, LMLO))
_MARGIN = 16
_LARGEST_SCALE_RATIO = 1.6
"""Views whose pixels differ more than this are each drawn as large as they fit: another detector or film scan."""

_WHITE, _GREY, _DARK, _LINE = (236, 240, 244), (150, 158, 168), (16, 18, 22), (52, 57, 64)
_AMBER = (255, 190, 92)


def render_page(reading: Reading) -> NDArray[np.uint8]:
    """The page as RGB (PAGE_HEIGHT, PAGE_WIDTH, 3)."""
    page = Image.new("RGB", (PAGE_WIDTH, PAGE_HEIGHT), _DARK)
    draw = ImageDraw.Draw(page)
    _draw_header(draw, reading)
    read = {view.view: view for view in reading.views}
    scales = _scales(reading.views)
    for row, pair in enumerate(_HUNG):
        for column, view in enumerate(pair):
            x, y = column * (PANEL_WIDTH + GAP), HEADER_HEIGHT + row * (PANEL_HEIGHT + GAP)
            panel = _view_panel(reading, read[view], scales[view]) if view in read else _missing_panel(view)
            page.paste(panel, (x, y))
    _draw_footer(page, draw, reading)
    return np.asarray(page, dtype=np.uint8).copy()


def render_view(view: ViewReading, findings: Sequence[Finding], *, as_probability: bool = False) -> NDArray[np.uint8]:
    """One view as hung, RGB (PANEL_HEIGHT, PANEL_WIDTH, 3), with its heat and those of `findings` that lie in it."""
    own = [finding for finding in findings if finding.view == view.view]
    labels = [finding_label(finding, as_probability) for finding in own]
    panel = draw_panel(view, own, labels, PANEL_WIDTH, PANEL_HEIGHT, _fitting_scale(view))
    return np.asarray(panel, dtype=np.uint8).copy()


def _fitting_scale(view: ViewReading) -> float:
    """Panel pixels for one stored pixel at which the view just fits."""
    width, height = content_size(view.placement)
    return min(PANEL_WIDTH / width, PANEL_HEIGHT / height)


def _scales(views: Sequence[ViewReading]) -> dict[View, float]:
    """One scale for all views, so that sizes compare, unless their pixels differ too much."""
    scales = {view.view: _fitting_scale(view) for view in views}
    smallest, largest = min(scales.values()), max(scales.values())
    if largest <= _LARGEST_SCALE_RATIO * smallest:
        return dict.fromkeys(scales, smallest)
    return scales


def _view_panel(reading: Reading, view: ViewReading, scale: float) -> Image.Image:
    as_probability = names.writes_probability(reading)
    findings = [finding for finding in reading.findings if finding.view == view.view]
    labels = [finding_label(finding, as_probability) for finding in findings]
    panel = draw_panel(view, findings, labels, PANEL_WIDTH, PANEL_HEIGHT, scale)
    draw = ImageDraw.Draw(panel)
    lines = [
        (f"{names.KIND_WORDS[kind]}  {_number(probability, as_probability)}", _GREY)
        for kind, probability in view.finding_probabilities
    ]
    lines += [(flag, _AMBER) for flag in view.flags]
    _draw_corner_text(draw, view.view, lines)
    return panel


def _missing_panel(view: View) -> Image.Image:
    panel = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT))
    draw = ImageDraw.Draw(panel)
    draw.rectangle((24, 24, PANEL_WIDTH - 25, PANEL_HEIGHT - 25), outline=_LINE, width=2)
    centre = (PANEL_WIDTH / 2, PANEL_HEIGHT / 2)
    draw.text(centre, f"not assessed: {view.name}", font=font(34), fill=_AMBER, anchor="ms")
    draw.text((centre[0], centre[1] + 14), "no image of this view was read", font=font(20), fill=_GREY, anchor="mt")
    return panel


def _draw_corner_text(draw: ImageDraw.ImageDraw, view: View, lines: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    """The view's name and values in the upper outer corner, where the breast is not."""
    is_right = view.laterality is Laterality.RIGHT
    x = _MARGIN if is_right else PANEL_WIDTH - _MARGIN
    anchor = "la" if is_right else "ra"
    _draw_shadowed(draw, (x, 12), view.name, 34, _WHITE, anchor)
    for index, (text, colour) in enumerate(lines):
        _draw_shadowed(draw, (x, 58 + 26 * index), text, 20, colour, anchor)


def _draw_shadowed(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size_px: int,
    colour: tuple[int, int, int],
    anchor: str,
) -> None:
    draw.text(at, text, font=font(size_px), fill=colour, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _number(probability: float | None, as_probability: bool) -> str:
    if probability is None:
        return "not assessed"
    return f"{100 * probability:.0f} %" if as_probability else f"{probability:.2f}"


def _draw_header(draw: ImageDraw.ImageDraw, reading: Reading) -> None:
    as_probability = names.writes_probability(reading)
    draw.text((_MARGIN, 14), "AI reading of mammograms", font=font(34), fill=_WHITE)
    meaning = "Probability of cancer" if as_probability else "Suspicion index 0 to 1, not calibrated on patients"
    draw.text((_MARGIN, 62), meaning, font=font(22), fill=_AMBER)
    right, left = reading.breasts
    tiles = [("Exam", reading.exam_probability), ("Right breast", right.probability), ("Left breast", left.probability)]
    width = 330
    for index, (title, probability) in enumerate(tiles):
        x = PAGE_WIDTH - _MARGIN - (len(tiles) - index) * width + 20
        _draw_tile(draw, x, width - 20, title, probability, as_probability)


def _draw_tile(
    draw: ImageDraw.ImageDraw, x: int, width: int, title: str, probability: float | None, as_probability: bool
) -> None:
    """Title, value, and a bar as long as the value."""
    draw.text((x, 16), title, font=font(22), fill=_GREY)
    size_px = 22 if probability is None else 36
    draw.text((x + width, 46), _number(probability, as_probability), font=font(size_px), fill=_WHITE, anchor="rs")
    draw.rectangle((x, 70, x + width, 82), fill=_LINE)
    if probability is not None:
        draw.rectangle((x, 70, x + round(width * probability), 82), fill=_WHITE)


def _draw_footer(page: Image.Image, draw: ImageDraw.ImageDraw, reading: Reading) -> None:
    top = PAGE_HEIGHT - FOOTER_HEIGHT
    draw.text((_MARGIN, top + 8), DISCLAIMER, font=font(26), fill=_AMBER)
    model = reading.model
    words = f"{model.name} {model.version}   weights {model.weights_hash[:12]}   {model.variant}"
    draw.text((_MARGIN, top + 42), words[:110], font=font(18), fill=_GREY)
    _draw_heat_scale(page, draw, PAGE_WIDTH - _MARGIN - 300, top + 12)
    kinds = dict.fromkeys(kind for view in reading.views for kind, _ in view.finding_probabilities)
    x = PAGE_WIDTH - 360.0
    for kind in reversed(kinds):
        words = names.KIND_WORDS[kind]
        x -= draw.textlength(words, font=font(20)) + 50
        draw.ellipse((x, top + 28, x + 16, top + 44), outline=KIND_COLOURS[kind], width=3)
        draw.text((x + 26, top + 36), words, font=font(20), fill=_WHITE, anchor="lm")


def _draw_heat_scale(page: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """The colours of heat, as they look over black, with 1.0: the median peak at a true lesion."""
    heat = np.tile(np.linspace(0.0, HEAT_FULL, 300, dtype=np.float32), (20, 1))
    colours, _ = heat_colours(np.maximum(heat, HEAT_CLEAR))
    page.paste(Image.fromarray(colours), (x, y))
    for value in (0.0, 0.5, 1.0, 1.5):
        at = x + 300 * value / HEAT_FULL
        draw.text((at, y + 26), f"{value:g}", font=font(16), fill=_GREY, anchor="mt")
    draw.text((x - 10, y + 10), "heat", font=font(18), fill=_GREY, anchor="rm")
