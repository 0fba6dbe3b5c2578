"""Training of FActOR's mappers on a frozen encoder: the shared one on statistics, the paper's on whole maps.

Image-level truth alone: which view shows which phrase. Axes as in factor.py.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.mammo_clip.factor import HeatSettings, PaperMapper, SharedMapper, factor_loss, image_scores
from training.mammo_clip.factor_phrases import PhraseSet, PhraseTruth
from training.mammo_clip.factor_recipe import FactorRecipe
from training.mammo_clip.factor_start import channel_directions
from training.mammo_clip.gradients import NotFiniteError

_CHUNK = 128
"""Views whose channels are mapped at a time where nothing learns."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The best epoch of one seed; `curve` has (epoch, training loss, validation loss)."""

    seed: int
    mapper: nn.Module
    curve: tuple[tuple[int, float, float], ...]
    best_epoch: int

    @property
    def validation_loss(self) -> float:
        """Of the epoch that was kept."""
        return min(loss for _, _, loss in self.curve)


@dataclass(frozen=True, slots=True, eq=False)
class StatisticViews:
    """`statistics` float32 (N, C, STATISTICS) and what the views show; `rows` name them."""

    statistics: Tensor
    truth: PhraseTruth
    rows: tuple[str, ...]


def train_shared(
    recipe: FactorRecipe, seed: int, phrases: PhraseSet, training: StatisticViews, validation: StatisticViews
) -> Trained:
    """One seed of the shared mapper, from what the channels say by themselves (factor_start.py)."""
    torch.manual_seed(seed)
    settings = recipe.optimisation
    mapper = SharedMapper(training.statistics.shape[1], phrases.texts.shape[1], settings.hidden, silent=True)
    mapper.measure(training.statistics)
    scaled = _scaled(mapper, training.statistics)
    nowhere = torch.from_numpy(np.flatnonzero(~phrases.placed))
    placed = torch.from_numpy(np.flatnonzero(phrases.placed))
    mapper.start(_directions(phrases, training, nowhere))
    with torch.no_grad():
        first = mapper.of_scaled(scaled[:1])

    def step(rows: Tensor, draws: torch.Generator) -> Tensor:
        some = placed[torch.randperm(len(placed), generator=draws)[: recipe.phrases.placed_a_step]]
        chosen = torch.cat([nowhere, some])
        wording = torch.randint(phrases.embeddings.shape[1], (len(chosen),), generator=draws)
        vectors = mapper.of_scaled(scaled[rows])
        scores = image_scores(vectors @ phrases.embeddings[chosen, wording].T, recipe.heat)
        present, absent = training.truth.present[rows][:, chosen], training.truth.absent[rows][:, chosen]
        moved = (vectors - first).square().sum(-1).mean()
        return factor_loss(scores[:, None], present, recipe.loss, absent) + settings.stay * moved

    def validate() -> float:
        scores = scores_of(mapper, validation.statistics, phrases.texts[nowhere], recipe.heat)
        truth = validation.truth
        loss = factor_loss(scores[:, None], truth.present[:, nowhere], recipe.loss, truth.absent[:, nowhere])
        return float(loss)

    return _fit(recipe, seed, mapper, step, validate, training.rows)


def _directions(phrases: PhraseSet, views: StatisticViews, nowhere: Tensor) -> Tensor:
    """(C, D), from the phrases without a place."""
    truth, texts = views.truth, phrases.embeddings[nowhere]
    return channel_directions(views.statistics, truth.present[:, nowhere], truth.absent[:, nowhere], texts)


def _scaled(mapper: SharedMapper, statistics: Tensor) -> Tensor:
    return (statistics - mapper.centre) / mapper.spread


@torch.no_grad()
def scores_of(mapper: SharedMapper, statistics: Tensor, phrases: Tensor, heat: HeatSettings) -> Tensor:
    """How sure the mapper is that each view shows each phrase, (N, K)."""
    parts = [image_scores(mapper.vectors(some) @ phrases.T, heat) for some in torch.split(statistics, _CHUNK)]
    return torch.cat(parts)


def _fit(
    recipe: FactorRecipe,
    seed: int,
    mapper: nn.Module,
    step: Callable[[Tensor, torch.Generator], Tensor],
    validate: Callable[[], float],
    names: Sequence[str],
) -> Trained:
    """Epochs of AdamW until `patience` ran out; the best epoch's weights are put back."""
    settings, draws = recipe.optimisation, torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(mapper.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    curve: list[tuple[int, float, float]] = []
    best, state = 0, copy.deepcopy(mapper.state_dict())
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for rows in torch.split(torch.randperm(len(names), generator=draws), settings.batch):
            loss = step(rows, draws)
            if not bool(torch.isfinite(loss)):
                raise NotFiniteError(f"the loss is {float(loss)} for {', '.join(names[row] for row in rows[:8])}")
            optimiser.zero_grad(set_to_none=True)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            losses.append(float(loss.detach()))
        curve.append((epoch, float(np.mean(losses)), validate()))
        print(f"seed {seed} epoch {epoch} loss {curve[-1][1]:.4f} validation {curve[-1][2]:.4f}", flush=True)
        if curve[-1][2] <= min(row[2] for row in curve):
            best, state = epoch, copy.deepcopy(mapper.state_dict())
        if settings.patience and epoch - best >= settings.patience:
            break
    mapper.load_state_dict(state)
    return Trained(seed, mapper.eval(), tuple(curve), best)


@dataclass(frozen=True, slots=True, eq=False)
class MapViews:
    """Maps of views by their numbers, (B, C, h, w), and what they show."""

    maps: Callable[[Sequence[int]], Tensor]
    truth: PhraseTruth
    rows: tuple[str, ...]


def train_paper(recipe: FactorRecipe, seed: int, phrases: Tensor, training: MapViews, validation: MapViews) -> Trained:
    """One seed of the published mapper: a head for each of the phrases (K, D), over all cells."""
    torch.manual_seed(seed)
    cells = training.maps([0]).flatten(2).shape[2]
    mapper = PaperMapper(cells, phrases.shape[1], len(phrases), heads_mixed=recipe.heads_mixed)

    def step(rows: Tensor, _: torch.Generator) -> Tensor:
        cosines = mapper(training.maps(rows.tolist()), phrases)
        return factor_loss(cosines, training.truth.present[rows], recipe.loss, training.truth.absent[rows])

    def validate() -> float:
        return float(
            np.mean([loss for loss in _batch_losses(mapper, phrases, validation, recipe) if loss > 0.0] or [0.0])
        )

    return _fit(recipe, seed, mapper, step, validate, training.rows)


@torch.no_grad()
def _batch_losses(mapper: PaperMapper, phrases: Tensor, views: MapViews, recipe: FactorRecipe) -> list[float]:
    """The loss of each batch of views, drawn once and for all."""
    order = torch.randperm(len(views.rows), generator=torch.Generator().manual_seed(0))
    return [
        float(
            factor_loss(
                mapper(views.maps(rows.tolist()), phrases),
                views.truth.present[rows],
                recipe.loss,
                views.truth.absent[rows],
            )
        )
        for rows in torch.split(order, recipe.optimisation.batch)
    ]
