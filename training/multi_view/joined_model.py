"""The joined exam encoder: System A's logits, corrected by System B's blocks across the tokens of four views.

The blocks start as the identity and what is read from them at 0, so that the start is System A to the bit. Without A's
logits the same network is System B alone. Axes: B exams, 4 views RCC, LCC, RMLO, LMLO; P tokens of a view, C channels,
K findings, T = K + 1 targets (the findings, then malignancy), d width.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from training.exam_encoder import ABSENT_LOGIT, breast_means
from training.mammo_clip.served import ClipViews, ServedClip, ViewEvidence, head_inputs
from training.mammo_clip.served_heads import HeadInputs, ServedHeads
from training.multi_view.blocks import TransformerBlock, zero_output
from training.multi_view.joined_recipe import NetworkPart
from training.multi_view.joined_tokens import JoinedEvidence, TokenViews

Logits = tuple[Tensor, Tensor, Tensor]
"""Exam (B), breasts (B, 2) right, left, findings (B, 4, K)."""


class JoinedInputs(NamedTuple):
    """Of each view: what A's heads take, and the tokens (B, 4, P, C)."""

    probe: Tensor
    text: Tensor
    peaks: Tensor
    rings: Tensor
    tokens: Tensor


class CrossViews(nn.Module):
    """Tokens of four views to corrections of a view's targets (B, 4, T) and of the exam (B).

    A query for each target pools the tokens of a view by attention, after `local` blocks within the view and `across`
    blocks over the tokens of all views. `mean` and `deviation` (C) of training's tokens bring the channels to one
    size. `halved`: in training the blocks compute in bfloat16.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, tokens: int, targets: int, part: NetworkPart, local: int = 0) -> None:
        super().__init__()
        width = part.width
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.halved = False
        self.embed = nn.Linear(channels, width)
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.view = nn.Parameter(torch.randn(4, width) * 0.02)
        self.local = _blocks(part, local)
        self.across = _blocks(part, part.global_blocks)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(targets, width) * width**-0.5)
        self.dropout = nn.Dropout(part.dropout)
        self.readout = nn.Parameter(torch.zeros(targets, width))
        self.bias = nn.Parameter(torch.zeros(targets))
        self.exam = nn.Linear(width, 1)
        nn.init.zeros_(self.exam.weight)
        nn.init.zeros_(self.exam.bias)

    def forward(self, tokens: Tensor, present: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, 4, P, C), present (B, 4); `kept` (B, 4, P) bool: tokens that training lets through.

        What stands in the tokens of absent views changes no bit.
        """
        seen = present[:, :, None, None]
        shown = torch.where(seen, tokens.float(), 0.0)
        states = self.embed((shown - self.mean) / self.deviation)
        if kept is not None:
            states = torch.where(kept[..., None], states, 0.0)
        states = states + self.position + self.view[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.halved and self.training):
            states = self._looked(states, present)
        found = self.dropout(self._pooled(states.float()))
        found = torch.where(seen, found, 0.0)
        views = (found * self.readout).sum(3) + self.bias
        number = present.sum(1, keepdim=True).clamp_min(1).to(found.dtype)
        exam = self.exam(found[:, :, -1].sum(1) / number)[:, 0]
        return views, exam

    def _looked(self, states: Tensor, present: Tensor) -> Tensor:
        """Through all blocks: (B, 4, P, d) -> the same."""
        count, width = states.shape[2], states.shape[3]
        states = states.reshape(-1, count, width)
        for block in self.local:
            states = block(states)
        states = states.reshape(-1, 4 * count, width)
        keep = present[:, :, None].expand(-1, -1, count).reshape(-1, 4 * count)
        for block in self.across:
            states = block(states, keep)
        return states.reshape(-1, 4, count, width)

    def _pooled(self, states: Tensor) -> Tensor:
        """Tokens (B, 4, P, d) -> what each target's query finds in each view (B, 4, T, d)."""
        states = self.norm(states)
        attention = torch.softmax(states @ self.queries.T, dim=2)
        return attention.transpose(2, 3) @ states


def _blocks(part: NetworkPart, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        TransformerBlock(part.width, part.heads, part.mlp_width, activation="gelu") for _ in range(count)
    )


class JoinedHeads(nn.Module):
    """Logits from what a pass over the views gives. `heads`: System A's, which stay as they are; None: B alone."""

    def __init__(self, heads: ServedHeads | None, network: CrossViews) -> None:
        super().__init__()
        self.heads, self.network = heads, network
        if heads is not None:
            heads.requires_grad_(False)
            for block in network.across:
                zero_output(cast(TransformerBlock, block))

    def train(self, mode: bool = True) -> "JoinedHeads":
        """System A's heads never train: their dropout would move the start."""
        super().train(mode)
        if self.heads is not None:
            self.heads.eval()
        return self

    def forward(self, inputs: JoinedInputs, present: Tensor, kept: Tensor | None = None) -> Logits:
        """Inputs and present (B, 4) -> logits; `kept`: see `CrossViews`."""
        views, exam = self.network(inputs.tokens, present, kept)
        if self.heads is None:
            return corrected(_nothing(present, views.shape[2] - 1), views, exam, present)
        with torch.no_grad():
            own = self.heads(HeadInputs(*inputs[:-1]), present)
        return corrected(own, views, exam, present)


def corrected(own: Logits, views: Tensor, exam: Tensor, present: Tensor) -> Logits:
    """System A's logits with corrections of views (B, 4, T) and of the exam (B); nothing of what is absent changes."""
    findings = torch.where(present[:, :, None], own[2] + views[..., :-1], ABSENT_LOGIT)
    seen = present[:, :2] | present[:, 2:]
    breasts = torch.where(seen, own[1] + breast_means(views[..., -1], present), ABSENT_LOGIT)
    return torch.logsumexp(breasts, dim=1) + exam, breasts, findings


def _nothing(present: Tensor, findings: int) -> Logits:
    zeros = torch.zeros_like(present, dtype=torch.float32)
    return zeros[:, 0], zeros[:, :2], zeros[:, :, None].expand(-1, -1, findings)


class ServedJoined(ServedClip):
    """The joined encoder under the contract; embeddings and heatmaps are System A's."""

    def __init__(self, views: TokenViews, heads: ServedHeads, heat_scale: Tensor, joined: JoinedHeads) -> None:
        super().__init__(cast(ClipViews, views), heads, heat_scale)
        self.joined = joined

    def judge(self, evidence: ViewEvidence, present: Tensor) -> Logits:
        """Logits of exam, breasts and findings."""
        tokens = cast(JoinedEvidence, evidence).tokens
        own = head_inputs(evidence, self.heads, self.heat_scale)
        logits: Logits = self.joined(JoinedInputs(*own, tokens), present)
        return logits
