"""Losses of RetinaNet (arXiv 1708.02002, section 3): focal over anchors, smooth L1 over the codes of positive ones.

As in the published detector of System A both are divided by an image's positive anchors, then averaged over images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.mammo_clip.detection_anchors import IGNORED, POSITIVE, Matching, encode, match


@dataclass(frozen=True, slots=True)
class Target:
    """What one image shows: `boxes` (N, 4) in pixels and `classes` bool (N, K), which each is of: one or several."""

    boxes: Tensor
    classes: Tensor

    def to(self, device: torch.device) -> "Target":
        """The same on a device."""
        return Target(self.boxes.to(device, non_blocking=True), self.classes.to(device, non_blocking=True))


@dataclass(frozen=True, slots=True)
class FocalSettings:
    """`alpha`, the weight of positive anchors: .25 in the published code, .6 in the paper; `beta` of smooth L1."""

    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 1.0 / 9.0


def focal_loss(logits: Tensor, wanted: Tensor, settings: FocalSettings) -> Tensor:
    """Focal loss of each logit, float32, the shape of `logits`; `wanted` is 1 or 0."""
    precise = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(precise, wanted, reduction="none")
    missed = torch.where(wanted == 1, torch.sigmoid(-precise), torch.sigmoid(precise))
    weight = torch.where(wanted == 1, settings.alpha, 1.0 - settings.alpha)
    return weight * missed**settings.gamma * entropy


def smooth_l1(differences: Tensor, beta: float) -> Tensor:
    """Half the square over beta below beta, beyond it the distance less half of beta."""
    distance = differences.abs()
    return torch.where(distance <= beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def detection_losses(
    logits: Tensor,
    codes: Tensor,
    anchors: Tensor,
    targets: Sequence[Target],
    matching: Matching,
    settings: FocalSettings,
) -> tuple[Tensor, Tensor]:
    """Focal loss and box loss of a batch: logits (B, A, K), codes (B, A, 4), anchors (A, 4), a target an image."""
    of_classes, of_boxes = [], []
    for row, target in enumerate(targets):
        state, which = match(anchors, target.boxes, matching)
        positive = state == POSITIVE
        count = positive.sum().clamp(min=1)
        wanted = torch.zeros_like(logits[row], dtype=torch.float32)
        if len(target.boxes):
            wanted[positive] = target.classes[which[positive]].float()
        counted = (state != IGNORED)[:, None]
        of_classes.append((focal_loss(logits[row], wanted, settings) * counted).sum() / count)
        of_boxes.append(_box_loss(codes[row][positive], anchors[positive], target.boxes, which[positive], settings))
    return torch.stack(of_classes).mean(), torch.stack(of_boxes).mean()


def _box_loss(codes: Tensor, anchors: Tensor, boxes: Tensor, which: Tensor, settings: FocalSettings) -> Tensor:
    """Mean over positive anchors and the four numbers of a code; 0 where there is none."""
    if not len(codes):
        return codes.float().sum() * 0.0
    return smooth_l1(codes.float() - encode(boxes[which], anchors), settings.beta).mean()
