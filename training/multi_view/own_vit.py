"""The own small encoder: CLIP's two towers at d 192, whose middle pools tokens, and what frozen blocks give of exams.

CLIP's weights cannot be had everywhere, and adapters on a frozen random network answer nothing. So the same classes
are trained here from nothing. After the cached blocks a square of tokens becomes one, by its mean, so that the blocks
across views stay cheap; the encoder is pretrained that way too.
"""

import torch
from torch import Tensor, nn

from training.multi_view.clip import Clip, ClipConfig, positions_for, unit
from training.multi_view.controlled_recipe import Encoder
from training.multi_view.exam_model import normalised


def own_config(encoder: Encoder, size: int, vocabulary: int) -> ClipConfig:
    """Shape of the own encoder for squares of `size` pixels and so many tokens of text."""
    return ClipConfig(
        encoder.embed_dim,
        size,
        encoder.patch,
        encoder.width,
        encoder.layers,
        encoder.heads,
        encoder.text_width,
        encoder.text_layers,
        encoder.text_heads,
        vocabulary,
        encoder.context,
        "gelu",
    )


def pooled_to(tokens: Tensor, side: int) -> Tensor:
    """Tokens (N, 1 + g * g, d) to (N, 1 + side * side, d): the class token, and means of squares. `side` divides g."""
    count, length, width = tokens.shape
    grid = round((length - 1) ** 0.5)
    if grid == side:
        return tokens
    times = grid // side
    if times * side != grid:
        raise ValueError(f"a grid of {grid} x {grid} tokens does not pool to {side} x {side}")
    cells = tokens[:, 1:].reshape(count, side, times, side, times, width).mean((2, 4))
    return torch.cat([tokens[:, :1], cells.flatten(1, 2)], dim=1)


def pooled_side(encoder: Encoder, size: int, smallest: int) -> int:
    """Tokens along each side after pooling: as many at every size of image as at the smallest; all where none pools."""
    return size // encoder.patch if encoder.pooled == 1 else smallest // encoder.patch // encoder.pooled


class OwnEncoder(nn.Module):
    """What pretraining learns: `clip`, a bias beside its logit scale, and a projection of cells to the text space."""

    def __init__(self, encoder: Encoder, size: int, side: int, vocabulary: int) -> None:
        super().__init__()
        self.clip = Clip(own_config(encoder, size, vocabulary))
        self.cached, self.side = encoder.cached_blocks, side
        self.cells = nn.Linear(encoder.width, encoder.embed_dim)
        self.bias = nn.Parameter(torch.tensor([-2.0, -4.0]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Grey images (N, 1, S, S) in [0, 1] -> views (N, D) and cells (N, g * g, D), both of unit length."""
        visual = self.clip.visual
        tokens = visual.transformer(visual.embed(normalised(images)), last=self.cached)
        cells = unit(self.cells(tokens[:, 1:]))
        last = visual.transformer(pooled_to(tokens, self.side), first=self.cached)
        return unit(visual.project(last[:, 0])), cells

    def begin_from(self, smaller: "OwnEncoder") -> None:
        """Take over the weights of the encoder of a smaller size; position embeddings are interpolated."""
        state = smaller.state_dict()
        grid, name = self.clip.config.grid, "clip.visual.positional_embedding"
        state[name] = positions_for(state[name], grid, grid).detach().clone()
        self.load_state_dict(state)


@torch.no_grad()
def frozen_tokens(clip: Clip, views: Tensor, present: Tensor, blocks: int, side: int, *, joint: bool) -> Tensor:
    """What the first `blocks` blocks give of views (B, 4, 1, S, S) in [0, 1]: (B, 4, T, d), `side` squared + 1 tokens.

    `joint`: the blocks work across the views that are there, else on each alone. An absent view's tokens are 0.
    """
    visual = clip.visual
    images = torch.where(present[..., None, None, None], views, 0.0)
    tokens = visual.embed(normalised(images.flatten(0, 1)))
    length, width = tokens.shape[1:]
    if joint:
        keep = present.repeat_interleave(length, 1)
        tokens = visual.transformer(tokens.view(len(views), -1, width), keep, last=blocks)
        tokens = tokens.reshape(-1, length, width)
    else:
        tokens = visual.transformer(tokens, last=blocks)
    made = pooled_to(tokens, side).view(*present.shape, -1, width)
    return torch.where(present[..., None, None], made, 0.0)
