"""How a source's stored values become P-Values, as a presentation state must repeat it: what it leaves out is identity.

PS3.4 N.2.1: a presentation state overrides Modality LUT, VOI LUT and polarity of the image, also by not having them.
"""

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds

from node.errors import PixelError
from node.mammography import luts


def add_grayscale(dataset: Dataset, source: Dataset) -> None:
    """Modality LUT, Softcopy VOI LUT and Softcopy Presentation LUT (PS3.3 C.11.1, C.11.8, C.11.6) of `source`.

    Of several windows or tables, which are alternatives, the first. What cannot be read is left out.
    """
    _add_modality(dataset, source)
    chosen = _voi(source)
    if chosen is not None:
        dataset.SoftcopyVOILUTSequence = [chosen]
    inverted = luts.is_monochrome1(source) or source.get("PresentationLUTShape") == "INVERSE"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"


def _add_modality(dataset: Dataset, source: Dataset) -> None:
    try:
        luts.modality_values(source, np.zeros(1))
    except PixelError:
        return
    tables = source.get("ModalityLUTSequence")
    if tables:
        item = _table(tables[0])
        item.ModalityLUTType = str(tables[0].get("ModalityLUTType") or "US")
        dataset.ModalityLUTSequence = [item]
    elif _decimal(source.get("RescaleSlope")) or _decimal(source.get("RescaleIntercept")):
        dataset.RescaleIntercept = _decimal(source.get("RescaleIntercept")) or "0"
        dataset.RescaleSlope = _decimal(source.get("RescaleSlope")) or "1"
        dataset.RescaleType = str(source.get("RescaleType") or "US")


def _voi(source: Dataset) -> Dataset | None:
    """An item of Softcopy VOI LUT Sequence (0028,3110), None where the source has no table and no window."""
    try:
        if luts.voi_values(source, np.zeros(1)) is None:
            return None
    except PixelError:
        return None
    tables = source.get("VOILUTSequence")
    item = Dataset()
    if tables:
        item.VOILUTSequence = [_sixteen_bits(_table(tables[0]))]
        return item
    item.WindowCenter = _decimal(source.WindowCenter)
    item.WindowWidth = _decimal(source.WindowWidth)
    if source.get("VOILUTFunction"):
        item.VOILUTFunction = str(source.VOILUTFunction)
    return item


def _table(source: Dataset) -> Dataset:
    """LUT Descriptor and LUT Data (PS3.3 C.11.1.1), the data as words: a table of 65536 entries is too long for US."""
    entries, first, bits = (int(number) for number in source["LUTDescriptor"].value)
    data = source.LUTData
    packed = data if isinstance(data, bytes) else np.asarray(data, dtype=np.int64).astype("<u2").tobytes()
    item = Dataset()
    signed = first < 0
    item.add(DataElement("LUTDescriptor", "SS" if signed else "US", _words((entries, first, bits), signed)))
    item.add(DataElement("LUTData", "OW", packed + b"\0" * (len(packed) % 2)))
    if source.get("LUTExplanation"):
        item.LUTExplanation = str(source.LUTExplanation)
    return item


def _sixteen_bits(table: Dataset) -> Dataset:
    """A VOI table of 9 to 15 bits in 16: a presentation state has entries of 8 or 16 bits, scaled to their own range."""
    entries, first, bits = table.LUTDescriptor
    if bits in (8, 16):
        return table
    data = np.frombuffer(table.LUTData, "<u2").astype(np.int64)
    white = (1 << max(int(bits), int(data.max()).bit_length())) - 1
    table.LUTDescriptor = [entries, first, 16]
    table.LUTData = ((data * 0xFFFF + white // 2) // white).astype("<u2").tobytes()
    return table


def _words(numbers: tuple[int, int, int], signed: bool) -> list[int]:
    """16 bits each; as SS, 65536 entries are 0 and a count above 32767 is what its bits say."""
    words = [number & 0xFFFF for number in numbers]
    return [word - 0x10000 if signed and word >= 0x8000 else word for word in words]


def _decimal(value: object) -> str:
    """The first of a single or multiple decimal string, at most 16 characters; "" where there is none."""
    first = value[0] if isinstance(value, MultiValue | list) and len(value) else value
    if first is None or first == "" or isinstance(first, MultiValue | list):
        return ""
    try:
        return format_number_as_ds(float(str(first)))
    except ValueError:
        return ""
