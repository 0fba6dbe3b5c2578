"""Pixel data that are not what the header says end in PixelError with the reason, and in nothing else."""

import struct

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from node.errors import PixelError
from node.mammography.codecs import decode
from node.mammography.pixels import check_pixel_header, prepare, preset
from node.mammography.views import Laterality
from tests.node.mammography.images import SHARED, data_set, through_bytes
from tests.node.mammography.test_codecs import LOSSLESS, encoded, stored_image

IMAGE = stored_image(12)


def jpeg_ls(image=IMAGE):
    return bytes(imagecodecs.jpegls_encode(image))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 60000, "Columns": 60000}, "Rows x Columns is 60000 x 60000: no mammogram is as large"),
        ({"Rows": 0}, "Rows is 0"),
        ({"Columns": None}, "Columns is missing"),
        ({"NumberOfFrames": 4}, "multi-frame image of 4 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour image: Samples per Pixel is 3"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR, not MONOCHROME1 or MONOCHROME2"),
        ({"BitsAllocated": 32}, "12 bits stored in 32 bits allocated"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "1 bits stored in 1 bits allocated"),
        ({"BitsStored": 17}, "17 bits stored in 16 bits allocated"),
        ({"HighBit": 3}, "High Bit 3 does not fit"),
        ({"Rows": 62}, "Pixel Data holds 5734 bytes, 62 x 47 x 16 bits are 5828"),
        ({"Rows": 60}, "Pixel Data holds 5734 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_headers_that_are_refused(attributes, reason):
    with pytest.raises(PixelError, match=reason):
        decode(data_set(IMAGE, **attributes))


def test_an_absurd_size_is_refused_by_the_header_alone():
    with pytest.raises(PixelError, match="no mammogram is as large"):
        check_pixel_header(data_set(IMAGE, Rows=65535, Columns=65535))


def test_no_pixel_data():
    dataset = data_set(IMAGE)
    del dataset.PixelData
    with pytest.raises(PixelError, match="no Pixel Data"):
        decode(dataset)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        (JPEGLosslessSV1, "pixel data is JPEG-LS, transfer syntax is JPEG Lossless"),
        (JPEG2000Lossless, "pixel data is JPEG-LS, transfer syntax is JPEG 2000"),
        ("1.2.840.10008.1.2.4.201", "pixel data is JPEG-LS, transfer syntax is High-Throughput"),
        (RLELossless, "cannot be decoded as RLE"),
        ("1.2.840.10008.1.2.4.93", "is not supported"),
        ("1.2.3.4", "transfer syntax 1.2.3.4 is not known"),
    ],
)
def test_a_stream_of_another_transfer_syntax(syntax, reason):
    with pytest.raises(PixelError, match=reason):
        decode(data_set(IMAGE, syntax, frame=jpeg_ls()))


def test_native_pixels_called_jpeg():
    with pytest.raises(PixelError, match="no JPEG, JPEG-LS or JPEG 2000 codestream"):
        decode(data_set(IMAGE, JPEGLSLossless, frame=IMAGE.tobytes()))


def test_a_stream_of_another_size_names_both():
    with pytest.raises(PixelError, match="codestream is 30 x 20, Rows x Columns is 61 x 47"):
        decode(data_set(IMAGE, JPEGLSLossless, frame=jpeg_ls(np.ascontiguousarray(IMAGE[:30, :20]))))


def test_a_stream_of_other_bits_names_both():
    frame = jpeg_ls(stored_image(8))
    with pytest.raises(PixelError, match="codestream has 8 bits, Bits Allocated is 16"):
        decode(data_set(IMAGE, JPEGLSLossless, frame=frame))


def test_a_colour_stream():
    frame = bytes(imagecodecs.jpeg8_encode(np.zeros((61, 47, 3), np.uint8)))
    dataset = data_set(stored_image(8), "1.2.840.10008.1.2.4.50", bits_stored=8, frame=frame)
    with pytest.raises(PixelError, match="colour image: codestream has 3 components"):
        decode(dataset)


def test_a_bomb_inside_the_codestream_is_not_decoded():
    frame = bytearray(imagecodecs.jpeg2k_encode(IMAGE, level=0, reversible=True, codecformat="j2k"))
    struct.pack_into(">II", frame, 8, 60000, 60000)
    with pytest.raises(PixelError, match="codestream is 60000 x 60000"):
        decode(data_set(IMAGE, JPEG2000Lossless, frame=bytes(frame)))


def test_a_bomb_of_rle_runs_is_stopped():
    frame = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\x00" * 50_000
    with pytest.raises(PixelError, match="RLE"):
        decode(data_set(IMAGE, RLELossless, frame=frame))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xfe\xff",
        b"\xfe\xff\x00\xe0\x04\x00\x00\x00\x00\x00\x00\x00",
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        b"\xfe\xff\x00\xe0\x03\x00\x00\x00abc",
        b"nothing like an item at all",
        encapsulate([b"ab", b"cd"]),
    ],
    ids=["empty", "half a tag", "no fragments", "undefined length", "odd offsets", "no item", "two frames"],
)
@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_broken_encapsulation(data, syntax):
    with pytest.raises(PixelError):
        decode(data_set(IMAGE, syntax, frame=b"", data=data))


@pytest.mark.parametrize("name", LOSSLESS)
def test_truncated_streams(name):
    dataset = encoded(name, IMAGE, 12)
    whole = bytes(dataset.PixelData)
    for share in (0.1, 0.5, 0.9, 0.99):
        dataset["PixelData"].value = whole[: int(len(whole) * share)]
        with pytest.raises(PixelError):
            decode(dataset)


@pytest.mark.parametrize("name", LOSSLESS)
def test_damaged_streams_raise_nothing_else(name):
    dataset = encoded(name, IMAGE, 12)
    whole = np.frombuffer(dataset.PixelData, np.uint8)
    random = np.random.default_rng(7)
    outcomes = set()
    for _ in range(60):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 4)] = random.integers(0, 256, 4)
        dataset["PixelData"].value = damaged.tobytes()
        try:
            outcomes.add(decode(dataset).shape)
        except PixelError as error:
            outcomes.add(type(error))
    assert PixelError in outcomes
    assert outcomes <= {PixelError, IMAGE.shape}


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")
def test_a_real_tomosynthesis_object_is_refused_with_its_reason():
    dataset = pydicom.dcmread(SHARED / "dicom/dbt/breast_tomosynthesis_j2k.dcm")
    with pytest.raises(PixelError, match="multi-frame image of 4 frames, for example tomosynthesis"):
        prepare(dataset, Laterality.LEFT, preset("fit-760x456"))


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")
@pytest.mark.parametrize("name", ["MG-Im-Hologic-PropProj.dcm", "MG-RDSR-Hologic_2D.dcm"])
def test_real_objects_without_pixels(name):
    dataset = pydicom.dcmread(SHARED / "dicom/openrem" / name)
    with pytest.raises(PixelError):
        prepare(dataset, Laterality.LEFT, preset("fit-760x456"))


def test_a_file_cut_off_inside_its_pixels():
    dataset = through_bytes(data_set(IMAGE, ExplicitVRLittleEndian))
    dataset["PixelData"].value = bytes(dataset.PixelData)[:-100]
    with pytest.raises(PixelError, match="Pixel Data holds"):
        decode(dataset)
