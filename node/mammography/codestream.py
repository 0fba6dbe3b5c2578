"""What the header of a JPEG, JPEG-LS or JPEG 2000 codestream says, read before anything is decoded."""

import struct
from dataclasses import dataclass

from node.errors import PixelError

JPEG = "JPEG"
JPEG_LOSSLESS = "JPEG Lossless"
JPEG_LS = "JPEG-LS"
JPEG_2000 = "JPEG 2000"
HTJ2K = "HTJ2K"

_SOI = b"\xff\xd8"
_SOC = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_END = b"\xff\xd9"
_HTJ2K_CAPABILITY = 0x0002_0000
"""Bit Pcap15 of the CAP marker segment (ISO/IEC 15444-15)."""
_FRAMES = {0xC0: JPEG, 0xC1: JPEG, 0xC2: "progressive JPEG", 0xC3: JPEG_LOSSLESS, 0xF7: JPEG_LS}
"""Start-of-frame markers (ISO/IEC 10918-1 table B.1, 14495-1): the coding that follows."""


@dataclass(frozen=True, slots=True)
class Codestream:
    """Coding, size in pixels, components and bits per sample, as the codestream's own header says."""

    coding: str
    rows: int
    columns: int
    components: int
    precision: int


def read_header(frame: bytes) -> Codestream:
    """The header of one frame's codestream; also looks for its end marker. Raises PixelError.

    A decoder fills up what a truncated stream lacks without a word, so a stream without its end is refused.
    """
    try:
        codestream = _jpeg_header(frame) if frame.startswith(_SOI) else _jpeg2000_header(frame)
    except (struct.error, IndexError) as error:
        raise PixelError("pixel data ends inside the header of its codestream") from error
    if not frame[-1024:].rstrip(b"\0").endswith(_END):
        raise PixelError(f"{codestream.coding} codestream is truncated: its end marker is missing")
    return codestream


def _jpeg_header(frame: bytes) -> Codestream:
    """Marker segments up to the start of frame (ISO/IEC 10918-1 B.2)."""
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, position)
        if marker == 0xFFFF:
            position += 1
            continue
        code = marker & 0xFF
        if marker >> 8 != 0xFF or code in (0xD8, 0xD9, 0xDA) or length < 2:
            raise PixelError("JPEG codestream has no start of frame")
        if code in _FRAMES or _is_other_frame(code):
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(_FRAMES.get(code, f"JPEG process SOF{code - 0xC0}"), rows, columns, components, precision)
        position += 2 + length


def _is_other_frame(code: int) -> bool:
    """SOF5 to SOF15 without DHT, JPG and DAC: hierarchical and arithmetic processes, retired from DICOM."""
    return 0xC5 <= code <= 0xCF and code not in (0xC8, 0xCC)


def _jpeg2000_header(frame: bytes) -> Codestream:
    """SIZ and, where present, CAP (ISO/IEC 15444-1 A.5.1); inside a JP2 file the codestream is looked for."""
    start = frame.find(_SOC, 0, 4096) if frame.startswith(_JP2_SIGNATURE) else 0
    if start < 0 or not frame.startswith(_SOC, start):
        raise PixelError("pixel data is no JPEG, JPEG-LS or JPEG 2000 codestream")
    siz = start + 4
    length, _, right, bottom, left, top = struct.unpack_from(">HHIIII", frame, siz)
    components, depth = struct.unpack_from(">HB", frame, siz + 36)
    capability, _, bits = struct.unpack_from(">HHI", frame, siz + length)
    coding = HTJ2K if capability == 0xFF50 and bits & _HTJ2K_CAPABILITY else JPEG_2000
    return Codestream(coding, bottom - top, right - left, components, (depth & 0x7F) + 1)
