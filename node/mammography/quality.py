"""What is wrong with an image technically, in the terms of CID 6041, as far as pixels and header really tell."""

from dataclasses import dataclass
from enum import StrEnum


class QualityReason(StrEnum):
    """Reasons that the node can measure. The value is what the status list says."""

    CONSTANT_IMAGE = "constant image"


@dataclass(frozen=True, slots=True)
class QualityFinding:
    """One thing wrong with one image: the reason, what was measured in words, and whether the image is unreadable."""

    reason: QualityReason
    words: str
    """For example "every pixel has the value 0"; no patient attributes."""
    refused: bool
    """True: nothing was looked for in this image."""
