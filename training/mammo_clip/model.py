"""The dual encoder: an image encoder, a BERT text tower, a linear projection for each, and a learnt logit scale.

State dicts of `MammoClip` have the keys and shapes of the released checkpoints. Axes: B rows, C channels, D embedding,
T tokens.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

from training.efficientnet import VARIANTS, EfficientNet

INITIAL_TEMPERATURE = 0.07
TEXT_MAX_LENGTH = 256
"""Tokens of one text, [CLS] and [SEP] included."""


class ImageFeatures(NamedTuple):
    """What an image encoder gives: `pooled` (B, C) and the `feature_map` (B, C, h, w) that it was pooled from."""

    pooled: Tensor
    feature_map: Tensor


class ImageEncoder(Protocol):
    """Any module with these two outputs can be the image encoder; `out_channels` is C."""

    out_channels: int

    def features(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W), normalised -> pooled features and the feature map."""
        ...


class EfficientNetEncoder(EfficientNet):
    """EfficientNet with its head map averaged: "b0", "b2", "b5" or "lite0" of `training.efficientnet`.

    `dropout` is applied to the pooled features in training: .4 for B5 and .3 for B2 in the paper's code. Cells
    lie `stride` pixels apart; where, depends on the padding and on what the kernels look at, and is measured.
    """

    stride = 32.0

    def __init__(self, name: str, *, channels: int = 3, padding: str = "static", dropout: float = 0.0) -> None:
        super().__init__(name, channels=channels, padding=padding)
        self.out_channels = VARIANTS[name].head
        self.dropout = dropout

    def features(self, images: Tensor) -> ImageFeatures:
        """(B, channels, H, W) -> (B, C) and (B, C, ceil(H / 32), ceil(W / 32))."""
        feature_map = self(images)
        pooled = functional.dropout(feature_map.mean((2, 3)), self.dropout, self.training)
        return ImageFeatures(pooled, feature_map)


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Shape of the text tower; the values given are those of Bio_ClinicalBERT, BERT-base with a cased vocabulary."""

    vocabulary: int = 28996
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512


class TextEncoder(nn.Module):
    """BERT, pooled at the last token that is no padding: [SEP]. Built from its configuration, nothing is fetched."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.out_features = config.hidden
        self.text_encoder = BertModel(
            BertConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.hidden,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.intermediate,
                max_position_embeddings=config.positions,
            )
        )

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask (1 for a token), int64 (B, T) -> (B, hidden)."""
        states: Tensor = self.text_encoder(input_ids=token_ids, attention_mask=mask).last_hidden_state
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]


class Projection(nn.Module):
    """One linear layer into the common space."""

    def __init__(self, inputs: int, embed_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(inputs, embed_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs) -> (B, D)."""
        projected: Tensor = self.projection(features)
        return projected


class MammoClip(nn.Module):
    """Image and text encoder with a common space of `embed_dim` dimensions (paper, section 2)."""

    def __init__(self, image_encoder: nn.Module, text: TextConfig | None = None, embed_dim: int = 512) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1.0 / INITIAL_TEMPERATURE)))
        self.image_encoder = image_encoder
        self.text_encoder = TextEncoder(text or TextConfig())
        self.image_projection = Projection(int(image_encoder.out_channels), embed_dim)  # type: ignore[arg-type]
        self.text_projection = Projection(self.text_encoder.out_features, embed_dim)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalised -> (B, D) of unit length, float32."""
        features: ImageFeatures = self.image_encoder.features(images)  # type: ignore[operator]
        return unit_length(self.image_projection(features.pooled))

    def encode_text(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, int64 (B, T) -> (B, D) of unit length, float32."""
        return unit_length(self.text_projection(self.text_encoder(token_ids, mask)))


def unit_length(vectors: Tensor) -> Tensor:
    """(B, D) divided by their length, in float32; no epsilon, as published."""
    precise = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    unit: Tensor = precise / torch.linalg.vector_norm(precise, dim=-1, keepdim=True)
    return unit


DROPOUT = {"b0": 0.2, "b2": 0.3, "b5": 0.4, "lite0": 0.2, "lite2": 0.3}
"""Chance with which training drops a pooled feature."""


def published(name: str) -> MammoClip:
    """System A as published: "b2" or "b5", static padding, BERT-base text tower. 117 or 138 million parameters."""
    return MammoClip(EfficientNetEncoder(name, dropout=DROPOUT[name]))
