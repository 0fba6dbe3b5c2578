"""One received SOP instance, by what its header says."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from pydicom import Dataset
from pydicom.multival import MultiValue

from node.errors import ViewError
from node.mammography import views
from node.mammography.views import View
from node.settings import OF_THE_SENDER, ROUTING_KEYWORDS


@dataclass(frozen=True, slots=True)
class Instance:
    """One received SOP instance, by what its header says. Built once, at receipt, by `instance_of(dataset)`.

    `view` is None where side or view cannot be told; `view_problem` then says why in words. `content_hash` is the
    SHA-256 of the encoded data set as received, hexadecimal. `acquired_at` is Acquisition Date and Time (falling back
    to Content, then Series), None if unknown; naive, as DICOM has it.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    content_hash: str
    path: str
    received_at: datetime
    modality: str
    view: View | None
    view_problem: str | None
    patient_fingerprint: str
    """SHA-256 over Patient ID, Issuer and Birth Date: tells patients apart without naming them."""
    presentation_intent_type: str
    rows: int
    columns: int
    acquired_at: datetime | None
    is_tomosynthesis: bool = False
    is_synthetic_2d: bool = False
    is_partial_view: bool = False
    has_implant: bool = False
    is_implant_displaced: bool = False
    is_quality_control: bool = False
    excluding_modifier: str | None = None
    """Meaning of a view modifier that makes the image none of a screening set: magnification, spot, specimen."""
    header: tuple[tuple[str, str], ...] = ()
    """Keyword and value pairs that routing rules may match; no patient attributes."""
    source_instance_uids: tuple[str, ...] = ()
    """What Source Image Sequence (0008,2112) names."""
    exposed_at: datetime | None = None
    """Acquisition Date and Time alone, to the second's fraction as stated; None where either is missing."""
    spacing_mm: tuple[float, ...] = ()
    """Imager Pixel Spacing (0018,1164) as stated, row and column; empty where absent or no numbers."""
    orientation: tuple[str, ...] = ()
    """Patient Orientation (0020,0020) as stated."""


MG_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
SECONDARY_CAPTURES = frozenset(
    {"1.2.840.10008.5.1.4.1.1.7", *(f"1.2.840.10008.5.1.4.1.1.7.{kind}" for kind in (1, 2, 3, 4))}
)
"""Secondary Capture Image Storage and its multi-frame forms: single bit, grayscale byte, grayscale word, true color."""
MAMMOGRAM_CLASSES = SECONDARY_CAPTURES | {MG_FOR_PRESENTATION, MG_FOR_PROCESSING}
"""SOP classes that may hold a mammogram to be read; each also needs Modality MG and a known side and view."""

FOR_PRESENTATION = "FOR PRESENTATION"
FOR_PROCESSING = "FOR PROCESSING"
INTENT_OF_CLASS = {MG_FOR_PRESENTATION: FOR_PRESENTATION, MG_FOR_PROCESSING: FOR_PROCESSING}
"""Presentation Intent Type where the data set does not state it (PS3.3 C.8.11.1)."""

LENGTH_TO_THE_MINUTE = len("YYYYMMDDHHMM")
"""A shorter DT tells a day, not an exposure."""


def instance_of(
    dataset: Dataset,
    *,
    content_hash: str,
    path: str,
    received_at: datetime,
    from_patient_orientation: bool,
) -> Instance:
    """What a data set's header says; pixel data is not needed. `from_patient_orientation` as in views.view_of.

    Odd values count as absent where only sorting and routing want them. Raises ValueError or TypeError where an
    element that tells what the image is cannot be read as its VR says.
    """
    modality = _text(dataset, "Modality")
    sop_class_uid = _text(dataset, "SOPClassUID")
    view, view_problem = _view(dataset, modality, sop_class_uid, from_patient_orientation)
    intent = _text(dataset, "PresentationIntentType") or INTENT_OF_CLASS.get(sop_class_uid, "")
    return Instance(
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        sop_class_uid=sop_class_uid,
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        content_hash=content_hash,
        path=path,
        received_at=received_at,
        modality=modality,
        view=view,
        view_problem=view_problem,
        patient_fingerprint=_patient_fingerprint(dataset),
        presentation_intent_type=intent,
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        acquired_at=_acquired_at(dataset),
        is_tomosynthesis=views.is_tomosynthesis(dataset),
        is_synthetic_2d=views.is_synthetic_2d(dataset),
        is_partial_view=views.is_partial_view(dataset),
        has_implant=views.has_implant(dataset),
        is_implant_displaced=views.is_implant_displaced(dataset),
        is_quality_control=views.is_quality_control_image(dataset),
        excluding_modifier=views.excluding_modifier(dataset),
        header=_routing_header(dataset),
        source_instance_uids=_source_instance_uids(dataset),
        exposed_at=_exposed_at(dataset),
        spacing_mm=_spacing(dataset),
        orientation=tuple(word for word in _text(dataset, "PatientOrientation").split("\\") if word),
    )


def _view(
    dataset: Dataset, modality: str, sop_class_uid: str, from_patient_orientation: bool
) -> tuple[View | None, str | None]:
    """View and problem. Only what may be a mammogram is asked for its view: elsewhere the answer means nothing."""
    if modality != "MG" or sop_class_uid not in MAMMOGRAM_CLASSES:
        return None, None
    try:
        return views.view_of(dataset, from_patient_orientation=from_patient_orientation), None
    except ViewError as error:
        return None, str(error)


def _patient_fingerprint(dataset: Dataset) -> str:
    identity = [_text(dataset, keyword) for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate")]
    return sha256(json.dumps(identity).encode()).hexdigest()


def _routing_header(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    pairs = [(keyword, _text(dataset, keyword)) for keyword in ROUTING_KEYWORDS]
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        pairs.append((OF_THE_SENDER, _text(meta, OF_THE_SENDER)))
    return tuple((keyword, value) for keyword, value in pairs if value)


def _text(dataset: Dataset, keyword: str) -> str:
    """One element as text, several values joined by a backslash; empty where absent or not readable as its VR says."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return ""
    if value is None or (isinstance(value, Sequence) and not isinstance(value, str) and not len(value)):
        return ""
    values = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(item) for item in values).replace("\0", "").strip()


def _count(dataset: Dataset, keyword: str) -> int:
    text = _text(dataset, keyword)
    return int(text) if text.isdecimal() else 0


def _acquired_at(dataset: Dataset) -> datetime | None:
    """Acquisition, else Content, else Series date and time, as stated: without time zone."""
    stated = [_text(dataset, "AcquisitionDateTime")]
    stated += [
        _text(dataset, f"{event}Date") + _text(dataset, f"{event}Time")
        for event in ("Acquisition", "Content", "Series")
    ]
    return next((time for time in map(_moment, stated) if time is not None), None)


def _exposed_at(dataset: Dataset) -> datetime | None:
    stated = _text(dataset, "AcquisitionDateTime")
    if len(stated) < LENGTH_TO_THE_MINUTE:
        date, time = _text(dataset, "AcquisitionDate"), _text(dataset, "AcquisitionTime")
        stated = date + time if date and time else ""
    return _moment(stated)


def _spacing(dataset: Dataset) -> tuple[float, ...]:
    words = _text(dataset, "ImagerPixelSpacing").split("\\")
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        return ()
    return numbers if len(numbers) == 2 and all(map(math.isfinite, numbers)) else ()


def _source_instance_uids(dataset: Dataset) -> tuple[str, ...]:
    try:
        items = dataset.get("SourceImageSequence") or []
        uids = [_text(item, "ReferencedSOPInstanceUID") for item in items if isinstance(item, Dataset)]
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
        return ()
    return tuple(uid for uid in uids if uid)


def _moment(text: str) -> datetime | None:
    """A DT, or a DA with a TM (PS3.5 6.2): YYYYMMDD, then as much of HHMMSS.FFFFFF as is there."""
    match = re.match(r"(\d{8})(\d{2})?(\d{2})?(\d{2})?(?:\.(\d{1,6}))?", text)
    if match is None:
        return None
    date, hour, minute, second, fraction = match.groups()
    digits = f"{date}{hour or '00'}{minute or '00'}{second or '00'}{(fraction or '0').ljust(6, '0')}"
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None
