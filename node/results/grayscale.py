"""How a source's stored values become P-Values, as a presentation state must repeat it: what it leaves out is identity.

PS3.4 N.2.1: a presentation state overrides Modality LUT, VOI LUT and polarity of the image, also by not having them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds

from node.errors import PixelError
from node.mammography import luts


def add_grayscale(dataset: Dataset, source: Dataset) -> None:
    """Modality LUT, Softcopy VOI LUT and Softcopy Presentation LUT (PS3.3 C.11.1, C.11.8, C.11.6) of `source`.

    Of several windows or tables, which are alternatives, the first. What cannot be read is left out.
    """
    if _readable(source, luts.modality_values):
        _add_modality(dataset, source)
    if _readable(source, luts.voi_values):
        dataset.SoftcopyVOILUTSequence = [_voi(source)]
    inverted = luts.is_monochrome1(source) or source.get("PresentationLUTShape") == "INVERSE"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"


def _readable(source: Dataset, apply: Callable[[Dataset, NDArray[np.float64]], NDArray[np.float64] | None]) -> bool:
    """Whether the source has that stage, and its numbers are numbers."""
    try:
        return apply(source, np.zeros(1)) is not None
    except (PixelError, ValueError, TypeError):
        return False


def _add_modality(dataset: Dataset, source: Dataset) -> None:
    tables = source.get("ModalityLUTSequence")
    slope, intercept = _decimal(source.get("RescaleSlope")), _decimal(source.get("RescaleIntercept"))
    if tables:
        item = _table(tables[0], _has_signed_pixels(source))
        item.ModalityLUTType = _word(tables[0].get("ModalityLUTType")) or "US"
        dataset.ModalityLUTSequence = [item]
    elif slope or intercept:
        dataset.RescaleIntercept = intercept or "0"
        dataset.RescaleSlope = slope or "1"
        dataset.RescaleType = _word(source.get("RescaleType")) or "US"


def _voi(source: Dataset) -> Dataset:
    """An item of Softcopy VOI LUT Sequence (0028,3110)."""
    tables = source.get("VOILUTSequence")
    item = Dataset()
    if tables:
        below_zero = _has_signed_pixels(source) or float(_decimal(source.get("RescaleIntercept")) or 0) < 0
        item.VOILUTSequence = [_sixteen_bits(_table(tables[0], below_zero))]
        return item
    item.WindowCenter = _decimal(source.WindowCenter)
    item.WindowWidth = _decimal(source.WindowWidth)
    if _word(source.get("VOILUTFunction")):
        item.VOILUTFunction = _word(source.VOILUTFunction)
    return item


def _has_signed_pixels(source: Dataset) -> bool:
    return bool(source.get("PixelRepresentation", 0) == 1)


def _table(source: Dataset, signed: bool) -> Dataset:
    """LUT Descriptor and LUT Data (PS3.3 C.11.1.1), the data as words: a table of 65536 entries is too long for US.

    `signed`: what goes in may be below zero, and so is a first value whose highest bit is set.
    """
    entries, first, bits = (int(number) & 0xFFFF for number in source["LUTDescriptor"].value)
    below_zero = signed and first >= 0x8000
    numbers = [number - 0x10000 if below_zero and number >= 0x8000 else number for number in (entries, first, bits)]
    data = source.LUTData
    words = data if isinstance(data, bytes) else (np.asarray(data, dtype=np.int64) & 0xFFFF).astype("<u2").tobytes()
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "SS" if below_zero else "US", numbers))
    item.add(DataElement("LUTData", "OW", words + b"\0" * (len(words) % 2)))
    if _word(source.get("LUTExplanation")):
        item.LUTExplanation = _word(source.LUTExplanation)
    return item


def _sixteen_bits(table: Dataset) -> Dataset:
    """A VOI table of 9 to 15 bits in 16, to its own scale: a presentation state has entries of 8 or 16 bits."""
    entries, first, bits = table.LUTDescriptor
    if bits in (8, 16):
        return table
    data = np.frombuffer(table.LUTData, "<u2").astype(np.int64)
    white = (1 << max(int(bits), int(data.max()).bit_length())) - 1
    table.LUTDescriptor = [entries, first, 16]
    table.LUTData = ((data * 0xFFFF + white // 2) // white).astype("<u2").tobytes()
    return table


def _word(value: object) -> str:
    """A word in the default repertoire, at most 64 characters (LO); "" where it is none."""
    word = str(value or "").strip()
    return word if word.isascii() and word.isprintable() and len(word) <= 64 else ""


def _decimal(value: object) -> str:
    """The first of a single or multiple decimal string, at most 16 characters; "" where there is none."""
    first = value[0] if isinstance(value, MultiValue | list) and len(value) else value
    if first is None or first == "" or isinstance(first, MultiValue | list):
        return ""
    try:
        return format_number_as_ds(float(str(first)))
    except ValueError:
        return ""
