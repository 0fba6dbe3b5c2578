"""A phantom exam as four Digital Mammography X-Ray Image objects (PS3.3 A.27), 12 bits stored of 16.

The patient is plainly synthetic. UIDs follow from the exam and the form, so writing twice gives the same files.
"""

import datetime
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
)

from node.mammography.views import STANDARD_VIEWS, Laterality, View, ViewPosition
from training.phantoms.exam import GENERATOR_VERSION, PhantomExam
from training.phantoms.render import RenderedView, render_view

FULL_SIZE_MM = 0.07
"""Pixels of 0.07 mm give 4096 x 3328, a common full-field detector."""

_NAMESPACE = uuid.UUID("5f0ad0f1-8d54-5c6e-9a54-0c6f3f6f8c11")
_SOURCE_TO_DETECTOR_MM = 660.0
_SOURCE_TO_PATIENT_MM = 600.0
_GREATEST = 4095

_VIEW_CODES = {
    ViewPosition.CC: ("399162004", "cranio-caudal"),
    ViewPosition.MLO: ("399368009", "medio-lateral oblique"),
}
"""CID 4014, SNOMED CT."""

_ORIENTATIONS = {
    (Laterality.RIGHT, ViewPosition.CC): ["P", "L"],
    (Laterality.LEFT, ViewPosition.CC): ["A", "R"],
    (Laterality.RIGHT, ViewPosition.MLO): ["P", "FL"],
    (Laterality.LEFT, ViewPosition.MLO): ["A", "FR"],
}
"""Direction of rows and columns with the chest wall at its place and the armpit side on top (PS3.3 C.7.6.1.1.1)."""


def write_dicom(
    exam: PhantomExam,
    folder: Path,
    *,
    views: Sequence[View] = STANDARD_VIEWS,
    pixel_mm: float = FULL_SIZE_MM,
    for_processing: bool = False,
    monochrome1: bool = False,
) -> list[Path]:
    """Writes one file a view, named by view, into `folder`, which is made if absent; gives their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for view in views:
        rendered = render_view(exam, view, pixel_mm)
        dataset = view_dataset(exam, rendered, for_processing=for_processing, monochrome1=monochrome1)
        path = folder / f"{view.name}{'-raw' if for_processing else ''}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def view_dataset(
    exam: PhantomExam, rendered: RenderedView, *, for_processing: bool = False, monochrome1: bool = False
) -> FileDataset:
    """One rendered view as a data set ready to be sent or saved, Explicit VR Little Endian.

    For Presentation: the window 2048/4096 gives back the display values. For Processing: exposure, linear, always
    MONOCHROME1, whatever `monochrome1` says.
    """
    monochrome1 = monochrome1 or for_processing
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = _sop_class(for_processing)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    form = f"{rendered.pixel_mm}/{'processing' if for_processing else 'presentation'}/{monochrome1}"
    _add_study(dataset, exam, form, for_processing)
    _add_equipment(dataset)
    _add_acquisition(dataset, exam, rendered)
    _add_view(dataset, rendered.view)
    _add_pixels(dataset, rendered, for_processing, monochrome1)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = phantom_uid(exam, f"{form}/{rendered.view.name}")
    dataset.InstanceNumber = str(STANDARD_VIEWS.index(rendered.view) + 1)
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def phantom_uid(exam: PhantomExam, name: str) -> UID:
    """2.25 and a UUIDv5 of the generator's version, everything in the exam, and a name."""
    identity = f"{GENERATOR_VERSION}/{exam.seed}/{exam.lesions!r}/{exam.distractors!r}/{name}"
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, identity).int}")


def _sop_class(for_processing: bool) -> UID:
    if for_processing:
        return DigitalMammographyXRayImageStorageForProcessing
    return DigitalMammographyXRayImageStorageForPresentation


def _coded(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _add_study(dataset: Dataset, exam: PhantomExam, form: str, for_processing: bool) -> None:
    """Patient, study and series; the date follows from the seed."""
    day = (datetime.date(2020, 1, 1) + datetime.timedelta(days=exam.seed % 1000)).strftime("%Y%m%d")
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = f"PHANTOM^{exam.seed:07d}"
    dataset.PatientID = f"PHANTOM-{exam.seed:07d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F"
    dataset.StudyInstanceUID = phantom_uid(exam, "study")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "090000"
    dataset.StudyID = f"{exam.seed:07d}"
    dataset.StudyDescription = "Phantom mammogram"
    dataset.AccessionNumber = f"PH{exam.seed:07d}"
    dataset.ReferringPhysicianName = ""
    dataset.Modality = "MG"
    dataset.SeriesInstanceUID = phantom_uid(exam, f"series/{form}")
    dataset.SeriesNumber = "2" if for_processing else "1"
    dataset.SeriesDescription = "Phantom, raw" if for_processing else "Phantom"
    dataset.PresentationIntentType = "FOR PROCESSING" if for_processing else "FOR PRESENTATION"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Synthetic: no patient"


def _add_equipment(dataset: Dataset) -> None:
    dataset.Manufacturer = "mammoclip-node"
    dataset.ManufacturerModelName = "Phantom generator"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = GENERATOR_VERSION
    dataset.DetectorType = "DIRECT"
    dataset.DetectorConfiguration = "AREA"
    dataset.DetectorID = "PHANTOM"
    dataset.DetectorDescription = "Simulated"
    dataset.FieldOfViewShape = "RECTANGLE"
    dataset.FieldOfViewOrigin = ["0", "0"]
    dataset.FieldOfViewRotation = "0"
    dataset.FieldOfViewHorizontalFlip = "NO"
    dataset.PositionerType = "MAMMOGRAPHIC"


def _add_acquisition(dataset: Dataset, exam: PhantomExam, rendered: RenderedView) -> None:
    """X-ray generation and geometry, as a plausible unit would write them."""
    dataset.KVP = "29"
    dataset.ExposureTime = "1200"
    dataset.XRayTubeCurrent = "100"
    dataset.Exposure = "120"
    dataset.AnodeTargetMaterial = "TUNGSTEN"
    dataset.FilterMaterial = "RHODIUM"
    dataset.FocalSpots = ["0.3"]
    dataset.BodyPartThickness = f"{35.0 + 0.25 * exam.woman.depth_mm:.0f}"
    dataset.CompressionForce = "110"
    dataset.DistanceSourceToDetector = f"{_SOURCE_TO_DETECTOR_MM:g}"
    dataset.DistanceSourceToPatient = f"{_SOURCE_TO_PATIENT_MM:g}"
    dataset.EstimatedRadiographicMagnificationFactor = f"{_SOURCE_TO_DETECTOR_MM / _SOURCE_TO_PATIENT_MM:g}"
    dataset.ImagerPixelSpacing = [f"{rendered.pixel_mm:g}", f"{rendered.pixel_mm:g}"]
    dataset.PositionerPrimaryAngle = "0" if rendered.view.position is ViewPosition.CC else _oblique(rendered.view)
    dataset.OrganDose = "0.012"
    dataset.OrganExposed = "BREAST"


def _oblique(view: View) -> str:
    return "-45" if view.laterality is Laterality.RIGHT else "45"


def _add_view(dataset: Dataset, view: View) -> None:
    """Side and projection (PS3.3 C.8.11.7), in codes."""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.ImageLaterality = view.laterality.value
    dataset.PatientOrientation = _ORIENTATIONS[view.laterality, view.position]
    dataset.BodyPartExamined = "BREAST"
    dataset.AnatomicRegionSequence = [_coded("76752008", "Breast")]
    code = _coded(*_VIEW_CODES[view.position])
    code.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [code]
    dataset.AcquisitionContextSequence = []
    dataset.BreastImplantPresent = "NO"
    dataset.PartialView = "NO"
    dataset.QualityControlImage = "NO"
    dataset.BurnedInAnnotation = "NO"


def _add_pixels(dataset: Dataset, rendered: RenderedView, for_processing: bool, monochrome1: bool) -> None:
    stored = _stored_values(rendered.pixels, for_processing, monochrome1)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LIN" if for_processing else "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if monochrome1 else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.LossyImageCompression = "00"
    if not for_processing:
        dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
        dataset.WindowCenterWidthExplanation = "NORMAL"
        dataset.VOILUTFunction = "LINEAR"
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"


def _stored_values(display: npt.NDArray[np.float32], for_processing: bool, monochrome1: bool) -> npt.NDArray[np.uint16]:
    """12-bit values: display values, their inverse, or the exposure behind them (air is brightest there)."""
    if for_processing:
        return np.asarray(np.round(np.float32(_GREATEST) * np.exp(np.float32(-3.0) * display)), dtype="<u2")
    values = np.round(display * np.float32(_GREATEST)).astype("<u2")
    return np.asarray(_GREATEST - values if monochrome1 else values, dtype="<u2")
