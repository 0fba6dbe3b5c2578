"""Secondary Capture (PS3.3 A.8.1) of the page of pictures: what every workstation can show. Modality OT, never MG."""

from collections.abc import Mapping

from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from node.mammography.views import View
from node.results.document import (
    DISCLAIMER,
    copy_lossy_history,
    images_read,
    new_document,
    series_references,
    source_image_reference,
    to_result,
)
from node.results.ours import MANUFACTURER
from node.results.page import render_page
from node.results.reading import EncodedResult, Reading, ResultKind

SERIES_DESCRIPTION = "AI mammography overview (research)"


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> EncodedResult:
    """The page as one RGB image. It holds no patient's name, number or date: Burned In Annotation is NO."""
    images = images_read(reading, sources)
    dataset = new_document(
        reading,
        sources,
        ResultKind.SECONDARY_CAPTURE,
        SecondaryCaptureImageStorage,
        SERIES_DESCRIPTION,
    )
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.ImageComments = DISCLAIMER
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = "Views as hung with heat and marks of an AI reading"
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    dataset.SecondaryCaptureDeviceManufacturerModelName = reading.model.name[:64]
    dataset.BurnedInAnnotation = "NO"
    dataset.PatientOrientation = []
    # Empty and not absent: it shows both sides, and dciodvfy misses a Laterality wherever none is told (2C).
    dataset.Laterality = ""
    copy_lossy_history(dataset, images)
    dataset.SourceImageSequence = [source_image_reference(image) for image in images]
    dataset.ReferencedSeriesSequence = series_references(images, "ReferencedInstanceSequence")
    _add_pixels(dataset, reading)
    return to_result(dataset, ResultKind.SECONDARY_CAPTURE)


def _add_pixels(dataset: Dataset, reading: Reading) -> None:
    page = render_page(reading)
    dataset.Rows, dataset.Columns = page.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    content = page.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB"
