"""The words of a phrase that say where, as a mask on the model's image of one view.

What a view cannot show, such as "outer" in an MLO, masks nothing and is said instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.mammography.anatomy import CENTRAL_SHARE, BreastCoordinates, Landmarks, breast_coordinates
from node.mammography.phrases import SIDES, Statement
from node.mammography.pixels import PreparedView
from node.mammography.views import View, ViewPosition

DEPTH_SHARES = {"anterior": (-0.5, 1 / 3), "mid": (1 / 3, 2 / 3), "posterior": (2 / 3, np.inf)}
"""Thirds from the nipple to the chest wall or the muscle, as `anatomy.place` names them."""
DEPTH_MARGIN = 0.1
"""Widens a third on both sides: a lesion is larger than its centre, and readers' thirds differ."""
SUBAREOLAR_SHARE = 0.35
"""Subareolar: no farther from the nipple than this share of the breast's depth."""
CENTRAL_WIDTH = 0.2
"""Central: no farther from the nipple line than this share of the breast's depth."""
_SHOWN = {ViewPosition.CC: ("outer", "inner"), ViewPosition.MLO: ("upper", "lower")}
"""The words of position that a view shows, the side of positive `BreastCoordinates.aside` first."""


@dataclass(frozen=True, slots=True, eq=False)
class PlaceMask:
    """`inside` bool (H, W), model pixels of one view where the phrase may be shown: all True where it says no place.

    `asked` is False where it speaks of another side or view; then `inside` is False everywhere. `remarks` say in words
    what was not applied, and why.
    """

    inside: NDArray[np.bool_]
    asked: bool
    remarks: tuple[str, ...]


def place_mask(
    statement: Statement,
    view: View | None,
    prepared: PreparedView,
    landmarks: Landmarks | None,
    orientation: Sequence[str] = (),
    spacing_mm: tuple[float, float] | None = None,
) -> PlaceMask:
    """Where in this view the statement may be shown.

    `view` None: not known, so nothing is masked. `landmarks`, `orientation` and `spacing_mm` as in `anatomy.place`.
    """
    where, shape = statement.location, prepared.pixels.shape
    everywhere = np.ones(shape, dtype=bool)
    said = _words(statement)
    if view is None:
        words = ", ".join(said)
        return PlaceMask(everywhere, True, _remark(words, "side and view of this image are not known"))
    other = _other(statement, view)
    if other:
        return PlaceMask(~everywhere, False, (other,))
    if not where.position and not where.depth:
        return PlaceMask(everywhere, True, ())
    if landmarks is None:
        words = ", ".join(word for word in (*where.position.split(), where.depth) if word)
        return PlaceMask(everywhere, True, _remark(words, "nipple and chest wall were not found"))
    lies = breast_coordinates(_pixels_in_stored(prepared), view, landmarks, orientation, spacing_mm)
    inside, remarks = _inside(statement, view, lies)
    return PlaceMask(inside.reshape(shape), True, remarks)


def _remark(words: str, why: str) -> tuple[str, ...]:
    return (f"{words}: not applied, {why}",) if words else ()


def _words(statement: Statement) -> list[str]:
    where = statement.location
    side = SIDES[where.side] if where.side else ""
    return [word for word in (*where.position.split(), where.depth, side, statement.view) if word]


def _other(statement: Statement, view: View) -> str:
    """Why the phrase does not speak of this view, "" where it does."""
    side = statement.location.side
    if side is not None and side is not view.laterality:
        return f"asked for the {SIDES[side]} breast, this is {view}"
    if statement.view and statement.view != view.position.value:
        return f"asked for the {statement.view}, this is {view}"
    return ""


def _pixels_in_stored(prepared: PreparedView) -> NDArray[np.float64]:
    """Centres of the model's pixels, row by row, in stored pixels (N, 2)."""
    rows, columns = prepared.pixels.shape
    x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    return prepared.placement.to_stored(np.stack([x.ravel(), y.ravel()], axis=1))


def _inside(statement: Statement, view: View, lies: BreastCoordinates) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    where, remarks = statement.location, list[str]()
    inside = np.ones(lies.share.shape, dtype=bool)
    if where.depth:
        near, far = DEPTH_SHARES[where.depth]
        inside &= (lies.share >= near - DEPTH_MARGIN) & (lies.share <= far + DEPTH_MARGIN)
    shown = _SHOWN.get(view.position, ("", ""))
    for word in where.position.split():
        if word in ("upper", "lower", "outer", "inner") and word not in shown:
            remarks.append(f"{word}: not applied, a view {view.position.value} cannot show it")
        elif word == "subareolar":
            inside &= lies.from_nipple <= SUBAREOLAR_SHARE
        elif lies.aside is None:
            remarks.append(f"{word}: not applied, the orientation of {view} is not known")
        elif word == "central":
            inside &= np.abs(lies.aside) <= CENTRAL_WIDTH
        else:
            aside = lies.aside if word == shown[0] else -lies.aside
            inside &= aside >= -CENTRAL_SHARE
    return inside, tuple(remarks)
