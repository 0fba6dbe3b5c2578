"""Secondary Capture (PS3.3 A.8.1) of the page of pictures: what every workstation can show. Modality OT, never MG."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from node.mammography.views import View
from node.results.document import (
    DISCLAIMER,
    copy_lossy_history,
    images_read,
    later_reading_words,
    new_document,
    series_references,
    source_image_reference,
    source_of,
    to_result,
)
from node.results.ours import MANUFACTURER
from node.results.page import render_page
from node.results.reading import EncodedResult, InstanceReference, Reading, ResultKind, ViewReading

SERIES_DESCRIPTION = "AI mammography overview (research)"


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> EncodedResult:
    """The page as one RGB image. It holds no patient's name, number or date: Burned In Annotation is NO."""
    kind = ResultKind.SECONDARY_CAPTURE
    dataset = new_document(reading, sources, kind, SecondaryCaptureImageStorage, SERIES_DESCRIPTION)
    describe_capture(dataset, reading, reading.views, sources)
    dataset.DerivationDescription = "Views as hung with heat and marks of an AI reading"
    dataset.ImageComments = DISCLAIMER
    dataset.PatientOrientation = []
    sides = {view.view.laterality.value for view in reading.views}
    # Told here, as Laterality of the series (2C) knows no value for both sides (PS3.3 C.7.3.1, C.7.6.1).
    dataset.ImageLaterality = sides.pop() if len(sides) == 1 else "B"
    add_rgb(dataset, render_page(reading, later_reading_words(reading, images_read(reading, sources)[0])))
    return to_result(dataset, kind)


def describe_capture(
    dataset: Dataset, reading: Reading, views: Sequence[ViewReading], sources: Mapping[View, Dataset]
) -> None:
    """SC Equipment, SC Image, and the General Image of what was drawn of `views`: what is shown, and what was read."""
    images = [source_of(view, sources) for view in views]
    images += [_read_from(view.read_from) for view in views if view.read_from is not None]
    dataset.pop("CodingSchemeIdentificationSequence", None)
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    dataset.SecondaryCaptureDeviceManufacturerModelName = reading.model.name[:64]
    dataset.BurnedInAnnotation = "NO"
    copy_lossy_history(dataset, images)
    dataset.SourceImageSequence = [source_image_reference(image) for image in images]
    in_known_series = [image for image in images if image.SeriesInstanceUID]
    dataset.ReferencedSeriesSequence = series_references(in_known_series, "ReferencedInstanceSequence")


def _read_from(reference: InstanceReference) -> Dataset:
    """The For Processing image whose pixels are in the picture."""
    image = Dataset()
    image.SOPClassUID = reference.sop_class_uid
    image.SOPInstanceUID = reference.sop_instance_uid
    image.SeriesInstanceUID = reference.series_instance_uid
    return image


def add_rgb(dataset: Dataset, picture: NDArray[np.uint8]) -> None:
    """Image Pixel of an RGB picture (rows, columns, 3), not compressed."""
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    content = picture.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB"
