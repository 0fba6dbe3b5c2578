"""Anchors of RetinaNet (Lin et al. 2017, arXiv 1708.02002): where they lie, which box each stands for, and its code."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.mammo_clip.detection_boxes import overlaps

LEVELS = (3, 4, 5, 6, 7)
"""Level l has a cell every 2^l pixels, and anchors of base size 2^(l + 2)."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""
SCALES = (1.0, 2.0 ** (1.0 / 3.0), 2.0 ** (2.0 / 3.0))
PER_CELL = len(RATIOS) * len(SCALES)
CODE_DEVIATION = (0.1, 0.1, 0.2, 0.2)
"""Codes are divided by this: x, y, log width, log height."""
_LEAST_SIDE_PX = 1.0
_GREATEST_LOG_SIDE = 4.0
"""A decoded side is at most e^4 anchors long: an untrained head overflows no exponential."""

POSITIVE, BACKGROUND, IGNORED = 1, 0, -1


def anchor_shapes(level: int) -> Tensor:
    """Anchors (PER_CELL, 4) of one cell about its centre: the ratio changes slowest; those of a scale have one area."""
    base = 2.0 ** (level + 2)
    rows = []
    for ratio in RATIOS:
        for scale in SCALES:
            width = base * scale / ratio**0.5
            height = width * ratio
            rows.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(rows, dtype=torch.float64).float()


def anchor_grid(sizes: Sequence[tuple[int, int]], *, registered: bool, device: torch.device) -> Tensor:
    """All anchors (A, 4) of maps of `sizes` (h, w), level by level, row by row, cell by cell.

    Cells are centred on (i + 0.5) * stride, as published, or `registered` on i * stride + 0.5, where the convolutions
    of a registered encoder look.
    """
    parts = []
    for level, (rows, columns) in zip(LEVELS, sizes, strict=True):
        stride, offset = 2.0**level, 0.5 if registered else 2.0 ** (level - 1)
        ys, xs = (torch.arange(count, device=device) * stride + offset for count in (rows, columns))
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        centres = torch.stack([x, y, x, y], dim=2).view(-1, 1, 4)
        parts.append((centres + anchor_shapes(level).to(device)).view(-1, 4))
    return torch.cat(parts)


@dataclass(frozen=True, slots=True)
class Matching:
    """Least overlap of a positive anchor, and the overlap below which one is background; between them it is ignored.

    `best_too`: also the anchors that overlap a box most are positive, so that no box goes without; not as published.
    """

    positive: float = 0.5
    background: float = 0.4
    best_too: bool = False


def match(anchors: Tensor, boxes: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """State of each anchor, int64 (A) of POSITIVE, BACKGROUND, IGNORED, and the number of its box, int64 (A).

    Anchors (A, 4), boxes (N, 4). Without boxes all are background.
    """
    if not len(boxes):
        nothing = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        return nothing, nothing
    shared = overlaps(anchors, boxes)
    most, which = shared.max(1)
    state = torch.full_like(which, IGNORED)
    state[most < matching.background] = BACKGROUND
    state[most >= matching.positive] = POSITIVE
    if matching.best_too:
        best = shared.max(0).values
        anchor, box = torch.nonzero((shared == best) & (best > 0), as_tuple=True)
        state[anchor], which[anchor] = POSITIVE, box
    return state, which


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Codes (N, 4) of boxes seen from their anchors: shift of the centre in anchor sides, log of the sides' ratio."""
    (centres, sides), (box_centres, box_sides) = _middle(anchors), _middle(boxes)
    shift = (box_centres - centres) / sides
    growth = torch.log(box_sides.clamp(min=_LEAST_SIDE_PX) / sides)
    return torch.cat([shift, growth], dim=1) / anchors.new_tensor(CODE_DEVIATION)


def decode(codes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, 4) of codes (N, 4): the opposite of `encode`."""
    centres, sides = _middle(anchors)
    scaled = codes * anchors.new_tensor(CODE_DEVIATION)
    middle = centres + scaled[:, :2] * sides
    half = 0.5 * sides * torch.exp(scaled[:, 2:].clamp(max=_GREATEST_LOG_SIDE))
    return torch.cat([middle - half, middle + half], dim=1)


def _middle(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sides, (N, 2) each."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * sides, sides
