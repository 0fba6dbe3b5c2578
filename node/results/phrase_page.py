"""A picture of one phrase asked of an exam: the four views as hung, heat and marks over them. No patient, no date.

A file for whoever asked, never an object for a PACS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from node.mammography.views import LCC, LMLO, RCC, RMLO, Laterality, View
from node.results.captions import AMBER, DARK, GREY, HEAT_SCALE_PX, WHITE, draw_heat_scale, draw_shadowed, draw_wrapped
from node.results.document import DISCLAIMER
from node.results.page import fitting_scale
from node.results.panel import Colour, Mark, draw_panel, font
from node.results.reading import ViewReading

PANEL_WIDTH, PANEL_HEIGHT = 560, 640
HEADER_HEIGHT, FOOTER_HEIGHT, GAP = 92, 64, 4
PAGE_WIDTH = 2 * PANEL_WIDTH + GAP
MARK_COLOUR: Colour = (64, 224, 255)
_HUNG: tuple[tuple[View, View], tuple[View, View]] = ((RCC, LCC), (RMLO, LMLO))
_MARGIN = 14


@dataclass(frozen=True, slots=True, eq=False)
class PhraseView:
    """One view of the picture: what was seen, its marks, and its words from the top down."""

    reading: ViewReading
    marks: tuple[Mark, ...]
    words: tuple[str, ...]


def render_phrase(
    title: str, meaning: str, footer: str, views: Mapping[View, PhraseView], absent: Mapping[View, str]
) -> NDArray[np.uint8]:
    """RGB picture. `absent`: why a view is not in `views`, in words."""
    height = HEADER_HEIGHT + 2 * PANEL_HEIGHT + GAP + FOOTER_HEIGHT
    page = Image.new("RGB", (PAGE_WIDTH, height), DARK)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 12), _cut(draw, title, 30), font=font(30), fill=WHITE)
    draw.text((_MARGIN, 56), _cut(draw, meaning, 18), font=font(18), fill=AMBER)
    for row, pair in enumerate(_HUNG):
        for column, view in enumerate(pair):
            panel = _panel(views[view]) if view in views else _empty(view, absent.get(view, "no image"))
            page.paste(panel, (column * (PANEL_WIDTH + GAP), HEADER_HEIGHT + row * (PANEL_HEIGHT + GAP)))
    top = height - FOOTER_HEIGHT
    draw.text((_MARGIN, top + 8), DISCLAIMER, font=font(20), fill=AMBER)
    draw.text((_MARGIN, top + 36), footer, font=font(15), fill=GREY)
    draw_heat_scale(page, draw, PAGE_WIDTH - _MARGIN - HEAT_SCALE_PX, top + 8)
    return np.asarray(page, dtype=np.uint8).copy()


def mark_of(contour: Sequence[tuple[float, float]], number: int, label: str) -> Mark:
    """One region of a phrase as it is drawn."""
    return Mark(tuple(contour), number, label, MARK_COLOUR)


def _panel(view: PhraseView) -> Image.Image:
    scale = fitting_scale(view.reading, PANEL_WIDTH, PANEL_HEIGHT)
    panel = draw_panel(view.reading, view.marks, PANEL_WIDTH, PANEL_HEIGHT, scale)
    right = view.reading.view.laterality is Laterality.RIGHT
    x, anchor = (_MARGIN, "la") if right else (PANEL_WIDTH - _MARGIN, "ra")
    draw = ImageDraw.Draw(panel)
    draw_shadowed(draw, (x, 10), view.reading.view.name, 28, WHITE, anchor)
    for index, words in enumerate(view.words):
        draw_shadowed(draw, (x, 46 + 22 * index), words, 17, GREY, anchor)
    return panel


def _empty(view: View, why: str) -> Image.Image:
    panel = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT))
    draw = ImageDraw.Draw(panel)
    centre = (PANEL_WIDTH / 2, PANEL_HEIGHT / 2)
    draw.text(centre, f"not asked: {view.name}", font=font(26), fill=AMBER, anchor="ms")
    draw_wrapped(draw, (centre[0], centre[1] + 12), why, 17, GREY, PANEL_WIDTH - 80)
    return panel


def _cut(draw: ImageDraw.ImageDraw, text: str, size_px: int) -> str:
    """The text, cut to the picture's width."""
    width = PAGE_WIDTH - 2 * _MARGIN
    while draw.textlength(text, font=font(size_px)) > width:
        text = f"{text[:-4]}..."
    return text
