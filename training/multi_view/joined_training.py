"""Training of the blocks across the views on cached tokens: several seeds, each stopped by validation's loss."""

import copy
import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.deployment import round_values
from training.finish import HeadLogits
from training.mammo_clip.schedule import rate_factor
from training.mammo_clip.served_heads import HeadInputs, ServedHeads
from training.mammo_clip.served_summaries import ClipSummaries
from training.mammo_clip.served_training import aucs_of, heads_loss, inputs_of, judged_loss
from training.multi_view.joined_model import CrossViews, JoinedHeads, JoinedInputs, Logits
from training.multi_view.joined_recipe import JoinedRecipe, LearningPart
from training.train_maps import move_average

_AT_ONCE = 16
"""Exams that are judged at once."""
_LEAST_SHARE = 0.1
"""A channel's deviation counts as at least this share of the median one: what is silent here may fire elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Exams with their tokens and what A's heads take of them."""

    data: ClipSummaries
    inputs: JoinedInputs

    def __len__(self) -> int:
        return len(self.data.seeds)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """One seed's network in its best epoch: validation's loss there, AUCs by name, and the losses of all epochs."""

    seed: int
    heads: JoinedHeads
    epoch: int
    loss: float
    validation: dict[str, float]
    losses: tuple[float, ...]


def rows_of(data: ClipSummaries, heads: ServedHeads, scale: Tensor, own: dict[int, Tensor] | None = None) -> Rows:
    """`own`: by seed, probe logits (4, T) of probes that did not see the exam, in place of those that did."""
    assert data.tokens is not None
    inputs: HeadInputs = inputs_of(data, heads, scale)
    probe = inputs.probe.clone()
    for row, seed in enumerate(data.seeds.tolist()):
        if own and seed in own:
            probe[row] = own[seed]
    return Rows(data, JoinedInputs(probe, inputs.text, inputs.peaks, inputs.rings, data.tokens))


def train_network(rows: Rows, validation: Rows, heads: ServedHeads | None, recipe: JoinedRecipe, seed: int) -> Trained:
    """The averaged weights of the epoch with the least loss on validation, as float16 holds them. Draws follow the seed
    alone. Without `heads` it is System B alone, which has the recipe's local blocks too.
    """
    torch.manual_seed(seed)
    model, part = _untrained(rows, heads, recipe), recipe.learning
    size = min(part.batch, len(rows))
    steps = len(rows) // size
    learnt = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=part.learning_rate, weight_decay=part.weight_decay)
    total = steps * part.epochs
    factor = functools.partial(rate_factor, warmup_steps=max(1, round(part.warmup * total)), total_steps=total)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    average, losses = copy.deepcopy(model), [validation_loss(model, validation)]
    best, kept = copy.deepcopy(average), 0
    for epoch in range(1, part.epochs + 1):
        model.train()
        for batch in torch.randperm(len(rows))[: steps * size].reshape(steps, size):
            _learn(model, rows, batch, part, optimiser)
            schedule.step()
            move_average(average, model, part.average_decay)
        losses.append(validation_loss(average, validation))
        if losses[epoch] < losses[kept]:
            best, kept = copy.deepcopy(average), epoch
        if epoch - kept >= part.patience:
            break
    round_values(best.network)
    reached = aucs_of(judged(best, validation), validation.data)
    return Trained(seed, best.eval(), kept, losses[kept], reached, tuple(losses))


def _untrained(rows: Rows, heads: ServedHeads | None, recipe: JoinedRecipe) -> JoinedHeads:
    tokens = rows.inputs.tokens
    local = 0 if heads is not None else recipe.network.parent_local_blocks
    targets = rows.data.findings.shape[2] + 1
    network = CrossViews(tokens.shape[3], tokens.shape[2], targets, recipe.network, local)
    network.halved = recipe.learning.precision == "bfloat16"
    network.mean.copy_(_moment(tokens, None))
    deviation = _moment(tokens, network.mean).sqrt()
    network.deviation.copy_(deviation.clamp_min(max(float(deviation.median()) * _LEAST_SHARE, 1e-6)))
    if heads is None:
        _set_prior(network, rows.data)
    return JoinedHeads(heads, network)


def _moment(tokens: Tensor, mean: Tensor | None) -> Tensor:
    """Mean by channel (C), or the mean square around it; some exams at a time, for they are many and float16."""
    total = torch.zeros(tokens.shape[3], dtype=torch.float64)
    for first in range(0, len(tokens), _AT_ONCE):
        part = tokens[first : first + _AT_ONCE].double()
        values = part if mean is None else (part - mean) ** 2
        total += values.sum((0, 1, 2))
    return (total / (tokens.numel() // tokens.shape[3])).float()


def _set_prior(network: CrossViews, data: ClipSummaries) -> None:
    """System B alone begins at how often a target is there."""
    truth = torch.cat([data.findings.flatten(0, 1), data.breasts.repeat(1, 2).flatten()[:, None]], dim=1)
    with torch.no_grad():
        network.bias.copy_(torch.logit(truth.float().mean(0).clamp(1e-3, 1 - 1e-3)))


def _learn(model: JoinedHeads, rows: Rows, batch: Tensor, part: LearningPart, optimiser: torch.optim.Optimizer) -> None:
    kept = torch.rand(len(batch), 4, rows.inputs.tokens.shape[2]) >= part.token_dropout
    loss = heads_loss(functools.partial(model, kept=kept), rows.inputs, rows.data, batch, part.view_dropout)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
    optimiser.step()


@torch.inference_mode()
def judged(model: JoinedHeads, rows: Rows) -> Logits:
    """What the model says of whole exams."""
    model.eval()
    parts = []
    for first in range(0, len(rows), _AT_ONCE):
        inputs = JoinedInputs(*(part[first : first + _AT_ONCE] for part in rows.inputs))
        parts.append(model(inputs, torch.ones(len(inputs.probe), 4, dtype=torch.bool)))
    exam, breasts, findings = (torch.cat(column) for column in zip(*parts, strict=True))
    return exam, breasts, findings


def head_logits(logits: Logits) -> HeadLogits:
    """The same as arrays."""
    return HeadLogits(*(part.numpy() for part in logits))


def validation_loss(model: JoinedHeads, rows: Rows) -> float:
    """Cross-entropies of exam, breasts and findings, no view missing."""
    present = torch.ones(len(rows), 4, dtype=torch.bool)
    loss = float(judged_loss(judged(model, rows), (rows.data.findings, rows.data.breasts), present))
    return loss if math.isfinite(loss) else math.inf


def train_networks(rows: Rows, validation: Rows, heads: ServedHeads | None, recipe: JoinedRecipe) -> list[Trained]:
    """Every seed, the least loss on validation first."""
    found = []
    for seed in range(recipe.first_seed, recipe.first_seed + recipe.seeds):
        one = train_network(rows, validation, heads, recipe, seed)
        name = "B alone" if heads is None else "joined"
        print(f"{name}, seed {seed}: epoch {one.epoch}, loss {one.losses[0]:.4f} to {one.loss:.4f}, {one.validation}")
        found.append(one)
    return sorted(found, key=lambda one: one.loss)
