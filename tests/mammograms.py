"""Small mammograms, made on the spot: four views of one study, valid enough to be received, read and sent on."""

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from node.mammography.views import STANDARD_VIEWS, Laterality, View, ViewPosition

ROWS, COLUMNS = 640, 512


def mammogram(view: View, study_instance_uid: str, *, bright: bool = False, patient_id: str = "P-1") -> Dataset:
    """One view, For Presentation, 12 bits; `bright`: with a disc that the tiny model takes for a mass."""
    dataset = Dataset()
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = study_instance_uid
    dataset.SeriesInstanceUID = f"{study_instance_uid[:60]}.1"
    dataset.StudyDate = dataset.ContentDate = dataset.AcquisitionDate = "20260314"
    dataset.StudyTime = dataset.ContentTime = dataset.AcquisitionTime = "101500"
    dataset.AccessionNumber, dataset.StudyID, dataset.InstanceNumber = "A1", "1", "1"
    dataset.ReferringPhysicianName, dataset.PatientName, dataset.PatientID = "", "Test^Anna", patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "19610504", "F"
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.Manufacturer, dataset.ImageType = "Maker", ["ORIGINAL", "PRIMARY"]
    dataset.ImageLaterality, dataset.ViewPosition = view.laterality.value, view.position.value
    is_right, is_cc = view.laterality is Laterality.RIGHT, view.position is ViewPosition.CC
    medial = "L" if is_right else "R"
    dataset.PatientOrientation = ["P" if is_right else "A", medial if is_cc else f"F{medial}"]
    dataset.ImagerPixelSpacing = ["0.4", "0.4"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    dataset.PixelData = _pixels(is_right, bright).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def exam(views: Sequence[View] = STANDARD_VIEWS, *, bright: Sequence[View] = (), **more: str) -> list[Dataset]:
    """The views of a new study."""
    study = generate_uid()
    return [mammogram(view, study, bright=view in bright, **more) for view in views]


def send(images: Sequence[Dataset], port: int, ae_title: str = "MAMMOCLIP", calling: str = "TESTER") -> list[int]:
    """C-STORE to a listener on loopback; the status of each."""
    ae = AE(ae_title=calling)
    for sop_class, syntax in {(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images}:
        ae.add_requested_context(sop_class, syntax)
    association = ae.associate("127.0.0.1", port, ae_title=ae_title)
    assert association.is_established
    try:
        return [int(association.send_c_store(image).Status) for image in images]
    finally:
        association.release()


def _pixels(is_right: bool, bright: bool) -> np.ndarray:
    """A half ellipse of tissue on the chest wall's edge."""
    y, x = np.mgrid[:ROWS, :COLUMNS] + 0.5
    tissue = (x / 330.0) ** 2 + ((y - ROWS / 2) / 280.0) ** 2 < 1.0
    noise = np.random.default_rng(1).normal(0.0, 20.0, (ROWS, COLUMNS))
    image = np.where(tissue, 1500.0 + 200.0 * np.sin(x / 40.0) * np.cos(y / 50.0) + noise, 0.0)
    if bright:
        image += 2000.0 * np.exp(-(((x - 150.0) ** 2 + (y - 330.0) ** 2) / (2 * 14.0**2)))
    stored = np.clip(image, 0, 4095).astype("<u2")
    return np.ascontiguousarray(stored[:, ::-1] if is_right else stored)
