"""CLIP with a vision transformer (Radford et al. 2021, arXiv 2103.00020) in plain torch, with the keys of its weights.

Axes: N images or texts, T tokens, d width, D embedding. Keys and shapes are those of OpenAI's files.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.mammo_clip.pretraining_recipe import RecipeError
from training.multi_view.adapters import AdapterPlan
from training.multi_view.blocks import Activation, TransformerBlock

INITIAL_TEMPERATURE = 0.07


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Shape of both towers. `image_size` is that of the position embeddings; other sizes are interpolated.

    `vocabulary` counts all tokens, `context` is the greatest number of tokens of a text. Raises RecipeError.
    """

    embed_dim: int
    image_size: int
    patch: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int = 49408
    context: int = 77
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        if self.image_size % self.patch:
            raise RecipeError(f"clip: image_size {self.image_size} is not a multiple of patch {self.patch}")
        for tower, width, heads in (
            ("vision", self.vision_width, self.vision_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if heads < 1 or width % heads:
                raise RecipeError(f"clip: {tower}_width {width} does not divide into {tower}_heads {heads}")

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return self.image_size // self.patch


VARIANTS = {
    "B/32": ClipConfig(512, 224, 32, 768, 12, 12, 512, 12, 8),
    "B/16": ClipConfig(512, 224, 16, 768, 12, 12, 512, 12, 8),
    "L/14": ClipConfig(768, 224, 14, 1024, 24, 16, 768, 12, 12),
    "tiny": ClipConfig(16, 32, 8, 32, 4, 2, 24, 2, 2, vocabulary=600, context=16),
}
"""OpenAI's sizes, and one for tests."""


class Transformer(nn.Module):
    """Blocks one after the other; `resblocks` is CLIP's word for them."""

    def __init__(self, blocks: list[TransformerBlock]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, tokens: Tensor, keep: Tensor | None = None, first: int = 0, last: int | None = None) -> Tensor:
        """Tokens (N, T, d) through blocks `first` to `last`, the latter not included."""
        for block in self.resblocks[first:last]:
            tokens = block(tokens, keep)
        return tokens


class VisionTransformer(nn.Module):
    """Image tower: patches, a class token, position embeddings, blocks; the class token is the image's embedding."""

    def __init__(self, config: ClipConfig, adapters: AdapterPlan) -> None:
        super().__init__()
        width, patch, scale = config.vision_width, config.patch, config.vision_width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(config.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        ranks = [adapters.image_rank(block) for block in range(config.vision_layers)]
        self.transformer = _tower(width, config.vision_heads, ranks, config, adapters, causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, config.embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), normalised, H and W multiples of the patch -> tokens (N, 1 + h * w, d), class first."""
        patches = self.conv1(images)
        positions = positions_for(self.positional_embedding, patches.shape[2], patches.shape[3])
        found = torch.cat([self.class_embedding.expand(len(images), 1, -1), patches.flatten(2).transpose(1, 2)], 1)
        normed: Tensor = self.ln_pre(found + positions)
        return normed

    def project(self, class_tokens: Tensor) -> Tensor:
        """Class tokens (N, d) after the last block -> (N, D)."""
        projected: Tensor = self.ln_post(class_tokens) @ self.proj
        return projected

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), normalised -> (N, D), not of unit length."""
        return self.project(self.transformer(self.embed(images))[:, 0])


class Clip(nn.Module):
    """Both towers and the logit scale. Every parameter is trainable until `freeze` of exam_model.py is called."""

    def __init__(self, config: ClipConfig, adapters: AdapterPlan | None = None) -> None:
        super().__init__()
        plan = adapters or AdapterPlan()
        self.config = config
        self.visual = VisionTransformer(config, plan)
        ranks = [plan.text_rank(block) for block in range(config.text_layers)]
        self.transformer = _tower(config.text_width, config.text_heads, ranks, config, plan, causal=True)
        self.token_embedding = nn.Embedding(config.vocabulary, config.text_width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context, config.text_width))
        self.ln_final = nn.LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(config.text_width**-0.5 * torch.randn(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), normalised -> (N, D) of unit length."""
        return unit(self.visual(images))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids int64 (N, T), T up to the context -> (N, D) of unit length.

        A text is taken at its first token of the greatest id, which is the end token's; what follows is padding.
        """
        length = token_ids.shape[1]
        if length > self.config.context:
            raise ValueError(f"texts of {length} tokens, but the context is {self.config.context}")
        tokens = self.transformer(self.token_embedding(token_ids) + self.positional_embedding[:length])
        ends = self.ln_final(tokens[torch.arange(len(tokens), device=tokens.device), token_ids.argmax(1)])
        return unit(ends @ self.text_projection)


def unit(vectors: Tensor) -> Tensor:
    """Divided by their length along the last axis; half precision becomes float32 first."""
    precise = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    return F.normalize(precise, dim=-1)


def positions_for(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings (1 + g * g, d) for a grid of rows x columns patches: bicubic; that of the class token stays.

    The same grid gives the very same tensor.
    """
    grid = math.isqrt(len(positions) - 1)
    if (rows, columns) == (grid, grid):
        return positions
    square = positions[1:].T.reshape(1, -1, grid, grid)
    wanted = F.interpolate(square, (rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], wanted.flatten(2)[0].T])


def _tower(
    width: int, heads: int, ranks: list[int], config: ClipConfig, adapters: AdapterPlan, *, causal: bool
) -> Transformer:
    """A block for each rank, with CLIP's starting weights: narrower where they add to the residual stream."""
    blocks = []
    for rank in ranks:
        block = TransformerBlock(width, heads, None, config.activation, rank, causal, adapters.sites, adapters.scale)
        nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        for layer in (block.attn.out_proj, block.mlp.c_proj):
            nn.init.normal_(layer.weight, std=width**-0.5 * (2 * len(ranks)) ** -0.5)
        blocks.append(block)
    return Transformer(blocks)
