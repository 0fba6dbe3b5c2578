"""Nipple, chest wall and depth of a breast in one view, and where a finding lies by them.

Words and rules are those of mammographic reporting (ACR BI-RADS, mammography: depth is the anterior, middle or
posterior third, counted from the nipple; CC tells outer from inner, MLO upper from lower). The depth axis is the
posterior nipple line. Coordinates are continuous stored pixels, (x, y) = (column, row), pixel i spans [i, i + 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from node.mammography.findings import Correspondence, Depth, Finding, Place, Sector
from node.mammography.pixels import Placement, PreparedView
from node.mammography.regions import MASK_STEP, breast_core
from node.mammography.views import Laterality, View, ViewPosition

CENTRAL_SHARE = 0.1
"""Central: no farther from the nipple line than this share of the breast's depth."""
SAME_LESION_SHARE = 0.15
"""A finding of CC and one of MLO may be one lesion where their nipple distances differ by no more than this."""
CHEST_WALL_SHARE = 0.1
"""The chest wall's edge is the outermost column that shows this share of the breast's height."""
TIP_SHARE = 0.02
"""The nipple's height is the middle of what reaches this near, as a share of the depth, to the most anterior point."""
MAGNIFICATION = "EstimatedRadiographicMagnificationFactor"
FACTORS = (1.0, 3.0)
"""Magnification factors that are believed."""
SPACING_MM = (0.005, 2.0)
"""Spacings that are believed."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The posterior nipple line of one view, in stored pixels.

    `nipple`: the most anterior point of the breast's outline. `posterior`: where the line from the nipple along the
    depth axis meets the chest wall's edge.
    """

    nipple: Point
    posterior: Point


def find_landmarks(prepared: PreparedView) -> Landmarks | None:
    """Nipple and chest wall of a prepared view, None where the breast does not stand out of its background."""
    core = breast_core(prepared.pixels)
    if core is None:
        return None
    wall_is_left = (prepared.chest_wall is Laterality.LEFT) is not prepared.placement.mirrored
    outline = core if wall_is_left else core[:, ::-1]
    wall, reach = _chest_wall(outline), _reach(outline)
    depth = float(reach.max()) - wall
    if depth <= 0:
        return None
    tip = np.flatnonzero(reach >= reach.max() - TIP_SHARE * depth)
    y = (float(tip.min() + tip.max()) / 2 + 0.5) * MASK_STEP
    nipple, posterior = (_column(x, wall_is_left, core.shape[1]) for x in (float(reach.max()), wall))
    stored = prepared.placement.to_stored(np.array([[nipple, y], [posterior, y]]))
    return Landmarks(*(_inside(point, prepared.placement) for point in stored))


def place(
    centre: Point,
    view: View,
    landmarks: Landmarks | None,
    orientation: Sequence[str] = (),
    spacing_mm: tuple[float, float] | None = None,
) -> Place | None:
    """Where the point `centre` lies in the breast of `view`; None without landmarks.

    `orientation` is the stored image's Patient Orientation, row and column direction, or (); `spacing_mm` its (row,
    column) spacing, or None: then nothing is said in mm.
    """
    if landmarks is None:
        return None
    unit = np.array([1.0, 1.0] if spacing_mm is None else [spacing_mm[1], spacing_mm[0]])
    nipple = np.array(landmarks.nipple)
    line = (np.array(landmarks.posterior) - nipple) * unit
    offset = (np.array(centre) - nipple) * unit
    depth = float(np.hypot(*line))
    along = max(0.0, float(offset @ line) / depth)
    share = along / depth
    return Place(
        nipple_distance=share,
        nipple_distance_mm=None if spacing_mm is None else along,
        depth=Depth.ANTERIOR if share < 1 / 3 else Depth.MIDDLE if share < 2 / 3 else Depth.POSTERIOR,
        sector=_sector(offset - (offset @ line) / depth**2 * line, depth, view, line, orientation),
    )


def _chest_wall(outline: NDArray[np.bool_]) -> float:
    """Column, in cells of the outline, at which the breast begins; its chest wall is on the left."""
    heights = outline.sum(axis=0)
    return float(np.argmax(heights >= CHEST_WALL_SHARE * outline.any(axis=1).sum()))


def _reach(outline: NDArray[np.bool_]) -> NDArray[np.intp]:
    """By row, in cells of the outline, the column at which the breast ends; 0 where there is none."""
    columns = outline.shape[1] - np.argmax(outline[:, ::-1], axis=1)
    return np.where(outline.any(axis=1), columns, 0)


def _column(cells: float, wall_is_left: bool, width: int) -> float:
    """From cells of the outline, counted from the chest wall's side, to model pixels."""
    return (cells if wall_is_left else width - cells) * MASK_STEP


def _inside(point: NDArray[np.float64], placement: Placement) -> Point:
    """Whole steps of the outline may reach beyond the image by less than a step."""
    x, y = np.clip(point, 0.0, (placement.stored_columns, placement.stored_rows))
    return float(x), float(y)


_TOWARDS = {
    (Laterality.RIGHT, ViewPosition.CC): ("R", Sector.OUTER, Sector.INNER),
    (Laterality.LEFT, ViewPosition.CC): ("L", Sector.OUTER, Sector.INNER),
    (Laterality.RIGHT, ViewPosition.MLO): ("H", Sector.UPPER, Sector.LOWER),
    (Laterality.LEFT, ViewPosition.MLO): ("H", Sector.UPPER, Sector.LOWER),
}
"""A direction in the patient, the sector that lies that way, and the other one."""
_OPPOSITE = {"A": "P", "P": "A", "R": "L", "L": "R", "H": "F", "F": "H"}


def _sector(
    aside: NDArray[np.float64], depth: float, view: View, line: NDArray[np.float64], orientation: Sequence[str]
) -> Sector | None:
    """The sector of a finding that lies `aside` of the nipple line; None where the orientation cannot be trusted.

    It is not where it says that the chest wall is on another edge than it was found.
    """
    named = _TOWARDS.get((view.laterality, view.position))
    posterior = _direction("P", orientation)
    if named is None or posterior is None or float(posterior @ line) <= 0.0 or posterior[0] == 0.0:
        return None
    letter, sector, other = named
    towards = _direction(letter, orientation)
    if towards is None or towards[1] == 0.0:
        return None
    if math.hypot(*aside) <= CENTRAL_SHARE * depth:
        return Sector.CENTRAL
    return sector if float(aside @ towards) > 0.0 else other


def _direction(letter: str, orientation: Sequence[str]) -> NDArray[np.float64] | None:
    """The image axis, as a vector (x, y), along which a patient direction runs (PS3.3 C.7.6.1.1.1); None: unknown.

    The first letter of an axis is its main direction; later ones count only where no main direction fits.
    """
    if len(orientation) != 2:
        return None
    for rank in range(3):
        for axis, word in zip(np.eye(2), orientation, strict=True):
            if word[rank : rank + 1] == letter:
                return axis
            if word[rank : rank + 1] == _OPPOSITE[letter]:
                return -axis
    return None


def correspondences(findings: Sequence[Finding]) -> tuple[Correspondence, ...]:
    """Pairs of findings that are taken for one lesion, in the order of the CC finding; no finding in two.

    Same breast, same kind, one in CC and one in MLO, nipple distances that differ by SAME_LESION_SHARE of the depth at
    most. The closest pair first; of equally close ones the one that comes first in `findings`.
    """
    pairs = [
        (abs(cc.place.nipple_distance - mlo.place.nipple_distance), i, j)
        for i, cc in enumerate(findings)
        for j, mlo in enumerate(findings)
        if cc.place is not None and mlo.place is not None and _may_be_one(cc, mlo)
    ]
    taken: list[Correspondence] = []
    for difference, i, j in sorted(pairs):
        if difference <= SAME_LESION_SHARE and not any(i == pair.cc or j == pair.mlo for pair in taken):
            taken.append(Correspondence(i, j))
    return tuple(sorted(taken, key=lambda pair: pair.cc))


def _may_be_one(cc: Finding, mlo: Finding) -> bool:
    return (
        (cc.view.position, mlo.view.position) == (ViewPosition.CC, ViewPosition.MLO)
        and cc.view.laterality is mlo.view.laterality
        and cc.kind is mlo.kind
    )


def spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    """(row, column) spacing in the breast: Imager Pixel Spacing (0018,1164) over Estimated Radiographic Magnification
    Factor (0018,1114) (PS3.3 10.7.1.3, C.8.11.7). None where unknown or not to be believed.

    A breast lies on the detector: a factor that is not stated is taken as 1, at the price of some hundredths.
    """
    spacing, factor = _numbers(dataset, "ImagerPixelSpacing"), _numbers(dataset, MAGNIFICATION) or (1.0,)
    if len(spacing) != 2 or len(factor) != 1:
        return None
    in_breast = tuple(value / factor[0] if factor[0] else math.nan for value in spacing)
    credible = all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in in_breast)
    if not credible or not FACTORS[0] <= factor[0] <= FACTORS[1]:
        return None
    return in_breast[0], in_breast[1]


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The values of an element, empty where absent, (nan,) where they are no numbers."""
    try:
        value = dataset.get(keyword)
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        return tuple(float(str(item)) for item in values if item is not None and item != "")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError):
        return (math.nan,)
