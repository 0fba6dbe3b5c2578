"""Boxes as tensors (N, 4), left, top, right, bottom in pixels: overlap, and what is left of many that mean the same."""

import torch
from torch import Tensor


def areas(boxes: Tensor) -> Tensor:
    """(N, 4) -> (N), never below 0."""
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each with each: (N, 4), (M, 4) -> (N, M) in [0, 1]."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    union = areas(boxes)[:, None] + areas(others)[None, :] - shared
    return shared / union.clamp(min=1e-8)


def clipped(boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, 4) cut to a canvas of H x W pixels."""
    columns, rows = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]], dim=1)


def suppressed(boxes: Tensor, probabilities: Tensor, most_overlap: float, most: int) -> Tensor:
    """Numbers of the boxes that stay, most probable first: greedy non-maximum suppression, `most` at most.

    A box goes where it overlaps one that stays by more than `most_overlap`. (N, 4), (N) -> int64 (n).
    """
    order = probabilities.argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    while len(order) and len(kept) < most:
        first, rest = order[:1], order[1:]
        kept.append(first)
        order = rest[overlaps(boxes[first], boxes[rest])[0] <= most_overlap]
    return torch.cat(kept) if kept else order
