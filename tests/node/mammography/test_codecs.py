"""Every transfer syntax: our decoder against a second one, over every kind of stored value."""

import shutil
import subprocess

import imagecodecs
import numpy as np
import openjpeg
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from node.errors import PixelError
from node.mammography.codecs import decode, decompress
from tests.node.mammography.images import SHARED, breast, data_set, through_bytes

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def stored_image(bits, rows=61, columns=47):
    """A breast over the whole range of `bits`, both ends included, in an odd number of pixels."""
    image = (breast(rows, columns) * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)
    image[0, 0], image[-1, -1] = 0, 2**bits - 1
    return image


LOSSLESS = {
    "RLE": (RLELossless, None),
    "JPEG Lossless SV1": (
        JPEGLosslessSV1,
        lambda image, bits: imagecodecs.jpeg8_encode(image, lossless=True, predictor=1, bitspersample=bits),
    ),
    "JPEG-LS": (JPEGLSLossless, lambda image, bits: imagecodecs.jpegls_encode(image)),
    "JPEG 2000": (
        JPEG2000Lossless,
        lambda image, bits: imagecodecs.jpeg2k_encode(
            image, level=0, reversible=True, codecformat="j2k", bitspersample=bits
        ),
    ),
    "HTJ2K": (HTJ2K_LOSSLESS, lambda image, bits: imagecodecs.htj2k_encode(image, reversible=True)),
    "HTJ2K RPCL": (HTJ2K_RPCL, lambda image, bits: imagecodecs.htj2k_encode(image, reversible=True)),
    "HTJ2K any": (HTJ2K, lambda image, bits: imagecodecs.htj2k_encode(image, reversible=True)),
}


def second_opinion(dataset):
    """Stored values by pydicom with GDCM, OpenJPEG or its own decoder: none of them is used in decode()."""
    if dataset.file_meta.TransferSyntaxUID in (HTJ2K_LOSSLESS, HTJ2K_RPCL, HTJ2K):
        return openjpeg.decode(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    preferred = [plugin for plugin in ("gdcm", "pylibjpeg", "pydicom") if plugin in decoder.available_plugins]
    return decoder.as_array(dataset, raw=True, decoding_plugin=preferred[0])[0]


def encoded(name, image, bits, **attributes):
    syntax, encode = LOSSLESS[name]
    if encode is None:
        dataset = data_set(image, bits_stored=bits, **attributes)
        dataset.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
        return through_bytes(dataset)
    return through_bytes(data_set(image, syntax, bits_stored=bits, frame=bytes(encode(image, bits)), **attributes))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", NATIVE)
def test_native_syntaxes_are_exact(syntax, bits):
    image = stored_image(bits)
    assert np.array_equal(decode(through_bytes(data_set(image, syntax, bits_stored=bits))), image)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_syntaxes_are_exact(name, bits):
    image = stored_image(bits)
    stored = decode(encoded(name, image, bits))
    assert stored.dtype == image.dtype
    assert np.array_equal(stored, image)


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_second_decoder_agrees(name):
    dataset = encoded(name, stored_image(12), 12)
    assert np.array_equal(decode(dataset), second_opinion(dataset))


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_jpeg_lossless(predictor):
    image = stored_image(14)
    frame = imagecodecs.jpeg8_encode(image, lossless=True, predictor=predictor, bitspersample=14)
    dataset = through_bytes(data_set(image, JPEG_LOSSLESS, bits_stored=14, frame=bytes(frame)))
    assert np.array_equal(decode(dataset), image)


@pytest.mark.parametrize("syntax", NATIVE)
def test_signed_values_are_sign_extended_from_bits_stored(syntax):
    image = stored_image(12).astype(np.int16) - 2048
    masked = (image & 0x0FFF).astype(np.uint16)
    dataset = through_bytes(data_set(masked, syntax, PixelRepresentation=1))
    assert np.array_equal(decode(dataset), image)


@pytest.mark.parametrize("name", ["RLE", "JPEG Lossless SV1", "JPEG-LS", "JPEG 2000"])
def test_signed_values_in_a_codestream(name):
    image = stored_image(12).astype(np.int16) - 2048
    dataset = encoded(name, (image & 0x0FFF).astype(np.uint16), 12, PixelRepresentation=1)
    assert np.array_equal(decode(dataset), image)


def test_a_signed_jpeg_2000_stream():
    image = stored_image(12).astype(np.int16) - 2048
    frame = imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="j2k", bitspersample=12)
    dataset = through_bytes(data_set(image, JPEG2000Lossless, frame=bytes(frame)))
    assert np.array_equal(decode(dataset), image)


def test_rubbish_above_bits_stored_is_cut_off():
    image = stored_image(12)
    dirty = image | np.uint16(0xA000)
    assert np.array_equal(decode(through_bytes(data_set(dirty))), image)


def test_rubbish_above_bits_stored_inside_rle():
    image = stored_image(12)
    dataset = encoded("RLE", image | np.uint16(0x5000), 12)
    assert np.array_equal(decode(dataset), image)


def test_high_bit_above_bits_stored():
    image = stored_image(12)
    dataset = through_bytes(data_set(image << 4, HighBit=15))
    assert np.array_equal(decode(dataset), image)


@pytest.mark.parametrize("fragments", [1, 2, 5])
@pytest.mark.parametrize("offset_table", [True, False])
def test_fragments_of_one_frame_are_joined(fragments, offset_table):
    image = stored_image(12)
    frame = bytes(imagecodecs.jpegls_encode(image))
    data = encapsulate([frame], fragments_per_frame=fragments, has_bot=offset_table)
    assert np.array_equal(decode(through_bytes(data_set(image, JPEGLSLossless, frame=frame, data=data))), image)


def test_extended_offset_table():
    image = stored_image(12)
    frame = bytes(imagecodecs.jpegls_encode(image))
    data, offsets, lengths = encapsulate_extended([frame])
    dataset = data_set(image, JPEGLSLossless, frame=frame, data=data)
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    assert np.array_equal(decode(through_bytes(dataset)), image)


def test_eight_bit_big_endian_words():
    image = stored_image(8, 6, 8)
    swapped = image.reshape(-1, 2)[:, ::-1].tobytes()
    dataset = data_set(image, ExplicitVRBigEndian, data=swapped)
    dataset["PixelData"].VR = "OW"
    assert np.array_equal(decode(through_bytes(dataset)), image)


def test_near_lossless_jpeg_ls_within_its_bound():
    image = stored_image(12)
    frame = bytes(imagecodecs.jpegls_encode(image, level=2))
    dataset = through_bytes(data_set(image, JPEG_LS_NEAR, frame=frame))
    second = second_opinion(dataset)
    assert np.abs(decode(dataset).astype(int) - image).max() <= 2
    assert second.max() > 4095
    assert np.array_equal(decode(dataset), np.minimum(second, 4095))


@pytest.mark.parametrize(("syntax", "bits"), [(JPEG_BASELINE, 8), (JPEG_EXTENDED, 8)])
def test_lossy_jpeg_within_one_grey_of_a_second_decoder(syntax, bits):
    image = stored_image(bits)
    dataset = through_bytes(data_set(image, syntax, bits_stored=bits, frame=imagecodecs.jpeg8_encode(image, level=90)))
    second = second_opinion(dataset)
    assert np.abs(decode(dataset).astype(int) - second).max() <= 1


def test_lossy_jpeg_2000_within_one_grey_of_a_second_decoder():
    image = stored_image(12)
    frame = bytes(imagecodecs.jpeg2k_encode(image, level=60, codecformat="j2k", bitspersample=12))
    dataset = through_bytes(data_set(image, JPEG_2000, frame=frame))
    second = second_opinion(dataset)
    assert np.abs(decode(dataset).astype(int) - second).max() <= 1


def by_dcmtk(tool, arguments, dataset, folder):
    """The data set through a dcmtk command and back."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} of dcmtk is not installed")
    dataset.save_as(folder / "in.dcm", enforce_file_format=True)
    subprocess.run([tool, *arguments, folder / "in.dcm", folder / "out.dcm"], check=True, timeout=60)
    return pydicom.dcmread(folder / "out.dcm")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("dcmcjpeg", ["+e1"]),
        ("dcmcjpeg", ["+el", "+sv", "4"]),
        ("dcmcjpls", ["+el"]),
        ("dcmcrle", []),
        ("dcmconv", ["+ti"]),
        ("dcmconv", ["+tb"]),
        ("dcmconv", ["+td"]),
    ],
)
def test_what_dcmtk_encodes_losslessly(tool, arguments, tmp_path):
    image = stored_image(12)
    transcoded = by_dcmtk(tool, arguments, data_set(image), tmp_path)
    assert np.array_equal(decode(transcoded), image)


@pytest.mark.parametrize("arguments", [["+eb"], ["+ee"]])
def test_what_dcmtk_encodes_lossily_is_decoded_as_dcmtk_does(arguments, tmp_path):
    bits = 8 if arguments == ["+eb"] else 12
    encoded_by_dcmtk = by_dcmtk("dcmcjpeg", arguments, data_set(stored_image(bits), bits_stored=bits), tmp_path)
    second = by_dcmtk("dcmdjpeg", [], encoded_by_dcmtk, tmp_path)
    assert np.abs(decode(encoded_by_dcmtk).astype(int) - second.pixel_array).max() <= 1


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")
def test_real_jpeg_extended_of_12_bits_as_dcmtk_decodes_it(tmp_path):
    dataset = pydicom.dcmread(SHARED / "dicom/wg04/MG1_JPLY.dcm")
    second = by_dcmtk("dcmdjpeg", [], dataset, tmp_path).pixel_array
    assert np.abs(decode(dataset).astype(np.int32) - second).max() <= 1


@pytest.mark.skipif(not SHARED.exists(), reason="shared data are absent")
@pytest.mark.parametrize("name", ["wg04/MG1_J2KI.dcm", "fo-dicom/GH133.dcm", "fo-dicom/OutOfBoundsOverlay.dcm"])
def test_real_images_as_pydicom_decodes_them(name):
    dataset = pydicom.dcmread(SHARED / "dicom" / name)
    second = second_opinion(dataset)
    assert np.abs(decode(dataset).astype(np.int32) - second).max() <= 1


@pytest.mark.parametrize("name", LOSSLESS)
def test_decompress_keeps_pixels_and_identity(name):
    image = stored_image(12)
    dataset = encoded(name, image, 12)
    native = through_bytes(decompress(dataset))
    assert native.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert native.SOPInstanceUID == dataset.SOPInstanceUID
    assert np.array_equal(native.pixel_array, image)
    assert dataset.file_meta.TransferSyntaxUID == LOSSLESS[name][0]


@pytest.mark.parametrize("syntax", [syntax for syntax in NATIVE if syntax != ExplicitVRBigEndian])
def test_decompress_of_native_syntaxes(syntax):
    image = stored_image(12)
    native = through_bytes(decompress(through_bytes(data_set(image, syntax))))
    assert np.array_equal(native.pixel_array, image)


def test_decompress_of_a_colour_image_of_several_frames():
    frames = np.random.default_rng(1).integers(0, 255, (3, 20, 24, 3), dtype=np.uint8)
    dataset = data_set(frames[0, :, :, 0], bits_stored=8, data=frames.tobytes())
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.compress(RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    native = through_bytes(decompress(through_bytes(dataset)))
    assert np.array_equal(native.pixel_array, frames)
    assert native.SOPInstanceUID == dataset.SOPInstanceUID


def test_decompress_refuses_big_endian():
    with pytest.raises(PixelError, match="Big Endian is not transcoded"):
        decompress(through_bytes(data_set(stored_image(12), ExplicitVRBigEndian)))


def test_decompress_without_pixels_only_changes_the_syntax():
    dataset = data_set(stored_image(12), ImplicitVRLittleEndian)
    del dataset.PixelData
    assert decompress(dataset).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_no_transfer_syntax_is_refused():
    dataset = data_set(stored_image(12))
    del dataset.file_meta.TransferSyntaxUID
    with pytest.raises(PixelError, match="no transfer syntax"):
        decode(dataset)
