"""Nipple, chest wall and depth of a breast in one view, and where a finding lies by them.

Words and rules are those of mammographic reporting (ACR BI-RADS, mammography: depth is the anterior, middle or
posterior third, counted from the nipple; CC tells outer from inner, MLO upper from lower). The depth axis is the
posterior nipple line. Coordinates are continuous stored pixels, (x, y) = (column, row), pixel i spans [i, i + 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from scipy import ndimage

from node.mammography.findings import Correspondence, Depth, Finding, Place, Sector
from node.mammography.pectoral import find_pectoral_edge
from node.mammography.pixels import Placement, PreparedView
from node.mammography.regions import MASK_STEP, breast_core
from node.mammography.views import Laterality, View, ViewPosition

CENTRAL_SHARE = 0.1
"""Central: no farther from the nipple line than this share of the breast's depth."""
SAME_LESION_SHARE = 0.25
"""A finding of CC and one of MLO may be one lesion where their nipple distances differ by no more than this."""
CHEST_WALL_SHARE = 0.1
"""The chest wall's edge is the outermost column that shows this share of the breast's height."""
TIP_SHARE = 0.02
"""The nipple's height is the middle of what reaches this near, as a share of the depth, to the most anterior point."""
LEAST_REACH_SHARE = 0.6
"""A nipple reaches this far, as a share of what reaches farthest from the chest wall's edge."""
SMOOTH_ROWS = 9
"""Rows of the outline over which its reach is smoothed."""
MAGNIFICATION = "EstimatedRadiographicMagnificationFactor"
FACTORS = (1.0, 3.0)
"""Magnification factors that are believed."""
SPACING_MM = (0.005, 2.0)
"""Spacings that are believed."""

Point = tuple[float, float]
Vector = NDArray[np.float64]
Cell = TypeVar("Cell", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The posterior nipple line of one view, in stored pixels.

    `nipple`: the most anterior point of the breast's outline. `posterior`: where the line from the nipple along the
    depth axis meets the pectoral muscle's edge or the chest wall's edge of the breast. `pectoral_edge`: from the head's
    end to the chest wall; None where it was not sought (CC) or not found.
    """

    nipple: Point
    posterior: Point
    pectoral_edge: tuple[Point, Point] | None


def find_landmarks(
    prepared: PreparedView,
    view: View,
    orientation: Sequence[str] = (),
    spacing_mm: tuple[float, float] | None = None,
) -> Landmarks | None:
    """The posterior nipple line of a prepared view, None where the breast does not stand out of its background.

    CC: at right angles to the chest wall's edge, from the most anterior point to that edge. MLO: at right angles to the
    pectoral muscle's edge, from the point farthest from it, to the muscle or to the chest wall's edge, whichever comes
    first (Bassett, Hirbawi, DeBruhl and Hayes 1993); where no muscle is found, as in CC. `orientation` and `spacing_mm`
    as in `place`: an MLO that says that it was stored head down is searched so, and angles are right where pixels are
    not square.
    """
    core = breast_core(prepared.pixels)
    if core is None or core.all():
        return None
    frame = _Frame.of(prepared, _direction("H", orientation), spacing_mm)
    outline = frame.upright(core)
    wall = _chest_wall(outline)
    tips = frame.metric(np.stack([_reach(outline), np.arange(len(outline)) + 0.5], axis=1)[outline.any(axis=1)])
    at_wall, at_front = frame.metric(np.array([[wall, 0.0], [outline.shape[1], 0.0]]))
    edge = _pectoral_edge(prepared.pixels, outline, frame) if view.position is ViewPosition.MLO else None
    level = np.array([math.copysign(1.0, at_front[0] - at_wall[0]), 0.0])
    anterior = level if edge is None else _normal(edge, level)
    nipple = _most_anterior(tips, anterior)
    if edge is not None and _is_far_back(nipple, tips, float(at_wall[0])):
        edge, nipple = None, _most_anterior(tips, level)
        anterior = level
    depth = _depth(nipple, anterior, float(at_wall[0]), edge)
    if depth <= 0.0:
        return None
    ends = None if edge is None else (frame.stored(edge[0]), frame.stored(edge[1]))
    return Landmarks(frame.stored(nipple), frame.stored(nipple - depth * anterior), ends)


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
    lies = breast_coordinates(np.array([centre]), view, landmarks, orientation, spacing_mm)
    share = max(0.0, float(lies.share[0]))
    return Place(
        nipple_distance=share,
        nipple_distance_mm=None if spacing_mm is None else share * lies.depth,
        depth=Depth.ANTERIOR if share < 1 / 3 else Depth.MIDDLE if share < 2 / 3 else Depth.POSTERIOR,
        sector=None if lies.aside is None else _sector(float(lies.aside[0]), view),
    )


@dataclass(frozen=True, slots=True, eq=False)
class BreastCoordinates:
    """Where points lie in the breast of one view, lengths as shares of its `depth` (mm, or stored pixels).

    `share` (N,) runs along the posterior nipple line, 0 at the nipple, 1 at its end, less than 0 in front. `aside`
    (N,) is the distance from that line, above 0 on the outer side in a CC and on the upper side in an MLO; None where
    the orientation cannot be trusted: not given, or with the chest wall on another edge than it was found.
    `from_nipple` (N,) is the straight distance.
    """

    share: Vector
    aside: Vector | None
    from_nipple: Vector
    depth: float


def breast_coordinates(
    points: Vector,
    view: View,
    landmarks: Landmarks,
    orientation: Sequence[str] = (),
    spacing_mm: tuple[float, float] | None = None,
) -> BreastCoordinates:
    """Points (N, 2) of (x, y) in stored pixels; the rest as in `place`."""
    unit = _unit(spacing_mm)
    nipple = np.array(landmarks.nipple)
    line = (np.array(landmarks.posterior) - nipple) * unit
    offset = (points - nipple) * unit
    depth = float(np.hypot(*line))
    share = offset @ line / depth**2
    beside = offset - share[:, None] * line
    towards = _towards(view, line, orientation)
    aside = None if towards is None else np.copysign(np.hypot(*beside.T), beside @ towards) / depth
    return BreastCoordinates(share, aside, np.hypot(*offset.T) / depth, depth)


@dataclass(frozen=True, slots=True)
class _Frame:
    """From cells of an outline that is upright (chest wall left, head up) to stored pixels, and these in units of
    length: millimetres, or pixels where the spacing is unknown.
    """

    placement: Placement
    unit: Vector
    wall_is_left: bool
    head_is_up: bool
    cells: tuple[int, int]

    @classmethod
    def of(cls, prepared: PreparedView, head: Vector | None, spacing_mm: tuple[float, float] | None) -> "_Frame":
        """`head`: towards the head in the stored image; up where it is unknown, as mammograms are hung."""
        rows, columns = (math.ceil(side / MASK_STEP) for side in prepared.pixels.shape)
        return cls(
            placement=prepared.placement,
            unit=_unit(spacing_mm),
            wall_is_left=(prepared.chest_wall is Laterality.LEFT) is not prepared.placement.mirrored,
            head_is_up=head is None or head[1] <= 0.0,
            cells=(rows, columns),
        )

    def upright(self, cells: NDArray[Cell]) -> NDArray[Cell]:
        """(h, w) with the chest wall on the left and the head up."""
        turned = cells if self.wall_is_left else cells[:, ::-1]
        return turned if self.head_is_up else turned[::-1]

    def metric(self, points: Vector) -> Vector:
        """Points (N, 2) of upright cells to units of length in the stored image."""
        x, y = points[:, 0], points[:, 1]
        columns = x if self.wall_is_left else self.cells[1] - x
        rows = y if self.head_is_up else self.cells[0] - y
        return self.placement.to_stored(np.stack([columns, rows], axis=1) * MASK_STEP) * self.unit

    def stored(self, point: Vector) -> Point:
        """Units of length to stored pixels, inside the image: cells may reach beyond it by less than one."""
        x, y = np.clip(point / self.unit, 0.0, (self.placement.stored_columns, self.placement.stored_rows))
        return float(x), float(y)


def _unit(spacing_mm: tuple[float, float] | None) -> Vector:
    """Length of a stored pixel along x and y."""
    return np.array([1.0, 1.0] if spacing_mm is None else [spacing_mm[1], spacing_mm[0]])


def _chest_wall(outline: NDArray[np.bool_]) -> float:
    """Column at which the breast begins."""
    heights = outline.sum(axis=0)
    return float(np.argmax(heights >= CHEST_WALL_SHARE * outline.any(axis=1).sum()))


def _reach(outline: NDArray[np.bool_]) -> NDArray[np.float64]:
    """By row, the column at which the breast ends; what sticks out over less than half of SMOOTH_ROWS is no breast."""
    columns = outline.shape[1] - np.argmax(outline[:, ::-1], axis=1)
    reach = np.where(outline.any(axis=1), columns, 0)
    return np.asarray(ndimage.median_filter(reach, SMOOTH_ROWS, mode="nearest"), dtype=np.float64)


def _pectoral_edge(pixels: NDArray[np.float32], outline: NDArray[np.bool_], frame: _Frame) -> Vector | None:
    """Its ends (2, 2) in units of length."""
    found = find_pectoral_edge(frame.upright(pixels[::MASK_STEP, ::MASK_STEP]), outline)
    return None if found is None else frame.metric(np.array([found.top, found.bottom]))


def _normal(edge: Vector, level: Vector) -> Vector:
    """The unit vector at right angles to the edge, on the side that `level` points to."""
    along = edge[1] - edge[0]
    normal = np.array([-along[1], along[0]]) / np.hypot(*along)
    return np.asarray(normal if float(normal @ level) > 0.0 else -normal)


def _most_anterior(tips: Vector, anterior: Vector) -> Vector:
    """Of the outline (N, 2), the middle of the run that comes near to the farthest point."""
    forward, sideways = tips @ anterior, tips @ np.array([-anterior[1], anterior[0]])
    near = forward >= forward.max() - TIP_SHARE * (forward.max() - forward.min())
    runs, _ = ndimage.label(near)
    run = sideways[runs == runs[int(forward.argmax())]]
    middle = float(run.min() + run.max()) / 2
    return np.asarray(forward.max() * anterior + middle * np.array([-anterior[1], anterior[0]]))


def _is_far_back(nipple: Vector, tips: Vector, wall_x: float) -> bool:
    """The point farthest from a line that is no muscle's edge may lie in the fold below the breast."""
    return abs(float(nipple[0]) - wall_x) < LEAST_REACH_SHARE * float(np.abs(tips[:, 0] - wall_x).max())


def _depth(nipple: Vector, anterior: Vector, wall_x: float, edge: Vector | None) -> float:
    """From the nipple to the muscle's edge, where the line meets it before the chest wall, else to the chest wall."""
    to_wall = float((nipple[0] - wall_x) / anterior[0])
    if edge is None:
        return to_wall
    to_edge = float((nipple - edge[0]) @ anterior)
    return min(to_wall, to_edge) if to_edge > 0.0 else to_wall


_TOWARDS = {
    (Laterality.RIGHT, ViewPosition.CC): ("R", Sector.OUTER, Sector.INNER),
    (Laterality.LEFT, ViewPosition.CC): ("L", Sector.OUTER, Sector.INNER),
    (Laterality.RIGHT, ViewPosition.MLO): ("H", Sector.UPPER, Sector.LOWER),
    (Laterality.LEFT, ViewPosition.MLO): ("H", Sector.UPPER, Sector.LOWER),
}
"""A direction in the patient, the sector that lies that way, and the other one."""
_OPPOSITE = {"A": "P", "P": "A", "R": "L", "L": "R", "H": "F", "F": "H"}


def _sector(aside: float, view: View) -> Sector:
    """The sector of a point that lies `aside` of the nipple line, as a share of the breast's depth."""
    _, sector, other = _TOWARDS[view.laterality, view.position]
    if abs(aside) <= CENTRAL_SHARE:
        return Sector.CENTRAL
    return sector if aside > 0.0 else other


def _towards(view: View, line: Vector, orientation: Sequence[str]) -> Vector | None:
    """The image axis along which the view's first sector of _TOWARDS lies; None where it cannot be trusted.

    It is not where it says that the chest wall is on another edge than it was found.
    """
    named = _TOWARDS.get((view.laterality, view.position))
    posterior = _direction("P", orientation)
    if named is None or posterior is None or float(posterior @ line) <= 0.0 or posterior[0] == 0.0:
        return None
    towards = _direction(named[0], orientation)
    return None if towards is None or towards[1] == 0.0 else towards


def hung_orientation(view: View, chest_wall: Laterality) -> tuple[str, ...]:
    """Patient Orientation of an image that is hung as usual, chest wall on the edge given (LEFT = left edge): the head
    up in an MLO, the outer side up in a CC. () for other views.
    """
    down = {ViewPosition.MLO: "F", ViewPosition.CC: _OPPOSITE[view.laterality.value]}.get(view.position)
    if down is None:
        return ()
    return ("A" if chest_wall is Laterality.LEFT else "P", down)


def _direction(letter: str, orientation: Sequence[str]) -> Vector | None:
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
