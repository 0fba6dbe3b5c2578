"""Tissue of one view on a grid of 0.28 mm: power-law noise, gland by density class, strands towards the nipple."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from node.mammography.views import View, ViewPosition
from training.phantoms.anatomy import Projection, Woman

GRID_MM = 0.28
GRID_ROWS = 1024
GRID_COLUMNS = 512
COARSE = 8
"""The coarse grid's step in fine grid cells: 2.24 mm."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a density class means: bias of the gland's threshold, share of the breast it fills, its opacity."""

    bias: float
    reach: float
    opacity: float
    strands: float


AMOUNTS = {
    "A": Amounts(bias=-1.75, reach=0.75, opacity=0.26, strands=0.20),
    "B": Amounts(bias=-0.95, reach=0.85, opacity=0.30, strands=0.19),
    "C": Amounts(bias=-0.05, reach=1.00, opacity=0.33, strands=0.16),
    "D": Amounts(bias=0.95, reach=1.20, opacity=0.36, strands=0.13),
}


def stream(*keys: int) -> np.random.Generator:
    """A fast generator of its own for each tuple of keys."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(keys)))


@lru_cache(maxsize=16)
def _spectrum(rows: int, columns: int, step_mm: float, slope: float, longest_mm: float, finest_mm: float) -> FloatArray:
    """Amplitudes of a field of unit variance whose power falls as f^-slope between two wavelengths."""
    fy = fft.fftfreq(rows, step_mm)[:, None]
    fx = fft.rfftfreq(columns, step_mm)[None, :]
    frequency = np.hypot(fy, fx)
    knee = 1.0 / longest_mm
    amplitude = (frequency**2 + knee**2) ** (-slope / 4.0) * np.exp(-0.5 * (frequency * finest_mm) ** 2)
    amplitude[0, 0] = 0.0
    weight = np.full(fx.shape, 2.0)
    weight[0, 0] = weight[0, -1] = 1.0
    variance = np.sum(2.0 * amplitude**2 * weight) / (rows * columns) ** 2
    return np.asarray(amplitude / np.sqrt(variance), dtype=np.float32)


def field(keys: tuple[int, ...], own: int, kinship: float, spectrum: FloatArray, columns: int) -> FloatArray:
    """A random field; `kinship` is its correlation with the field of the same keys and another `own`."""
    shape = (spectrum.shape[0], spectrum.shape[1], 2)
    white = stream(*keys).standard_normal(shape, dtype=np.float32) * np.float32(kinship)
    white += stream(*keys, own).standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(1.0 - kinship**2))
    wave = white.view(np.complex64)[..., 0] * spectrum
    return np.asarray(fft.irfft2(wave, s=(spectrum.shape[0], columns)), dtype=np.float32)


@lru_cache(maxsize=64)
def resampling(source: int, source_mm: float, target: int, target_mm: float) -> FloatArray:
    """Matrix (target, source) that takes samples at one step to another, both starting at 0 mm.

    Cubic (Catmull-Rom) where it enlarges, a tent over one target pixel where it shrinks; edges are repeated.
    """
    scale = max(1.0, target_mm / source_mm)
    centre = (np.arange(target) + 0.5) * (target_mm / source_mm) - 0.5
    reach = int(np.ceil(2 * scale)) + 1
    taps = np.floor(centre)[:, None].astype(int) + np.arange(-reach, reach + 1)[None, :]
    t = np.abs(taps - centre[:, None]) / scale
    cubic = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0.0))
    weight = np.where(t < 1, 1 - t, 0.0) if scale > 1.0 else cubic
    matrix = np.zeros((target, source), dtype=np.float64)
    rows = np.repeat(np.arange(target), taps.shape[1])
    np.add.at(matrix, (rows, np.clip(taps, 0, source - 1).ravel()), weight.ravel())
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), dtype=np.float32)


def resample(values: FloatArray, source_mm: float, rows: int, columns: int, target_mm: float) -> FloatArray:
    """`values` on another grid that starts at the same corner."""
    if (rows, columns) == values.shape and abs(source_mm - target_mm) < 1e-9:
        return values
    down = resampling(values.shape[0], source_mm, rows, target_mm)
    across = resampling(values.shape[1], source_mm, columns, target_mm)
    return np.asarray(down @ (values @ across.T), dtype=np.float32)


def smoothstep(values: FloatArray, start: float, end: float) -> FloatArray:
    """0 before start, 1 after end, smooth between."""
    t = np.clip((values - np.float32(start)) / np.float32(end - start), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Tissue:
    """`opacity`: what gland, strands and muscle add to fat, fine grid; `depth`: mm inside the skin, coarse grid."""

    opacity: FloatArray
    depth: FloatArray


def grow_tissue(seed: int, woman: Woman, view: View, projection: Projection) -> Tissue:
    """The tissue of one view. Sides share it, mirrored, with variation; CC and MLO share amounts, not grain."""
    own = 1 if view.laterality.value == "R" else 2
    keys = (seed, 11 if view.position is ViewPosition.CC else 12)
    amounts = AMOUNTS[woman.density]
    coarse_x = (np.arange(GRID_COLUMNS // COARSE, dtype=np.float32) + 0.5) * GRID_MM * COARSE
    coarse_y = (np.arange(GRID_ROWS // COARSE, dtype=np.float32) + 0.5) * GRID_MM * COARSE
    depth = projection.depth_field(coarse_x, coarse_y)
    region = _gland_region(keys, own, woman, projection, depth, coarse_x, coarse_y)
    muscle = _pectoral(projection, coarse_x, coarse_y)
    region, muscle, inside = (
        resample(layer, GRID_MM * COARSE, GRID_ROWS, GRID_COLUMNS, GRID_MM)
        for layer in (region, muscle, smoothstep(depth, 1.0, 9.0))
    )
    grain = field((*keys, 2), own, 0.45, _spectrum(GRID_ROWS, GRID_COLUMNS, GRID_MM, 3.2, 20.0, 0.9), GRID_COLUMNS)
    strands = _strands((*keys, 3), own, projection)
    gland = 1.0 / (1.0 + np.exp(-2.0 * (region + 0.6 * grain + 1.1 * strands + np.float32(amounts.bias - 0.3))))
    opacity = np.float32(amounts.opacity) * gland * (0.72 + 0.18 * grain + 0.22 * strands)
    opacity += np.float32(amounts.strands * woman.strand_strength) * strands * (0.6 + 0.4 * gland)
    opacity += np.float32(0.022 * woman.fat_texture) * grain
    opacity *= inside
    opacity = opacity * (1.0 - 0.7 * muscle) + muscle * (0.40 + 0.03 * grain)
    return Tissue(np.asarray(opacity, dtype=np.float32), depth)


def _gland_region(
    keys: tuple[int, ...],
    own: int,
    woman: Woman,
    projection: Projection,
    depth: FloatArray,
    x_mm: FloatArray,
    y_mm: FloatArray,
) -> FloatArray:
    """Where gland tends to lie: a cone behind the nipple, off the skin, broken by clouds (coarse grid)."""
    along, across = _nipple_frame(projection, x_mm, y_mm)
    reach = AMOUNTS[woman.density].reach
    u = along / np.float32(projection.depth_mm)
    width = np.float32(projection.lower_mm) * np.float32(reach) * (0.22 + 0.62 * np.clip(u, 0.0, 1.0))
    shift = np.float32((woman.gland_shift - 0.10) * projection.lower_mm)
    cone = np.exp(-(((across - shift * np.clip(u * 2, 0, 1)) / width) ** 2) * 1.3)
    cone *= smoothstep(u, 0.0, 0.12) * (1.0 - smoothstep(u, 0.62 * reach, 1.02 * reach))
    clouds = field(
        (*keys, 1), own, 0.85, _spectrum(*depth.shape, GRID_MM * COARSE, 3.0, 60.0, 3.0), int(depth.shape[1])
    )
    fat_rim = 1.0 - smoothstep(depth, 3.0, 13.0)
    return np.asarray(1.9 * cone - 0.9 + 0.55 * clouds - 2.5 * fat_rim, dtype=np.float32)


def _nipple_frame(projection: Projection, x_mm: FloatArray, y_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distance behind the nipple along its axis, and across it (positive down), for a grid."""
    dx = np.float32(projection.depth_mm) - x_mm[None, :]
    dy = y_mm[:, None] - np.float32(projection.nipple_y_mm)
    cos, sin = np.float32(np.cos(projection.axis_rad)), np.float32(np.sin(projection.axis_rad))
    return dx * cos - dy * sin, dx * sin + dy * cos


def _pectoral(projection: Projection, x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
    """1 inside the pectoral muscle of an MLO, 0 outside, on the coarse grid; the edge is about 3 mm wide."""
    if projection.pectoral_bottom_mm <= 0:
        return np.zeros((len(y_mm), len(x_mm)), dtype=np.float32)
    t = np.clip(y_mm / np.float32(projection.pectoral_bottom_mm), 0.0, 1.0)
    edge = np.float32(projection.pectoral_top_mm) * (1.0 - t) ** np.float32(0.9)
    return smoothstep(edge[:, None] - x_mm[None, :], -1.5, 2.5)


def _strands(keys: tuple[int, ...], own: int, projection: Projection) -> FloatArray:
    """Ligaments and ducts: ridges of noise drawn out towards the nipple, and a finer honeycomb, both 0 to 1."""
    side = 512
    tile = field(keys, own, 0.6, _spectrum(side, side, GRID_MM, 5.0, 10.0, 2.0), side)
    x_mm = (np.arange(GRID_COLUMNS, dtype=np.float32) + 0.5) * np.float32(GRID_MM)
    y_mm = (np.arange(GRID_ROWS, dtype=np.float32) + 0.5) * np.float32(GRID_MM)
    dx = np.float32(projection.depth_mm + 14.0) - x_mm[None, :]
    dy = y_mm[:, None] - np.float32(projection.nipple_y_mm)
    radius = np.sqrt(dx * dx + dy * dy)
    angle = np.arctan2(dy, dx)
    coordinates = np.stack([radius * np.float32(0.30 / GRID_MM), angle * np.float32(60.0 / GRID_MM)])
    drawn = ndimage.map_coordinates(tile, coordinates, order=1, mode="grid-wrap", output=np.float32)
    ducts = np.exp(-np.abs(drawn) * np.float32(5.5)) * smoothstep(radius, 8.0, 36.0)
    comb = np.tile(tile, (GRID_ROWS // side, GRID_COLUMNS // side))[:, ::-1]
    ligaments = np.exp(-np.abs(comb) * np.float32(6.5))
    return np.asarray(0.75 * ducts + 0.55 * ligaments, dtype=np.float32)
