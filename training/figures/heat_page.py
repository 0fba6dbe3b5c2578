"""A page to look at: views with their heat, the outlines of what is there, and the marks that the model sets.

`heatmaps.html` shows each view twice, plain and with heat; `heatmaps.png` is the same as one sheet.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from training.localisation import Box

HEIGHT_PX = 420
"""Of one picture."""
TRUTH, MARK = (64, 220, 120), (255, 255, 255)
_FULL_HEAT = 1.5
"""Heat shown in the last colour; 1.0 is the median peak at true lesions of validation."""
_CLEAR = 0.2
"""Part of the full heat up to which nothing is coloured."""
_RAMP = np.array([(120, 40, 160), (220, 50, 60), (250, 140, 20), (255, 235, 90)], np.float64)
_CAPTION_PX, _GAP_PX, _COLUMNS = 54, 10, 4

HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ background: #16181d; color: #e8e8e8; font: 15px/1.45 system-ui, sans-serif; margin: 24px; }}
main {{ display: flex; flex-wrap: wrap; gap: 18px; }}
figure {{ margin: 0; background: #22252c; padding: 8px; border-radius: 6px; max-width: {width}px; }}
figcaption {{ padding-top: 6px; }}
.truth {{ color: rgb{truth}; }} .mark {{ color: rgb{mark}; }}
</style></head><body><h1>{title}</h1>
<p>{words}</p>
<p><span class="truth">green</span>: what is there. <span class="mark">white</span>: marks of the model. Colours: heat,
from violet to yellow, on one scale for all views, up to {full} times the median peak at true lesions of validation.</p>
<main>
{figures}
</main></body></html>
"""


@dataclass(frozen=True, slots=True, eq=False)
class HeatView:
    """One view and one phrase: `image` uint8 and `heat` >= 0, both (H, W) of model pixels.

    `truth` bool (H, W) or None; boxes are left, top, right, bottom. `title` and `words` name no patient.
    """

    title: str
    words: str
    image: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.floating[Any]]
    truth: npt.NDArray[np.bool_] | None = None
    truth_boxes: Sequence[Box] = ()
    marks: Sequence[Box] = ()


def write_heat_page(folder: Path, title: str, words: str, views: Sequence[HeatView]) -> tuple[Path, Path]:
    """`heatmaps.html`, its pictures in `heatmaps/`, and the sheet `heatmaps.png`. Returns page and sheet."""
    pictures = folder / "heatmaps"
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = [pair(view) for view in views]
    figures = []
    for number, (view, picture) in enumerate(zip(views, drawn, strict=True)):
        name = f"{number:03d}.png"
        picture.save(pictures / name)
        caption = f"<b>{html.escape(view.title)}</b><br>{html.escape(view.words)}"
        alt = html.escape(f"{view.title}: {view.words}", quote=True)
        figures.append(f'<figure><img src="heatmaps/{name}" alt="{alt}"><figcaption>{caption}</figcaption></figure>')
    page, sheet = folder / "heatmaps.html", folder / "heatmaps.png"
    widest = max((picture.width for picture in drawn), default=400)
    page.write_text(
        HTML.format(
            title=html.escape(title),
            words=html.escape(words),
            figures="\n".join(figures),
            width=widest,
            truth=TRUTH,
            mark=MARK,
            full=_FULL_HEAT,
        ),
        encoding="utf-8",
    )
    _sheet(views, drawn).save(sheet)
    return page, sheet


def pair(view: HeatView) -> Image.Image:
    """The plain view with the outline of what is there, and beside it the heat and the marks."""
    plain = np.repeat(view.image[..., None], 3, axis=2)
    scale = HEIGHT_PX / view.image.shape[0]
    left, right = _scaled(plain, scale), _scaled(coloured(view.image, view.heat), scale)
    for picture in (left, right):
        _outline(picture, view, scale)
    _boxes(right, view.marks, scale, MARK)
    both = Image.new("RGB", (left.width + right.width + 2, HEIGHT_PX), (60, 60, 60))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 2, 0))
    return both


def coloured(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Grey with heat over it, uint8 (H, W, 3): clear up to _CLEAR of the full heat."""
    level = np.clip(heat / _FULL_HEAT, 0.0, 1.0).astype(np.float64)
    steps = np.linspace(0.0, 1.0, len(_RAMP))
    colours = np.stack([np.interp(level, steps, _RAMP[:, channel]) for channel in range(3)], axis=2)
    opacity = 0.65 * np.clip((level - _CLEAR) / (1.0 - _CLEAR), 0.0, 1.0)[..., None] ** 0.6
    blended: npt.NDArray[np.uint8] = np.round(image[..., None] * (1.0 - opacity) + colours * opacity).astype(np.uint8)
    return blended


def _scaled(pixels: npt.NDArray[np.uint8], scale: float) -> Image.Image:
    picture = Image.fromarray(pixels)
    return picture.resize((max(1, round(picture.width * scale)), HEIGHT_PX), Image.Resampling.LANCZOS)


def _outline(picture: Image.Image, view: HeatView, scale: float) -> None:
    if view.truth is not None and view.truth.any():
        mask = Image.fromarray(view.truth).resize(picture.size)
        inside = np.asarray(mask, np.bool_)
        edge = ndimage.binary_dilation(inside, iterations=2) & ~ndimage.binary_dilation(inside)
        picture.paste(TRUTH, (0, 0), Image.fromarray(edge))
    _boxes(picture, view.truth_boxes, scale, TRUTH)


def _boxes(picture: Image.Image, boxes: Sequence[Box], scale: float, colour: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(picture)
    for left, top, right, bottom in boxes:
        draw.rectangle((left * scale, top * scale, right * scale, bottom * scale), outline=colour, width=2)


def _sheet(views: Sequence[HeatView], drawn: Sequence[Image.Image]) -> Image.Image:
    """All pairs in rows, their words below them."""
    width = max((picture.width for picture in drawn), default=400)
    columns = min(_COLUMNS, max(1, len(drawn)))
    rows = -(-len(drawn) // columns)
    size = (columns * (width + _GAP_PX) + _GAP_PX, rows * (HEIGHT_PX + _CAPTION_PX + _GAP_PX) + _GAP_PX)
    sheet = Image.new("RGB", size, (22, 24, 29))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, (view, picture) in enumerate(zip(views, drawn, strict=True)):
        x = _GAP_PX + (number % columns) * (width + _GAP_PX)
        y = _GAP_PX + (number // columns) * (HEIGHT_PX + _CAPTION_PX + _GAP_PX)
        sheet.paste(picture, (x, y))
        draw.text((x, y + HEIGHT_PX + 6), view.title, font=font, fill=(232, 232, 232))
        draw.text((x, y + HEIGHT_PX + 28), view.words, font=font, fill=(180, 180, 180))
    return sheet
