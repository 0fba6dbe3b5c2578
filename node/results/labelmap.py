"""Label Map Segmentation (PS3.3 A.51, Supplement 243): the regions of segmentation.py, one number in each pixel.

Numbers are those of the BINARY object; 0 is the background, and a segment that says so. A pixel has one number: where
regions overlap, the one of the higher probability takes it, of equal ones the first; a region that would have no pixel
left keeps the one nearest to its centre. Form "" is JPEG-LS Lossless, some kilobytes. Form "own" is not compressed:
what it is for, OHIF 3.12, decodes no compressed label map.
"""

from collections.abc import Mapping, Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from node.mammography.findings import Finding
from node.mammography.views import View
from node.results import codes, names
from node.results.document import to_result
from node.results.reading import EncodedResult, Reading, ResultKind
from node.results.segmentation import centre_pixel, region_mask
from node.results.segmentation_frames import (
    OWN_FRAME,
    Subject,
    add_label_frame,
    finding_segments,
    new_segmentation,
    say_bits,
    segment,
    subject,
)

LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
BACKGROUND = 0
BLACK = (0, 0x8080, 0x8080)
"""CIELab L* 0, a* 0, b* 0 (PS3.3 C.10.7.1.1)."""


def encode(reading: Reading, sources: Mapping[View, Dataset], frame: str = "source") -> tuple[EncodedResult, ...]:
    """One label map for each view with findings, in the order of the views; `frame` of segmentation_frames.py."""
    with_findings = [view for view in reading.views if names.findings_of(reading, view.view.name)]
    subjects = [subject(reading, sources, ResultKind.LABELMAP, view, frame) for view in with_findings]
    return tuple(_encode_view(of, sources) for of in subjects)


def _encode_view(of: Subject, sources: Mapping[View, Dataset]) -> EncodedResult:
    dataset = new_segmentation(of, sources, LABEL_MAP_SEGMENTATION_STORAGE, "labels")
    say_bits(dataset, 8)
    dataset.PixelPaddingValue = BACKGROUND
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.SegmentationType = "LABELMAP"
    dataset.SegmentsOverlap = "NO"
    dataset.SegmentSequence = [*finding_segments(of), _background(of)]
    add_label_frame(dataset, of)
    findings = [finding for _, finding in names.findings_of(of.reading, of.view.view.name)]
    labels = label_map(findings, of.view.rows, of.view.columns)
    if of.form == OWN_FRAME:
        content, syntax = labels.tobytes(), ExplicitVRLittleEndian
        dataset.PixelData = content + b"\0" * (len(content) % 2)
    else:
        syntax = JPEGLSLossless
        dataset.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(labels))])
    dataset["PixelData"].VR = "OB"
    return to_result(dataset, of.kind, of.form, syntax)


def label_map(findings: Sequence[Finding], rows: int, columns: int) -> NDArray[np.uint8]:
    """The number of the finding, from 1 to at most 255, that each pixel (rows, columns) belongs to, 0 where none."""
    labels = np.zeros((rows, columns), dtype=np.uint8)
    masks = [region_mask(finding, rows, columns) for finding in findings]
    weakest_first = sorted(range(len(findings)), key=lambda index: (findings[index].probability, -index))
    for index in weakest_first:
        labels[masks[index]] = index + 1
    for index in weakest_first:
        _keep_a_pixel(labels, masks[index], index + 1, centre_pixel(findings[index], rows, columns))
    return labels


def _keep_a_pixel(labels: NDArray[np.uint8], mask: NDArray[np.bool_], number: int, centre: tuple[int, int]) -> None:
    """Give a region without a pixel the one nearest to its centre that its neighbour can spare."""
    if (labels[mask] == number).any():
        return
    pixels = np.argwhere(mask)
    spare = np.bincount(labels.reshape(-1), minlength=256)[labels[mask]] > 1
    if spare.any():
        nearest = int(((pixels[spare] - centre) ** 2).sum(axis=1).argmin())
        labels[tuple(pixels[spare][nearest])] = number


def _background(of: Subject) -> Dataset:
    """Every value in the pixels is a segment, the background too (PS3.3 C.8.20.2.3.3).

    It stands last: OHIF 3.12 gives the first colour to value 1, whatever number the first segment has.
    """
    item = segment(of, BACKGROUND, "Background", "No region", codes.BACKGROUND, codes.BACKGROUND)
    item.RecommendedDisplayCIELabValue = list(BLACK)
    return item
