"""Segmentation (PS3.3 A.51), FRACTIONAL: where the model looked, one object for each view, a segment for each kind.

Heat is not a finding and not a probability: 1.0 is the median peak at true lesions of the validation set, and a region
is marked only where probability and heat reach the operating point. Segment Description says so. Each stored pixel has
the heat of the model pixel that its centre lies in; outside of what the model saw it is 0. Heat from 0 to HEAT_FULL is
written in equal steps, more than that as HEAT_FULL; Maximum Fractional Value stands for HEAT_FULL.
"""

import struct
from collections.abc import Mapping, Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless, SegmentationStorage

from node.errors import EncodeError
from node.mammography.findings import FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import View
from node.results import names, uids
from node.results.document import DISCLAIMER, to_result
from node.results.panel import HEAT_CLEAR, HEAT_FULL
from node.results.reading import EncodedResult, Reading, ResultKind, ViewReading
from node.results.segmentation_frames import (
    Subject,
    add_segment_frames,
    kind_segment,
    new_segmentation,
    say_bits,
    subject,
)

STEPS = (31, 15, 7, 3)
"""Steps above 0 that heat is written in: the first that fits into LARGEST_BYTES. 31 steps are 32 levels."""
LARGEST_BYTES = 1_500_000
"""Of one view's pixels, compressed."""
MAXIMUM_VALUE = {31: 248, 15: 240, 7: 252, 3: 252}
"""Maximum Fractional Value for each number of steps: the greatest multiple in a byte that steps of equal size allow."""


def encode(reading: Reading, sources: Mapping[View, Dataset], frame: str = "source") -> tuple[EncodedResult, ...]:
    """One object for each view that has heat above HEAT_CLEAR, in the order of the views, whether or not anything was
    marked there; `frame` of segmentation_frames.py. Raises EncodeError where heat is not on the model's pixels.
    """
    heated = [(view, hot_kinds(view)) for view in reading.views]
    return tuple(
        _encode_view(subject(reading, sources, ResultKind.HEATMAP, view, frame), hot, sources)
        for view, hot in heated
        if hot
    )


def hot_kinds(view: ViewReading) -> tuple[tuple[FindingKind, NDArray[np.float32]], ...]:
    """Each kind with heat above HEAT_CLEAR anywhere in the view, and its heat (H, W) on the model's pixels."""
    if view.heatmap is None:
        return ()
    on_model_pixels = (view.placement.model_rows, view.placement.model_columns)
    if view.heatmap.shape != (len(view.finding_probabilities), *on_model_pixels):
        raise EncodeError(f"heat of {view.view} is not registered on the model's pixels: {view.heatmap.shape}")
    kinds = [kind for kind, _ in view.finding_probabilities]
    return tuple((kind, heat) for kind, heat in zip(kinds, view.heatmap, strict=True) if heat.max() > HEAT_CLEAR)


def _encode_view(
    of: Subject, hot: Sequence[tuple[FindingKind, NDArray[np.float32]]], sources: Mapping[View, Dataset]
) -> EncodedResult:
    steps, frames = _encoded_frames(of.view.placement, [heat for _, heat in hot])
    dataset = new_segmentation(of, sources, SegmentationStorage, "heat")
    say_bits(dataset, 8)
    dataset.SegmentationType = "FRACTIONAL"
    dataset.SegmentationFractionalType = "PROBABILITY"
    dataset.MaximumFractionalValue = MAXIMUM_VALUE[steps]
    dataset.SegmentsOverlap = "UNDEFINED"
    dataset.SegmentSequence = [_segment(of, number, kind, steps) for number, (kind, _) in enumerate(hot, start=1)]
    add_segment_frames(dataset, of, len(hot))
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    return to_result(dataset, of.kind, of.form, RLELossless)


def _segment(of: Subject, number: int, kind: FindingKind, steps: int) -> Dataset:
    """What the values mean, and that they are no finding. It is tracked as what was looked for: the report names it."""
    marked = sum(finding.kind is kind for _, finding in names.findings_of(of.reading, of.view.view.name))
    words = (
        f"Heat of the model, not a finding and not a probability; regions of this kind marked in this view: {marked}. "
        f"Value x {HEAT_FULL:g} / {MAXIMUM_VALUE[steps]} = heat, clipped at {HEAT_FULL:g}; 1.0 = median peak at true "
        f"lesions of the validation set; {DISCLAIMER}"
    )
    item = kind_segment(of, number, f"Heat: {names.KIND_WORDS[kind].lower()}", words, kind)
    item.TrackingID = f"{of.view.view.name} {names.KIND_WORDS[kind]}"
    item.TrackingUID = uids.tracking_uid(of.reading, item.TrackingID)
    return item


def _encoded_frames(placement: Placement, heats: Sequence[NDArray[np.float32]]) -> tuple[int, list[bytes]]:
    """The steps that heat was written in, and an RLE frame for each of `heats`."""
    frames: list[bytes] = []
    for steps in STEPS:
        frames = [rle_frame(*spread(heat_values(heat, steps), placement)) for heat in heats]
        if sum(map(len, frames)) <= LARGEST_BYTES:
            break
    return steps, frames


def heat_values(heat: NDArray[np.float32], steps: int) -> NDArray[np.uint8]:
    """Heat (H, W) as pixel values: 0 to MAXIMUM_VALUE for heat from 0 to HEAT_FULL, rounded to the nearest step."""
    step = np.rint(np.clip(heat, 0.0, HEAT_FULL) * np.float32(steps / HEAT_FULL)).astype(np.uint8)
    return np.asarray(step * np.uint8(MAXIMUM_VALUE[steps] // steps))


def spread(values: NDArray[np.uint8], placement: Placement) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Values (H, W) of model pixels on stored pixels: different rows (N, stored columns), and which of them each
    stored row is; `rows[which]` is the stored image.
    """
    x = np.arange(placement.stored_columns, dtype=np.float64) + 0.5
    y = np.arange(placement.stored_rows, dtype=np.float64) + 0.5
    u = _model_pixels(placement.to_model(np.stack([x, np.zeros_like(x)], axis=1))[:, 0], placement.model_columns)
    v = _model_pixels(placement.to_model(np.stack([np.zeros_like(y), y], axis=1))[:, 1], placement.model_rows)
    inside_x = (x > placement.crop_left) & (x < placement.crop_right)
    inside_y = (y > placement.crop_top) & (y < placement.crop_bottom)
    rows = np.zeros((len(values) + 1, len(x)), np.uint8)
    rows[:-1, inside_x] = values[:, u[inside_x]]
    return rows, np.where(inside_y, v, len(values))


def _model_pixels(positions: NDArray[np.float64], size: int) -> NDArray[np.intp]:
    """The columns or rows, of `size`, that positions along an axis of the model image lie in; outside, the nearest."""
    return np.clip(np.floor(positions), 0, size - 1).astype(np.intp)


def rle_frame(rows: NDArray[np.uint8], which: NDArray[np.intp]) -> bytes:
    """One frame `rows[which]` of bytes as RLE Lossless: each row by itself (PS3.5 G.3.1), in one segment (G.5)."""
    encoded = {row: imagecodecs.packbits_encode(rows[row]) for row in np.unique(which).tolist()}
    segment = b"".join([encoded[row] for row in which.tolist()])
    return struct.pack("<16I", 1, 64, *[0] * 14) + segment + b"\0" * (len(segment) % 2)
