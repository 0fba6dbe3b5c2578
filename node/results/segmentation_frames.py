"""What our three kinds of segmentation have in common: the object, its segments, its frames and where these lie.

Frames always have the rows and columns of the source. Where they lie is said in one of two forms. Form "": as the
source says it, with its Frame of Reference where that is complete, else by the source image alone (PS3.3 A.51.5.1).
Form "own": by a Frame of Reference of our own for each view, with the plane that viewers give an image without one:
first pixel at the origin, rows along x, columns along y, spacing as it is in the breast. That plane is the image's,
not the patient's; Patient Orientation says what the directions are in the patient. Only such a plane matches what
cornerstone (OHIF 3.12) makes of a mammogram; one turned by Patient Orientation would turn the frames with it.

Each view has a series of its own: OHIF shows the last object of a series of segmentations and no other.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from node.mammography.findings import FINDING_CODES, Code, FindingKind
from node.mammography.views import View
from node.results import codes, names, uids
from node.results.document import (
    DISCLAIMER,
    copy_lossy_history,
    new_document,
    series_references,
    source_image_reference,
    source_of,
)
from node.results.reading import Reading, ResultKind, ViewReading

OWN_FRAME = "own"
"""The word of `segmentation_frame` in settings.toml, and the name of the form."""

SEGMENT_COLOURS: dict[FindingKind, tuple[int, int, int]] = {
    FindingKind.MASS: (53619, 18504, 28270),
    FindingKind.SUSPICIOUS_CALCIFICATION: (60422, 24544, 49290),
    FindingKind.ARCHITECTURAL_DISTORTION: (42366, 55526, 15419),
    FindingKind.ASYMMETRY: (46260, 28784, 53970),
}
"""Recommended Display CIELab Value, encoded as PS3.3 C.10.7.1.1 has it."""

_ALL_SEGMENTS = 0
"""Segment Number that stands for "all of them in one frame": a label map's."""
_PLANE_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""What a source's plane needs beside its Frame of Reference UID: attribute to count of numbers."""
_NOMINAL_THICKNESS = 1
"""Slice Thickness is required (PS3.3 C.7.6.16.2.1), and a projection has none."""
_PLANE_COMMENT = "Plane by rows and columns of the image, not by the patient"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What one segmentation is of, and in which form it is written."""

    reading: Reading
    kind: ResultKind
    view: ViewReading
    source: Dataset
    form: str


@dataclass(frozen=True, slots=True)
class _Plane:
    """Frame of Reference and plane of the frames: (x, y, z) of the first pixel, directions, spacing and thickness."""

    frame_of_reference_uid: str
    position_reference: str
    position: Sequence[float]
    orientation: Sequence[float]
    spacing: Sequence[str]
    thickness: object


def subject(
    reading: Reading, sources: Mapping[View, Dataset], kind: ResultKind, view: ViewReading, frame: str
) -> Subject:
    """`frame` is "source" or "own". Ours needs the pixel spacing, and stands back where the source has a complete one:
    the form is "" then, and the object the one that `frame` "source" gives.
    """
    source = source_of(view, sources)
    own = frame == OWN_FRAME and view.spacing_mm is not None and not _has_plane(source)
    return Subject(reading, kind, view, source, OWN_FRAME if own else "")


def new_segmentation(of: Subject, sources: Mapping[View, Dataset], sop_class_uid: str, words: str) -> Dataset:
    """A segmentation in a series of its own, without segments, frames and pixels. `words` name the kind."""
    view = of.view.view
    description = f"{view.name} {words}, AI mammography (research)"
    dataset = new_document(of.reading, sources, of.kind, sop_class_uid, description, view, of.form)
    dataset.SeriesInstanceUID = uids.series_uid(of.reading, of.kind, of.form, view)
    dataset.Modality = "SEG"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.Rows, dataset.Columns = of.view.rows, of.view.columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelRepresentation = 0
    copy_lossy_history(dataset, [of.source])
    dataset.PatientOrientation = list(of.view.orientation)
    dataset.BurnedInAnnotation = "NO"
    dataset.ContentLabel = f"AI_{words.upper()}_{view.name}"[:16]
    dataset.ContentDescription = DISCLAIMER
    dataset.ContentCreatorName = "mammoclip^node"
    dataset.ReferencedSeriesSequence = series_references([of.source], "ReferencedInstanceSequence")
    return dataset


def say_bits(dataset: Dataset, bits: int) -> None:
    """Bits Allocated, Bits Stored and High Bit of pixels that use all their bits."""
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1


def finding_segments(of: Subject) -> list[Dataset]:
    """An item of Segment Sequence (0062,0002) for each finding of the view, numbered from 1, tracked as in the SR."""
    items = []
    for number, (name, finding) in enumerate(names.findings_of(of.reading, of.view.view.name), start=1):
        words = f"{names.value_words(of.reading, finding.probability)} in this view; {DISCLAIMER}"
        item = kind_segment(of, number, name, words, finding.kind)
        item.TrackingID = name
        item.TrackingUID = uids.tracking_uid(of.reading, name)
        items.append(item)
    return items


def kind_segment(of: Subject, number: int, label: str, words: str, kind: FindingKind) -> Dataset:
    """A segment of one kind of finding, in its colour."""
    item = segment(of, number, label, words, codes.ABNORMAL_STRUCTURE, FINDING_CODES[kind])
    item.RecommendedDisplayCIELabValue = list(SEGMENT_COLOURS[kind])
    return item


def segment(of: Subject, number: int, label: str, words: str, category: Code, property_type: Code) -> Dataset:
    """One item of Segment Sequence; `words` are its description."""
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = label
    item.SegmentDescription = words
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = f"{of.reading.model.name} {of.reading.model.version}"[:64]
    item.SegmentedPropertyCategoryCodeSequence = [codes.code_item(category)]
    item.SegmentedPropertyTypeCodeSequence = [codes.code_item(property_type)]
    return item


def add_segment_frames(dataset: Dataset, of: Subject, count: int) -> None:
    """Dimensions and functional groups where each of `count` segments has a frame of its own."""
    _add_dimension(dataset, of, 0x0062000A, 0x0062000B, "Referenced Segment Number")
    _add_groups(dataset, of, range(1, count + 1))


def add_label_frame(dataset: Dataset, of: Subject) -> None:
    """Dimensions and functional groups where one frame has all segments."""
    _add_dimension(dataset, of, 0x00209111, 0x00209453, "Frame Label")
    _add_groups(dataset, of, [_ALL_SEGMENTS])


def _add_dimension(dataset: Dataset, of: Subject, group: int, pointer: int, label: str) -> None:
    organization = Dataset()
    organization.DimensionOrganizationUID = uids.dimension_organization_uid(of.reading, of.kind, of.view.view, of.form)
    dataset.DimensionOrganizationSequence = [organization]
    index = Dataset()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer = pointer
    index.FunctionalGroupPointer = group
    index.DimensionDescriptionLabel = label
    dataset.DimensionIndexSequence = [index]


def _add_groups(dataset: Dataset, of: Subject, segments: Sequence[int]) -> None:
    """Functional groups, one item for each frame, and what all frames share.

    No Pixel Measures without a plane, though the standard allows them: GDCM 3.2 aborts on such an object.
    """
    plane = _plane(of)
    shared = Dataset()
    if plane is not None:
        dataset.FrameOfReferenceUID = plane.frame_of_reference_uid
        dataset.PositionReferenceIndicator = plane.position_reference
        shared.PlaneOrientationSequence = [_item("ImageOrientationPatient", plane.orientation)]
        shared.PixelMeasuresSequence = [_item("PixelSpacing", plane.spacing)]
        shared.PixelMeasuresSequence[0].SliceThickness = plane.thickness
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(of, number, plane) for number in segments]
    dataset.NumberOfFrames = len(segments)


def _spacing(view: ViewReading) -> list[str]:
    return [format_number_as_ds(value) for value in view.spacing_mm or ()]


def _frame(of: Subject, number: int, plane: _Plane | None) -> Dataset:
    """Source image and place stand here and not in the shared groups: cornerstone and dcmqi look nowhere else."""
    frame = Dataset()
    frame.FrameContentSequence = [_item("DimensionIndexValues", [max(1, number)])]
    if of.form == OWN_FRAME:
        frame.FrameContentSequence[0].FrameComments = _PLANE_COMMENT
    if number == _ALL_SEGMENTS:
        frame.FrameContentSequence[0].FrameLabel = of.view.view.name
    else:
        frame.SegmentIdentificationSequence = [_item("ReferencedSegmentNumber", number)]
    if plane is not None:
        frame.PlanePositionSequence = [_item("ImagePositionPatient", plane.position)]
    frame.DerivationImageSequence = [_derivation(of.source)]
    return frame


def _item(keyword: str, value: object) -> Dataset:
    """An item of a sequence, with one attribute."""
    item = Dataset()
    setattr(item, keyword, value)
    return item


def _derivation(source: Dataset) -> Dataset:
    """Derivation Image macro: the whole source image, at its own places."""
    image = source_image_reference(source)
    image.SpatialLocationsPreserved = "YES"
    item = Dataset()
    item.SourceImageSequence = [image]
    item.DerivationCodeSequence = [codes.code_item(codes.SEGMENTATION)]
    return item


def _has_plane(source: Dataset) -> bool:
    """Whether the source has a complete Frame of Reference, every number of it one: then it is what ours has."""
    stated = all(_numbers(source, keyword, count) is not None for keyword, count in _PLANE_NUMBERS.items())
    return stated and UID(str(source.get("FrameOfReferenceUID") or "")).is_valid


def _numbers(source: Dataset, keyword: str, count: int) -> list[float] | None:
    """The finite numbers of a DS attribute, None where there are not `count` of them."""
    try:
        value = source[keyword].value
        numbers = [float(number) for number in ([value] if count == 1 else value)]
    except (KeyError, TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _plane(of: Subject) -> _Plane | None:
    """Where the frames lie: our plane, the source's, or None where the source image alone tells."""
    if of.form == OWN_FRAME:
        own = uids.frame_of_reference_uid(of.reading, of.view.view)
        directions = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        return _Plane(own, "", [0.0, 0.0, 0.0], directions, _spacing(of.view), _NOMINAL_THICKNESS)
    if not _has_plane(of.source):
        return None
    position, orientation, spacing = (deepcopy(of.source[keyword].value) for keyword in _PLANE_NUMBERS)
    thickness = _numbers(of.source, "SliceThickness", 1)
    return _Plane(
        of.source.FrameOfReferenceUID,
        of.source.get("PositionReferenceIndicator", ""),
        position,
        orientation,
        spacing,
        of.source.SliceThickness if thickness and thickness[0] > 0 else _NOMINAL_THICKNESS,
    )
