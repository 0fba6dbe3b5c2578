"""Multiple-instance pooling on the same frozen maps: the baseline that FActOR is compared with.

A linear layer gives each cell a logit for each finding; a view's logit is the mean of its largest ones; only the
view's labels train it. Its weights of channels are none below 0, as FActOR's: where they may be, the chance of the
first steps makes many low where something fires, and a maximum that looks elsewhere never brings them back. Log-sum-exp
in place of the largest cells begins as a mean over the whole breast, in which a lesion is nothing: it pointed nowhere.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST_CELLS = 8
"""Their mean is the view's logit."""
LEARNING_RATE = 5e-3
FIRST_WEIGHT = 0.02
BATCH = 8
MEASURED_VIEWS = 32
"""Views from which the channels' scale is taken."""
_SMALLEST_SPREAD = 1e-3


def train_pooling(
    maps: Callable[[Sequence[int]], Tensor], inside: Tensor, present: Tensor, epochs: int, seed: int
) -> Tensor:
    """Weights (C, K) of channels from maps (B, C, h, w) of numbered views, bool (N, h, w) the cells that lie in the
    breast, and bool (N, K) what the views show.

    Cells outside of the breast are not pooled: a view that shows nothing would be explained by its background.
    """
    torch.manual_seed(seed)
    centre, spread = _scale(maps, inside)
    layer = nn.Conv2d(len(centre), present.shape[1], 1)
    nn.init.uniform_(layer.weight, 0.0, FIRST_WEIGHT)
    with torch.no_grad():
        # From the logit of how often each finding is shown: else the first steps only learn that most show none.
        assert layer.bias is not None
        layer.bias.copy_(torch.logit(present.float().mean(0).clamp(0.01, 0.99)))
    optimiser = torch.optim.AdamW(layer.parameters(), LEARNING_RATE)
    truth, draws = present.float(), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(truth), generator=draws), BATCH):
            logits = layer((maps(rows.tolist()) - centre[:, None, None]) / spread[:, None, None])
            loss = functional.binary_cross_entropy_with_logits(pooled(logits, inside[rows]), truth[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                layer.weight.clamp_(min=0.0)
    return (layer.weight.detach()[:, :, 0, 0] / spread).T.contiguous()


def _scale(maps: Callable[[Sequence[int]], Tensor], inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of channels over breasts: one that is large throughout would decide else."""
    sums = []
    for number in range(min(MEASURED_VIEWS, len(inside))):
        cells = maps([number])[0].float()[:, inside[number]]
        sums.append(torch.stack([cells.sum(1), cells.square().sum(1), torch.full((len(cells),), cells.shape[1])]))
    total, squares, count = torch.stack(sums).double().sum(0)
    mean = total / count.clamp_min(1.0)
    spread = (squares / count.clamp_min(1.0) - mean.square()).clamp_min(0.0).sqrt()
    return mean.float(), spread.clamp_min(_SMALLEST_SPREAD).float()


def pooled(logits: Tensor, inside: Tensor) -> Tensor:
    """The mean of the largest cells inside the breast: (B, K, h, w), bool (B, h, w) -> (B, K)."""
    kept = inside.flatten(1)[:, None]
    count = min(LARGEST_CELLS, logits.shape[2] * logits.shape[3])
    largest = torch.topk(logits.flatten(2).masked_fill(~kept, float("-inf")), count, dim=2).values
    there = torch.isfinite(largest)
    return torch.where(there, largest, 0.0).sum(2) / there.sum(2)
