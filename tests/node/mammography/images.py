"""Images that the tests of node.mammography read: drawn breasts, and data sets that went through bytes."""

import io
import pathlib

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SHARED = pathlib.Path(__file__).parents[3] / "../shared/data"
MG = "1.2.840.10008.5.1.4.1.1.1.2"
SOP_INSTANCE_UID = "2.25.171717171717171717171717171717171717"


def breast(rows=600, columns=400, *, chest_wall="L", reach=0.7, seed=0):
    """A drawn breast, float32 (rows, columns) in [0, 1]: half an ellipse on one edge, textured, skin dim, air 0."""
    y, x = np.mgrid[:rows, :columns]
    across = (x + 0.5) / columns / reach
    along = (y + 0.5 - rows / 2) / (0.42 * rows)
    depth = 1 - across**2 - along**2
    texture = np.random.default_rng(seed).uniform(0.6, 1.0, (rows, columns))
    drawn = np.where(depth > 0, 0.15 + 0.7 * np.sqrt(np.clip(depth, 0, 1)) * texture, 0).astype(np.float32)
    return drawn if chest_wall == "L" else np.ascontiguousarray(drawn[:, ::-1])


def data_set(stored, syntax=ExplicitVRLittleEndian, *, bits_stored=12, frame=None, data=None, **attributes):
    """A mammogram holding `stored`; `frame` is its codestream, `data` its Pixel Data as they stand. Not yet bytes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = MG
    dataset.file_meta.MediaStorageSOPInstanceUID = SOP_INSTANCE_UID
    dataset.SOPClassUID = MG
    dataset.SOPInstanceUID = SOP_INSTANCE_UID
    dataset.Modality = "MG"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = min(bits_stored, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if data is None:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        native = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        data = encapsulate([frame]) if frame is not None else native + b"\0" * (len(native) % 2)
    dataset.add_new("PixelData", "OB" if frame is not None or dataset.BitsAllocated == 8 else "OW", data)
    if frame is not None:
        dataset["PixelData"].is_undefined_length = True
    return dataset


def through_bytes(dataset):
    """Written as a Part 10 file and read back."""
    buffer = io.BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.save_as(
        buffer,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))
