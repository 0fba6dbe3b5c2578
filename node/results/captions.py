"""Words and scales around the pictures: the same colours, letters and numbers on the page and on single views."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from node.mammography.findings import FindingKind
from node.mammography.views import Laterality, View
from node.results import names
from node.results.panel import HEAT_CLEAR, HEAT_FULL, KIND_COLOURS, Colour, Mark, font, heat_colours
from node.results.reading import Reading, ViewReading

WHITE, GREY, DARK, LINE = (236, 240, 244), (150, 158, 168), (16, 18, 22), (52, 57, 64)
AMBER = (255, 190, 92)
HEAT_SCALE_PX = 300
"""Width of the scale of heat."""


def marks_of(reading: Reading, view: View) -> tuple[Mark, ...]:
    """The findings of one view as they are drawn: "Mass 0.87", or "Mass 87 %" for a probability."""
    as_probability = names.writes_probability(reading)
    return tuple(
        Mark(
            finding.contour,
            number,
            f"{names.KIND_WORDS[finding.kind]} {number_words(finding.probability, as_probability)}",
            KIND_COLOURS[finding.kind],
        )
        for finding, number in zip(reading.findings, names.lesion_numbers(reading), strict=True)
        if finding.view == view
    )


def number_words(probability: float | None, as_probability: bool) -> str:
    """ "87 %", "0.87" or "not assessed"."""
    if probability is None:
        return "not assessed"
    return f"{100 * probability:.0f} %" if as_probability else f"{probability:.2f}"


def meaning_words(reading: Reading) -> str:
    """What the numbers are."""
    if names.writes_probability(reading):
        return "Probability of cancer"
    return "Suspicion index 0 to 1, not calibrated on patients"


def model_words(reading: Reading) -> str:
    """Which model read."""
    model = reading.model
    return f"{model.name} {model.version}   weights {model.weights_hash[:12]}   {model.variant}"[:110]


def draw_view_words(draw: ImageDraw.ImageDraw, reading: Reading, view: ViewReading, x: int, y: int) -> None:
    """The view's name, its values and flags from (x, y) down, in the upper outer corner, where the breast is not."""
    as_probability = names.writes_probability(reading)
    anchor = "la" if view.view.laterality is Laterality.RIGHT else "ra"
    lines: list[tuple[str, Colour]] = [
        (f"{names.KIND_WORDS[kind]}  {number_words(probability, as_probability)}", GREY)
        for kind, probability in view.finding_probabilities
    ]
    lines += [(flag, AMBER) for flag in view.flags]
    draw_shadowed(draw, (x, y), view.view.name, 34, WHITE, anchor)
    for index, (text, colour) in enumerate(lines):
        draw_shadowed(draw, (x, y + 46 + 26 * index), text, 20, colour, anchor)


def draw_shadowed(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size_px: int, colour: Colour, anchor: str
) -> None:
    """Text with a black rim."""
    draw.text(at, text, font=font(size_px), fill=colour, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def draw_wrapped(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, size_px: int, colour: Colour, width_px: float
) -> None:
    """Text in the middle, from `centre` down, in as many lines as it needs for `width_px`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and draw.textlength(longer, font=font(size_px)) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    for index, line in enumerate(lines):
        at = (centre[0], centre[1] + 1.4 * size_px * index)
        draw.text(at, line, font=font(size_px), fill=colour, anchor="mt")


def draw_heat_scale(page: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """The colours of heat, as they look over black, with 1.0: the median peak at a true lesion."""
    heat = np.tile(np.linspace(0.0, HEAT_FULL, HEAT_SCALE_PX, dtype=np.float32), (20, 1))
    colours, _ = heat_colours(np.maximum(heat, HEAT_CLEAR))
    page.paste(Image.fromarray(colours), (x, y))
    for value in (0.0, 0.5, 1.0, 1.5):
        at = x + HEAT_SCALE_PX * value / HEAT_FULL
        draw.text((at, y + 26), f"{value:g}", font=font(16), fill=GREY, anchor="mt")
    draw.text((x - 10, y + 10), "heat", font=font(18), fill=GREY, anchor="rm")


def draw_kinds(draw: ImageDraw.ImageDraw, kinds: Sequence[FindingKind], right: float, y: int) -> None:
    """The colours of the kinds that were looked for, in a line that ends at `right`."""
    x = right
    for kind in reversed(kinds):
        words = names.KIND_WORDS[kind]
        x -= draw.textlength(words, font=font(20)) + 50
        draw.ellipse((x, y, x + 16, y + 16), outline=KIND_COLOURS[kind], width=3)
        draw.text((x + 26, y + 8), words, font=font(20), fill=WHITE, anchor="lm")
