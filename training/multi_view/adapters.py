"""Bottleneck adapters: the only parts of a frozen network that are trained, and the share of it that they make up.

The paper says "adapters in each transformer block of both encoders, about 1 % of the parameters" and no more in what
can be read of it; form, place and width here are our choice (mammo-clip.md 10.6): a linear layer down, GELU, a linear
layer up that starts at zero, a scale that stays as it is.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from training.mammo_clip.pretraining_recipe import RecipeError

Sites = Literal["parallel", "serial"]
"""`parallel`: one adapter a block, beside the MLP, on the same normalised tokens (AdaptFormer). `serial`: two a block,
behind attention and behind the MLP, each before the sum with the residual stream (Houlsby)."""
Towers = Literal["none", "image", "text", "both"]
LEAST_SHARE, GREATEST_SHARE = 0.005, 0.015
"""Of the backbone's parameters: what "about 1 %" may be with adapters in every block of both towers."""


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


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """Where adapters stand and how wide they are; the default is none.

    `rank` is the width of the bottleneck. Blocks of the image tower before `first_block` have no adapter, so that what
    they give can be kept; the text tower has one in every block. `projections`: the last norm and the projection of
    each tower with adapters are trained too. Raises RecipeError.
    """

    towers: Towers = "none"
    rank: int = 0
    sites: Sites = "parallel"
    scale: float = 1.0
    first_block: int = 0
    projections: bool = False

    def __post_init__(self) -> None:
        if self.towers not in get_args(Towers):
            raise RecipeError(f"adapters: towers is {self.towers!r}; there are {', '.join(get_args(Towers))}")
        if self.sites not in get_args(Sites):
            raise RecipeError(f"adapters: sites is {self.sites!r}; there are {', '.join(get_args(Sites))}")
        if (self.towers == "none") != (self.rank == 0) or self.rank < 0:
            raise RecipeError(f'adapters: rank is {self.rank} with towers "{self.towers}"; only "none" has rank 0')
        if self.first_block < 0:
            raise RecipeError(f"adapters: first_block is {self.first_block}; the first block is 0")

    @property
    def in_image(self) -> bool:
        """The image tower has adapters."""
        return self.towers in ("image", "both")

    @property
    def in_text(self) -> bool:
        """The text tower has adapters."""
        return self.towers in ("text", "both")

    def image_rank(self, block: int) -> int:
        """Rank in a block of the image tower, 0 for none."""
        return self.rank if self.in_image and block >= self.first_block else 0

    def text_rank(self, block: int) -> int:
        """Rank in a block of the text tower: the same in each."""
        return self.rank if self.in_text else 0

    @property
    def is_whole(self) -> bool:
        """Adapters in every block of both towers, as the paper has them."""
        return self.towers == "both" and self.first_block == 0


def check_share(trainable: int, backbone: int, plan: AdapterPlan) -> None:
    """Refuse a plan with adapters in every block that trains far more or less than 1 % of the backbone.

    Raises RecipeError. Plans with fewer adapters are for comparisons and may train less.
    """
    share = trainable / backbone
    if plan.is_whole and not LEAST_SHARE <= share <= GREATEST_SHARE:
        fitting = max(1, round(plan.rank * 0.01 / share))
        raise RecipeError(
            f"adapters: rank {plan.rank} trains {share:.2%} of the backbone's {backbone:,} parameters, not "
            f"{LEAST_SHARE:.1%} to {GREATEST_SHARE:.1%}; a rank near {fitting} trains 1 %"
        )
