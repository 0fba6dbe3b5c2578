"""Outline, nipple, pectoral muscle and density of a woman's breasts, in millimetres.

View frame: x from the chest-wall edge of the image towards the nipple, y from the top edge down. Right and left share
it; a right breast is mirrored when it is drawn.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from node.mammography.views import Laterality, View, ViewPosition

FIELD_HEIGHT_MM = 286.72
FIELD_WIDTH_MM = 232.96
"""The detector: 4096 x 3328 pixels of 0.07 mm."""

DENSITIES = "ABCD"

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Woman:
    """What both breasts share."""

    density: str
    depth_mm: float
    height_mm: float
    roundness: float
    gland_shift: float
    brightness: float
    fat_texture: float
    strand_strength: float


@dataclass(frozen=True, slots=True)
class Projection:
    """One compressed breast as one view shows it."""

    position: ViewPosition
    depth_mm: float
    nipple_y_mm: float
    upper_mm: float
    lower_mm: float
    top_x_mm: float
    roundness: float
    axis_rad: float
    pectoral_top_mm: float
    pectoral_bottom_mm: float
    falloff_mm: float
    nipple_radius_mm: float
    gain: float

    @property
    def nipple(self) -> tuple[float, float]:
        """The nipple's base, (x, y)."""
        return self.depth_mm, self.nipple_y_mm

    def locate(self, distance_mm: float, angle: float) -> tuple[float, float]:
        """The point at a distance from the nipple and an angle off its axis, positive down the image."""
        direction = angle - self.axis_rad
        return (
            self.depth_mm - distance_mm * float(np.cos(direction)),
            self.nipple_y_mm + distance_mm * float(np.sin(direction)),
        )

    def skin_x(self, y_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Where the skin lies at each height; negative where there is no breast."""
        offset = y_mm - self.nipple_y_mm
        below = np.clip(offset / self.lower_mm, 0.0, 1.0)
        above = np.clip(-offset / self.upper_mm, 0.0, 1.0)
        lower = self.depth_mm * (1.0 - below**self.roundness) ** 0.68
        if self.position is ViewPosition.CC:
            upper = self.depth_mm * (1.0 - above**self.roundness) ** 0.68
        else:
            upper = self.top_x_mm + (self.depth_mm - self.top_x_mm) * np.cos(0.5 * np.pi * above) ** 1.15
        skin: npt.NDArray[np.float64] = np.where(offset > 0, lower, upper)
        outside = (below >= 1.0) | ((above >= 1.0) & (self.position is ViewPosition.CC))
        return np.where(outside, -30.0, skin)

    def depth_field(self, x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
        """Signed distance to the skin on the grid of `x_mm` (columns) and `y_mm` (rows): positive inside, in mm."""
        curve_y = np.linspace(-30.0, FIELD_HEIGHT_MM + 30.0, 1400)
        curve_x = self.skin_x(curve_y)
        tree = cKDTree(_densify(curve_x, curve_y))
        xs, ys = np.meshgrid(x_mm, y_mm)
        distance, _ = tree.query(np.stack([xs.ravel(), ys.ravel()], axis=1))
        inside = xs < self.skin_x(np.asarray(y_mm, dtype=np.float64))[:, None]
        return np.asarray(np.where(inside, distance.reshape(xs.shape), -distance.reshape(xs.shape)), dtype=np.float32)

    def margin(self, x_mm: float, y_mm: float) -> float:
        """Roughly how far inside the breast and the field a point lies, in mm; negative outside."""
        around = y_mm + np.linspace(-12.0, 12.0, 7)
        return float(min(np.min(self.skin_x(around)) - x_mm, x_mm, y_mm, FIELD_HEIGHT_MM - y_mm))


def _densify(x_mm: npt.NDArray[np.float64], y_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points at most 0.4 mm apart along a polyline, steep ends included."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x_mm), np.diff(y_mm)))])
    along = np.arange(0.0, length[-1], 0.4)
    return np.stack([np.interp(along, length, x_mm), np.interp(along, length, y_mm)], axis=1)


def draw_woman(rng: np.random.Generator) -> Woman:
    """Sizes and density by chance; classes A to D stand at 12, 40, 36 and 12 %."""
    depth = float(np.clip(rng.normal(88.0, 18.0), 55.0, 122.0))
    return Woman(
        density=DENSITIES[int(rng.choice(4, p=(0.12, 0.40, 0.36, 0.12)))],
        depth_mm=depth,
        height_mm=float(np.clip(depth * rng.normal(0.98, 0.08), 55.0, 118.0)),
        roundness=float(rng.uniform(1.9, 2.4)),
        gland_shift=float(rng.normal(0.0, 0.08)),
        brightness=float(rng.normal(0.0, 0.05)),
        fat_texture=float(rng.uniform(0.7, 1.4)),
        strand_strength=float(rng.uniform(0.6, 1.3)),
    )


def project(woman: Woman, view: View, rng: np.random.Generator) -> Projection:
    """The breast of one side as CC or MLO shows it; `rng` gives what differs from side to side and view to view."""
    jitter = 1.0 + 0.03 * rng.standard_normal(6)
    base = Projection(
        position=view.position,
        depth_mm=float(min(woman.depth_mm * jitter[0], 128.0)),
        nipple_y_mm=float(FIELD_HEIGHT_MM * 0.5 + rng.normal(0.0, 6.0)),
        upper_mm=float(woman.height_mm * 1.05 * jitter[1]),
        lower_mm=float(woman.height_mm * 0.97 * jitter[2]),
        top_x_mm=0.0,
        roundness=woman.roundness,
        axis_rad=0.0,
        pectoral_top_mm=0.0,
        pectoral_bottom_mm=0.0,
        falloff_mm=float(rng.uniform(13.0, 20.0)),
        nipple_radius_mm=float(rng.uniform(3.5, 5.5)),
        gain=float(1.0 + rng.normal(0.0, 0.04)),
    )
    return base if view.position is ViewPosition.CC else _oblique(base, woman, rng, jitter)


def _oblique(base: Projection, woman: Woman, rng: np.random.Generator, jitter: npt.NDArray[np.float64]) -> Projection:
    """The MLO: reaches up to the armpit, shows the pectoral muscle, its nipple axis rises towards the chest."""
    depth = float(min(base.depth_mm * rng.uniform(0.98, 1.08), 130.0))
    nipple_y = float(np.clip(rng.normal(165.0, 10.0), 140.0, 195.0))
    lower = float(min(woman.height_mm * 0.85 * jitter[3], FIELD_HEIGHT_MM - nipple_y - 6.0))
    return replace(
        base,
        depth_mm=depth,
        nipple_y_mm=nipple_y,
        upper_mm=nipple_y + 25.0,
        lower_mm=lower,
        top_x_mm=depth * float(np.clip(rng.normal(0.52, 0.07), 0.35, 0.68)),
        axis_rad=float(np.radians(rng.normal(16.0, 3.0))),
        pectoral_top_mm=depth * float(np.clip(rng.normal(0.44, 0.07), 0.25, 0.6)) * float(jitter[4]),
        pectoral_bottom_mm=nipple_y + float(rng.normal(0.0, 22.0)),
    )


def draw_side(rng: np.random.Generator) -> Laterality:
    """Right or left, evenly."""
    return Laterality.RIGHT if rng.random() < 0.5 else Laterality.LEFT
