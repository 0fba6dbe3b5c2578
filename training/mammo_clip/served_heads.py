"""Heads of the served System A: linear probes on pooled features, corrected by a comparison of the views.

As in `training.exam_encoder`, a logit is what the view itself says, corrected by little that is learnt from the other
views: a few hundred exams teach no more. Axes: B exams, 4 views, C channels, K findings, T = K + 1 targets.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.exam_encoder import (
    ABSENT_LOGIT,
    OTHER_BREAST,
    SAME_BREAST,
    breast_means,
    coincidence,
    small_network,
    with_slack,
)

_LOGIT_SHARE = 0.2
"""Logits times this, so that the inputs of the small networks are of one size."""


class HeadInputs(NamedTuple):
    """Of each view."""

    probe: Tensor
    """(B, 4, T): logits of the linear probes."""
    text: Tensor
    """(B, 4, T): text-prompted logits."""
    peaks: Tensor
    """(B, 4, K): peaks of heat, scaled."""
    rings: Tensor
    """(B, 4, K, RINGS): heat by distance from the nipple, scaled."""


class ServedHeads(nn.Module):
    """Probes of `channels` pooled features for `findings` K and malignancy, and two small networks that compare."""

    def __init__(self, channels: int, findings: int, hidden: int = 24) -> None:
        super().__init__()
        targets = findings + 1
        self.findings = findings
        self.probe = nn.Linear(channels, targets)
        joint = 4 * targets + 4 * findings + 3
        self.finding = small_network(joint, hidden, findings)
        self.breast = small_network(joint, hidden, 1)

    def forward(self, inputs: HeadInputs, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and present (B, 4) -> exam logit (B), breast logits (B, 2), finding logits (B, 4, K)."""
        joint = self._joint(inputs, present)
        findings = self.finding(joint) + inputs.probe[..., : self.findings]
        findings = torch.where(present[:, :, None], findings, ABSENT_LOGIT)
        breasts = breast_means(self.breast(joint)[..., 0] + inputs.probe[..., self.findings], present)
        return torch.logsumexp(breasts, dim=1), breasts, findings

    def _joint(self, inputs: HeadInputs, present: Tensor) -> Tensor:
        """What a view knows of itself and of the others; 0 for what is absent, with a flag: (B, 4, 4 T + 4 K + 3)."""
        partner, opposite = list(SAME_BREAST), list(OTHER_BREAST)
        seen = present[:, :, None]
        probe = torch.where(seen, inputs.probe, 0.0)
        peaks = torch.where(seen, inputs.peaks, 0.0)
        rings = torch.where(seen[..., None], inputs.rings, 0.0)
        both = present & present[:, opposite]
        beyond = torch.where(both[:, :, None], (rings - with_slack(rings[:, opposite])).amax(3), 0.0)
        flags = torch.stack([present[:, partner], present[:, opposite]], dim=2).to(probe.dtype)
        oblique = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 4, 1).expand(flags.shape[0], 4, 1)
        logits = [probe, probe[:, partner], probe[:, opposite], torch.where(seen, inputs.text, 0.0)]
        heat = [peaks, peaks[:, opposite], coincidence(rings, rings[:, partner]), beyond]
        return torch.cat([*(part * _LOGIT_SHARE for part in logits), *heat, flags, oblique], dim=2)
