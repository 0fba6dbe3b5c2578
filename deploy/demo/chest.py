"""Something that is no mammogram: a drawn chest radiograph, sent as a Secondary Capture of Modality CR."""

import datetime

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from deploy.demo.cases import SKIPPED, DemoExam, Expected, Run

_SIDE = 512


def chest_exam(run: Run) -> DemoExam:
    """One image, written below the run's folder."""
    key = "chest"
    path = run.folder / key / "chest.dcm"
    path.parent.mkdir(parents=True)
    _chest_dataset(run, key).save_as(path, enforce_file_format=True)
    return DemoExam(
        key,
        "Chest radiograph",
        "Explicit little endian, 512 x 512",
        "no mammogram",
        run.uid(key, "study"),
        (path,),
        (),
        Expected(SKIPPED, "no mammogram"),
    )


def _chest_dataset(run: Run, key: str) -> pydicom.Dataset:
    now = datetime.datetime.now()
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = run.uid(key, "instance", "1")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = run.uid(key, "study"), run.uid(key, "series")
    dataset.PatientID, dataset.PatientName = run.patient_id(key), f"Demo^{key}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.ReferringPhysicianName = "", "", ""
    dataset.AccessionNumber, dataset.StudyID = run.accession_number(key), "1"
    dataset.StudyDate, dataset.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.Modality, dataset.ConversionType = "CR", "WSD"
    dataset.BodyPartExamined = "CHEST"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.PatientOrientation = ["L", "F"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = _SIDE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = (_draw_chest() * 4095).astype("<u2").tobytes()
    return dataset


def _draw_chest() -> NDArray[np.float64]:
    """A trunk with two dark lungs, a heart, a spine and ribs; values in [0, 1]."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    image = 0.65 * np.clip(3.0 * (0.47 - np.hypot(0.9 * (x - 0.5), 0.35 * (y - 0.6))), 0.0, 1.0)
    for centre in (0.30, 0.70):
        image -= 0.42 * np.clip(4.0 * (1.0 - np.hypot((x - centre) / 0.16, (y - 0.45) / 0.32)), 0.0, 1.0)
    image += 0.30 * np.clip(4.0 * (1.0 - np.hypot((x - 0.55) / 0.13, (y - 0.60) / 0.14)), 0.0, 1.0)
    image += 0.20 * (np.abs(x - 0.5) < 0.035)
    image += 0.07 * (np.sin(40.0 * (y + 0.5 * (x - 0.5) ** 2)) > 0.75) * (image > 0.05)
    noise = np.random.default_rng(7).normal(0.0, 0.01, image.shape)
    drawn: NDArray[np.float64] = np.clip(image + noise, 0.0, 1.0)
    return drawn
