"""Random views of an image: flips, an affine map, elastic deformation. Ranges as the paper's code has them.

`symmetric` draws rotation, translation and shear from both sides of 0. The published settings, given as single numbers
to Albumentations 1.4.7, are fixed values whenever the map is applied: `as_published`.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Each step is applied with `probability`. Angles in degrees, translation a share of each side."""

    rotation: Range = (-20.0, 20.0)
    translation: Range = (-0.1, 0.1)
    scale: Range = (0.8, 1.2)
    """Drawn for x and y each."""
    shear: Range = (-20.0, 20.0)
    elastic_alpha: float = 10.0
    """Largest displacement, in pixels, before smoothing."""
    elastic_sigma: float = 15.0
    """Standard deviation, in pixels, of the smoothing of displacements."""
    horizontal_flip: bool = True
    """Sides in the text must then change places: `Drawn.flipped` says so."""
    vertical_flip: bool = True
    probability: float = 0.5
    tone: float = 0.0
    """Chance of another gamma, gain, offset and of noise inside the breast; not published."""


def symmetric() -> Augmentation:
    """The default: what the paper's text says."""
    return Augmentation()


def as_published() -> Augmentation:
    """What the published code does: +20 degrees, +10 % and +20 degrees whenever the affine map is applied."""
    return replace(Augmentation(), rotation=(20.0, 20.0), translation=(0.1, 0.1), shear=(20.0, 20.0))


def none() -> Augmentation:
    """Nothing is changed: validation and test."""
    return replace(Augmentation(), probability=0.0, horizontal_flip=False, vertical_flip=False)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The image (C, H, W) and whether left and right, and upper and lower, changed places.

    `grid` (1, H, W, 2): where the flipped image was read for each pixel, x and y in [-1, 1]; None: where it lies.
    """

    image: Tensor
    flipped: bool
    flipped_rows: bool = False
    grid: Tensor | None = None

    def sources(self) -> Tensor:
        """Where each pixel of the view comes from, (H, W, 2): x and y in pixels of the image as it was."""
        rows, columns = self.image.shape[1:]
        grid = _grid(None, rows, columns) if self.grid is None else self.grid
        turned = torch.tensor([-1.0 if self.flipped else 1.0, -1.0 if self.flipped_rows else 1.0])
        return (grid[0] * turned + 1.0) * torch.tensor([columns / 2.0, rows / 2.0])


def augment(image: Tensor, settings: Augmentation, generator: torch.Generator) -> Drawn:
    """One random view of a float image (C, H, W), 0 where nothing was. The same generator gives the same view."""
    chances = torch.rand(4, generator=generator).tolist()
    numbers = torch.rand(6, generator=generator).tolist()
    flip_x = settings.horizontal_flip and chances[0] < settings.probability
    flip_y = settings.vertical_flip and chances[1] < settings.probability
    made = image.flip([axis for axis, flips in ((2, flip_x), (1, flip_y)) if flips])
    affine = _matrix(settings, numbers) if chances[2] < settings.probability else None
    elastic = settings.elastic_alpha > 0 and chances[3] < settings.probability
    if affine is None and not elastic:
        return Drawn(made, flip_x, flip_y)
    grid = _grid(affine, made.shape[1], made.shape[2])
    if elastic:
        grid = grid + _displacement(settings, made.shape[1], made.shape[2], generator)
    sampled = functional.grid_sample(made[None].float(), grid, align_corners=False)[0]
    return Drawn(sampled.to(image.dtype), flip_x, flip_y, grid)


def _matrix(settings: Augmentation, numbers: list[float]) -> Tensor:
    """Inverse map (2, 3) in pixels about the image's middle; translation as a share in the last column."""

    def between(bounds: Range, share: float) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * share

    angle, shear = (
        math.radians(between(settings.rotation, numbers[0])),
        math.radians(between(settings.shear, numbers[1])),
    )
    scale_x, scale_y = between(settings.scale, numbers[2]), between(settings.scale, numbers[3])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = torch.tensor([[scale_x, scale_x * math.tan(shear)], [0.0, scale_y]])
    shift = torch.tensor([between(settings.translation, numbers[4]), between(settings.translation, numbers[5])])
    inverse = torch.linalg.inv(turn @ stretch)
    return torch.cat([inverse, shift[:, None]], dim=1)


def _grid(affine: Tensor | None, rows: int, columns: int) -> Tensor:
    """Sampling grid (1, H, W, 2) in [-1, 1]; pixels are square, so angles are angles."""
    if affine is None:
        affine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    half = torch.tensor([columns / 2.0, rows / 2.0])
    linear = affine[:, :2] * half[None, :] / half[:, None]
    shift = -(linear @ (2.0 * affine[:, 2]))
    theta = torch.cat([linear, shift[:, None]], dim=1)
    return functional.affine_grid(theta[None], [1, 1, rows, columns], align_corners=False)


def _displacement(settings: Augmentation, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Smooth random displacements (1, H, W, 2) in units of the grid.

    Drawn on a coarse grid of half a sigma, as strong as noise in each pixel would be there, and smoothed there.
    """
    step = max(1, int(settings.elastic_sigma // 2))
    coarse = (2, -(-rows // step) + 1, -(-columns // step) + 1)
    noise = torch.rand(coarse, generator=generator) * 2.0 - 1.0
    smooth = _blur(noise / step, settings.elastic_sigma / step)
    fine = functional.interpolate(smooth[None], (rows, columns), mode="bilinear", align_corners=False)[0]
    scaled = fine * settings.elastic_alpha
    return torch.stack([scaled[0] * 2.0 / columns, scaled[1] * 2.0 / rows], dim=-1)[None]


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of (N, h, w); beyond the borders their values are held."""
    radius = int(3.0 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(planes[:, None], (radius,) * 4, mode="replicate")
    across = functional.conv2d(padded, kernel[None, None, None, :])
    return functional.conv2d(across, kernel[None, None, :, None])[:, 0]
