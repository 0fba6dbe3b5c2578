"""Segmentation (PS3.3 A.51), BINARY: one object for each view with findings, one segment for each region.

Frames have the rows and columns of the source, and the object has a Frame of Reference only where the source has a
complete one: a mammogram without it allows no other size.
"""

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from node.mammography.findings import FINDING_CODES, Finding, FindingKind
from node.mammography.views import View
from node.results import codes, names, uids
from node.results.document import (
    DISCLAIMER,
    copy_lossy_history,
    new_document,
    series_references,
    source_image_reference,
    source_of,
    to_result,
)
from node.results.reading import EncodedResult, Reading, ResultKind, ViewReading

SEGMENT_COLOURS: dict[FindingKind, tuple[int, int, int]] = {
    FindingKind.MASS: (53619, 18504, 28270),
    FindingKind.SUSPICIOUS_CALCIFICATION: (60422, 24544, 49290),
    FindingKind.ARCHITECTURAL_DISTORTION: (42366, 55526, 15419),
    FindingKind.ASYMMETRY: (46260, 28784, 53970),
}
"""Recommended Display CIELab Value, encoded as PS3.3 C.10.7.1.1 has it."""

SERIES_DESCRIPTION = "AI mammography regions (research)"


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> tuple[EncodedResult, ...]:
    """One segmentation for each view with findings, in the order of the views."""
    with_findings = [view for view in reading.views if names.findings_of(reading, view.view.name)]
    return tuple(_encode_view(reading, view, sources) for view in with_findings)


def _encode_view(reading: Reading, view: ViewReading, sources: Mapping[View, Dataset]) -> EncodedResult:
    source = source_of(view, sources)
    named = names.findings_of(reading, view.view.name)
    dataset = new_document(
        reading, sources, ResultKind.SEGMENTATION, SegmentationStorage, SERIES_DESCRIPTION, view.view
    )
    dataset.Modality = "SEG"
    _describe_image(dataset, view, source)
    dataset.SegmentSequence = [
        _segment(number, name, finding, reading) for number, (name, finding) in enumerate(named, start=1)
    ]
    _add_frames(dataset, reading, view, source, len(named))
    masks = [region_mask(finding, view.rows, view.columns) for _, finding in named]
    dataset.NumberOfFrames = len(masks)
    dataset.PixelData = pack_bits(np.stack(masks))
    dataset["PixelData"].VR = "OB"
    return to_result(dataset, ResultKind.SEGMENTATION)


def region_mask(finding: Finding, rows: int, columns: int) -> NDArray[np.bool_]:
    """The pixels (rows, columns) whose centres lie inside the finding's contour; at least the one under its centre.

    Even-odd, one scan line through the centres of each row of pixels: exactly the contour that the report holds.
    """
    contour = np.array(finding.contour, dtype=np.float64)
    mask = np.zeros((rows, columns), dtype=bool)
    start, end = contour[:-1], contour[1:]
    first = max(0, int(np.floor(contour[:, 1].min())))
    last = min(rows, int(np.ceil(contour[:, 1].max())))
    for row in range(first, last):
        y = row + 0.5
        crossing = (start[:, 1] > y) != (end[:, 1] > y)
        a, b = start[crossing], end[crossing]
        x = np.sort(a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]))
        edges = np.clip(np.ceil(x - 0.5), 0, columns).astype(int)
        for left, right in zip(edges[0::2], edges[1::2], strict=True):
            mask[row, left:right] = True
    if not mask.any():
        x_centre, y_centre = finding.centre
        mask[min(rows - 1, int(y_centre)), min(columns - 1, int(x_centre))] = True
    return mask


def pack_bits(masks: NDArray[np.bool_]) -> bytes:
    """Frames (N, rows, columns) as PS3.5 8.1.1 packs single bits: lowest first, frames not padded; even length."""
    packed = np.packbits(masks.reshape(-1), bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def _describe_image(dataset: Dataset, view: ViewReading, source: Dataset) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.Rows, dataset.Columns = view.rows, view.columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    copy_lossy_history(dataset, [source])
    dataset.PatientOrientation = list(view.orientation)
    dataset.BurnedInAnnotation = "NO"
    dataset.SegmentationType = "BINARY"
    dataset.SegmentsOverlap = "UNDEFINED"
    dataset.ContentLabel = f"AI_{view.view.name}"
    dataset.ContentDescription = DISCLAIMER
    dataset.ContentCreatorName = "mammoclip^node"
    dataset.ReferencedSeriesSequence = series_references([source], "ReferencedInstanceSequence")


def _segment(number: int, name: str, finding: Finding, reading: Reading) -> Dataset:
    """One region as an item of Segment Sequence (0062,0002)."""
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = name
    item.SegmentDescription = f"{names.value_words(reading, finding.probability)} in this view; {DISCLAIMER}"
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = f"{reading.model.name} {reading.model.version}"[:64]
    item.SegmentedPropertyCategoryCodeSequence = [codes.code_item(codes.ABNORMAL_STRUCTURE)]
    item.SegmentedPropertyTypeCodeSequence = [codes.code_item(FINDING_CODES[finding.kind])]
    item.TrackingID = name
    item.TrackingUID = uids.tracking_uid(reading, name)
    item.RecommendedDisplayCIELabValue = list(SEGMENT_COLOURS[finding.kind])
    return item


def _add_frames(dataset: Dataset, reading: Reading, view: ViewReading, source: Dataset, count: int) -> None:
    """Dimensions and functional groups: one frame for each segment."""
    organization = Dataset()
    organization.DimensionOrganizationUID = uids.dimension_organization_uid(reading, ResultKind.SEGMENTATION, view.view)
    dataset.DimensionOrganizationSequence = [organization]
    index = Dataset()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer = 0x0062000B
    index.FunctionalGroupPointer = 0x0062000A
    index.DimensionDescriptionLabel = "Referenced Segment Number"
    dataset.DimensionIndexSequence = [index]
    shared = Dataset()
    shared.DerivationImageSequence = [_derivation(source)]
    _copy_plane(dataset, shared, source)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(number) for number in range(1, count + 1)]


def _frame(number: int) -> Dataset:
    content = Dataset()
    content.DimensionIndexValues = [number]
    identification = Dataset()
    identification.ReferencedSegmentNumber = number
    frame = Dataset()
    frame.FrameContentSequence = [content]
    frame.SegmentIdentificationSequence = [identification]
    return frame


def _derivation(source: Dataset) -> Dataset:
    """Derivation Image macro: the whole source image, at its own places."""
    image = source_image_reference(source)
    image.SpatialLocationsPreserved = "YES"
    item = Dataset()
    item.SourceImageSequence = [image]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113076", "DCM", "Segmentation"
    item.DerivationCodeSequence = [code]
    return item


def _copy_plane(dataset: Dataset, shared: Dataset, source: Dataset) -> None:
    """Frame of Reference and plane of the source, where it has a complete one."""
    needed = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if not all(source.get(keyword) for keyword in needed):
        return
    dataset.FrameOfReferenceUID = source.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = source.get("PositionReferenceIndicator", "")
    position, orientation, measures = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = deepcopy(source.ImagePositionPatient)
    orientation.ImageOrientationPatient = deepcopy(source.ImageOrientationPatient)
    measures.PixelSpacing = deepcopy(source.PixelSpacing)
    measures.SliceThickness = source.get("SliceThickness") or 1
    shared.PlanePositionSequence = [position]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
