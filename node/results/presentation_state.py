"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): one for each view read, marks and words on it.

A view without findings has one too: it says that nothing was marked, so that silence is explained.
Graphics are in PIXEL units, 0.0\\0.0 is the top-left corner of the top-left pixel (PS3.3 C.10.5); only the Displayed
Area counts pixels from 1\\1 (C.10.4).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from node.mammography.findings import Box, Finding
from node.mammography.views import Laterality, View
from node.results import names, uids
from node.results.document import (
    DISCLAIMER,
    instance_reference,
    later_reading_words,
    new_document,
    series_references,
    source_of,
    to_result,
)
from node.results.grayscale import add_grayscale
from node.results.reading import EncodedResult, Reading, ResultKind, ViewReading
from node.results.text_places import text_box

SERIES_DESCRIPTION = "AI mammography marks (research)"
MARKS_LAYER, TEXT_LAYER = "AI_MARKS", "AI_TEXT"

_LAYERS = (
    (MARKS_LAYER, "Contours and centres of AI findings", (54203, 25030, 26012)),
    (TEXT_LAYER, "Words on AI findings", (53225, 36400, 47638)),
)
"""Name, description, and Recommended Display CIELab Value as PS3.3 C.10.7.1.1 encodes it: cyan and amber."""
_WHITE = 0xFFFF
_TEXT_HEIGHT = 1 / 60
"""Height of a line of text, as a share of the image's longer side."""
_LETTER_WIDTH = 0.62
"""Width of a letter, as a share of the height of a line: generous for any typeface."""


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> tuple[EncodedResult, ...]:
    """One presentation state for each view read, in the order of the views."""
    return tuple(_encode_view(reading, view, sources) for view in reading.views)


def _encode_view(reading: Reading, view: ViewReading, sources: Mapping[View, Dataset]) -> EncodedResult:
    source = source_of(view, sources)
    dataset = new_document(
        reading,
        sources,
        ResultKind.PRESENTATION_STATE,
        GrayscaleSoftcopyPresentationStateStorage,
        SERIES_DESCRIPTION,
        view.view,
    )
    dataset.Modality = "PR"
    _make_series_of_one_side(dataset, reading, view.view.laterality)
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime
    dataset.pop("CodingSchemeIdentificationSequence", None)
    dataset.ContentLabel = f"AI_{view.view.name}"
    dataset.ContentDescription = DISCLAIMER
    dataset.ContentCreatorName = "mammoclip^node"
    dataset.ReferencedSeriesSequence = series_references([source], "ReferencedImageSequence")
    dataset.DisplayedAreaSelectionSequence = [_whole_image(view, source)]
    dataset.GraphicLayerSequence = [_layer(order, *layer) for order, layer in enumerate(_LAYERS, start=1)]
    dataset.GraphicAnnotationSequence = _annotations(reading, view, source)
    add_grayscale(dataset, source)
    return to_result(dataset, ResultKind.PRESENTATION_STATE)


def _make_series_of_one_side(dataset: Dataset, reading: Reading, side: Laterality) -> None:
    """Laterality (0020,0060) is asked for (2C) and belongs to the series, so each breast has its own."""
    dataset.Laterality = side.value
    dataset.SeriesInstanceUID = uids.series_uid(reading, ResultKind.PRESENTATION_STATE, f"side {side.value}")


def _whole_image(view: ViewReading, source: Dataset) -> Dataset:
    """An item of Displayed Area Selection Sequence: all of the image, as large as it fits."""
    item = Dataset()
    item.ReferencedImageSequence = [instance_reference(source)]
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [view.columns, view.rows]
    item.PresentationSizeMode = "SCALE TO FIT"
    if view.spacing_mm is None:
        item.PresentationPixelAspectRatio = [1, 1]
    else:
        item.PresentationPixelSpacing = [f"{spacing:.6g}" for spacing in view.spacing_mm]
    return item


def _layer(order: int, name: str, description: str, colour: tuple[int, int, int]) -> Dataset:
    item = Dataset()
    item.GraphicLayer = name
    item.GraphicLayerOrder = order
    item.GraphicLayerRecommendedDisplayGrayscaleValue = _WHITE
    item.GraphicLayerRecommendedDisplayCIELabValue = list(colour)
    item.GraphicLayerDescription = description
    return item


def _annotations(reading: Reading, view: ViewReading, source: Dataset) -> list[Dataset]:
    """The marks of all findings in one item of Graphic Annotation Sequence, all words in another."""
    findings = [finding for finding in reading.findings if finding.view == view.view]
    line_px = max(view.rows, view.columns) * _TEXT_HEIGHT
    marks = [graphic for finding in findings for graphic in _marks(view, finding, line_px)]
    words = _annotation(source, TEXT_LAYER)
    words.TextObjectSequence = _texts(reading, view, source, line_px)
    if not marks:
        return [words]
    drawn = _annotation(source, MARKS_LAYER)
    drawn.GraphicObjectSequence = marks
    return [drawn, words]


def _annotation(source: Dataset, layer: str) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = [instance_reference(source)]
    item.GraphicLayer = layer
    return item


def _marks(view: ViewReading, finding: Finding, line_px: float) -> list[Dataset]:
    """Contour, centre, and a cross through the centre, for viewers that draw a point as one pixel."""
    x, y = finding.centre
    arm = line_px / 3
    return [
        _graphic(view, "POLYLINE", finding.contour),
        _graphic(view, "POINT", [(x, y)]),
        _graphic(view, "POLYLINE", [(x - arm, y), (x + arm, y)]),
        _graphic(view, "POLYLINE", [(x, y - arm), (x, y + arm)]),
    ]


def _graphic(view: ViewReading, graphic_type: str, points: Sequence[tuple[float, float]]) -> Dataset:
    """An item of Graphic Object Sequence; points stay inside 0\\0 to Columns\\Rows, as PS3.3 C.10.5.1.2 asks."""
    inside = np.clip(np.array(points, dtype=np.float64), 0.0, (view.columns, view.rows))
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = len(points)
    item.GraphicData = inside.ravel().tolist()
    item.GraphicType = graphic_type
    if graphic_type == "POLYLINE" and points[0] == points[-1]:
        item.GraphicFilled = "N"
    return item


def _texts(reading: Reading, view: ViewReading, source: Dataset, line_px: float) -> list[Dataset]:
    """What each finding is, beside it, and what this is, in a corner. No text covers a lesion where there is room."""
    named = _finding_words(reading, view)
    taken = [_grown(finding.box, line_px / 2) for finding, _ in named]
    items = []
    for finding, lines in named:
        place = text_box(view, _size(lines, line_px), taken, finding.box, line_px)
        taken.append(place)
        items.append(_text(lines, place, _nearest(finding, place)))
    lines = _image_words(reading, view, source)
    return [*items, _text(lines, text_box(view, _size(lines, line_px), taken, None, line_px / 2))]


def _finding_words(reading: Reading, view: ViewReading) -> list[tuple[Finding, list[str]]]:
    """For each finding of the view "1 Mass", "index 0.87", "also in RMLO"."""
    numbers, partners = names.lesion_numbers(reading), names.partners_of(reading)
    words = []
    for index, finding in enumerate(reading.findings):
        if finding.view != view.view:
            continue
        lines = [f"{numbers[index]} {names.KIND_WORDS[finding.kind]}", names.value_words(reading, finding.probability)]
        if index in partners:
            lines.append(f"also in {reading.findings[partners[index]].view.name}")
        words.append((finding, lines))
    return words


def _image_words(reading: Reading, view: ViewReading, source: Dataset) -> list[str]:
    """What holds for the whole view: that it is no diagnosis, that nothing was marked, what was looked for."""
    findings = [finding for finding in reading.findings if finding.view == view.view]
    lines = [DISCLAIMER]
    later = later_reading_words(reading, source)
    if later:
        lines.append(later)
    if not findings:
        lines.append("AI: no region marked")
    if view.finding_probabilities:
        lines.append("looked for: " + ", ".join(names.KIND_WORDS[kind] for kind, _ in view.finding_probabilities))
    if findings and not names.writes_probability(reading):
        lines.append("index 0 to 1, not calibrated on patients")
    return [*lines, *view.flags]


def _size(lines: Sequence[str], line_px: float) -> tuple[float, float]:
    """(width, height) of the lines in stored pixels."""
    return max(map(len, lines)) * _LETTER_WIDTH * line_px, 1.3 * len(lines) * line_px


def _grown(box: Box, by_px: float) -> Box:
    return Box(box.left - by_px, box.top - by_px, box.right + by_px, box.bottom + by_px)


def _nearest(finding: Finding, place: Box) -> tuple[float, float]:
    """The point of the contour that is nearest to the middle of `place`."""
    middle = ((place.left + place.right) / 2, (place.top + place.bottom) / 2)
    return min(finding.contour, key=lambda point: (point[0] - middle[0]) ** 2 + (point[1] - middle[1]) ** 2)


def _text(lines: Sequence[str], place: Box, anchor: tuple[float, float] | None = None) -> Dataset:
    """An item of Text Object Sequence: words in a box, with a line to `anchor` where there is one."""
    item = Dataset()
    item.BoundingBoxAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = "\r\n".join(lines)[:1024]
    item.BoundingBoxTopLeftHandCorner = [place.left, place.top]
    item.BoundingBoxBottomRightHandCorner = [place.right, place.bottom]
    item.BoundingBoxTextHorizontalJustification = "LEFT"
    if anchor is not None:
        item.AnchorPointAnnotationUnits = "PIXEL"
        item.AnchorPoint = list(anchor)
        item.AnchorPointVisibility = "Y"
    return item
