"""The picture of one view as hung, with heat, marks and words. No patient and no date on it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from node.mammography.views import Laterality
from node.results.captions import (
    AMBER,
    DARK,
    GREY,
    HEAT_SCALE_PX,
    WHITE,
    draw_heat_scale,
    draw_view_words,
    marks_of,
    meaning_words,
    model_words,
)
from node.results.document import DISCLAIMER
from node.results.page import fitting_scale
from node.results.panel import PanelMap, draw_panel, font, panel_map
from node.results.reading import Reading, ViewReading

PANEL_WIDTH, PANEL_HEIGHT = 1000, 1520
"""Twice the rows of the shipped model's input: more would enlarge the file and show no more."""
HEADER_HEIGHT, FOOTER_HEIGHT = 104, 76
ENLARGED = 1.2
_MARGIN = 16


def render_view(reading: Reading, view: ViewReading, later: str = "") -> NDArray[np.uint8]:
    """RGB (HEADER_HEIGHT + PANEL_HEIGHT + FOOTER_HEIGHT, PANEL_WIDTH, 3). `later` as in page.render_page."""
    picture = Image.new("RGB", (PANEL_WIDTH, HEADER_HEIGHT + PANEL_HEIGHT + FOOTER_HEIGHT), DARK)
    draw = ImageDraw.Draw(picture)
    title = later or "AI reading of mammograms"
    draw.text((_MARGIN, 14), title, font=font(34), fill=AMBER if later else WHITE)
    draw.text((_MARGIN, 62), meaning_words(reading), font=font(22), fill=AMBER)
    marks = marks_of(reading, view.view)
    panel = draw_panel(view, marks, PANEL_WIDTH, PANEL_HEIGHT, fitting_scale(view, PANEL_WIDTH, PANEL_HEIGHT), ENLARGED)
    x = _MARGIN if view.view.laterality is Laterality.RIGHT else PANEL_WIDTH - _MARGIN
    draw_view_words(ImageDraw.Draw(panel), reading, view, x, 12)
    picture.paste(panel, (0, HEADER_HEIGHT))
    if not marks:
        draw.text((PANEL_WIDTH - _MARGIN, 40), "no region marked", font=font(26), fill=WHITE, anchor="rm")
    top = HEADER_HEIGHT + PANEL_HEIGHT
    draw.text((_MARGIN, top + 8), DISCLAIMER, font=font(26), fill=AMBER)
    draw.text((_MARGIN, top + 42), model_words(reading), font=font(18), fill=GREY)
    draw_heat_scale(picture, draw, PANEL_WIDTH - _MARGIN - HEAT_SCALE_PX, top + 12)
    return np.asarray(picture, dtype=np.uint8).copy()


def picture_map(view: ViewReading) -> PanelMap:
    """Where the model image lies in the picture's panel, whose top is HEADER_HEIGHT below the picture's."""
    return panel_map(view, PANEL_WIDTH, PANEL_HEIGHT, fitting_scale(view, PANEL_WIDTH, PANEL_HEIGHT))
