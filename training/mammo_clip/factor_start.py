"""What each channel says in the text space before anything is trained: where the shared mapper begins.

From labels of images alone. A channel that is higher where a phrase is true than where it is not, measured by its own
spread, speaks for that phrase; a linear map from the text space to these differences gives the same for phrases that
nobody labelled. Axes: N images, C channels, K phrases, D embedding.
"""

import torch
from torch import Tensor

STRONGEST_VALUES = 8
"""A channel's answer to an image: the mean of so many of its largest values."""
RIDGE = 0.1
"""Of the linear map, against a sum over phrases whose weights are 1 on average."""
GREATEST_EFFECT = 2.0
"""More says no more: with and without do not overlap. A channel that hardly varies would drown all others."""
_SMALLEST_SPREAD = 1e-4


def channel_effects(statistics: Tensor, present: Tensor, absent: Tensor) -> Tensor:
    """(C, K): mean answer where a phrase is present less that where it is absent, over the sum of both spreads, at
    most GREATEST_EFFECT on either side.

    `statistics` (N, C, STATISTICS) as `factor.channel_statistics` gives them; `present`, `absent` bool (N, K), each
    with an image of every phrase.
    """
    answers = statistics[..., :STRONGEST_VALUES].float().mean(2)
    columns = []
    for there, lacking in zip(present.T, absent.T, strict=True):
        having, others = answers[there], answers[lacking]
        spread = having.std(0, correction=0) + others.std(0, correction=0)
        columns.append((having.mean(0) - others.mean(0)) / spread.clamp_min(_SMALLEST_SPREAD))
    return torch.stack(columns, dim=1).clamp(-GREATEST_EFFECT, GREATEST_EFFECT)


def channel_directions(statistics: Tensor, present: Tensor, absent: Tensor, phrases: Tensor) -> Tensor:
    """(C, D): the linear map whose product with a phrase's embedding is nearest to its effects, by ridge regression.

    `phrases` (K, W, D) of unit length, each phrase in W wordings, all with the effects of the phrase; each counts by
    the number of images that show it. Phrases that no image shows or lacks are left out; without any, all is 0.
    """
    told = present.any(0) & absent.any(0)
    if not bool(told.any()):
        return torch.zeros(statistics.shape[1], phrases.shape[2])
    present, absent, texts = present[:, told], absent[:, told], phrases[told].double()
    counts = present.sum(0).double()
    weighted = texts * (counts / counts.mean() / texts.shape[1])[:, None, None]
    unit = torch.eye(texts.shape[2], dtype=torch.float64)
    gram = torch.einsum("kwd,kwe->de", weighted, texts) + RIDGE * unit
    solved = torch.linalg.solve(gram, weighted.sum(1).T)
    directions: Tensor = channel_effects(statistics, present, absent).double() @ solved.T
    return directions.float()
