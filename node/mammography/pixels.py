"""Stored values to model input, and regions back again. The one preprocessing path of training and node."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.mammography.views import Laterality


@dataclass(frozen=True, slots=True)
class Preset:
    """A named preprocessing, part of a model's weights.

    `fit-HxW`: aspect kept, right breasts mirrored, chest wall on the left edge of the model image, zero padding.
    `mammo-clip`: 1520 x 912, 8-bit, no mirror, no lookup table, aspect ignored.
    """

    name: str
    height: int
    width: int
    keep_aspect: bool
    mirror: bool
    eight_bit: bool
    apply_luts: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the model image lies in the stored image: crop, scale, shift, mirror; and both ways between the two.

    Both frames are continuous, (x, y) = (column, row), pixel i spans [i, i + 1).
    Stored x maps to u = (x - crop_left) * scale_x + shift_x in model pixels; where `mirrored`, x is first reflected
    inside the crop: crop_left + crop_right - x.
    """

    stored_rows: int
    stored_columns: int
    crop_left: int
    crop_top: int
    crop_right: int
    crop_bottom: int
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    mirrored: bool
    model_rows: int
    model_columns: int

    def to_model(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) of (x, y) in stored pixels to model pixels."""
        x, y = points[:, 0], points[:, 1]
        inside = (self.crop_left + self.crop_right - x) if self.mirrored else x
        u = (inside - self.crop_left) * self.scale_x + self.shift_x
        v = (y - self.crop_top) * self.scale_y + self.shift_y
        return np.stack([u, v], axis=1)

    def to_stored(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) of (x, y) in model pixels to stored pixels: the inverse of `to_model`."""
        inside = (points[:, 0] - self.shift_x) / self.scale_x + self.crop_left
        x = (self.crop_left + self.crop_right - inside) if self.mirrored else inside
        y = (points[:, 1] - self.shift_y) / self.scale_y + self.crop_top
        return np.stack([x, y], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedView:
    """Model input of one view: `pixels` float32 (H, W) in [0, 1], its `placement`, and what a reader should know."""

    pixels: NDArray[np.float32]
    placement: Placement
    chest_wall: Laterality
    """Image side of the chest wall as found from the pixels: LEFT = left edge of the stored image."""
    flags: tuple[str, ...]
