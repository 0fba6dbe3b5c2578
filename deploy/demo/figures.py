"""Pictures for the report: the node's own Secondary Capture as the PACS holds it, and its marks beside the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont

from deploy.demo.cases import DemoExam
from deploy.demo.outcome import Mark
from node.mammography.findings import Box
from node.mammography.pixels import display_values
from node.mammography.views import LCC, LMLO, RCC, RMLO, View

HANGING: tuple[View, ...] = (RCC, LCC, RMLO, LMLO)
"""RCC LCC over RMLO LMLO."""
TRUTH_COLOUR = (64, 224, 208)
MARK_COLOUR = (255, 176, 0)
_PANEL = (560, 700)
"""Width and height of one view, pixels."""
_GAP = 4


def save_capture(path: Path, target: Path) -> tuple[int, int]:
    """The Secondary Capture at `path` as a PNG; its width and height in pixels."""
    image = Image.fromarray(pydicom.dcmread(path).pixel_array)
    image.save(target)
    return image.size


def save_comparison(exam: DemoExam, marks: Sequence[Mark], target: Path) -> tuple[int, int]:
    """The exam as sent, four views as hung; truth dashed, the node's marks solid. Width and height in pixels.

    Drawn from the sent pixels and the node's coordinates in stored pixels, so a mirrored mark would show.
    """
    width, height = _PANEL
    page = Image.new("RGB", (2 * width + _GAP, 2 * height + _GAP), (40, 40, 40))
    for path, view in zip(exam.files, exam.views, strict=True):
        place = HANGING.index(view)
        panel = _panel(pydicom.dcmread(path), view, exam, marks)
        page.paste(panel, ((place % 2) * (width + _GAP), (place // 2) * (height + _GAP)))
    page.save(target)
    return page.size


def _panel(dataset: pydicom.Dataset, view: View, exam: DemoExam, marks: Sequence[Mark]) -> Image.Image:
    pixels = display_values(dataset)
    scale = min(_PANEL[0] / pixels.shape[1], _PANEL[1] / pixels.shape[0])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    grey = Image.fromarray((np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8))
    small = grey.resize(size, Image.Resampling.BOX, reducing_gap=2.0).convert("RGB")
    panel = Image.new("RGB", _PANEL)
    # Chest walls meet in the middle of the page.
    left = _PANEL[0] - size[0] if view.laterality.value == "R" else 0
    panel.paste(small, (left, 0))
    draw = ImageDraw.Draw(panel)
    for truth in exam.lesions:
        if truth.view == view.name:
            _dashed(draw, _on_panel(truth.box, scale, left))
    for mark in marks:
        if mark.view == view.name:
            draw.rectangle(_on_panel(mark.box, scale, left), outline=MARK_COLOUR, width=2)
    corner = 8 if view.laterality.value == "R" else _PANEL[0] - 70
    draw.text((corner, 8), view.name, fill=(255, 255, 255), font=ImageFont.load_default(20))
    return panel


def _on_panel(box: Box, scale: float, left: int) -> tuple[float, float, float, float]:
    """A box a little outside its content, at least 8 pixels wide."""
    x0, y0, x1, y1 = left + box.left * scale, box.top * scale, left + box.right * scale, box.bottom * scale
    grow_x, grow_y = max(3.0, (8 - (x1 - x0)) / 2), max(3.0, (8 - (y1 - y0)) / 2)
    return x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], dash: int = 7) -> None:
    x0, y0, x1, y1 = box
    for start, end in (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))):
        line = np.array(end) - np.array(start)
        count = max(1, int(np.hypot(*line) / dash))
        for index in range(0, count, 2):
            piece = [tuple(np.array(start) + line * (index + k) / count) for k in (0, 1)]
            draw.line([(float(x), float(y)) for x, y in piece], fill=TRUTH_COLOUR, width=2)
