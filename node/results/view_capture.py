"""Secondary Capture (PS3.3 A.8.1) of each view read, as hung: larger than on the page."""

from collections.abc import Mapping

from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from node.mammography.views import View
from node.results.document import DISCLAIMER, later_reading_words, new_document, source_of, to_result
from node.results.orientation import turned
from node.results.reading import EncodedResult, Reading, ResultKind, ViewReading
from node.results.secondary_capture import add_rgb, describe_capture
from node.results.view_picture import picture_map, render_view

SERIES_DESCRIPTION = "AI mammography views (research)"


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> tuple[EncodedResult, ...]:
    """One RGB image for each view read, in the order of the views."""
    return tuple(_encode_view(reading, view, sources) for view in reading.views)


def _encode_view(reading: Reading, view: ViewReading, sources: Mapping[View, Dataset]) -> EncodedResult:
    source = source_of(view, sources)
    kind = ResultKind.VIEW_CAPTURE
    dataset = new_document(reading, sources, kind, SecondaryCaptureImageStorage, SERIES_DESCRIPTION, view.view)
    describe_capture(dataset, reading, [view], sources)
    dataset.DerivationDescription = "View as hung with heat and marks of an AI reading"
    dataset.ImageComments = f"{view.view.name}; {DISCLAIMER}"
    dataset.PatientOrientation = list(hung_orientation(view))
    dataset.ImageLaterality = view.view.laterality.value
    add_rgb(dataset, render_view(reading, view, later_reading_words(reading, source)))
    return to_result(dataset, kind)


def hung_orientation(view: ViewReading) -> tuple[str, ...]:
    """Patient Orientation of the picture, which may be drawn mirrored or upside down as against the stored image."""
    where = picture_map(view)
    return turned(view.orientation, where.flipped is not view.placement.mirrored, where.upside_down)
