"""Training of the map network: tiles in, dense truth, a moving average of the weights out. Can be resumed exactly."""

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.data import TileBatch, TileSources
from training.efficientnet import freeze_statistics
from training.losses import crop_loss, dense_loss, peak_loss
from training.maps import MapNetwork, normalise, pretrained_maps
from training.recipe import TilesRecipe

CHECKPOINT_SECONDS = 300.0
"""Seconds between checkpoints."""


@dataclass(slots=True, eq=False)
class MapTraining:
    """What a checkpoint holds: network, its moving average, optimiser, step."""

    network: MapNetwork
    average: MapNetwork
    optimiser: torch.optim.AdamW
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])


def start(recipe: TilesRecipe, network: MapNetwork) -> MapTraining:
    """Fresh state of one phase, from a network as it stands."""
    network.trunk.freeze(recipe.frozen_blocks)
    inside = {id(parameter) for parameter in network.trunk.parameters()}
    trunk = [parameter for parameter in network.trunk.parameters() if parameter.requires_grad]
    others = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups = [{"params": trunk, "share": recipe.trunk_rate}, {"params": others, "share": 1.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return MapTraining(network, copy.deepcopy(network).eval(), optimiser)


def fresh_network(seed: int, width: int, padding: str, data: TileSources) -> MapNetwork:
    """A network whose trunk knows ImageNet; its batch statistics are those of tiles, and stand still from here on."""
    torch.manual_seed(seed)
    network: MapNetwork = pretrained_maps(width, padding).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    counts = (0, 8) if data.phantoms is None else (8, 0) if data.crops is None else (4, 4)
    with torch.no_grad():
        network.train()
        for part in network.trunk.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1
        for index in range(40):
            network.trunk.stage_maps(normalise(data.draw(counts, np.random.default_rng((seed, 9, index))).tiles))
    return network


def rate_at(recipe: TilesRecipe, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine to a hundredth."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(recipe.schedule_steps - recipe.warmup_steps, 1)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def batch_loss(network: MapNetwork, batch: TileBatch) -> Tensor:
    """The loss of one batch of tiles."""
    _, maps = network(batch.tiles.to(memory_format=torch.channels_last))
    phantoms = batch.targets.shape[0]
    loss: Tensor = maps.new_zeros(())
    if phantoms:
        loss = 4.0 * dense_loss(maps[:phantoms], batch.targets) + 0.5 * peak_loss(maps[:phantoms], batch.targets)
    if phantoms < maps.shape[0]:
        loss = loss + 0.5 * crop_loss(maps[phantoms:], batch.kinds, batch.malignant)
    return loss


def train_step(training: MapTraining, recipe: TilesRecipe, batch: TileBatch) -> float:
    """One update; returns the loss."""
    for group in training.optimiser.param_groups:
        group["lr"] = rate_at(recipe, training.step) * group["share"]
    training.network.train()
    freeze_statistics(training.network.trunk)
    loss = batch_loss(training.network, batch)
    training.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(training.network.parameters(), 2.0)
    training.optimiser.step()
    training.step += 1
    decay = min(recipe.average_decay, training.step / (training.step + 10.0))
    move_average(training.average, training.network, decay)
    return float(loss.detach())


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move averaged weights and batch statistics towards the network's."""
    own, new = average.state_dict(), network.state_dict()
    for name, value in own.items():
        if value.dtype.is_floating_point:
            value.lerp_(new[name], 1.0 - decay)
        else:
            value.copy_(new[name])


def train_maps(
    training: MapTraining,
    recipe: TilesRecipe,
    data: TileSources,
    checkpoint: Path,
    seed: int,
) -> None:
    """Train to the recipe's last step, with a checkpoint every five minutes. Draws follow seed and step alone."""
    saved, losses = time.monotonic(), []
    while training.step < recipe.steps:
        rng = np.random.default_rng((seed, recipe.crop_tiles, training.step))
        batch = data.draw((recipe.phantom_tiles, recipe.crop_tiles), rng)
        torch.manual_seed(seed * 1_000_003 + training.step)  # the trunk drops branches by chance
        losses.append(train_step(training, recipe, batch))
        if training.step % 20 == 0:
            print(f"step {training.step} loss {np.mean(losses):.4f} {time.monotonic() - saved:.0f} s", flush=True)
            losses.clear()
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.save(checkpoint)
            saved = time.monotonic()
    training.save(checkpoint)
