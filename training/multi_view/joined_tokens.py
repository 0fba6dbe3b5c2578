"""The trunk's maps as tokens of a coarse grid, a few of a view: what blocks across the views can afford to look at.

Axes: B exams, 4 views RCC, LCC, RMLO, LMLO; C channels, h, w cells, P tokens, row by row.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

from node.mammography.pixels import preset
from training.mammo_clip.loading import Input
from training.mammo_clip.served import ClipViews, mirror_right
from training.mammo_clip.served_summaries import EvidenceGraph
from training.multi_view.joined_recipe import TokensPart


class JoinedEvidence(NamedTuple):
    """`ViewEvidence`, and the tokens."""

    pooled: Tensor
    embeddings: Tensor
    text: Tensor
    maps: Tensor
    peaks: Tensor
    rings: Tensor
    tokens: Tensor
    """(B, 4, P, C)."""


class TokenPooling(nn.Module):
    """Maps (N, C, h, w) to tokens (N, P, C): each the mean of the `largest` greatest cells of its window, by channel.

    A mean over the whole window (`largest` 0) loses a calcification of one cell, the maximum (1) is one cell's noise.
    Windows are alike in size, spread evenly, and overlap where the grid does not divide the cells.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, cells: tuple[int, int], grid: tuple[int, int], largest: int) -> None:
        super().__init__()
        self.grid, self.window = grid, tuple(-(-count // parts) for count, parts in zip(cells, grid, strict=True))
        self.register_buffer("rows", _windows(cells[0], grid[0], self.window[0]), persistent=False)
        self.register_buffer("columns", _windows(cells[1], grid[1], self.window[1]), persistent=False)
        whole = self.window[0] * self.window[1]
        self.largest = min(largest, whole) or whole

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, P, C), float32."""
        channels, (across, down) = maps.shape[1], (self.window[1], self.window[0])
        taken = maps.float().index_select(2, self.rows).index_select(3, self.columns)
        windows = taken.reshape(-1, channels, self.grid[0], down, self.grid[1], across).permute(0, 2, 4, 1, 3, 5)
        cells = windows.reshape(-1, self.grid[0] * self.grid[1], channels, down * across)
        if self.largest == 1:
            return cells.amax(3)
        if self.largest == down * across:
            return cells.mean(3)
        return torch.topk(cells, self.largest, dim=3).values.mean(3)


def _windows(count: int, parts: int, size: int) -> Tensor:
    """Which cell along one axis stands at each place of each window: (parts * size)."""
    starts = torch.linspace(0.0, count - size, parts).round().long()
    return (starts[:, None] + torch.arange(size)).flatten()


class TokenViews(nn.Module):
    """`ClipViews` whose evidence has tokens. All breasts lie the same way round on the grid, the chest wall left."""

    outputs = JoinedEvidence._fields

    def __init__(self, views: ClipViews, pooling: TokenPooling) -> None:
        super().__init__()
        self.views, self.pooling = views, pooling
        self.mirrored = preset(views.sees.preset).mirror

    @property
    def sees(self) -> Input:
        """What the views are."""
        return self.views.sees

    def forward(self, views: Tensor) -> JoinedEvidence:
        """Views (B, 4, 1, H, W) in [0, 1]; no value that is not finite."""
        features, embedded = self.views.encode(views)
        maps = features.feature_map.reshape(-1, 4, *features.feature_map.shape[1:])
        if not self.mirrored:
            maps = mirror_right(maps)
        tokens = self.pooling(maps.flatten(0, 1))
        evidence = self.views.evidence(views, features, embedded)
        return JoinedEvidence(*evidence, tokens.reshape(-1, 4, *tokens.shape[1:]))


class TokenGraph(EvidenceGraph):
    """Evidence and tokens by OpenVINO. `digest` tells one way of pooling from another."""

    def __init__(self, views: TokenViews, part: TokensPart, threads: int) -> None:
        super().__init__(views, threads)
        pooling = f"{part.rows}x{part.columns} of {part.largest_cells}"
        self.digest = hashlib.sha256(f"{self.digest}\0{pooling}".encode()).hexdigest()
