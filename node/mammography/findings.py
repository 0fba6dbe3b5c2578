"""Kinds of finding, with their DICOM codes; the order of the finding axis (K) is defined here."""

from dataclasses import dataclass
from enum import StrEnum

from node.mammography.views import Laterality, View


class FindingKind(StrEnum):
    """What the models look for. The value is the name in `labels.txt` and in a model's contract."""

    MASS = "mass"
    SUSPICIOUS_CALCIFICATION = "suspicious_calcification"
    ARCHITECTURAL_DISTORTION = "architectural_distortion"
    ASYMMETRY = "asymmetry"


FINDING_KINDS: tuple[FindingKind, ...] = tuple(FindingKind)
"""Known kinds in the order of the finding axis; a model carries a prefix-respecting subset, named in its contract."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


FINDING_CODES: dict[FindingKind, Code] = {
    FindingKind.MASS: Code("4147007", "SCT", "Mass"),
    FindingKind.SUSPICIOUS_CALCIFICATION: Code("129769006", "SCT", "Calcification Cluster"),
    FindingKind.ARCHITECTURAL_DISTORTION: Code("129792006", "SCT", "Architectural distortion of breast"),
    FindingKind.ASYMMETRY: Code("129790003", "SCT", "Asymmetric breast tissue"),
}


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned box in stored pixels, continuous: pixel i spans [i, i + 1), (0, 0) is the top-left corner."""

    left: float
    top: float
    right: float
    bottom: float


class Depth(StrEnum):
    """Third of the breast between nipple and chest wall."""

    ANTERIOR = "anterior"
    MIDDLE = "middle"
    POSTERIOR = "posterior"


class Sector(StrEnum):
    """Side of the nipple line on which a finding lies: CC tells outer and inner, MLO upper and lower."""

    OUTER = "outer"
    INNER = "inner"
    UPPER = "upper"
    LOWER = "lower"
    CENTRAL = "central"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a finding lies in its breast, as far as its view tells.

    `nipple_distance` is the distance of its centre from the nipple along the depth axis (from the nipple to the chest
    wall), a share of the breast's depth in this view: 0 at the nipple, 1 at the chest wall or the pectoral muscle's
    edge, more than 1 behind that edge. `nipple_distance_mm` is the same in millimetres, None where the pixel spacing
    is unknown.
    """

    nipple_distance: float
    nipple_distance_mm: float | None
    depth: Depth
    sector: Sector | None
    """None where the image's orientation cannot be told."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One marked region in one view.

    `contour` is closed (last point equals first), (column, row) pairs in stored pixels in the frame of SCOORD
    (PS3.3 C.18.6: 0.0\\0.0 is the top-left corner of the top-left pixel), at most 500 points.
    `probability` is the calibrated probability, in [0, 1], that the finding is present in the view.
    `peak_heat` is the heatmap's maximum inside the region; 1.0 is the median peak at true lesions of validation.
    """

    kind: FindingKind
    view: View
    probability: float
    peak_heat: float
    centre: tuple[float, float]
    contour: tuple[tuple[float, float], ...]
    box: Box
    place: Place | None = None
    """None where nipple and chest wall could not be found."""
    associated: tuple[FindingKind, ...] = ()
    """Kinds that reach their operating values at the same place and have no mark of their own: see marking.py."""


@dataclass(frozen=True, slots=True)
class Correspondence:
    """A finding of a CC view and one of the MLO view of the same breast that are taken for the same lesion.

    `cc` and `mlo` are indices in the reading's findings.
    """

    cc: int
    mlo: int


@dataclass(frozen=True, slots=True)
class BreastAssessment:
    """Calibrated probability of malignancy in one breast, None where not assessed (no view, or not given)."""

    laterality: Laterality
    probability: float | None


@dataclass(frozen=True, slots=True)
class BreastDensity:
    """ACR BI-RADS composition, "A" to "D", and the probability in [0, 1] that the model gives that category."""

    category: str
    probability: float
