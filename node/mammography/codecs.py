"""Pixel Data to stored values, by the fastest exact decoder of each transfer syntax; and to Explicit VR Little Endian.

Measured for 4096 x 3328 pixels of 12 bits of a scanned film, seconds of CPU: RLE 0.02 (PackBits), JPEG Extended 0.06
and JPEG Lossless 0.07 (libjpeg-turbo), JPEG-LS 0.10 (CharLS), HTJ2K 0.13 and JPEG 2000 0.68 (OpenJPEG, all cores).
Two faster decoders are not used: on a damaged stream OpenJPH goes on with rubbish and a message, and pylibjpeg-rle
ends in a panic that no Exception handler sees.
"""

import os
import struct
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.filebase import DicomBytesIO
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from node.errors import PixelError
from node.mammography import codestream

LARGEST_IMAGE_PX = 200_000_000
"""More Rows x Columns are no mammogram (a detector has 14 million) but an attempt to fill the memory."""
DECODER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What the decoders and the encapsulation parser raise on bad input."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stored values of one image lie in its pixel data (PS3.5 section 8.1.1)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def size_bytes(self) -> int:
        """Length of the pixel data without compression and padding."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def unsigned_type(self) -> np.dtype[np.unsignedinteger]:
        """Pixel cells as they lie in memory, little endian."""
        return np.dtype("<u2") if self.bits_allocated == 16 else np.dtype("u1")


Decoder = Callable[[bytes, Layout], NDArray[np.generic]]


def check_pixel_header(dataset: Dataset) -> Layout:
    """The layout of an image that can be read: one frame, one sample a pixel, 8 to 16 bits, no absurd size.

    Looks at nothing but the header. Raises PixelError with the reason.
    """
    rows, columns = _count(dataset, "Rows"), _count(dataset, "Columns")
    if rows * columns > LARGEST_IMAGE_PX:
        raise PixelError(f"Rows x Columns is {rows} x {columns}: no mammogram is as large")
    frames = dataset.get("NumberOfFrames")
    if frames is not None and _count(dataset, "NumberOfFrames") > 1:
        raise PixelError(f"multi-frame image of {frames} frames, for example tomosynthesis")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise PixelError(f"colour image: Samples per Pixel is {dataset.SamplesPerPixel}")
    photometry = dataset.get("PhotometricInterpretation", "")
    if photometry not in ("MONOCHROME1", "MONOCHROME2"):
        raise PixelError(f"Photometric Interpretation is {photometry or 'missing'}, not MONOCHROME1 or MONOCHROME2")
    return _layout(dataset, rows, columns)


def _layout(dataset: Dataset, rows: int, columns: int) -> Layout:
    allocated, stored = _count(dataset, "BitsAllocated"), _count(dataset, "BitsStored")
    if allocated not in (8, 16) or stored > allocated:
        raise PixelError(f"{stored} bits stored in {allocated} bits allocated are no mammogram")
    high_bit = dataset.get("HighBit")
    high_bit = stored - 1 if high_bit is None else int(high_bit)
    if not stored - 1 <= high_bit < allocated:
        raise PixelError(f"High Bit {high_bit} does not fit {stored} bits stored in {allocated} bits allocated")
    return Layout(rows, columns, allocated, stored, high_bit, dataset.get("PixelRepresentation", 0) == 1)


def _count(dataset: Dataset, keyword: str) -> int:
    try:
        value = int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PixelError(f"{keyword} is missing or no number") from error
    if value < 1:
        raise PixelError(f"{keyword} is {value}")
    return value


def decode(dataset: Dataset) -> NDArray[np.integer]:
    """Stored values of a single-frame monochrome image, (rows, columns), uint8, uint16, int8 or int16.

    Bits outside Bits Stored (overlays, rubbish) are cut off, signed values are sign-extended. The codestream's own
    size and bits are compared with the header before it is decoded. Raises PixelError.
    """
    layout = check_pixel_header(dataset)
    if "PixelData" not in dataset:
        raise PixelError("no Pixel Data")
    syntax = transfer_syntax_of(dataset)
    if syntax not in _DECODERS:
        if syntax.is_encapsulated:
            raise PixelError(f"transfer syntax {syntax.name} is not supported")
        return _stored_values(_native(dataset, layout, syntax), layout, layout.bits_stored)
    try:
        frame = _single_frame(dataset["PixelData"].value)
    except DECODER_ERRORS as error:
        raise PixelError(f"encapsulated pixel data cannot be parsed: {error}") from error
    codings, decoder = _DECODERS[syntax]
    bits = _checked_precision(frame, layout, codings, syntax) if codings else layout.bits_stored
    try:
        cells = decoder(frame, layout)
    except DECODER_ERRORS as error:
        raise PixelError(f"pixel data cannot be decoded as {syntax.name}: {error}") from error
    cells = _as_cells(cells, layout, syntax)
    if syntax in _LOSSY and not layout.signed:
        cells = np.minimum(cells, (1 << bits) - 1)
    return _stored_values(cells, layout, bits)


def transfer_syntax_of(dataset: Dataset) -> UID:
    """Transfer Syntax UID of the File Meta Information, else what the data set was read as. Raises PixelError."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        syntax = UID(str(meta.TransferSyntaxUID))
        if syntax not in _DECODERS and not syntax.is_transfer_syntax:
            raise PixelError(f"transfer syntax {syntax} is not known")
        return syntax
    raise PixelError("no transfer syntax")


def _native(dataset: Dataset, layout: Layout, syntax: UID) -> NDArray[np.generic]:
    """Uncompressed cells; pydicom has inflated a deflated data set when it read it."""
    element = dataset["PixelData"]
    data = element.value
    expected = layout.size_bytes
    if not isinstance(data, bytes | bytearray) or len(data) not in (expected, expected + expected % 2):
        held = len(data) if isinstance(data, bytes | bytearray) else 0
        raise PixelError(
            f"Pixel Data holds {held} bytes, "
            f"{layout.rows} x {layout.columns} x {layout.bits_allocated} bits are {expected}"
        )
    cells: NDArray[np.generic]
    if syntax == ExplicitVRBigEndian and element.VR != "OB":
        swapped = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype("<u2")
        cells = swapped.view(layout.unsigned_type)[: layout.rows * layout.columns]
    else:
        cells = np.frombuffer(data, layout.unsigned_type, count=layout.rows * layout.columns)
    return cells.reshape(layout.rows, layout.columns)


def _single_frame(data: bytes) -> bytes:
    """All fragments of the one frame, whatever the offset tables say about them (PS3.5 A.4)."""
    buffer = DicomBytesIO(data)
    buffer.is_little_endian = True
    offsets = parse_basic_offsets(buffer)
    if len(offsets) > 1:
        raise ValueError(f"{len(offsets)} frames in the offset table of a single-frame image")
    fragments = list(generate_fragments(buffer))
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def _checked_precision(frame: bytes, layout: Layout, codings: tuple[str, ...], syntax: UID) -> int:
    """Compare the codestream's header with the data set's; gives the bits that carry the value."""
    header = codestream.read_header(frame)
    if header.coding not in codings:
        raise PixelError(f"pixel data is {header.coding}, transfer syntax is {syntax.name}")
    if (header.rows, header.columns) != (layout.rows, layout.columns):
        raise PixelError(
            f"codestream is {header.rows} x {header.columns}, Rows x Columns is {layout.rows} x {layout.columns}"
        )
    if header.components != 1:
        raise PixelError(f"colour image: codestream has {header.components} components, Samples per Pixel is 1")
    if (header.precision > 8) != (layout.bits_allocated > 8) or header.precision > layout.bits_allocated:
        raise PixelError(f"codestream has {header.precision} bits, Bits Allocated is {layout.bits_allocated}")
    return min(header.precision, layout.bits_stored)


def _as_cells(cells: NDArray[np.generic], layout: Layout, syntax: UID) -> NDArray[np.generic]:
    cells = cells.reshape(cells.shape[:2]) if cells.ndim == 3 and cells.shape[2] == 1 else cells
    if cells.shape != (layout.rows, layout.columns) or cells.dtype.itemsize != layout.bits_allocated // 8:
        raise PixelError(
            f"{syntax.name} gave {cells.shape} of {cells.dtype}, "
            f"the header says {layout.rows} x {layout.columns} of {layout.bits_allocated} bits"
        )
    return cells.view(layout.unsigned_type)


def _stored_values(cells: NDArray[np.generic], layout: Layout, bits: int) -> NDArray[np.integer]:
    """Cut off what lies outside the stored bits; sign-extend from their top bit."""
    unsigned = np.asarray(cells, dtype=layout.unsigned_type)
    if layout.high_bit != layout.bits_stored - 1:
        unsigned = unsigned >> (layout.high_bit - layout.bits_stored + 1)
    unused = layout.bits_allocated - bits
    if layout.signed:
        signed: NDArray[np.integer] = unsigned.view(np.dtype("<i2" if layout.bits_allocated == 16 else "i1"))
        return np.asarray((signed << unused) >> unused) if unused else signed
    if unused and int(unsigned.max()) >> bits:
        return np.bitwise_and(unsigned, (1 << bits) - 1)
    return unsigned


def _decode_jpeg(frame: bytes, layout: Layout) -> NDArray[np.generic]:
    return np.asarray(imagecodecs.jpeg8_decode(frame))


def _decode_jpeg_ls(frame: bytes, layout: Layout) -> NDArray[np.generic]:
    return np.asarray(imagecodecs.jpegls_decode(frame))


def _decode_jpeg_2000(frame: bytes, layout: Layout) -> NDArray[np.generic]:
    return np.asarray(imagecodecs.jpeg2k_decode(frame, numthreads=os.cpu_count() or 1))


def _decode_htj2k(frame: bytes, layout: Layout) -> NDArray[np.generic]:
    return np.asarray(imagecodecs.jpeg2k_decode(frame, numthreads=os.cpu_count() or 1))


def _decode_rle(frame: bytes, layout: Layout) -> NDArray[np.generic]:
    """PS3.5 annex G: a header of 16 numbers, then a PackBits segment for each byte of the cells, high bytes first."""
    size, width = layout.rows * layout.columns, layout.bits_allocated // 8
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != width:
        raise ValueError(f"{count} RLE segments where {layout.bits_allocated} bits need {width}")
    ends = [*offsets[1:width], len(frame)]
    cells = np.empty((size, width), np.uint8)
    for index, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        if not 64 <= start < end <= len(frame):
            raise ValueError(f"RLE segment {index + 1} does not lie inside the frame")
        segment = imagecodecs.packbits_decode(frame[start:end], out=size + 2)
        if len(segment) < size:
            raise ValueError(f"RLE segment {index + 1} holds {len(segment)} of {size} bytes")
        cells[:, width - 1 - index] = np.frombuffer(segment, np.uint8, count=size)
    return cells.view(layout.unsigned_type).reshape(layout.rows, layout.columns)


_DECODERS: dict[str, tuple[tuple[str, ...], Decoder]] = {
    "1.2.840.10008.1.2.4.50": ((codestream.JPEG,), _decode_jpeg),
    "1.2.840.10008.1.2.4.51": ((codestream.JPEG,), _decode_jpeg),
    "1.2.840.10008.1.2.4.57": ((codestream.JPEG_LOSSLESS,), _decode_jpeg),
    "1.2.840.10008.1.2.4.70": ((codestream.JPEG_LOSSLESS,), _decode_jpeg),
    "1.2.840.10008.1.2.4.80": ((codestream.JPEG_LS,), _decode_jpeg_ls),
    "1.2.840.10008.1.2.4.81": ((codestream.JPEG_LS,), _decode_jpeg_ls),
    "1.2.840.10008.1.2.4.90": ((codestream.JPEG_2000,), _decode_jpeg_2000),
    "1.2.840.10008.1.2.4.91": ((codestream.JPEG_2000,), _decode_jpeg_2000),
    "1.2.840.10008.1.2.4.201": ((codestream.HTJ2K,), _decode_htj2k),
    "1.2.840.10008.1.2.4.202": ((codestream.HTJ2K,), _decode_htj2k),
    "1.2.840.10008.1.2.4.203": ((codestream.HTJ2K,), _decode_htj2k),
    "1.2.840.10008.1.2.5": ((), _decode_rle),
}
"""Encapsulated transfer syntaxes: codings that the codestream may have (none: it has no header), and the decoder."""


_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
"""Here a value above Bits Stored is a white pixel that coding made brighter: it is white, not cut off to black."""


def decompress(dataset: Dataset) -> Dataset:
    """The same object in Explicit VR Little Endian, pixel values unchanged; the SOP Instance UID stays.

    For the lossless transcoding of what a destination does not take. `dataset` itself is not changed. Single-frame
    monochrome images of up to 16 bits go through `decode`, others through pydicom. Raises PixelError, also for big
    endian: its other binary values would have to be swapped too.
    """
    syntax = transfer_syntax_of(dataset)
    if syntax == ExplicitVRBigEndian:
        raise PixelError(f"{syntax.name} is not transcoded")
    native = copy(dataset)
    native.file_meta = deepcopy(dataset.file_meta)
    if (syntax in _DECODERS or syntax.is_encapsulated) and "PixelData" in dataset:
        _replace_pixels(native)
    native.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return native


def _replace_pixels(native: Dataset) -> None:
    try:
        check_pixel_header(native)
    except PixelError:
        try:
            plugin = "pydicom" if native.file_meta.TransferSyntaxUID == RLELossless else ""
            native.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=plugin)
        except DECODER_ERRORS as error:
            raise PixelError(f"pixel data cannot be decompressed: {error}") from error
        return
    _set_native(native, decode(native))


def _set_native(native: Dataset, stored: NDArray[np.integer]) -> None:
    """Little endian, padded to an even length (PS3.5 8.2, A.2)."""
    data = np.ascontiguousarray(stored).tobytes()
    native.add_new("PixelData", "OW" if stored.dtype.itemsize == 2 else "OB", data + b"\0" * (len(data) % 2))
    native["PixelData"].is_undefined_length = False
    native.HighBit = native.BitsStored - 1
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in native:
            del native[keyword]
