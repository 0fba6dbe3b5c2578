"""Linear probes on frozen pooled features, before the projection (protocol of arXiv 2405.12255, corrected).

The encoder is in eval mode, so no running statistics and no dropout change a feature. Weight decay and the epoch are
chosen by the loss on validation rows, never on the rows that are reported. Axes: N rows, C features, K outputs (1 for a
finding, 4 for density), G weight decays tried at once.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.schedule import rate_factor

WEIGHTS, RECORD = "probe.safetensors", "probe.json"
DENSITY = "density"
DENSITIES = 4
PUBLISHED_WEIGHTS = {
    "Mass": 15.573,
    "Suspicious_Calcification": 37.297,
    "Focal_Asymmetry": 74.88,
    "cancer": 46.48,
}
"""Weights of positive rows in the authors' scripts; those of VinDr-Mammo's training rows and RSNA's first fold."""
POSITIVE_WEIGHTS = ("none", "balanced", "published")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a probe is fitted, by AdamW. `weight_decays` are tried beside each other; `positive_weight`: see
    `weight_of_positives`; `schedule` "cosine" is the published one, with one warm-up epoch.
    """

    learning_rate: float
    weight_decays: tuple[float, ...]
    epochs: int
    patience: int
    """Epochs without a better validation loss after which fitting stops; 0: never."""
    rows_at_once: int
    """Rows of a step; 0: all."""
    schedule: str
    positive_weight: str
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """`features` float32 (N, C); `targets` int64 (N): 0 or 1, or a density 0 to 3."""

    features: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear layer on pooled features: `weight` (K, C), `bias` (K), and how it was chosen."""

    weight: Tensor
    bias: Tensor
    weight_decay: float
    epoch: int
    validation_loss: float
    rows: int
    positives: int

    def logits(self, features: Tensor) -> Tensor:
        """(N, C) -> (N, K), float32."""
        return functional.linear(features.float(), self.weight, self.bias)


def fit_head(training: Rows, validation: Rows, outputs: int, settings: Fitting, label: str) -> Head:
    """The best head over weight decays and epochs, by its validation loss. Features are standardised on the training
    rows, and the standardisation is folded into the weights. Raises RecipeError.
    """
    check_fitting(settings)
    mean, deviation = training.features.mean(0), training.features.std(0, correction=0).clamp(min=1e-6)
    trains, validates = (Rows((rows.features - mean) / deviation, rows.targets) for rows in (training, validation))
    weight_of_one = weight_of_positives(settings.positive_weight, training.targets, label) if outputs == 1 else 1.0
    best = _descend(trains, validates, outputs, settings, weight_of_one)
    chosen = int(best.losses.argmin())
    weight = best.weight[chosen].T / deviation
    positives = int((training.targets > 0).sum()) if outputs == 1 else 0
    return Head(
        weight.contiguous(),
        best.bias[chosen] - weight @ mean,
        settings.weight_decays[chosen],
        int(best.epochs[chosen]),
        float(best.losses[chosen]),
        len(training.targets),
        positives,
    )


def check_fitting(settings: Fitting) -> None:
    """Raises RecipeError for a setting that is none."""
    for key, value, known in (
        ("positive_weight", settings.positive_weight, POSITIVE_WEIGHTS),
        ("schedule", settings.schedule, SCHEDULES),
    ):
        if value not in known:
            raise RecipeError(f"fitting: {key} is {value!r}; there are {', '.join(known)}")
    if not settings.weight_decays or min(settings.weight_decays) < 0:
        raise RecipeError("fitting: weight_decays needs one number at least, none below 0")


def weight_of_positives(how: str, targets: Tensor, label: str) -> float:
    """What a positive row counts: 1 ("none"), negatives over positives ("balanced"), or as published."""
    if how == "balanced":
        positives = max(int(targets.sum()), 1)
        return max(1.0, (len(targets) - positives) / positives)
    if how == "published":
        if label not in PUBLISHED_WEIGHTS:
            known = ", ".join(PUBLISHED_WEIGHTS)
            raise RecipeError(f'fitting: positive_weight "published" is known for {known}, not for {label}')
        return PUBLISHED_WEIGHTS[label]
    return 1.0


@dataclass(slots=True, eq=False)
class _Best:
    """Of each weight decay the best epoch so far: `weight` (G, C, K), `bias` (G, K), `losses`, `epochs` (G)."""

    weight: Tensor
    bias: Tensor
    losses: Tensor
    epochs: Tensor

    def keep(self, weight: Tensor, bias: Tensor, losses: Tensor, epoch: int) -> None:
        better = losses < self.losses
        self.weight[better], self.bias[better] = weight[better], bias[better]
        self.losses[better], self.epochs[better] = losses[better], epoch


def _descend(trains: Rows, validates: Rows, outputs: int, settings: Fitting, weight_of_one: float) -> _Best:
    """Heads of all weight decays side by side, each kept at its own best epoch."""
    count, features = trains.features.shape
    groups = len(settings.weight_decays)
    weight = torch.zeros(groups, features, outputs, requires_grad=True)
    bias = torch.zeros(groups, outputs, requires_grad=True)
    decays = torch.tensor(settings.weight_decays)[:, None, None]
    optimiser = torch.optim.AdamW([weight, bias], settings.learning_rate, weight_decay=0.0)
    best = _Best(weight.detach().clone(), bias.detach().clone(), torch.full((groups,), torch.inf), torch.zeros(groups))
    chance = torch.Generator().manual_seed(settings.seed)
    parts = -(-count // (settings.rows_at_once or count))
    for epoch in range(1, settings.epochs + 1):
        for number, rows in enumerate(torch.randperm(count, generator=chance).tensor_split(parts)):
            rate = _rate(settings, (epoch - 1) * parts + number, parts)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad()
            losses = _losses(weight, bias, Rows(trains.features[rows], trains.targets[rows]), weight_of_one)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                weight.mul_(1.0 - rate * decays)
            optimiser.step()
        with torch.no_grad():
            best.keep(weight, bias, _losses(weight, bias, validates, weight_of_one), epoch)
        if settings.patience and epoch - int(best.epochs.max()) >= settings.patience:
            break
    return best


def _rate(settings: Fitting, step: int, steps_an_epoch: int) -> float:
    """The published schedule's first step has rate 0."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * rate_factor(step, steps_an_epoch, settings.epochs * steps_an_epoch)


def _losses(weight: Tensor, bias: Tensor, rows: Rows, weight_of_one: float) -> Tensor:
    """Mean loss of each weight decay's head (G): cross-entropy of one output (binary) or of several."""
    logits = torch.einsum("nc,gck->ngk", rows.features, weight) + bias
    groups, outputs = logits.shape[1:]
    targets = rows.targets[:, None].expand(-1, groups)
    if outputs == 1:
        losses = functional.binary_cross_entropy_with_logits(
            logits[..., 0], targets.float(), pos_weight=torch.tensor(weight_of_one), reduction="none"
        )
    else:
        losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return losses.mean(0)


def sampled_patients(patients: list[str], fraction: float, seed: int) -> frozenset[str]:
    """The patients of a data fraction, drawn as pandas draws a sample; none is split. At least one."""
    names = sorted(set(patients))
    count = max(1, round(fraction * len(names)))
    drawn = np.random.RandomState(seed).choice(len(names), size=count, replace=False)
    return frozenset(names[index] for index in drawn)


def save_probe(folder: Path, heads: Mapping[str, Head], record: dict[str, Any]) -> None:
    """Weights as safetensors, all else as JSON: how each head was chosen, its calibration, the encoder it is for."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for label, head in heads.items():
        tensors[f"{label}.weight"], tensors[f"{label}.bias"] = head.weight.contiguous(), head.bias.contiguous()
    save_file(tensors, folder / WEIGHTS)
    chosen = {
        label: {key: value for key, value in asdict(head).items() if not isinstance(value, Tensor)}
        for label, head in heads.items()
    }
    (folder / RECORD).write_text(json.dumps({"kind": "probe", **record, "heads": chosen}, indent=2) + "\n", "utf-8")


def load_probe(folder: Path) -> tuple[dict[str, Head], dict[str, Any]]:
    """What `save_probe` wrote. Raises CheckpointError."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        heads = {
            label: Head(tensors[f"{label}.weight"], tensors[f"{label}.bias"], **chosen)
            for label, chosen in record["heads"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: holds no probe: {type(error).__name__}: {error}") from error
    return heads, record
