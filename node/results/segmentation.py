"""Segmentation (PS3.3 A.51), BINARY: one object for each view with findings, one segment for each region."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from node.mammography.findings import Finding
from node.mammography.views import View
from node.results import names
from node.results.document import to_result
from node.results.reading import EncodedResult, Reading, ResultKind
from node.results.segmentation_frames import (
    Subject,
    add_segment_frames,
    finding_segments,
    new_segmentation,
    say_bits,
    subject,
)


def encode(reading: Reading, sources: Mapping[View, Dataset], frame: str = "source") -> tuple[EncodedResult, ...]:
    """One segmentation for each view with findings, in the order of the views; `frame` of segmentation_frames.py."""
    with_findings = [view for view in reading.views if names.findings_of(reading, view.view.name)]
    subjects = [subject(reading, sources, ResultKind.SEGMENTATION, view, frame) for view in with_findings]
    return tuple(_encode_view(of, sources) for of in subjects)


def _encode_view(of: Subject, sources: Mapping[View, Dataset]) -> EncodedResult:
    dataset = new_segmentation(of, sources, SegmentationStorage, "regions")
    say_bits(dataset, 1)
    dataset.SegmentationType = "BINARY"
    dataset.SegmentsOverlap = "UNDEFINED"
    dataset.SegmentSequence = finding_segments(of)
    findings = [finding for _, finding in names.findings_of(of.reading, of.view.view.name)]
    add_segment_frames(dataset, of, len(findings))
    dataset.PixelData = pack_bits(region_mask(finding, of.view.rows, of.view.columns) for finding in findings)
    dataset["PixelData"].VR = "OB"
    return to_result(dataset, of.kind, of.form)


def region_mask(finding: Finding, rows: int, columns: int) -> NDArray[np.bool_]:
    """The pixels (rows, columns) whose centres lie inside the finding's contour; at least the one under its centre.

    Even-odd, one scan line through the centres of each row of pixels: exactly the contour that the report holds.
    """
    contour = np.array(finding.contour, dtype=np.float64)
    mask = np.zeros((rows, columns), dtype=bool)
    start, end = contour[:-1], contour[1:]
    first = max(0, int(np.floor(contour[:, 1].min())))
    last = min(rows, int(np.ceil(contour[:, 1].max())))
    for row in range(first, last):
        y = row + 0.5
        crossing = (start[:, 1] > y) != (end[:, 1] > y)
        a, b = start[crossing], end[crossing]
        x = np.sort(a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]))
        edges = np.clip(np.ceil(x - 0.5), 0, columns).astype(int)
        for left, right in zip(edges[0::2], edges[1::2], strict=True):
            mask[row, left:right] = True
    if not mask.any():
        mask[centre_pixel(finding, rows, columns)] = True
    return mask


def centre_pixel(finding: Finding, rows: int, columns: int) -> tuple[int, int]:
    """(row, column) of the pixel under the finding's centre."""
    x, y = finding.centre
    return min(rows - 1, int(y)), min(columns - 1, int(x))


def pack_bits(masks: Iterable[NDArray[np.bool_]]) -> bytes:
    """Frames (rows, columns) as PS3.5 8.1.1 packs single bits: lowest first, frames not padded; even length.

    One frame is in memory at a time.
    """
    packed, rest = bytearray(), np.zeros(0, dtype=bool)
    for mask in masks:
        bits = np.concatenate([rest, mask.reshape(-1)]) if rest.size else mask.reshape(-1)
        whole = bits.size - bits.size % 8
        packed += np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    packed += np.packbits(rest, bitorder="little").tobytes()
    return bytes(packed) + b"\0" * (len(packed) % 2)
