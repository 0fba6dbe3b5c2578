"""System A as it is served: four views in, the tensors of contract version 1 out; phrases as tensors; the text tower.

Three modules become three graphs: `ServedClip` (exam_encoder), `ServedQuery` (exam_query), `ServedText`
(text_encoder). Min-max, pooling, projection, norms and cosines are float32 whatever the trunk computes in.
Axes: B exams, 4 views RCC, LCC, RMLO, LMLO; C channels, h, w cells, K findings, T = K + 1 targets (the findings, then
malignancy), Q queries, D embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from node.mammography.pixels import preset
from training import maps
from training.exam_encoder import ABSENT_LOGIT, ExamOutputs, ring_maxima, unit
from training.mammo_clip.factor import HeatSettings, SharedMapper, heatmaps, phrase_heat
from training.mammo_clip.loading import FIXED, Input
from training.mammo_clip.model import ImageFeatures, MammoClip
from training.mammo_clip.sampling import MEAN, STANDARD_DEVIATION
from training.mammo_clip.served_heads import HeadInputs, ServedHeads

_LARGEST_CELLS = 8
"""Cells of a heatmap whose mean is its peak."""
_RIGHT_VIEWS = (0, 2)


class ViewEvidence(NamedTuple):
    """What one pass over the views gives, before the heads; heat is not yet scaled."""

    pooled: Tensor
    """(B, 4, C): pooled features."""
    embeddings: Tensor
    """(B, 4, D): image embeddings in the text space, unit length."""
    text: Tensor
    """(B, 4, T): text-prompted logits, scaled cosine with the positive prompts less that with the negative ones."""
    maps: Tensor
    """(B, 4, K, h, w) >= 0: weighted sums of channels for the findings' phrases."""
    peaks: Tensor
    """(B, 4, K): mean of a heatmap's eight largest cells."""
    rings: Tensor
    """(B, 4, K, RINGS): its largest cell in each ring around the nipple."""


class ClipViews(nn.Module):
    """The frozen part: encoder, projection, FActOR mapper, and the embeddings of phrases and prompts as constants.

    `phrases` (K, D) of unit length, one a finding; `prompts` (T, 2, D), negative then positive of each target.
    `channel_weights` (C, K): the findings' heat has these weights in every image, see `factor.fixed_weights`; None: the
    mapper's for each image. Phrases that are asked always take the mapper's.
    """

    outputs: tuple[str, ...] = ViewEvidence._fields
    logit_scale: Tensor
    phrases: Tensor
    prompts: Tensor
    channel_weights: Tensor | None

    def __init__(
        self,
        clip: MammoClip,
        mapper: SharedMapper,
        sees: Input,
        phrases: Tensor,
        prompts: Tensor,
        settings: HeatSettings,
        channel_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder, self.projection = clip.image_encoder, clip.image_projection
        self.register_buffer("logit_scale", clip.logit_scale.detach().exp())
        self.mapper, self.sees, self.settings = mapper, sees, settings
        self.register_buffer("phrases", phrases.detach().clone())
        self.register_buffer("prompts", prompts.detach().clone())
        self.register_buffer("channel_weights", None if channel_weights is None else channel_weights.detach().clone())
        self.mirrored = preset(sees.preset).mirror

    def encode(self, views: Tensor) -> tuple[ImageFeatures, Tensor]:
        """Views (B, 4, 1, H, W) in [0, 1] -> features of the B * 4 images, and unit embeddings (B, 4, D)."""
        images = normalise(views.flatten(0, 1), self.sees.normalisation).expand(-1, self.sees.channels, -1, -1)
        features: ImageFeatures = self.image_encoder.features(images)  # type: ignore[operator]
        embedded = unit(self.projection(features.pooled.float()))
        return features, embedded.reshape(-1, 4, embedded.shape[-1])

    def channels(self, features: ImageFeatures) -> Tensor:
        """Where each channel of each view lies in the text space: unit vectors (B, 4, C, D)."""
        vectors = self.mapper.channel_vectors(features.feature_map)
        return vectors.reshape(-1, 4, *vectors.shape[1:])

    def heat(self, features: ImageFeatures, cosines: Tensor) -> Tensor:
        """Cosines (B, 4, C, Q) of channels with phrases -> heat (B, 4, Q, h, w), see `factor.phrase_heat`."""
        heat = phrase_heat(features.feature_map, cosines.flatten(0, 1), self.settings)
        return heat.reshape(-1, 4, *heat.shape[1:])

    def finding_heat(self, features: ImageFeatures) -> Tensor:
        """Heat of the findings (B, 4, K, h, w)."""
        if self.channel_weights is None:
            return self.heat(features, self.channels(features) @ self.phrases.T)
        heat = heatmaps(features.feature_map, self.channel_weights)
        return heat.reshape(-1, 4, *heat.shape[1:])

    def forward(self, views: Tensor) -> ViewEvidence:
        """Views (B, 4, 1, H, W) in [0, 1]; no value that is not finite."""
        return self.evidence(views, *self.encode(views))

    def evidence(self, views: Tensor, features: ImageFeatures, embedded: Tensor) -> ViewEvidence:
        """What `encode` gave of the views, read."""
        heat = self.finding_heat(features)
        cosines = embedded[:, :, None] @ self.prompts.flatten(0, 1).T
        pairs = cosines.reshape(-1, 4, len(self.prompts), 2)
        text = self.logit_scale * (pairs[..., 1] - pairs[..., 0])
        count = min(_LARGEST_CELLS, heat.shape[3] * heat.shape[4])
        peaks = torch.topk(heat.flatten(3), count, dim=3).values.mean(3)
        pooled = features.pooled.float()
        return ViewEvidence(
            pooled.reshape(-1, 4, pooled.shape[-1]), embedded, text, heat, peaks, self._rings(views, heat)
        )

    def _rings(self, views: Tensor, heat: Tensor) -> Tensor:
        """Rings around the nipple, the chest wall on the left in all views. 0 where a ring has no cell."""
        if not self.mirrored:
            views, heat = mirror_right(views), mirror_right(heat)
        rows, columns = heat.shape[-2:]
        seen = functional.interpolate(views.flatten(0, 1), size=(rows, columns), mode="nearest")
        return ring_maxima(seen.reshape(-1, 4, 1, rows, columns), heat, 1).clamp_min(0.0)


def mirror_right(planes: Tensor) -> Tensor:
    """The right breasts' views flipped left to right: (B, 4, ..., W)."""
    return torch.stack([planes[:, at].flip(-1) if at in _RIGHT_VIEWS else planes[:, at] for at in range(4)], dim=1)


def normalise(images: Tensor, how: str) -> Tensor:
    """Images (N, 1, H, W) in [0, 1] as the encoder takes them: "fixed" for all alike, or "image" by its own range."""
    if how == FIXED:
        return maps.normalise(images)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp_min(1e-6) - MEAN) / STANDARD_DEVIATION


def shown_views(views: Tensor, present: Tensor) -> Tensor:
    """Views with those that are absent replaced by 0, whatever stands there: NaN times 0 would be NaN."""
    return torch.where(present[:, :, None, None, None], views, 0.0)


class ServedClip(nn.Module):
    """The exam encoder. `heat_scale` (K): heat 1.0 is the median peak at true lesions of validation."""

    heat_scale: Tensor

    def __init__(self, views: ClipViews, heads: ServedHeads, heat_scale: Tensor) -> None:
        super().__init__()
        self.views, self.heads = views, heads
        self.register_buffer("heat_scale", heat_scale.detach().clone())

    def judge(self, evidence: ViewEvidence, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exam logit (B), breast logits (B, 2), finding logits (B, 4, K)."""
        logits: tuple[Tensor, Tensor, Tensor] = self.heads(head_inputs(evidence, self.heads, self.heat_scale), present)
        return logits

    def forward(self, views: Tensor, present: Tensor) -> ExamOutputs:
        """Views (B, 4, 1, H, W) in [0, 1], present (B, 4) bool -> the contract's tensors."""
        evidence: ViewEvidence = self.views(shown_views(views, present))
        exam, breasts, findings = self.judge(evidence, present)
        embedded = torch.where(present[:, :, None], evidence.embeddings, 0.0)
        number = present.sum(1, keepdim=True).clamp_min(1).to(embedded.dtype)
        heat = evidence.maps / self.heat_scale[:, None, None]
        heat = torch.where(present[:, :, None, None, None], heat, 0.0)
        return ExamOutputs(exam, unit(embedded.sum(1) / number), breasts, findings, heat, embedded)


def head_inputs(evidence: ViewEvidence, heads: ServedHeads, scale: Tensor) -> HeadInputs:
    """Evidence as the heads take it: probe logits of the features, and heat in its final scale."""
    return HeadInputs(
        heads.probe(evidence.pooled), evidence.text, evidence.peaks / scale, evidence.rings / scale[:, None]
    )


class ServedQuery(nn.Module):
    """Any phrases over four views, by their embeddings alone; one phrase does not see another."""

    heat_scale: Tensor

    def __init__(self, views: ClipViews, heat_scale: Tensor) -> None:
        super().__init__()
        self.views = views
        self.register_buffer("heat_scale", heat_scale.detach().clone())

    def forward(self, views: Tensor, present: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Views (B, 4, 1, H, W), present (B, 4), unit vectors (B, Q, D) -> heat (B, 4, Q, h, w), logits (B, 4, Q)."""
        features, embedded = self.views.encode(shown_views(views, present))
        across = queries.transpose(1, 2)[:, None]
        heat = self.views.heat(features, self.views.channels(features) @ across) / self.heat_scale
        logits = self.views.logit_scale * (embedded[:, :, None] @ across)[:, :, 0]
        absent = ~present
        heat = torch.where(absent[:, :, None, None, None], 0.0, heat)
        return heat, torch.where(absent[:, :, None], ABSENT_LOGIT, logits)


class ServedText(nn.Module):
    """The text tower with its projection. What is padded changes nothing."""

    def __init__(self, clip: MammoClip) -> None:
        super().__init__()
        self.tower, self.projection = clip.text_encoder.text_encoder, clip.text_projection

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask (1 for a token), int64 (B, T) -> (B, D) of unit length, float32."""
        batch, length = token_ids.shape
        lowest = torch.finfo(torch.float32).min
        # A mask of four axes and explicit positions: what the tower makes of less is fixed to the traced size.
        bias = ((1 - mask).to(torch.float32) * lowest)[:, None, None, :].expand(batch, 1, length, length)
        positions = (torch.cumsum(torch.ones_like(token_ids), 1) - 1)[:1]
        states = self.tower(
            input_ids=token_ids,
            attention_mask=bias,
            position_ids=positions,
            token_type_ids=torch.zeros_like(token_ids),
        ).last_hidden_state
        is_last = positions == mask.sum(1, keepdim=True) - 1
        return unit(self.projection(torch.where(is_last[:, :, None], states, 0.0).sum(1)))
