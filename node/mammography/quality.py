"""What is wrong with an image technically, in the terms of CID 6041, as far as pixels and header really tell.

Not claimed, because nothing here measures it with shown reliability: motion blur, nipple not in profile, compression,
skin folds, an open inframammary fold, artifacts, the side and view marker (a side in the header that the pixels
contradict is no marker).
"""

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
    BREAST_CUT_OFF = "breast cut off"
    INSUFFICIENT_PECTORAL_MUSCLE = "insufficient pectoral muscle"


CODES: dict[QualityReason, Code] = {
    QualityReason.CONSTANT_IMAGE: Code("111213", "DCM", "No image"),
    QualityReason.BREAST_NOT_FOUND: Code("111220", "DCM", "Other failure"),
    QualityReason.CLIPPED: Code("111219", "DCM", "Inappropriate image processing"),
    QualityReason.OVER_EXPOSED: Code("111212", "DCM", "Over exposed"),
    QualityReason.UNDER_EXPOSED: Code("111211", "DCM", "Under exposed"),
    QualityReason.BREAST_CUT_OFF: Code("111209", "DCM", "Positioning"),
    QualityReason.INSUFFICIENT_PECTORAL_MUSCLE: Code("111197", "DCM", "MLO Insufficient pectoral muscle"),
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


def measure(dataset: Dataset, view: View, prepared: PreparedView) -> tuple[QualityFinding, ...]:
    """What is wrong with one image, in the order of QualityReason; empty where nothing was measured to be wrong.

    `dataset` needs no pixel data.
    """
    return tuple(finding for flag, finding in _OF_FLAG.items() if flag in prepared.flags)
