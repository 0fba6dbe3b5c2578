"""Stored values to display values: modality LUT, VOI LUT, padding, polarity (PS3.3 C.11.1, C.11.2, C.7.6.3, C.8.11.3).

Every step works on a table with one entry per stored value, so an image of any size costs one look-up per pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from node.errors import PixelError
from node.mammography.breast import find_breast
from node.mammography.lookup import look_up

FOR_PROCESSING = "FOR PROCESSING"
OUTLIER_SHARE = 1e-5
"""Without a VOI LUT this share of pixels is let go at each end: dead pixels, never a calcification."""
BREAST_PERCENTILES = (0.5, 99.8)
"""Window of a For Processing image, over the pixels of the breast."""

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class StoredRange:
    """The stored values of one image: every integer from `first` to `last`."""

    first: int
    last: int

    def values(self) -> Table:
        """All values of the range."""
        return np.arange(self.first, self.last + 1, dtype=np.float64)


def is_for_processing(dataset: Dataset) -> bool:
    """Presentation Intent Type (0008,0068) is FOR PROCESSING."""
    return bool(dataset.get("PresentationIntentType") == FOR_PROCESSING)


def is_monochrome1(dataset: Dataset) -> bool:
    """The least value is white (PS3.3 C.7.6.3.1.2)."""
    return bool(dataset.get("PhotometricInterpretation") == "MONOCHROME1")


def to_display(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.float32]:
    """Display values, float32 (rows, cols) in [0, 1], bright = dense; padding is 0.

    For Presentation: modality LUT, then the first item of VOI LUT Sequence or the first window, then the polarity
    of Photometric Interpretation and Presentation LUT Shape. Without VOI LUT: from least to greatest value that is no
    padding. For Processing: by Pixel Intensity Relationship, then windowed over the breast; see `_raw_table`.
    Raises PixelError where a lookup table cannot be read.
    """
    stored_range = StoredRange(int(stored.min()), int(stored.max()))
    padding = _padding(dataset, stored_range)
    if is_for_processing(dataset):
        return _raw_display(stored, dataset, stored_range, padding)
    values = modality_values(dataset, stored_range.values())
    table = voi_values(dataset, values)
    if table is None:
        table = _stretched(values, _weights(stored, stored_range, padding))
    if _is_inverted(dataset):
        table = 1 - table
    return look_up(stored, np.where(padding, 0.0, table).astype(np.float32), stored_range.first)


def to_display_without_luts(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.float32]:
    """From least to greatest stored value, MONOCHROME1 inverted, nothing else: float32 (rows, cols) in [0, 1]."""
    stored_range = StoredRange(int(stored.min()), int(stored.max()))
    span = max(stored_range.last - stored_range.first, 1)
    table = (stored_range.values() - stored_range.first) / span
    if is_monochrome1(dataset) and stored_range.last > stored_range.first:
        table = 1 - table
    return look_up(stored, table.astype(np.float32), stored_range.first)


def modality_values(dataset: Dataset, stored: Table) -> Table:
    """Stored values through Modality LUT Sequence, or Rescale Slope and Intercept (PS3.3 C.11.1)."""
    items = dataset.get("ModalityLUTSequence")
    if items:
        return _Lut.read(items[0], signed=_is_signed(dataset)).output(stored)
    slope, intercept = _first(dataset.get("RescaleSlope")), _first(dataset.get("RescaleIntercept"))
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def voi_values(dataset: Dataset, values: Table) -> Table | None:
    """Modality values to [0, 1] by the first item of VOI LUT Sequence, else the first window; None if there is none.

    Several items or windows are alternatives (PS3.3 C.11.2); the first is what a viewer shows first.
    """
    items = dataset.get("VOILUTSequence")
    if items:
        lut = _Lut.read(items[0], signed=bool(values.min() < 0))
        return lut.output(values) / lut.white
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    return _windowed(values, centre, width, function)


def _windowed(values: Table, centre: float, width: float, function: str) -> Table:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT)."""
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "LINEAR" and width > 1:
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR" and width == 1:
        return np.where(values > centre - 0.5, 1.0, 0.0)
    raise PixelError(f"VOI LUT Function {function} with Window Width {width:g} is not defined")


@dataclass(frozen=True, slots=True, eq=False)
class _Lut:
    """One item of Modality or VOI LUT Sequence: LUT Descriptor and LUT Data (PS3.3 C.11.1.1, C.11.2.1.1)."""

    first: int
    data: Table
    white: float

    @classmethod
    def read(cls, item: Dataset, *, signed: bool) -> "_Lut":
        """LUT Descriptor is entries (0: 65536), first value mapped (signed like the input), bits per entry."""
        try:
            entries, first, bits = (int(part) & 0xFFFF for part in item["LUTDescriptor"].value)
            data = _lut_data(item["LUTData"].value, entries or 65536)
        except (KeyError, TypeError, ValueError) as error:
            raise PixelError(f"lookup table cannot be read: {error}") from error
        if signed and first >= 0x8000:
            first -= 0x10000
        white = float(2 ** max(bits, int(data.max()).bit_length(), 1) - 1)
        return cls(first, data, white)

    def output(self, values: Table) -> Table:
        """Values before the first and after the last entry take that entry."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.data) - 1).astype(np.intp)
        return np.asarray(self.data[index])


def _lut_data(value: object, entries: int) -> Table:
    """LUT Data as US values, or as OW bytes of one or two per entry."""
    if isinstance(value, bytes):
        packed = np.uint8 if entries <= len(value) < 2 * entries else np.dtype("<u2")
        data = np.frombuffer(value, packed, count=min(entries, len(value) // np.dtype(packed).itemsize))
    else:
        data = np.atleast_1d(np.asarray(value, dtype=np.int64)) & 0xFFFF
    if len(data) < entries:
        raise ValueError(f"{len(data)} entries where LUT Descriptor says {entries}")
    return data[:entries].astype(np.float64)


def _raw_display(
    stored: NDArray[np.integer], dataset: Dataset, stored_range: StoredRange, padding: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """A For Processing image, windowed twice: over everything to find the breast, then over the breast alone."""
    weights = _weights(stored, stored_range, padding)
    table = _raw_table(dataset, stored_range)
    rough = look_up(stored, np.where(padding, 0.0, _stretched(table, weights)).astype(np.float32), stored_range.first)
    breast = find_breast(rough)
    if breast is None:
        return rough
    step_rows = np.linspace(breast.top, breast.bottom - 1, breast.mask.shape[0]).astype(np.intp)
    step_columns = np.linspace(breast.left, breast.right - 1, breast.mask.shape[1]).astype(np.intp)
    inside = table[stored[np.ix_(step_rows, step_columns)][breast.mask].astype(np.intp) - stored_range.first]
    low, high = np.percentile(inside, BREAST_PERCENTILES)
    if high <= low:
        return rough
    window = np.clip((table - low) / (high - low), 0, 1)
    return look_up(stored, np.where(padding, 0.0, window).astype(np.float32), stored_range.first)


def _raw_table(dataset: Dataset, stored_range: StoredRange) -> Table:
    """Values that rise with the attenuation, whatever the detector's convention (PS3.3 C.8.11.3.1.2).

    Pixel Intensity Relationship Sign 1: lower values mean less X-ray, so dense tissue is dark and is inverted. LIN:
    values are proportional to the X-ray and attenuation is their logarithm. Without a sign: by the polarity.
    """
    values = modality_values(dataset, stored_range.values())
    if dataset.get("PixelIntensityRelationship") == "LIN":
        values = np.log1p(values - min(float(values.min()), 0.0))
    sign = dataset.get("PixelIntensityRelationshipSign")
    dense_is_low = sign == 1 if sign in (1, -1) else _is_inverted(dataset)
    return -values if dense_is_low else values


def _stretched(values: Table, weights: NDArray[np.intp]) -> Table:
    """[0, 1] from the least to the greatest value that occurs, less OUTLIER_SHARE of the pixels at each end."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / max(int(weights.sum()), 1)
    occurring = weights[order] > 0
    if not occurring.any():
        return np.zeros_like(values)
    ranked, share = values[order][occurring], share[occurring]
    low = ranked[min(int(np.searchsorted(share, OUTLIER_SHARE)), len(ranked) - 1)]
    high = ranked[min(int(np.searchsorted(share, 1 - OUTLIER_SHARE)), len(ranked) - 1)]
    if high <= low:
        low, high = ranked[0], ranked[-1]
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def _weights(stored: NDArray[np.integer], stored_range: StoredRange, padding: NDArray[np.bool_]) -> NDArray[np.intp]:
    """How often each stored value occurs, padding left out; large images are counted on every second pixel."""
    step = 2 if stored.size > 4_000_000 else 1
    sample = stored[::step, ::step].ravel().astype(np.intp) - stored_range.first
    counts = np.bincount(sample, minlength=stored_range.last - stored_range.first + 1)
    return np.where(padding, 0, counts)


def _padding(dataset: Dataset, stored_range: StoredRange) -> NDArray[np.bool_]:
    """Per stored value: is it Pixel Padding, from Value to Range Limit, both included (PS3.3 C.7.5.1.1.2)?"""
    values = np.arange(stored_range.first, stored_range.last + 1)
    value = _stored_integer(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(len(values), bool)
    limit = _stored_integer(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    return (values >= low) & (values <= high)


def _stored_integer(dataset: Dataset, keyword: str) -> int | None:
    """A US or SS value in the sense of Pixel Representation, whichever VR the file gave it."""
    value = _first(dataset.get(keyword))
    if value is None:
        return None
    bits = 16 if int(dataset.get("BitsAllocated", 16)) > 8 or abs(value) > 255 else 8
    number = int(value) % (1 << bits)
    return number - (1 << bits) if _is_signed(dataset) and number >= 1 << (bits - 1) else number


def _is_signed(dataset: Dataset) -> bool:
    return bool(dataset.get("PixelRepresentation", 0) == 1)


def _is_inverted(dataset: Dataset) -> bool:
    """MONOCHROME1 and Presentation LUT Shape INVERSE say the same thing of a mammogram (PS3.3 C.8.11.3): once."""
    return is_monochrome1(dataset) or dataset.get("PresentationLUTShape") == "INVERSE"


def _first(value: object) -> float | None:
    """The first of a single or multiple value as a number, None where empty or absent. Raises PixelError."""
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        return float(int.from_bytes(value[:2], "little"))
    try:
        number = float(str(value))
    except ValueError as error:
        raise PixelError("a number of the lookup tables is none") from error
    if not np.isfinite(number):
        raise PixelError("a number of the lookup tables is not finite")
    return number
