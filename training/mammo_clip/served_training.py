"""Training of the served heads on summaries: probes by ridge-penalised regression, then the comparison of views."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from training.deployment import round_values
from training.mammo_clip.served import head_inputs
from training.mammo_clip.served_heads import HeadInputs, ServedHeads
from training.mammo_clip.served_recipe import HeadsPart, ServedRecipe
from training.mammo_clip.served_summaries import ClipSummaries
from training.phantoms.difficulty import fit_logistic
from training.statistics import auc
from training.train_heads import SWAPPED, draw_present
from training.train_maps import move_average

_AVERAGE_DECAY = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Linear probes of T targets: `weight` (T, C), `bias` (T); `own` (N, 4, T) are the logits of the exams they learnt
    from, each by probes that did not see it; `penalties` and `validation` (AUC) by target.
    """

    weight: Tensor
    bias: Tensor
    own: Tensor
    penalties: tuple[float, ...]
    validation: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHeads:
    """Heads of one seed, and their AUCs on validation by name."""

    seed: int
    heads: ServedHeads
    validation: dict[str, float]


def target_truth(data: ClipSummaries) -> Tensor:
    """Bool (N, 4, T): the view shows the finding; last: its breast is malignant."""
    return torch.cat([data.findings, data.breasts.repeat(1, 2)[:, :, None]], dim=2)


def fit_probes(data: ClipSummaries, validation: ClipSummaries, recipe: HeadsPart) -> Probes:
    """One probe a target on the views' pooled features; the penalty is the one with the best AUC on validation."""
    truth, wanted = target_truth(data), target_truth(validation)
    mean, deviation = data.pooled.mean((0, 1)), data.pooled.std((0, 1)).clamp_min(1e-6)
    rows, others = (((part.pooled - mean) / deviation).double().numpy() for part in (data, validation))
    weights, own, penalties, aucs = [], [], [], []
    for target in range(truth.shape[2]):
        y, asked = truth[..., target].numpy(), wanted[..., target].numpy().ravel()
        fitted = [_fit(rows, y, penalty) for penalty in recipe.penalties]
        reached = [auc(_line(others, weight).ravel(), asked) for weight in fitted]
        best = int(np.nanargmax(reached)) if np.isfinite(reached).any() else len(reached) - 1
        weights.append(fitted[best])
        own.append(_out_of_fold(rows, y, recipe.penalties[best], recipe.folds))
        penalties.append(recipe.penalties[best])
        aucs.append(round(float(reached[best]), 4))
    table = torch.from_numpy(np.stack(weights)).float()
    weight = table[:, :-1] / deviation
    bias = table[:, -1] - weight @ mean
    return Probes(weight, bias, torch.from_numpy(np.stack(own, axis=2)).float(), tuple(penalties), tuple(aucs))


Values = npt.NDArray[np.float64]


def _fit(rows: Values, y: npt.NDArray[np.bool_], penalty: float) -> Values:
    """Views (N, 4, C), truth (N, 4) -> weights and bias (C + 1)."""
    return fit_logistic(rows.reshape(-1, rows.shape[2]), y.ravel().astype(np.float64), penalty)


def _line(rows: Values, weights: Values) -> Values:
    logits: Values = rows @ weights[:-1] + weights[-1]
    return logits


def _out_of_fold(rows: Values, y: npt.NDArray[np.bool_], penalty: float, folds: int) -> Values:
    """Logits (N, 4) of each exam by a probe of the other folds."""
    logits, fold = np.zeros(y.shape), np.arange(len(y)) % folds
    for held in range(folds):
        out = fold == held
        if out.any():
            logits[out] = _line(rows[out], _fit(rows[~out], y[~out], penalty))
    return logits


def train_heads(data: ClipSummaries, probes: Probes, scale: Tensor, recipe: HeadsPart, seed: int) -> ServedHeads:
    """Heads with averaged weights around the probes, which stay as they are. Draws follow the seed alone."""
    torch.manual_seed(seed)
    heads = ServedHeads(data.pooled.shape[2], data.findings.shape[2], recipe.hidden)
    with torch.no_grad():
        heads.probe.weight.copy_(probes.weight)
        heads.probe.bias.copy_(probes.bias)
    heads.probe.requires_grad_(False)
    learnt = [value for value in heads.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    inputs, average = inputs_of(data, heads, scale)._replace(probe=probes.own), copy.deepcopy(heads)
    heads.train()
    for _ in range(recipe.steps):
        rows = torch.randint(len(data.seeds), (recipe.batch,))
        loss = heads_loss(heads, inputs, data, rows, recipe.view_dropout)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        move_average(average, heads, _AVERAGE_DECAY)
    round_values(average)
    return average.eval()


@torch.no_grad()
def inputs_of(data: ClipSummaries, heads: ServedHeads, scale: Tensor) -> HeadInputs:
    """What the heads take of all exams."""
    return head_inputs(data.evidence, heads, scale)


Judging = Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Inputs and present (B, 4) to the logits of exam (B), breasts (B, 2), findings (B, 4, K)."""


def heads_loss(
    heads: Judging, inputs: tuple[Tensor, ...], data: ClipSummaries, rows: Tensor, view_dropout: float
) -> Tensor:
    """Cross-entropies of findings, breasts and exam, with views missing and sides swapped by chance.

    `inputs`: a named tuple as `heads` takes it, of all exams, each with the view axis second.
    """
    order, sides = (list(SWAPPED), [1, 0]) if bool(torch.rand(()) < 0.5) else ([0, 1, 2, 3], [0, 1])
    present = draw_present(len(rows), view_dropout)
    kind: Any = type(inputs)
    logits = heads(kind(*(part[rows][:, order] for part in inputs)), present)
    return judged_loss(logits, (data.findings[rows][:, order], data.breasts[rows][:, sides]), present)


def judged_loss(logits: tuple[Tensor, Tensor, Tensor], truth: tuple[Tensor, Tensor], present: Tensor) -> Tensor:
    """Cross-entropies of exam, breasts and findings against `truth`: findings (B, 4, K), malignant breasts (B, 2); a
    malignant breast without views is none.
    """
    exam, breasts, findings = logits
    seen = present[:, :2] | present[:, 2:]
    malignant = truth[1] & seen
    return (
        _error(findings[present], truth[0][present].float())
        + _error(breasts[seen], malignant[seen].float())
        + _error(exam, malignant.any(1).float())
    )


def _error(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted)


def train_seeds(
    data: ClipSummaries, validation: ClipSummaries, probes: Probes, scale: Tensor, recipe: ServedRecipe
) -> list[TrainedHeads]:
    """Heads of every seed, the best on validation first."""
    found = []
    for seed in range(recipe.first_seed, recipe.first_seed + recipe.seeds):
        heads = train_heads(data, probes, scale, recipe.heads, seed)
        found.append(TrainedHeads(seed, heads, validation_aucs(heads, validation, scale)))
    return sorted(found, key=lambda one: -float(np.nanmean(list(one.validation.values()))))


@torch.inference_mode()
def validation_aucs(heads: ServedHeads, data: ClipSummaries, scale: Tensor) -> dict[str, float]:
    """AUC of the exam, of breasts, and of each finding by view ("finding 0", ...)."""
    present = torch.ones(len(data.seeds), 4, dtype=torch.bool)
    return aucs_of(heads(inputs_of(data, heads, scale), present), data)


def aucs_of(logits: tuple[Tensor, Tensor, Tensor], data: ClipSummaries) -> dict[str, float]:
    """The same of logits of whole exams."""
    exam, breasts, findings = logits
    pairs = {"exam": (exam, data.breasts.any(1)), "breast": (breasts, data.breasts)}
    pairs |= {f"finding {k}": (findings[..., k], data.findings[..., k]) for k in range(findings.shape[2])}
    return {
        name: round(auc(logits.numpy().ravel(), truth.numpy().ravel()), 4) for name, (logits, truth) in pairs.items()
    }
