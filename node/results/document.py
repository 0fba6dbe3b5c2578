"""What all results have in common: patient and study of the source, our series and equipment, and the bytes."""

import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO

import pydicom
from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from node.errors import EncodeError
from node.mammography.views import STANDARD_VIEWS, View
from node.results import codes, uids
from node.results.ours import MANUFACTURER, contributing_equipment
from node.results.reading import EncodedResult, Reading, ResultKind, UnreadView, ViewReading

SERIES_NUMBERS: dict[ResultKind, int] = {
    ResultKind.STRUCTURED_REPORT: 9000,
    ResultKind.SEGMENTATION: 9001,
    ResultKind.SECONDARY_CAPTURE: 9002,
    ResultKind.CAD_REPORT: 9003,
    ResultKind.PRESENTATION_STATE: 9004,
    ResultKind.VIEW_CAPTURE: 9005,
    ResultKind.HEATMAP: 9006,
    ResultKind.LABELMAP: 9007,
    ResultKind.KEY_OBJECTS: 9008,
    ResultKind.REJECTION: 9009,
}
"""High, so that no hanging protocol takes a result for an acquired series."""

DISCLAIMER = "AI research result, not for diagnosis"

_PATIENT_TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY_TYPE_2 = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
_COPIED_WHERE_PRESENT = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "LongitudinalTemporalInformationModified",
)
COPIED = frozenset({*_PATIENT_TYPE_2, *_STUDY_TYPE_2, *_COPIED_WHERE_PRESENT})
"""Attributes that every object has from its source, text as it stands there."""


_CHECKED_VRS = frozenset({"DA", "TM", "DT", "AS", "DS", "IS"})

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError, OSError)
"""What pydicom raises at an element whose bytes are not what its VR says: OSError at a sequence that ends too soon."""


def source_of(view: ViewReading | UnreadView, sources: Mapping[View, Dataset]) -> Dataset:
    """The data set that `view` was read from. Raises EncodeError where it is not the same instance."""
    source = sources.get(view.view)
    if source is None or str(source.get("SOPInstanceUID", "")) != view.sop_instance_uid:
        raise EncodeError(f"no source data set for {view.view} {view.sop_instance_uid}")
    return source


def new_document(
    reading: Reading,
    sources: Mapping[View, Dataset],
    kind: ResultKind,
    sop_class_uid: str,
    series_description: str,
    view: View | None = None,
    form: str = "",
) -> Dataset:
    """Patient, General Study, series, General Equipment and SOP Common modules of one result.

    A later reading says so in Series Description (0008,103E). Raises EncodeError where the reading has no image at all.
    """
    if not reading.views and not reading.unread:
        raise EncodeError(f"reading of study {reading.study_instance_uid} has no views")
    unread = {finding.view for finding in reading.findings} - {view.view for view in reading.views}
    if unread:
        raise EncodeError(f"findings in views that were not read: {', '.join(sorted(view.name for view in unread))}")
    source = images_known(reading, sources)[0]
    dataset = Dataset()
    _copy_patient_and_study(dataset, source)
    dataset.StudyInstanceUID = reading.study_instance_uid
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = uids.instance_uid(reading, kind, view, form)
    dataset.SeriesInstanceUID = uids.series_uid(reading, kind, form)
    dataset.SeriesDescription = _described(series_description, reading, source)
    dataset.SeriesNumber = SERIES_NUMBERS[kind]
    dataset.InstanceNumber = 1 if view is None else 1 + STANDARD_VIEWS.index(view)
    _say_when(dataset, written_at(reading, source))
    _say_what_made_it(dataset, reading)
    return dataset


def later_reading_words(reading: Reading, source: Dataset) -> str:
    """ "AI reading 2, replaces 14:05" in the source's time zone; "" for a study's first reading."""
    before = reading.predecessor
    if before is None:
        return ""
    return f"AI reading {reading.number}, replaces {local_time(before.read_at, source):%H:%M}"


def _described(words: str, reading: Reading, source: Dataset) -> str:
    """Series Description (LO, at most 64 characters): which reading this is counts more than its name.

    "AI reading 2, replaces 14:05; RCC heat (research)": what says AI and mammography once more makes room.
    """
    later = later_reading_words(reading, source)
    name = words.replace(", AI mammography", "").removeprefix("AI mammography ")
    return f"{later}; {name}"[:64].rstrip() if later else words


def patient_and_study(source: Dataset) -> Dataset:
    """Patient and study attributes of `source` as results have them: what breaks its VR is empty or left out."""
    dataset = Dataset()
    _copy_patient_and_study(dataset, source)
    return dataset


def _copy_patient_and_study(dataset: Dataset, source: Dataset) -> None:
    """As the source has them, text as it stands: it is what the PACS knows. A date, time or number that is none is
    unknown: empty where the type asks for the element, left out elsewhere.
    """
    for keyword in (*_COPIED_WHERE_PRESENT, *_PATIENT_TYPE_2, *_STUDY_TYPE_2):
        element = _readable(source, keyword)
        if element is not None:
            dataset[keyword] = deepcopy(element)
    for keyword in (*_PATIENT_TYPE_2, *_STUDY_TYPE_2):
        if keyword not in dataset:
            setattr(dataset, keyword, "")


def _readable(source: Dataset, keyword: str) -> DataElement | None:
    """The element; None where it is absent, cannot be parsed, or is a date, time or number that is none (PS3.5 6.2)."""
    if keyword not in source:
        return None
    try:
        element: DataElement = source[keyword]
        if element.VR in _CHECKED_VRS:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, "" if value is None else str(value), RAISE)
                _check_date(element.VR, str(value or ""))
    except UNREADABLE:
        return None
    return element


def items_of(source: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or cannot be parsed."""
    element = _readable(source, keyword)
    return list(element.value or ()) if element is not None and element.VR == "SQ" else []


def _check_date(vr: str, value: str) -> None:
    """The calendar has it: 20261340 has the form of a DA and is no date. Raises ValueError."""
    if vr == "DA" and value.strip():
        datetime.strptime(value.strip(), "%Y%m%d")


def written_at(reading: Reading, source: Dataset) -> datetime:
    """The reading's time in the source's time zone (0008,0201), or in UTC where it states none.

    One offset counts for all dates and times of an object (PS3.3 C.12.1.1.8), the study's included.
    """
    if reading.read_at.tzinfo is None:
        raise EncodeError(f"reading of study {reading.study_instance_uid} has a time without a zone")
    return local_time(reading.read_at, source)


def local_time(at: datetime, source: Dataset) -> datetime:
    """An aware time in the source's time zone, or in UTC where it states none."""
    return at.astimezone(_zone(str(source.get("TimezoneOffsetFromUTC") or "")))


def _zone(offset: str) -> timezone:
    offset = offset.strip()
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)) if minutes < 1440 else UTC


def _say_when(dataset: Dataset, at: datetime) -> None:
    date, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")
    dataset.InstanceCreationDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.InstanceCreationTime = dataset.SeriesTime = dataset.ContentTime = time


def _say_what_made_it(dataset: Dataset, reading: Reading) -> None:
    model = reading.model
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = model.name[:64]
    dataset.DeviceSerialNumber = model.weights_hash[:64]
    dataset.SoftwareVersions = [model.version[:64], f"encoder {uids.ENCODER_VERSION}"]
    dataset.ContributingEquipmentSequence = [contributing_equipment(model, reading.read_at)]
    dataset.ContentQualification = "RESEARCH"


def instance_reference(source: Dataset) -> Dataset:
    """SOP Class and SOP Instance UID of `source` as a reference item."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def source_image_reference(source: Dataset) -> Dataset:
    """`source` as an item of Source Image Sequence (0008,2112), with its purpose."""
    item = instance_reference(source)
    item.PurposeOfReferenceCodeSequence = [codes.code_item(codes.SOURCE_IMAGE)]
    return item


def series_references(images: Iterable[Dataset], instances_keyword: str) -> list[Dataset]:
    """`images` grouped by series, as items of Referenced Series Sequence; the inner sequence by its keyword."""
    by_series: dict[str, list[Dataset]] = {}
    for image in images:
        by_series.setdefault(str(image.SeriesInstanceUID), []).append(instance_reference(image))
    items = []
    for series_instance_uid, references in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_instance_uid
        setattr(item, instances_keyword, references)
        items.append(item)
    return items


def images_read(reading: Reading, sources: Mapping[View, Dataset]) -> list[Dataset]:
    """The source data sets in the order of the views read."""
    return [source_of(view, sources) for view in reading.views]


def images_known(reading: Reading, sources: Mapping[View, Dataset]) -> list[Dataset]:
    """The source data sets of the views read and of those that were not, in the order of STANDARD_VIEWS."""
    views: list[ViewReading | UnreadView] = [*reading.views, *reading.unread]
    known = sorted(views, key=lambda view: STANDARD_VIEWS.index(view.view))
    return [source_of(view, sources) for view in known]


def receptor_spacing_mm(image: Dataset) -> tuple[float, float] | None:
    """Imager Pixel Spacing (0018,1164), (row, column) in the receptor's plane; None where it is no pair of lengths."""
    try:
        rows, columns = (float(value) for value in image.get("ImagerPixelSpacing") or ())
    except (ValueError, TypeError, OverflowError):
        return None
    return (rows, columns) if 0.0 < rows < math.inf and 0.0 < columns < math.inf else None


def copy_lossy_history(dataset: Dataset, images: Iterable[Dataset]) -> None:
    """Lossy Image Compression (0028,2110): once 01, always 01 (PS3.3 C.7.6.1.1.5), with ratio and method if told."""
    lossy = [image for image in images if image.get("LossyImageCompression") == "01"]
    dataset.LossyImageCompression = "01" if lossy else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        element = _readable(lossy[0], keyword) if lossy else None
        if element is not None:
            dataset[keyword] = deepcopy(element)


def to_result(
    dataset: Dataset, kind: ResultKind, form: str = "", transfer_syntax_uid: str = ExplicitVRLittleEndian
) -> EncodedResult:
    """The data set as a Part 10 file. Raises EncodeError where it cannot be written.

    Pixels must already be in the form that `transfer_syntax_uid` has.
    """
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    dataset.file_meta.ImplementationClassUID = UID(uids.IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = uids.IMPLEMENTATION_VERSION_NAME
    content = BytesIO()
    try:
        pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise EncodeError(f"{kind.value} {dataset.SOPInstanceUID} cannot be written: {type(error).__name__}") from error
    return EncodedResult(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(transfer_syntax_uid),
        content=content.getvalue(),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        form=form,
    )
