"""Bottleneck adapters: the only parts of a frozen network that are trained, and the share of it that they make up.

The paper says "adapters in each transformer block of both encoders, about 1 % of the parameters" and no more in what
can be read of it; form, place and width here are our choice (mammo-clip.md 10.6): a linear layer down, GELU, a linear
layer up that starts at zero, a scale.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Sites = Literal["parallel", "serial"]
"""`parallel`: one adapter a block, beside the MLP, on the same normalised tokens (AdaptFormer). `serial`: two a block,
behind attention and behind the MLP, each before the sum with the residual stream (Houlsby)."""


class Adapter(nn.Module):
    """scale * up(GELU(down(tokens))), (..., width) -> (..., width); 0 at the start, whatever comes in."""

    def __init__(self, width: int, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """What is added to the tokens' own way."""
        change: Tensor = self.up(F.gelu(self.down(tokens)))
        return change * self.scale
