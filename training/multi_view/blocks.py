"""The transformer block of CLIP, with its keys, for tokens of which some may be absent.

Pre-norm: attention, then a two-layer MLP, each added to the residual stream. Keys are those of CLIP's resblocks: ln_1,
attn.in_proj_weight, attn.in_proj_bias, attn.out_proj, ln_2, mlp.c_fc, mlp.c_proj; adapters add attn_adapter and
mlp_adapter.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.multi_view.adapters import Adapter, Sites

Activation = Literal["quick_gelu", "gelu"]


class Attention(nn.Module):
    """Self-attention of all heads in one product; the weights are laid out as in nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Tokens (B, T, d) and a mask that broadcasts to (B, heads, T, T), True = may be attended, to (B, T, d)."""
        count, length, width = tokens.shape
        together = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = together.view(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(count, length, width))
        return attended


class Mlp(nn.Module):
    """Linear, activation, linear. `quick_gelu` is x * sigmoid(1.702 x), which OpenAI's weights were trained with."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.quick = activation == "quick_gelu"

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., d) to (..., d)."""
        hidden = self.c_fc(tokens)
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
        changed: Tensor = self.c_proj(hidden)
        return changed


class TransformerBlock(nn.Module):
    """One pre-norm block over tokens (B, T, d); `causal` lets a token see only itself and those before it.

    `mlp_width` is 4 * width where not given. `adapter_rank` 0 means no adapters, and CLIP's keys exactly.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int | None = None,
        activation: Activation = "quick_gelu",
        adapter_rank: int = 0,
        causal: bool = False,
        adapter_sites: Sites = "parallel",
        adapter_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.serial = adapter_sites == "serial"
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width or 4 * width, activation)
        self.attn_adapter = Adapter(width, adapter_rank, adapter_scale) if adapter_rank and self.serial else None
        self.mlp_adapter = Adapter(width, adapter_rank, adapter_scale) if adapter_rank else None

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens (B, T, d) to (B, T, d).

        `keep` (B, T) bool: tokens where it is False are absent. They are never attended to, nothing of what stands
        there (NaN either) reaches a token that is kept, and they come out as 0. Where no token of a row is kept the
        whole row comes out as 0.
        """
        mask, causal = None, self.causal
        if keep is not None:
            tokens = torch.where(keep[..., None], tokens, 0.0)
            mask, causal = self._mask(keep), False
        tokens = tokens + self._attended(tokens, mask, causal)
        tokens = tokens + self._changed(tokens)
        return tokens if keep is None else torch.where(keep[..., None], tokens, 0.0)

    def _mask(self, keep: Tensor) -> Tensor:
        """Who may be attended to, (B, 1, 1, T), or (B, 1, T, T) where the block is causal."""
        mask = keep[:, None, None, :]
        if not self.causal:
            return mask
        length = keep.shape[1]
        seen: Tensor = mask & torch.ones(length, length, dtype=torch.bool, device=keep.device).tril()
        return seen

    def _attended(self, tokens: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        attended: Tensor = self.attn(self.ln_1(tokens), mask, causal)
        return attended if self.attn_adapter is None else attended + self.attn_adapter(attended)

    def _changed(self, tokens: Tensor) -> Tensor:
        normalised = self.ln_2(tokens)
        changed: Tensor = self.mlp(normalised)
        if self.mlp_adapter is not None:
            changed = changed + self.mlp_adapter(changed if self.serial else normalised)
        return changed


def zero_output(block: TransformerBlock) -> None:
    """Set what the block adds to the residual stream to 0: it is the identity until it is trained."""
    for layer in (block.attn.out_proj, block.mlp.c_proj):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
