"""The served network: four views in, the tensors of contract version 1 out. View axis RCC, LCC, RMLO, LMLO."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.maps import STRIDE, TARGETS, MapNetwork

FINDINGS = TARGETS[:2]
"""The finding axis (K)."""

ABSENT_LOGIT = -30.0
"""What a view or a breast that was not given gets; the node says "not assessed"."""

POOLED = (1, 8, 32)
"""Map logits are pooled as means over so many of the largest cells."""

RINGS = 20
"""Rings around the nipple, each a twentieth of 1.3 breast depths: where CC and MLO are compared."""

SAME_BREAST = (2, 3, 0, 1)
"""For each view the other one of its breast."""

OTHER_BREAST = (1, 0, 3, 2)
"""For each view the same one of the other breast."""


class ExamOutputs(NamedTuple):
    """Contract, version 1: (B), (B, D), (B, 2), (B, 4, K), (B, 4, K, h, w), (B, 4, D)."""

    exam_logit: Tensor
    exam_embedding: Tensor
    breast_logits: Tensor
    finding_logits: Tensor
    heatmaps: Tensor
    view_embeddings: Tensor


class ViewSummary(NamedTuple):
    """What the exam's heads see of each view."""

    descriptors: Tensor
    """(B, 4, F): pooled map logits and features."""
    rings: Tensor
    """(B, 4, T, RINGS): largest map logit per ring around the nipple."""
    peaks: Tensor
    """(B, 4, T): mean of the eight largest map logits."""


def descriptor_width(width: int) -> int:
    """F: pooled logits per target, features where mass, calcification and malignancy look, and the mean feature."""
    return len(POOLED) * len(TARGETS) + 4 * width


def summarise(views: Tensor, features: Tensor, maps: Tensor) -> ViewSummary:
    """Views (B, 4, 1, H, W), features (B, 4, C, h, w), map logits (B, 4, T, h, w) -> their summary."""
    flat = maps.flatten(3)
    top = torch.topk(flat, max(POOLED), dim=3).values
    pooled = torch.cat([top[..., :count].mean(3) for count in POOLED], dim=2)
    attention = torch.softmax(flat[:, :, :3], dim=3)
    cells = features.flatten(3)
    attended = torch.einsum("bvtn,bvcn->bvtc", attention, cells).flatten(2)
    descriptors = torch.cat([pooled, attended, cells.mean(3)], dim=2)
    return ViewSummary(descriptors, ring_maxima(views, maps), top[..., :8].mean(3))


def ring_maxima(views: Tensor, maps: Tensor, stride: int = STRIDE) -> Tensor:
    """Largest map value in each ring around the nipple, taken as the breast's point farthest from the chest wall.

    Distances are in breast depths, so they compare between views that were scaled differently. The chest wall lies on
    the left; cells lie `stride` pixels apart. (B, 4, 1, H, W), (B, 4, T, h, w) -> (B, 4, T, RINGS).
    """
    height, width = maps.shape[3], maps.shape[4]
    rows = torch.arange(height, dtype=maps.dtype)[:, None]
    columns = torch.arange(width, dtype=maps.dtype)[None, :]
    inside = (views[:, :, 0, ::stride, ::stride][:, :, :height, :width] > 0.05).to(maps.dtype)
    depth = (inside * columns).amax((2, 3))[:, :, None, None]
    tip = inside * (columns >= depth - 1.0).to(maps.dtype)
    nipple_row = ((tip * rows).sum((2, 3)) / tip.sum((2, 3)).clamp_min(1.0))[:, :, None, None]
    distance = torch.sqrt((columns - depth) ** 2 + (rows - nipple_row) ** 2) / depth.clamp_min(1.0)
    ring = torch.clamp(torch.floor(distance * (RINGS / 1.3)), max=RINGS - 1.0)[:, :, None]
    in_ring = [torch.where(ring == float(index), maps, ABSENT_LOGIT).amax((3, 4)) for index in range(RINGS)]
    return torch.stack(in_ring, dim=3).clamp_min(-10.0)


def coincidence(rings: Tensor, other: Tensor) -> Tensor:
    """How well two views agree on a distance from the nipple: the best sum of both, one ring of slack. (B, 4, T)."""
    return torch.minimum(rings, with_slack(other)).amax(3)


def with_slack(rings: Tensor) -> Tensor:
    """The largest of each ring and its neighbours: (B, 4, T, RINGS)."""
    return functional.max_pool1d(rings.flatten(0, 2)[:, None], 3, 1, 1).reshape(rings.shape)


class ExamHeads(nn.Module):
    """Summaries of four views to logits and embeddings; views are compared within a breast and across.

    A logit is the pooled map logit, corrected by little that is learnt from the comparison alone: a few hundred exams
    teach no more (larger heads that read the features lost to the pooled maps on validation).
    """

    def __init__(self, width: int, embed_dim: int = 128, hidden: int = 24) -> None:
        super().__init__()
        own = descriptor_width(width)
        self.norm = nn.LayerNorm(own)
        self.embed = nn.Linear(own, embed_dim)
        targets = len(TARGETS)
        joint = 4 * targets + 3
        self.finding = small_network(joint, hidden, len(FINDINGS))
        self.breast = small_network(joint, hidden, 1)
        self.exam_embed = nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, summary: ViewSummary, present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Summary and present (B, 4) -> exam logit, exam embedding, breast, finding logits, view embeddings."""
        embedded = self.embed(self.norm(summary.descriptors))
        joint = self._joint(summary, present)
        findings = self.finding(joint) + summary.peaks[:, :, : len(FINDINGS)]
        per_view = self.breast(joint)[..., 0] + summary.peaks[:, :, 2]
        findings = torch.where(present[:, :, None], findings, ABSENT_LOGIT)
        breasts = breast_means(per_view, present)
        exam = torch.logsumexp(breasts, dim=1)
        views = torch.where(present[:, :, None], unit(embedded), 0.0)
        return exam, self._exam_embedding(embedded, present), breasts, findings, views

    def _joint(self, summary: ViewSummary, present: Tensor) -> Tensor:
        """What a view is compared with: (B, 4, 4 T + 3)."""
        peaks = torch.where(present[:, :, None], summary.peaks, -10.0)
        rings = torch.where(present[:, :, None, None], summary.rings, -10.0)
        partner, opposite = list(SAME_BREAST), list(OTHER_BREAST)
        parts = [peaks, peaks[:, partner], peaks[:, opposite], coincidence(rings, rings[:, partner])]
        flags = torch.stack([present[:, partner], present[:, opposite]], dim=2).to(peaks.dtype)
        oblique = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=peaks.dtype).reshape(1, 4, 1).expand(flags.shape[0], 4, 1)
        return torch.cat([*(part * 0.2 for part in parts), flags, oblique], dim=2)

    def _exam_embedding(self, embedded: Tensor, present: Tensor) -> Tensor:
        chosen = present[:, :, None]
        total = torch.where(chosen, embedded, 0.0).sum(1)
        mean = total / present.sum(1, keepdim=True).clamp_min(1).to(embedded.dtype)
        largest = torch.where(chosen, embedded, -1e4).amax(1)
        largest = torch.where(present.any(1, keepdim=True), largest, 0.0)
        return unit(self.exam_embed(torch.cat([mean, largest], dim=1)))


def breast_means(per_view: Tensor, present: Tensor) -> Tensor:
    """Mean over the views that a breast has: (B, 4), (B, 4) -> (B, 2) right, left."""
    counted = torch.where(present, per_view, 0.0)
    total = counted[:, :2] + counted[:, 2:]
    number = present[:, :2].to(total.dtype) + present[:, 2:].to(total.dtype)
    return torch.where(number > 0, total / number.clamp_min(1.0), ABSENT_LOGIT)


def small_network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers, the last of which begins at zero: a correction that starts as none."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.2), last)


def unit(vectors: Tensor) -> Tensor:
    """(..., D) of length one; zeros stay zeros."""
    return vectors / torch.sqrt((vectors * vectors).sum(-1, keepdim=True) + 1e-12)


class ExamEncoder(nn.Module):
    """Map network and heads under the contract.

    `heat_shift` and `heat_scale` (K) turn a map logit into heat: relu(logit + shift) / scale, fixed after training so
    that 1.0 is the median peak at true lesions of validation.
    """

    heat_shift: Tensor
    heat_scale: Tensor

    def __init__(self, maps: MapNetwork, heads: ExamHeads) -> None:
        super().__init__()
        self.map_network, self.heads = maps, heads
        self.register_buffer("heat_shift", torch.full((len(FINDINGS),), 4.0))
        self.register_buffer("heat_scale", torch.ones(len(FINDINGS)))

    def forward(self, views: Tensor, present: Tensor) -> ExamOutputs:
        """Views (B, 4, 1, H, W) in [0, 1], present (B, 4) bool -> the contract's tensors.

        Pixels of absent views are replaced before anything reads them, so NaN there changes no bit.
        """
        shown = torch.where(present[:, :, None, None, None], views, 0.0)
        features, maps = self.map_network(shown.flatten(0, 1))
        features = features.reshape(-1, 4, *features.shape[1:])
        maps = maps.reshape(-1, 4, *maps.shape[1:])
        exam, embedding, breasts, findings, view_embeddings = self.heads(summarise(shown, features, maps), present)
        shift, scale = self.heat_shift[:, None, None], self.heat_scale[:, None, None]
        heat = functional.relu(maps[:, :, : len(FINDINGS)] + shift) / scale
        heat = torch.where(present[:, :, None, None, None], heat, 0.0)
        return ExamOutputs(exam, embedding, breasts, findings, heat, view_embeddings)
