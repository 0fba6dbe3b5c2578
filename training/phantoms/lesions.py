"""The table of lesion kinds, what stands in a breast, and how lesions are drawn by chance; lengths in millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from node.mammography.findings import FindingKind
from node.mammography.views import Laterality, ViewPosition


@dataclass(frozen=True, slots=True)
class LesionKind:
    """One row of the table: what it looks like, and whether it is malignant.

    `weight` is its share among rows of the same malignancy. `laterality` None leaves the side to chance.
    """

    finding: FindingKind
    subtype: str
    malignant: bool
    weight: float
    laterality: Laterality | None = None

    def on(self, laterality: Laterality) -> "LesionKind":
        """The same kind, forced into one breast."""
        return replace(self, laterality=laterality)


MASS_ROUND = LesionKind(FindingKind.MASS, "round", False, 0.14)
MASS_OVAL = LesionKind(FindingKind.MASS, "oval", False, 0.18)
MASS_LOBULATED = LesionKind(FindingKind.MASS, "lobulated", False, 0.12)
MASS_IRREGULAR = LesionKind(FindingKind.MASS, "irregular", True, 0.20)
MASS_SPICULATED = LesionKind(FindingKind.MASS, "spiculated", True, 0.24)
CALCIFICATION_PUNCTATE = LesionKind(FindingKind.SUSPICIOUS_CALCIFICATION, "punctate grouped", False, 0.22)
CALCIFICATION_ROUND = LesionKind(FindingKind.SUSPICIOUS_CALCIFICATION, "round grouped", False, 0.12)
CALCIFICATION_PLEOMORPHIC = LesionKind(FindingKind.SUSPICIOUS_CALCIFICATION, "pleomorphic grouped", True, 0.16)
CALCIFICATION_LINEAR = LesionKind(FindingKind.SUSPICIOUS_CALCIFICATION, "fine linear", True, 0.12)
CALCIFICATION_SEGMENTAL = LesionKind(FindingKind.SUSPICIOUS_CALCIFICATION, "pleomorphic segmental", True, 0.10)
DISTORTION = LesionKind(FindingKind.ARCHITECTURAL_DISTORTION, "radiating", True, 0.12)
DISTORTION_SCAR = LesionKind(FindingKind.ARCHITECTURAL_DISTORTION, "scar with clips", False, 0.08)
ASYMMETRY_FOCAL = LesionKind(FindingKind.ASYMMETRY, "focal", False, 0.14)
ASYMMETRY_DISTORTED = LesionKind(FindingKind.ASYMMETRY, "focal with distortion", True, 0.06)

KINDS: tuple[LesionKind, ...] = (
    MASS_ROUND,
    MASS_OVAL,
    MASS_LOBULATED,
    MASS_IRREGULAR,
    MASS_SPICULATED,
    CALCIFICATION_PUNCTATE,
    CALCIFICATION_ROUND,
    CALCIFICATION_PLEOMORPHIC,
    CALCIFICATION_LINEAR,
    CALCIFICATION_SEGMENTAL,
    DISTORTION,
    DISTORTION_SCAR,
    ASYMMETRY_FOCAL,
    ASYMMETRY_DISTORTED,
)
"""The table that decides malignant or benign; nothing else does."""


class DistractorKind(StrEnum):
    """What is no lesion."""

    GLAND_ISLAND = "gland island"
    VESSEL = "vessel"
    VASCULAR_CALCIFICATION = "vessel with calcification"
    BENIGN_CALCIFICATION = "single benign calcification"
    SCATTERED_CALCIFICATION = "scattered benign calcifications"
    CLIP = "clip"
    SUMMATION_SHADOW = "summation shadow"
    SYMMETRIC_DENSITY = "symmetric density"


@dataclass(frozen=True, slots=True)
class Site:
    """Where something lies in a breast, seen from the nipple.

    `nipple_distance_mm` is the same in CC and MLO. Angles are in radians off the nipple's axis: `outer` towards the
    armpit side, `upper` towards the head. A view sees the angle that `angle_in` gives, positive down the image.
    """

    nipple_distance_mm: float
    outer: float
    upper: float

    def angle_in(self, position: ViewPosition) -> float:
        """Angle off the nipple axis in one projection; a CC's top is outer, an MLO's is upper and a bit outer."""
        return -self.outer if position is ViewPosition.CC else -(0.85 * self.upper + 0.35 * self.outer)

    @property
    def depth(self) -> str:
        """Anterior, middle or posterior, by distance from the nipple."""
        return ("anterior", "middle", "posterior")[int(np.digitize(self.nipple_distance_mm, (32.0, 60.0)))]

    @property
    def quadrant(self) -> str:
        """The quadrant in radiologists' words."""
        if self.nipple_distance_mm < 22.0:
            return "retroareolar region"
        return f"{'upper' if self.upper > 0 else 'lower'} {'outer' if self.outer > 0 else 'inner'} quadrant"


@dataclass(frozen=True, slots=True)
class Lesion:
    """A finding in one breast. `size_mm` is its largest extent; `contrast` is relative, 1.0 being typical."""

    kind: LesionKind
    laterality: Laterality
    site: Site
    size_mm: float
    contrast: float
    seed: int

    @property
    def malignant(self) -> bool:
        """By the table of kinds."""
        return self.kind.malignant

    @property
    def finding(self) -> FindingKind:
        """The finding it is, benign or malignant."""
        return self.kind.finding

    @property
    def subtype(self) -> str:
        """Row of the table, for example spiculated."""
        return self.kind.subtype


@dataclass(frozen=True, slots=True)
class Distractor:
    """Something that is no lesion. `positions`: the projections that show it; `like`: the mass a shadow imitates."""

    kind: DistractorKind
    laterality: Laterality
    site: Site
    size_mm: float
    contrast: float
    seed: int
    positions: tuple[ViewPosition, ...] = (ViewPosition.CC, ViewPosition.MLO)
    like: LesionKind | None = None


_MEDIAN_SIZE_MM = {
    FindingKind.MASS: (14.0, 0.42, 6.0, 40.0),
    FindingKind.SUSPICIOUS_CALCIFICATION: (11.0, 0.40, 5.0, 30.0),
    FindingKind.ARCHITECTURAL_DISTORTION: (30.0, 0.25, 18.0, 48.0),
    FindingKind.ASYMMETRY: (26.0, 0.25, 16.0, 42.0),
}
"""Median, log-normal spread, least and greatest extent."""


def draw_size(rng: np.random.Generator, kind: LesionKind) -> float:
    """Largest extent in mm, log-normal within the finding's range."""
    median, spread, least, greatest = _MEDIAN_SIZE_MM[kind.finding]
    if kind is CALCIFICATION_SEGMENTAL or kind is CALCIFICATION_LINEAR:
        median = 18.0
    return float(np.clip(median * np.exp(spread * rng.standard_normal()), least, greatest))


def draw_kinds(rng: np.random.Generator) -> list[LesionKind]:
    """Kinds of one exam: 35 % none, 35 % benign alone, 30 % with a malignant one."""
    chance = rng.random()
    if chance < 0.35:
        return []
    malignant = chance >= 0.70
    kinds = [_pick(rng, malignant)]
    if rng.random() < (0.25 if malignant else 0.20):
        kinds.append(_pick(rng, False))
    return kinds


def _pick(rng: np.random.Generator, malignant: bool) -> LesionKind:
    rows: Sequence[LesionKind] = [kind for kind in KINDS if kind.malignant is malignant]
    weights = np.array([row.weight for row in rows])
    return rows[int(rng.choice(len(rows), p=weights / weights.sum()))]
