"""Multiple-instance pooling on the same frozen maps: the baseline that FActOR is compared with.

A linear layer gives each cell a logit for each finding; a view's logit is their maximum, softened; only the view's
labels train it. Its weights of channels make heatmaps as FActOR's do.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SHARPNESS = 4.0
"""Of the soft maximum: log-sum-exp of this many times the logit, over as much (Pinheiro and Collobert 2015)."""
LEARNING_RATE = 5e-3
BATCH = 8


def train_pooling(maps: Callable[[Sequence[int]], Tensor], present: Tensor, epochs: int, seed: int) -> Tensor:
    """Weights (C, K) of channels from maps (B, C, h, w) of numbered views and bool (N, K) what they show."""
    torch.manual_seed(seed)
    first = maps([0])
    # Channels are brought to one scale, or those that are large throughout would decide.
    scale = first.float().square().mean((0, 2, 3)).sqrt().clamp_min(1e-3)
    layer = nn.Conv2d(first.shape[1], present.shape[1], 1)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, -2.0)  # type: ignore[arg-type]
    nn.init.normal_(layer.weight, std=0.01)
    optimiser = torch.optim.AdamW(layer.parameters(), LEARNING_RATE)
    truth = present.float()
    draws = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(truth), generator=draws), BATCH):
            logits = layer(maps(rows.tolist()) / scale[:, None, None])
            loss = functional.binary_cross_entropy_with_logits(pooled(logits), truth[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return (layer.weight.detach()[:, :, 0, 0] / scale).T.contiguous()


def pooled(logits: Tensor) -> Tensor:
    """The soft maximum over cells: (B, K, h, w) -> (B, K)."""
    cells = logits.flatten(2) * SHARPNESS
    count = torch.tensor(float(cells.shape[2]))
    return (torch.logsumexp(cells, dim=2) - torch.log(count)) / SHARPNESS
