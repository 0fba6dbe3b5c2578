"""What each lesion and distractor looks like in one view: from the table of kinds to shapes in millimetres."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from node.mammography.findings import FindingKind
from node.mammography.views import ViewPosition
from training.phantoms.draw import Blob, Shapes, Star
from training.phantoms.lesions import Distractor, DistractorKind, Lesion

Point = tuple[float, float]
Table = npt.NDArray[np.float64]


def view_stream(seed: int, position: ViewPosition) -> np.random.Generator:
    """The generator of what differs between CC and MLO of one object."""
    return np.random.default_rng((seed, 1 if position is ViewPosition.CC else 2))


def lesion_shapes(lesion: Lesion, position: ViewPosition, centre: Point) -> Shapes:
    """A lesion as one view shows it, about `centre` (x, y in mm)."""
    rng = view_stream(lesion.seed, position)
    draw = {
        FindingKind.MASS: _mass,
        FindingKind.SUSPICIOUS_CALCIFICATION: _cluster,
        FindingKind.ARCHITECTURAL_DISTORTION: _distortion,
        FindingKind.ASYMMETRY: _asymmetry,
    }[lesion.finding]
    return draw(rng, lesion.subtype, centre, lesion.size_mm, lesion.contrast)


def distractor_shapes(distractor: Distractor, position: ViewPosition, centre: Point, nipple: Point) -> Shapes:
    """A distractor as one view shows it; vessels run towards the nipple."""
    rng = view_stream(distractor.seed, position)
    size, contrast = distractor.size_mm, distractor.contrast
    if distractor.kind is DistractorKind.SUMMATION_SHADOW and distractor.like is not None:
        return _mass(rng, distractor.like.subtype, centre, size, contrast)
    if distractor.kind in (DistractorKind.VESSEL, DistractorKind.VASCULAR_CALCIFICATION):
        return _vessel(rng, centre, nipple, size, contrast, distractor.kind is DistractorKind.VASCULAR_CALCIFICATION)
    draw: dict[DistractorKind, Callable[[np.random.Generator, Point, float, float], Shapes]] = {
        DistractorKind.GLAND_ISLAND: _island,
        DistractorKind.SUMMATION_SHADOW: _island,
        DistractorKind.SYMMETRIC_DENSITY: lambda r, c, s, k: _asymmetry(r, "focal", c, s, k),
        DistractorKind.BENIGN_CALCIFICATION: _single_calcification,
        DistractorKind.SCATTERED_CALCIFICATION: _scattered,
        DistractorKind.CLIP: _clip,
    }
    return draw[distractor.kind](rng, centre, size, contrast)


def _waves(rng: np.random.Generator, orders: range, amplitude: float) -> tuple[tuple[int, float, float], ...]:
    return tuple(
        (order, float(amplitude * rng.normal() / order**0.5), float(rng.uniform(0, 2 * np.pi))) for order in orders
    )


_MARGINS = {
    "round": (1.05, range(2, 4), 0.02, 0.5, 0.9),
    "oval": (1.45, range(2, 4), 0.03, 0.5, 0.9),
    "lobulated": (1.2, range(3, 6), 0.13, 0.6, 0.8),
    "irregular": (1.25, range(2, 10), 0.17, 1.3, 0.7),
    "spiculated": (1.1, range(2, 9), 0.13, 1.1, 0.7),
}
"""Aspect, orders and amplitude of the outline's harmonics, softness of the margin in mm, dome."""


def _mass(rng: np.random.Generator, subtype: str, centre: Point, size: float, contrast: float) -> Shapes:
    aspect, orders, amplitude, edge, dome = _MARGINS[subtype]
    aspect *= float(rng.uniform(0.95, 1.1))
    spread = 0.62 if subtype == "spiculated" else 1.0
    radius = 0.5 * size * spread / max(aspect, 1.0)
    star = Star(*centre, radius, aspect, float(rng.uniform(0, np.pi)), _waves(rng, orders, amplitude))
    edge_mm = edge * float(rng.uniform(0.7, 1.6))
    opacity = 0.23 * contrast * (0.72 + 0.028 * min(size, 22.0))
    body = Blob(star, opacity, edge_mm, dome)
    if subtype != "spiculated":
        return Shapes(star, (body,))
    lines = _spokes(rng, centre, 0.75 * radius, 0.62 * size, int(rng.integers(14, 26)), 0.55 * opacity)
    return Shapes(star, (body,), lines=lines)


def _spokes(rng: np.random.Generator, centre: Point, inner: float, outer: float, count: int, opacity: float) -> Table:
    """Lines out of a centre that fade outwards."""
    angle = (np.arange(count) + rng.uniform(-0.9, 0.9, count)) * 2 * np.pi / count
    start = inner * rng.uniform(0.7, 1.1, count)
    end = start + (outer - inner) * rng.uniform(0.6, 1.5, count)
    bent = angle + rng.normal(0.0, 0.12, count)
    return np.stack(
        [
            centre[0] + start * np.cos(angle),
            centre[1] + start * np.sin(angle),
            centre[0] + end * np.cos(bent),
            centre[1] + end * np.sin(bent),
            rng.uniform(0.5, 1.0, count),
            opacity * rng.uniform(0.7, 1.3, count),
            np.full(count, 0.1 * opacity),
        ],
        axis=1,
    )


_CLUSTERS = {
    "punctate grouped": (0.8, 0.9, (0.22, 0.34), 0.15),
    "round grouped": (0.85, 0.55, (0.40, 0.70), 0.15),
    "pleomorphic grouped": (0.7, 1.3, (0.20, 0.55), 0.5),
    "fine linear": (0.16, 1.2, (0.18, 0.38), 0.4),
    "pleomorphic segmental": (0.38, 1.0, (0.20, 0.50), 0.5),
}
"""Width over length, number of specks (relative), sizes in mm, spread of opacity."""


def _cluster(rng: np.random.Generator, subtype: str, centre: Point, size: float, contrast: float) -> Shapes:
    flatness, crowd, (least, greatest), spread = _CLUSTERS[subtype]
    count = int(np.clip(crowd * (7 + 0.9 * size) * rng.uniform(0.7, 1.3), 5, 60))
    turn = float(rng.uniform(0, np.pi))
    distance = np.sqrt(rng.random(count)) * rng.uniform(0.75, 1.0, count)
    around = rng.uniform(0, 2 * np.pi, count)
    along, across = 0.5 * size * distance * np.cos(around), 0.5 * size * flatness * distance * np.sin(around)
    x = centre[0] + along * np.cos(turn) - across * np.sin(turn)
    y = centre[1] + along * np.sin(turn) + across * np.cos(turn)
    sizes = rng.uniform(least, greatest, count)
    opacity = 0.62 * contrast * np.exp(spread * rng.normal(0, 0.7, count))
    region = Star(*centre, 0.5 * size * flatness + 1.0, (0.5 * size + 1.0) / (0.5 * size * flatness + 1.0), turn)
    haze = Blob(region, 0.02 * contrast, 0.25 * size * flatness + 1.0, 1.0)
    lines = _casts(rng, x, y, turn, sizes, opacity) if subtype == "fine linear" else np.zeros((0, 7))
    return Shapes(region, (haze,), np.stack([x, y, sizes, opacity], axis=1), lines)


def _casts(rng: np.random.Generator, x: Table, y: Table, turn: float, sizes: Table, opacity: Table) -> Table:
    """Short rods along the duct, through every third speck."""
    pick = slice(None, None, 3)
    count = len(x[pick])
    length, angle = rng.uniform(0.6, 1.6, count), turn + rng.normal(0, 0.3, count)
    dx, dy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    shade = 0.6 * opacity[pick]
    return np.stack([x[pick] - dx, y[pick] - dy, x[pick] + dx, y[pick] + dy, 0.8 * sizes[pick], shade, shade], axis=1)


def _distortion(rng: np.random.Generator, subtype: str, centre: Point, size: float, contrast: float) -> Shapes:
    region = Star(*centre, 0.36 * size)
    count = int(rng.integers(12, 26))
    lines = _spokes(rng, centre, 1.5, 0.5 * size, count, 0.13 * contrast)
    pulled = Blob(Star(*centre, 0.22 * size), -0.03 * contrast, 0.15 * size, 0.5)
    if subtype != "scar with clips":
        return Shapes(region, (pulled,), lines=lines)
    clips = np.concatenate([_clip(rng, _near(rng, centre, 0.22 * size), 3.0, 1.0).lines for _ in range(3)])
    return Shapes(region, (pulled,), lines=np.concatenate([lines, clips]))


def _near(rng: np.random.Generator, centre: Point, reach: float) -> Point:
    return centre[0] + float(rng.uniform(-reach, reach)), centre[1] + float(rng.uniform(-reach, reach))


def _asymmetry(rng: np.random.Generator, subtype: str, centre: Point, size: float, contrast: float) -> Shapes:
    """Gland without a border: overlapping soft lobes."""
    region = Star(*centre, 0.40 * size, float(rng.uniform(1.0, 1.3)), float(rng.uniform(0, np.pi)))
    blobs = []
    for _ in range(6):
        lobe = Star(*_near(rng, centre, 0.22 * size), 0.26 * size, 1.3, float(rng.uniform(0, np.pi)))
        lobe = Star(lobe.x_mm, lobe.y_mm, lobe.radius_mm, lobe.aspect, lobe.angle, _waves(rng, range(2, 7), 0.16))
        blobs.append(Blob(lobe, 0.06 * contrast, 0.09 * size, 0.6))
    if subtype != "focal with distortion":
        return Shapes(region, tuple(blobs))
    return Shapes(region, tuple(blobs), lines=_spokes(rng, centre, 2.0, 0.55 * size, 20, 0.09 * contrast))


def _island(rng: np.random.Generator, centre: Point, size: float, contrast: float) -> Shapes:
    """Gland in fat: concave, soft, often drawn out; shades off into its surroundings."""
    star = Star(*centre, 0.30 * size, float(rng.uniform(1.2, 2.2)), float(rng.uniform(0, np.pi)))
    star = Star(star.x_mm, star.y_mm, star.radius_mm, star.aspect, star.angle, _waves(rng, range(2, 8), 0.20))
    return Shapes(star, (Blob(star, 0.13 * contrast, 0.16 * size, 0.5),))


def _single_calcification(rng: np.random.Generator, centre: Point, size: float, contrast: float) -> Shapes:
    speck = np.array([[*centre, size, 0.7 * contrast]])
    return Shapes(Star(*centre, 0.5 * size + 0.5), specks=speck)


def _scattered(rng: np.random.Generator, centre: Point, size: float, contrast: float) -> Shapes:
    """Benign specks strewn over much of the breast, nowhere a group."""
    count = int(rng.integers(6, 40))
    distance, around = np.sqrt(rng.random(count)) * 0.5 * size, rng.uniform(0, 2 * np.pi, count)
    x, y = centre[0] + distance * np.cos(around), centre[1] + distance * np.sin(around)
    specks = np.stack([x, y, rng.uniform(0.22, 0.6, count), 0.62 * contrast * rng.uniform(0.6, 1.5, count)], axis=1)
    return Shapes(Star(*centre, 0.5 * size), specks=specks)


def _clip(rng: np.random.Generator, centre: Point, size: float, contrast: float) -> Shapes:
    """A surgical clip: a short, very dense bar."""
    angle = float(rng.uniform(0, np.pi))
    dx, dy = 0.5 * size * np.cos(angle), 0.5 * size * np.sin(angle)
    bar = np.array([[centre[0] - dx, centre[1] - dy, centre[0] + dx, centre[1] + dy, 0.6, contrast, contrast]])
    return Shapes(Star(*centre, 0.5 * size + 0.6), lines=bar)


def _vessel(
    rng: np.random.Generator, centre: Point, nipple: Point, size: float, contrast: float, calcified: bool
) -> Shapes:
    """A winding tube, roughly along the breast; calcified ones carry specks along both walls."""
    heading = np.arctan2(nipple[1] - centre[1], nipple[0] - centre[0]) + rng.normal(0, 0.35)
    steps = 14
    headings = heading + np.cumsum(rng.normal(0, 0.22, steps))
    pace = size / steps
    x = centre[0] - 0.5 * size * np.cos(heading) + np.concatenate([[0], np.cumsum(pace * np.cos(headings))])
    y = centre[1] - 0.5 * size * np.sin(heading) + np.concatenate([[0], np.cumsum(pace * np.sin(headings))])
    width = float(rng.uniform(1.6, 2.6))
    shade = np.full(steps, 0.07)
    lines = np.stack([x[:-1], y[:-1], x[1:], y[1:], np.full(steps, width), shade, shade], axis=1)
    region = Star(*centre, 0.5 * size)
    if not calcified:
        return Shapes(region, lines=lines)
    count = int(rng.integers(20, 60))
    along = rng.uniform(rng.uniform(0, 0.4), rng.uniform(0.6, 1.0), count) * steps
    knots = np.arange(steps + 1)
    wall = 0.45 * width * rng.choice((-1.0, 1.0), count) + rng.normal(0, 0.15, count)
    turn = np.interp(along, knots[:-1], headings) + 0.5 * np.pi
    speck_x, speck_y = (
        np.interp(along, knots, x) + wall * np.cos(turn),
        np.interp(along, knots, y) + wall * np.sin(turn),
    )
    opacity = 0.62 * contrast * rng.uniform(0.5, 1.5, count)
    return Shapes(
        region, specks=np.stack([speck_x, speck_y, rng.uniform(0.22, 0.6, count), opacity], axis=1), lines=lines
    )
