"""An encoded data set as it came over the network: whether it is whole (PS3.5 7), and its header. Nothing is decoded.

A receiver that answers 0x0000 says that it holds the object. So each length is followed to the last byte first:
elements, sequences, items, fragments. That costs a look at each of their headers and none at the pixels.
"""

import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from node.errors import DataSetMismatchError, NotUnderstoodError

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, double float and integer Pixel Data."""
KNOWN_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
DEEPEST = 32
"""Sequences within sequences; nobody nests deeper, and pydicom reads them by recursion."""
INFLATED_LIMIT_BYTES = 2 << 30
"""A deflated data set that grows beyond this is refused (decompression bomb)."""
CHUNK_BYTES = 1 << 20

UID_PATTERN = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


@dataclass(frozen=True, slots=True)
class PixelSpan:
    """Where the pixel data stands: its value's length in bytes, None for encapsulated fragments."""

    length: int | None


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the pixel data; `pixels` is None where there is none."""

    dataset: Dataset
    pixels: PixelSpan | None


@dataclass(frozen=True, slots=True)
class Form:
    """How elements are written: VR stated or not, byte order. `mixed`: either, told apart element by element."""

    implicit: bool
    little_endian: bool
    mixed: bool = False

    @property
    def order(self) -> str:
        """For `struct`."""
        return "<" if self.little_endian else ">"


def is_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5 9.1): digits and dots, no leading zeros, at most 64 characters."""
    return len(text) <= 64 and UID_PATTERN.fullmatch(text) is not None


def checked_uid(text: str, keyword: str) -> str:
    """The UID itself. Raises DataSetMismatchError: whatever it holds, it never gets near a path."""
    if not is_uid(text):
        raise DataSetMismatchError(f"{keyword} is no UID")
    return text


def read_header(path: Path, offset: int, transfer_syntax_uid: str) -> Header:
    """The data set that starts at `offset` of a file, without its pixel data, checked to be whole.

    Raises NotUnderstoodError where a length leads past the end, an element is cut, or native pixel data is shorter than
    Rows, Columns, Samples per Pixel, Bits Allocated and Number of Frames say.
    """
    syntax = UID(transfer_syntax_uid)
    form = Form(syntax.is_implicit_VR, syntax.is_little_endian)
    with path.open("rb") as file:
        file.seek(offset)
        if syntax == DeflatedExplicitVRLittleEndian:
            with TemporaryFile(dir=path.parent) as inflated:
                _inflate(file, inflated)
                return _read(inflated, 0, form)
        return _read(file, offset, form)


def _read(file: BinaryIO, offset: int, form: Form) -> Header:
    with _mapped(file) as content:
        span = _walk_top(content, offset, form)
        content.seek(offset)
        header = read_dataset(content, form.implicit, form.little_endian, stop_when=_at_pixels)  # type: ignore[arg-type]
    if span is not None:
        check_pixel_length(header, span)
    return Header(header, span)


@contextmanager
def _mapped(file: BinaryIO) -> Iterator[mmap.mmap]:
    try:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # an empty file cannot be mapped
        raise NotUnderstoodError("the data set is empty") from error
    with content:
        yield content


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in PIXEL_DATA


def check_pixel_length(header: Dataset, span: PixelSpan) -> None:
    """Native pixel data holds at least what the header says. Raises NotUnderstoodError."""
    if span.length is None:
        return
    try:
        bits = int(header.get("Rows") or 0) * int(header.get("Columns") or 0) * int(header.get("BitsAllocated") or 0)
        frames = int(header.get("NumberOfFrames") or 1)
        samples = int(header.get("SamplesPerPixel") or 1)
        subsampled = header.get("PhotometricInterpretation") == "YBR_FULL_422"
    except (ValueError, TypeError, NotImplementedError) as error:
        raise NotUnderstoodError("the image's size cannot be read") from error
    needed = (bits * frames * (2 if subsampled else samples) + 7) // 8
    if span.length < needed:
        raise NotUnderstoodError(f"pixel data has {span.length} bytes, the header says {needed}")


def _walk_top(content: mmap.mmap, position: int, form: Form) -> PixelSpan | None:
    """Follow every element to the end. Where the pixel data stands, None where there is none."""
    span = None
    try:
        while position < len(content):
            tag, vr, length, position = _element(content, position, form)
            if tag in PIXEL_DATA:
                span = PixelSpan(None if length == UNDEFINED else length)
            position = _after_value(content, position, form, tag, vr, length, depth=0)
    except struct.error as error:
        raise NotUnderstoodError("the data set is cut short") from error
    return span


def _element(content: mmap.mmap, position: int, form: Form) -> tuple[int, bytes, int, int]:
    """Tag, VR (empty if not stated), length and where the value starts."""
    group, number = struct.unpack_from(form.order + "HH", content, position)
    tag = group << 16 | number
    vr = content[position + 4 : position + 6]
    if group == 0xFFFE or not _states_vr(form, vr):
        (length,) = struct.unpack_from(form.order + "L", content, position + 4)
        return tag, b"", length, position + 8
    if vr in LONG_VRS:
        (length,) = struct.unpack_from(form.order + "L", content, position + 8)
        return tag, vr, length, position + 12
    (length,) = struct.unpack_from(form.order + "H", content, position + 6)
    return tag, vr, length, position + 8


def _states_vr(form: Form, vr: bytes) -> bool:
    """Some writers change to implicit VR inside a sequence, so two bytes that are no capitals are no VR."""
    if form.mixed:
        return vr in KNOWN_VRS
    return not form.implicit and vr.isalpha() and vr.isupper()


def _after_value(content: mmap.mmap, position: int, form: Form, tag: int, vr: bytes, length: int, depth: int) -> int:
    """Where the next element starts; a value of undefined length is followed item by item."""
    if length != UNDEFINED:
        if position + length > len(content):
            raise NotUnderstoodError(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is cut short")
        return position + length
    if depth >= DEEPEST:
        raise NotUnderstoodError(f"sequences are nested deeper than {DEEPEST}")
    # implicit VR by PS3.5 6.2.2 note 1, yet explicit in many files
    inner = Form(True, True, mixed=True) if vr == b"UN" else form
    while True:
        item, _, item_length, position = _element(content, position, inner)
        if item == SEQUENCE_END:
            return position
        if item != ITEM:
            raise NotUnderstoodError(f"no item where one must be, in ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        position = _after_item(content, position, inner, tag, item_length, depth)


def _after_item(content: mmap.mmap, position: int, form: Form, tag: int, length: int, depth: int) -> int:
    if length != UNDEFINED:
        return _after_value(content, position, form, tag, b"", length, depth)
    while True:
        inner_tag, vr, inner_length, position = _element(content, position, form)
        if inner_tag == ITEM_END:
            return position
        position = _after_value(content, position, form, inner_tag, vr, inner_length, depth + 1)


def _inflate(file: BinaryIO, inflated: BinaryIO) -> None:
    """Raw deflate (PS3.5 A.5) to a temporary file. Raises NotUnderstoodError."""
    stream, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not stream.eof and (chunk := stream.unconsumed_tail or file.read(CHUNK_BYTES)):
            piece = stream.decompress(chunk, CHUNK_BYTES)
            size += inflated.write(piece)
            if size > INFLATED_LIMIT_BYTES:
                raise NotUnderstoodError(f"the data set inflates to more than {INFLATED_LIMIT_BYTES} bytes")
        inflated.write(stream.flush())
    except zlib.error as error:
        raise NotUnderstoodError("the data set is not deflated") from error
    if not stream.eof:
        raise NotUnderstoodError("the deflated data set is cut short")
    inflated.flush()
