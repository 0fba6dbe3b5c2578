"""Mammo-FActOR: which channels of a frozen image encoder carry a phrase, and where in the image they fire.

Every channel of the feature map counts as a region. A mapper turns its values over the image into a vector in the text
space; its cosine with the phrase's embedding is the channel's weight for that phrase. Two mappers: the paper's (section
2.3 of arXiv 2405.12255: one MLP for each phrase over all cells, heads stacked) and the default, one for all phrases and
any size. Axes: B images, C channels, h, w cells, K phrases, D embedding.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST = 32
"""Values of a channel that the default mapper sees, the largest first."""
CHANNEL_EMBEDDING = 16
TEMPERATURE_CODE = 0.07
"""Of the authors' code, and the default."""
TEMPERATURE_PAPER = 0.007


class Mapper(Protocol):
    """Feature maps and phrases to the similarity of each channel with each phrase."""

    def __call__(self, feature_map: Tensor, phrases: Tensor) -> Tensor:
        """(B, C, h, w) and unit vectors (K, D) -> cosines (B, C, K)."""
        ...


STATISTICS = LARGEST + 2
"""What the default mapper sees of a channel: its largest values, mean and standard deviation."""


def channel_statistics(feature_map: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, STATISTICS) float32. Fewer than 32 cells are filled up with the smallest."""
    cells = feature_map.float().flatten(2)
    count = min(LARGEST, cells.shape[2])
    largest = torch.topk(cells, count, dim=2).values
    if count < LARGEST:
        largest = torch.cat([largest, largest[..., -1:].expand(-1, -1, LARGEST - count)], dim=2)
    mean = cells.mean(2, keepdim=True)
    deviation = (cells - mean).square().mean(2, keepdim=True).sqrt()
    return torch.cat([largest, mean, deviation], dim=2)


class SharedMapper(nn.Module):
    """One mapper for all phrases and sizes: what a channel's strongest cells are like, and which channel it is.

    `centre` and `spread` (C, STATISTICS) bring the statistics of each channel to one scale; they are not learnt but
    measured on the training images. `silent`: vectors are shorter than 1, the shorter the less a channel says; else
    all have length 1, as published, and a channel that says nothing points somewhere all the same.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, channels: int, embed_dim: int, hidden: int = 256, *, silent: bool = False) -> None:
        super().__init__()
        self.channels, self.embed_dim, self.hidden, self.silent = channels, embed_dim, hidden, silent
        self.channel_embedding = nn.Parameter(torch.randn(channels, CHANNEL_EMBEDDING) * 0.1)
        self.layers = nn.Sequential(
            nn.Linear(STATISTICS + CHANNEL_EMBEDDING, hidden), nn.ReLU(), nn.Linear(hidden, embed_dim)
        )
        self.register_buffer("centre", torch.zeros(channels, STATISTICS))
        self.register_buffer("spread", torch.ones(channels, STATISTICS))

    def forward(self, feature_map: Tensor, phrases: Tensor) -> Tensor:
        """(B, C, h, w), (K, D) -> (B, C, K)."""
        return self.channel_vectors(feature_map) @ phrases.float().T

    def channel_vectors(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> vectors (B, C, D) in the text space, none longer than 1."""
        return self.vectors(channel_statistics(feature_map))

    def vectors(self, statistics: Tensor) -> Tensor:
        """(B, C, STATISTICS) -> vectors (B, C, D) in the text space, none longer than 1."""
        return self.of_scaled((statistics - self.centre) / self.spread)

    def of_scaled(self, scaled: Tensor) -> Tensor:
        """The same from statistics that were brought to scale."""
        first, last = self._linear()
        # One product for what differs by image, one for what does not: a third of the work is saved.
        seen, known = first.weight[:, :STATISTICS], first.weight[:, STATISTICS:]
        inner = functional.linear(scaled, seen) + functional.linear(self.channel_embedding, known, first.bias)
        return self._bounded(last(functional.relu(inner)))

    def _linear(self) -> tuple[nn.Linear, nn.Linear]:
        first, last = self.layers[0], self.layers[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        return first, last

    def _bounded(self, vectors: Tensor) -> Tensor:
        if not self.silent:
            return functional.normalize(vectors, dim=-1)
        return vectors / (1.0 + vectors.square().sum(-1, keepdim=True)).sqrt()

    @torch.no_grad()
    def start(self, directions: Tensor) -> None:
        """Begin with what each channel says in the text space (C, D), whatever the image: see factor_start.py.

        Their first principal parts become the channels' embeddings, which pairs of inner units hand through; all other
        units begin without a word.
        """
        rank = min(CHANNEL_EMBEDDING, self.hidden // 2, *directions.shape)
        left, sizes, right = torch.linalg.svd(directions.float(), full_matrices=False)
        scale = self.channels**0.5
        first, last = self._linear()
        self.channel_embedding.zero_()
        self.channel_embedding[:, :rank] = left[:, :rank] * scale
        outward = right[:rank].T * sizes[:rank] / scale
        last.weight.zero_()
        last.bias.zero_()
        first.weight[: 2 * rank] = 0.0
        first.bias[: 2 * rank] = 0.0
        for sign, units in ((1.0, slice(0, rank)), (-1.0, slice(rank, 2 * rank))):
            first.weight[units, STATISTICS : STATISTICS + rank] = sign * torch.eye(rank)
            last.weight[:, units] = sign * outward

    def measure(self, statistics: Tensor) -> None:
        """Take `centre` and `spread` from the statistics (N, C, STATISTICS) of training images."""
        self.centre.copy_(statistics.float().mean(0))
        self.spread.copy_(statistics.float().std(0, correction=0).clamp_min(SMALLEST_SPREAD))


SMALLEST_SPREAD = 1e-3
"""A channel that says nothing stays finite."""


class PaperMapper(nn.Module):
    """The paper's: for each phrase an MLP over all cells of a channel, tied to one map size and one list of phrases.

    `heads_mixed` joins the heads' outputs on the channel axis before they are taken apart again, as the authors' code
    does: each phrase then sees channels of the other's head. Only for comparison.
    """

    def __init__(self, cells: int, embed_dim: int, phrases: int, *, heads_mixed: bool = False) -> None:
        super().__init__()
        self.cells, self.heads_mixed = cells, heads_mixed
        self.pool = nn.ModuleList(
            nn.Sequential(nn.Linear(cells, cells), nn.ReLU(), nn.Linear(cells, embed_dim)) for _ in range(phrases)
        )

    def forward(self, feature_map: Tensor, phrases: Tensor) -> Tensor:
        """(B, C, h, w), (K, D) -> (B, C, K). Raises ValueError for another map size or number of phrases."""
        cells = feature_map.float().flatten(2)
        if cells.shape[2] != self.cells or len(phrases) != len(self.pool):
            raise ValueError(
                f"this mapper is tied to {self.cells} cells and {len(self.pool)} phrases, not {cells.shape[2]} and "
                f"{len(phrases)}; the shared mapper takes any"
            )
        heads = [head(cells) for head in self.pool]
        if self.heads_mixed:
            vectors = torch.cat(heads, dim=1).reshape(len(cells), -1, len(heads), heads[0].shape[-1])
        else:
            vectors = torch.stack(heads, dim=2)
        return torch.einsum("bckd,kd->bck", functional.normalize(vectors, dim=-1), phrases.float())


@dataclass(frozen=True, slots=True)
class FactorLoss:
    """`temperature` of the similarities; `ones_for_positives` adds e^0 for each positive image to the denominator, as
    the authors' code does, itself included.
    """

    temperature: float = TEMPERATURE_CODE
    ones_for_positives: bool = False


def factor_loss(
    cosines: Tensor, present: Tensor, settings: FactorLoss | None = None, absent: Tensor | None = None
) -> Tensor:
    """Image i with phrase k against the images without it: -log(e^s_ik / (e^s_ik + sum of e^s_jk over j without k)).

    `cosines` (B, C, K); s is their maximum over the channels over the temperature; `present` bool (B, K). `absent`
    bool (B, K): the images that count as without, all that are not `present` if not given. The mean over positive
    pairs, by log-sum-exp in float32; 0 where the batch has none.
    """
    settings = settings or FactorLoss()
    scores = cosines.float().amax(dim=1) / settings.temperature
    rows, columns = torch.nonzero(present, as_tuple=True)
    if not len(rows):
        return scores.sum() * 0.0
    positives = scores[rows, columns]
    others = scores.masked_fill(present, 0.0 if settings.ones_for_positives else float("-inf"))
    if absent is not None:
        others = others.masked_fill(~(absent | present), float("-inf"))
    negatives = torch.logsumexp(others, dim=0)[columns]
    return (torch.logaddexp(positives, negatives) - positives).mean()


@dataclass(frozen=True, slots=True)
class HeatSettings:
    """How cosines of channels become their weights in a heatmap.

    `temperature` above 0: softmax of cosine over temperature among the channels, a soft form of the maximum that the
    loss takes; 0: the cosines themselves, none below 0, as published. `strongest` channels alone count, 0: all.
    """

    strongest: int = 0
    temperature: float = TEMPERATURE_CODE


def heat_weights(cosines: Tensor, settings: HeatSettings) -> Tensor:
    """Cosines (..., C, K) to the weights of channels, same shape, in float32."""
    values = cosines.float()
    if settings.temperature > 0.0:
        values = functional.softmax(values / settings.temperature, dim=-2)
    return channel_weights(values, settings.strongest or None)


def image_scores(cosines: Tensor, settings: HeatSettings) -> Tensor:
    """How sure channels are that the image shows a phrase: cosines (..., C, K) -> (..., K).

    Where `strongest` cosines make the heat, their mean, so that what trains is what is shown; else the greatest one.
    """
    if settings.temperature > 0.0 or not settings.strongest:
        return cosines.float().amax(dim=-2)
    count = min(settings.strongest, cosines.shape[-2])
    return torch.topk(cosines.float(), count, dim=-2).values.mean(dim=-2)


def phrase_heat(feature_map: Tensor, cosines: Tensor, settings: HeatSettings) -> Tensor:
    """The heat of phrases: (B, C, h, w), cosines (B, C, K) -> (B, K, h, w) >= 0, float32. The one form everywhere."""
    return heatmaps(feature_map, heat_weights(cosines, settings))


def channel_weights(cosines: Tensor, strongest: int | None = None) -> Tensor:
    """Cosines (..., C, K) to weights, none below 0; with `strongest` only the largest ones of each phrase stay."""
    weights = functional.relu(cosines)
    if strongest is None or strongest >= weights.shape[-2]:
        return weights
    bound = torch.topk(weights, strongest, dim=-2).values[..., -1:, :]
    return torch.where(weights >= bound, weights, torch.zeros_like(weights))


def heatmaps(feature_map: Tensor, weights: Tensor) -> Tensor:
    """relu of the weighted sum of channels: (B, C, h, w) and (B, C, K) or (C, K) -> (B, K, h, w), in float32."""
    equation = "bchw,bck->bkhw" if weights.dim() == 3 else "bchw,ck->bkhw"
    return functional.relu(torch.einsum(equation, feature_map.float(), weights.float()))


def phrase_embedding(embeddings: Tensor) -> Tensor:
    """One unit vector (D,) for many prompts of one phrase (N, D): their mean, then normalised, as published."""
    return functional.normalize(embeddings.float().mean(dim=0), dim=0)


def fixed_weights(cosines: Tensor, present: Tensor) -> Tensor:
    """Weights that do not depend on the image: mean cosine over images with the phrase less that over those without.

    (N, C, K) and bool (N, K) -> (C, K), none below 0: a plain 1 x 1 convolution. Raises ValueError where a phrase has
    no image with it, or none without it.
    """
    having, lacking = present.float(), (~present).float()
    if not bool(having.sum(0).all() and lacking.sum(0).all()):
        raise ValueError("each phrase needs an image that has it and one that has it not")
    mean_having = torch.einsum("nck,nk->ck", cosines.float(), having) / having.sum(0)
    mean_lacking = torch.einsum("nck,nk->ck", cosines.float(), lacking) / lacking.sum(0)
    return functional.relu(mean_having - mean_lacking)
