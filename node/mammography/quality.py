"""What is wrong with an image technically, in the terms of CID 6041, as far as pixels and header really tell.

Not claimed, because nothing here measures it with shown reliability (docs/quality.md): insufficient pectoral muscle,
other positioning, motion blur, nipple not in profile, compression, folds, artifacts, exposure by the pixels, the side
and view marker (a side in the header that the pixels contradict is no marker).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset

from node.mammography.findings import Code
from node.mammography.pixels import BREAST_NOT_FOUND, CLIPPED, CONSTANT_IMAGE, PreparedView
from node.mammography.views import View


class QualityReason(StrEnum):
    """Reasons that the node can measure. The value is what the status list says."""

    CONSTANT_IMAGE = "constant image"
    BREAST_NOT_FOUND = "no breast found"
    CLIPPED = "clipped"
    OVER_EXPOSED = "over exposed"
    UNDER_EXPOSED = "under exposed"


CODES: dict[QualityReason, Code] = {
    QualityReason.CONSTANT_IMAGE: Code("111213", "DCM", "No image"),
    QualityReason.BREAST_NOT_FOUND: Code("111220", "DCM", "Other failure"),
    QualityReason.CLIPPED: Code("111219", "DCM", "Inappropriate image processing"),
    QualityReason.OVER_EXPOSED: Code("111212", "DCM", "Over exposed"),
    QualityReason.UNDER_EXPOSED: Code("111211", "DCM", "Under exposed"),
}
"""CID 6041, Mammography Image Quality Finding (PS3.16): the only member that says no more than was measured."""


@dataclass(frozen=True, slots=True)
class QualityFinding:
    """One thing wrong with one image: the reason, what was measured in words, and whether the image is unreadable."""

    reason: QualityReason
    words: str
    """For example "every pixel has the value 0"; no patient attributes."""
    refused: bool
    """True: nothing was looked for in this image."""


_OF_FLAG: dict[str, QualityFinding] = {
    CONSTANT_IMAGE: QualityFinding(QualityReason.CONSTANT_IMAGE, "every pixel has the same value", refused=True),
    BREAST_NOT_FOUND: QualityFinding(
        QualityReason.BREAST_NOT_FOUND, "nothing stands out of the background", refused=True
    ),
    CLIPPED: QualityFinding(
        QualityReason.CLIPPED, "more than a tenth of the breast is at the greatest display value", refused=False
    ),
}


DEVIATION_LIMIT = 3.0
"""Deviation Index (0018,1413) is 10 lg(exposure / exposure aimed at) (IEC 62494-1): 3 is twice as much, -3 is half;
AAPM TG-116 (2009) sets its outermost control limits there."""
CREDIBLE_DEVIATION = 30.0
"""A thousand times too much or too little is no measurement."""


def measure(dataset: Dataset, view: View, prepared: PreparedView) -> tuple[QualityFinding, ...]:
    """What is wrong with one image, in the order of QualityReason; empty where nothing was measured to be wrong.

    `dataset` needs no pixel data. What cannot be read in its header was not measured.
    """
    of_pixels = [finding for flag, finding in _OF_FLAG.items() if flag in prepared.flags]
    return (*of_pixels, *_exposure(dataset))


def _exposure(dataset: Dataset) -> tuple[QualityFinding, ...]:
    """Over or under exposed, by what the machine itself measured and wrote down."""
    deviation = _number(dataset, "DeviationIndex")
    words = f"Deviation Index is {deviation:g}"
    if DEVIATION_LIMIT <= deviation <= CREDIBLE_DEVIATION:
        return (QualityFinding(QualityReason.OVER_EXPOSED, words, refused=False),)
    if -CREDIBLE_DEVIATION <= deviation <= -DEVIATION_LIMIT:
        return (QualityFinding(QualityReason.UNDER_EXPOSED, words, refused=False),)
    if _word(dataset, "ExposureStatus") == "ABORTED":
        return (QualityFinding(QualityReason.UNDER_EXPOSED, "Exposure Status is ABORTED", refused=False),)
    return ()


def _number(dataset: Dataset, keyword: str) -> float:
    """nan where absent or no number."""
    try:
        return float(_word(dataset, keyword) or math.nan)
    except ValueError:
        return math.nan


def _word(dataset: Dataset, keyword: str) -> str:
    """One value as text; empty where absent or not readable as its VR says."""
    try:
        return str(dataset.get(keyword, "")).strip(" \0")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return ""
