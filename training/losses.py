"""Losses of the map network and of the exam's heads."""

import torch
from torch import Tensor
from torch.nn import functional

TARGET_WEIGHTS = (1.0, 1.0, 1.0, 0.3, 0.3)
"""How much each map of `training.maps.TARGETS` counts."""

FOCUS = 1.5
"""Focal exponent (Lin et al. 2017, arXiv 1708.02002): cells that are right already count little."""


def dense_loss(maps: Tensor, targets: Tensor) -> Tensor:
    """Focal binary cross-entropy per cell against the covered part, both (B, T, h, w), over the positives' number."""
    error = functional.binary_cross_entropy_with_logits(maps, targets, reduction="none")
    wrong = (torch.sigmoid(maps) - targets).abs().pow(FOCUS)
    weights = torch.tensor(TARGET_WEIGHTS, dtype=maps.dtype)
    per_map = (error * wrong).sum((0, 2, 3)) / (targets.sum((0, 2, 3)) + 20.0)
    return (per_map * weights).sum() / weights.sum()


def peak_loss(maps: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each tile's pooled map logit against "is there any", both (B, T, h, w)."""
    pooled = pool_cells(maps.flatten(2), 4)
    there = (targets.flatten(2).amax(2) > 0.3).to(maps.dtype)
    error = functional.binary_cross_entropy_with_logits(pooled, there, reduction="none")
    weights = torch.tensor(TARGET_WEIGHTS, dtype=maps.dtype)
    return (error.mean(0) * weights).sum() / weights.sum()


def pool_cells(cells: Tensor, count: int) -> Tensor:
    """Mean of the `count` largest of (..., N)."""
    return torch.topk(cells, count, dim=-1).values.mean(-1)


def crop_logits(maps: Tensor) -> Tensor:
    """Maps of tiles of two by two crops (N, T, s, s) -> pooled logits per crop (4 N, T), row by row."""
    count, targets, side, _ = maps.shape
    half = side // 2
    quarters = maps.reshape(count, targets, 2, half, 2, half).permute(0, 2, 4, 1, 3, 5)
    return pool_cells(quarters.reshape(count * 4, targets, half * half), 16)


def crop_loss(maps: Tensor, kinds: Tensor, malignant: Tensor) -> Tensor:
    """Kind and pathology of real crops, from the same maps: (N, T, s, s), (4 N, 2), (4 N)."""
    logits = crop_logits(maps)
    kind = functional.binary_cross_entropy_with_logits(logits[:, :2], kinds)
    return kind + functional.binary_cross_entropy_with_logits(logits[:, 2], malignant)
