"""Whole or not: every way in which an encoded data set can be cut, in every form of encoding."""

import io
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from node import encoded
from node.encoded import Header, PixelSpan, checked_uid, is_uid, read_header
from node.errors import DataSetMismatchError, NotUnderstoodError

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def an_image(rows: int = 7, columns: int = 5) -> Dataset:
    dataset = Dataset()
    dataset.SOPInstanceUID = "1.2.840.113619.2.255.1"
    dataset.Modality = "MG"
    inner = Dataset()
    inner.CodeValue = "R-10226"
    outer = Dataset()
    outer.ViewModifierCodeSequence = Sequence([inner])
    dataset.ViewCodeSequence = Sequence([outer, Dataset()])
    for nested in (dataset["ViewCodeSequence"], outer["ViewModifierCodeSequence"]):
        nested.is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.add_new("PixelData", "OW", bytes(range(2 * rows * columns)))
    return dataset


def written(dataset: Dataset, syntax: pydicom.uid.UID) -> bytes:
    buffer = io.BytesIO()
    writer = DicomIO(buffer)
    writer.is_implicit_VR, writer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(writer, dataset)
    content = buffer.getvalue()
    if syntax != DeflatedExplicitVRLittleEndian:
        return content
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def read(folder: Path, content: bytes, syntax: str, offset: int = 0) -> Header:
    path = folder / "data"
    path.write_bytes(content)
    return read_header(path, offset, syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_whole_image_gives_its_header(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    header = read(tmp_path, b"meta" + written(an_image(), syntax), syntax, 4)
    assert header.pixels == PixelSpan(70)
    assert (header.dataset.Rows, header.dataset.Columns) == (7, 5)
    assert header.dataset.ViewCodeSequence[0].ViewModifierCodeSequence[0].CodeValue == "R-10226"
    assert "PixelData" not in header.dataset


@pytest.mark.parametrize("syntax", NATIVE)
def test_a_cut_anywhere_but_between_elements_is_noticed(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    content = written(an_image(), syntax)
    whole = []
    for size in range(1, len(content)):
        try:
            whole.append(read(tmp_path, content[:size], syntax))
        except NotUnderstoodError:
            continue
    # cut exactly between two elements it is a shorter data set, without pixel data
    assert len(whole) == len(an_image()) - 1
    assert all(header.pixels is None for header in whole)


def test_a_deflated_stream_that_is_cut_is_noticed(tmp_path: Path) -> None:
    content = written(an_image(), DeflatedExplicitVRLittleEndian)
    for size in range(1, len(content)):
        with pytest.raises(NotUnderstoodError):
            read(tmp_path, content[:size], DeflatedExplicitVRLittleEndian)


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "INFLATED_LIMIT_BYTES", 3 << 20)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = packer.compress(bytes(64 << 20)) + packer.flush()
    with pytest.raises(NotUnderstoodError, match="inflates to more"):
        read(tmp_path, content, DeflatedExplicitVRLittleEndian)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def encapsulated(rows: int = 3000) -> bytes:
    dataset = an_image()
    dataset.Rows, dataset.Columns = rows, 3000
    dataset.PixelData = encapsulate([b"\xff\x4f" + bytes(998), bytes(500)], has_bot=True)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.DataSetTrailingPadding = bytes(32)
    return written(dataset, JPEG2000Lossless)


def test_fragments_are_followed_to_their_delimiter_and_beyond(tmp_path: Path) -> None:
    content = encapsulated()
    assert read(tmp_path, content, JPEG2000Lossless).pixels == PixelSpan(None)
    for cut in (1, 31, 33, 48, 52, 60, 600, 1700):
        with pytest.raises(NotUnderstoodError):
            read(tmp_path, content[:-cut], JPEG2000Lossless)


def test_pixel_data_that_is_shorter_than_its_header_says_is_refused(tmp_path: Path) -> None:
    dataset = an_image()
    dataset.Rows = 8
    with pytest.raises(NotUnderstoodError, match="70 bytes, the header says 80"):
        read(tmp_path, written(dataset, ExplicitVRLittleEndian), ExplicitVRLittleEndian)


def test_a_size_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    dataset = an_image()
    dataset.Rows = dataset.Columns = 65535
    dataset.NumberOfFrames = "2147483647"
    with pytest.raises(NotUnderstoodError, match="the header says"):
        read(tmp_path, written(dataset, ExplicitVRLittleEndian), ExplicitVRLittleEndian)


def test_single_bits_and_subsampled_colour_have_their_own_lengths(tmp_path: Path) -> None:
    bits = an_image()
    bits.BitsAllocated, bits.NumberOfFrames = 1, "3"
    bits.PixelData = bytes(14)  # 105 bits
    colour = an_image(4, 6)
    colour.SamplesPerPixel, colour.BitsAllocated, colour.PhotometricInterpretation = 3, 8, "YBR_FULL_422"
    colour.PixelData = bytes(48)
    lengths = [
        read(tmp_path, written(each, ExplicitVRLittleEndian), ExplicitVRLittleEndian).pixels for each in (bits, colour)
    ]
    assert lengths == [PixelSpan(14), PixelSpan(48)]


@pytest.mark.parametrize("content", [b"", b"\x00", b"GIF89a, not DICOM at all, and no end of it in sight" * 9])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_no_dicom_is_refused(tmp_path: Path, content: bytes, syntax: str) -> None:
    with pytest.raises(NotUnderstoodError):
        read(tmp_path, content, syntax)


def test_the_wrong_form_of_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotUnderstoodError):
        read(tmp_path, written(an_image(), ExplicitVRBigEndian), ExplicitVRLittleEndian)


def test_sequences_nested_without_end_are_refused(tmp_path: Path) -> None:
    # (0008,1115) SQ of undefined length, item of undefined length, and so on
    content = bytes.fromhex("08001511 53510000 ffffffff feff00e0 ffffffff") * 5000
    with pytest.raises(NotUnderstoodError, match="nested deeper"):
        read(tmp_path, content, ExplicitVRLittleEndian)


@pytest.mark.parametrize("inner", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_sequence_of_unknown_vr_is_followed_in_either_form(tmp_path: Path, inner: pydicom.uid.UID) -> None:
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "R-10226", "medio-lateral oblique"
    content = written(item, inner)
    sequence = bytes.fromhex("54002002 554e0000 ffffffff feff00e0 ffffffff") + content
    sequence += bytes.fromhex("feff0de0 00000000 feffdde0 00000000")
    assert read(tmp_path, sequence, ExplicitVRLittleEndian).pixels is None
    with pytest.raises(NotUnderstoodError):
        read(tmp_path, sequence[:-9], ExplicitVRLittleEndian)


UIDS = {
    "1.2.840.10008.5.1.4.1.1.1.2": True,
    "2.25." + "9" * 59: True,
    "2.25." + "9" * 60: False,
    "1.2.03": False,
    "1.0.3": True,
    "1": False,
    "": False,
    "1.2.": False,
    ".1.2": False,
    "1..2": False,
    "1.2.3\n": False,
    "../../etc/passwd": False,
    "1.2/../3": False,
    "1.2.a": False,
    "１.２": False,
}


@pytest.mark.parametrize("text", UIDS)
def test_uids(text: str) -> None:
    assert is_uid(text) is UIDS[text]


def test_what_is_no_uid_is_not_repeated_in_the_message() -> None:
    with pytest.raises(DataSetMismatchError) as caught:
        checked_uid("../../Müller^Erika", "SOPInstanceUID")
    assert str(caught.value) == "SOPInstanceUID is no UID"
