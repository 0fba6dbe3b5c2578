"""A recipe: everything that decides the weights, as a TOML file."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TilesRecipe:
    """One phase of training the map network on tiles. Seeds count from the training split's first."""

    first_exam: int
    exams: int
    steps: int
    phantom_tiles: int
    crop_tiles: int
    learning_rate: float
    trunk_rate: float
    weight_decay: float
    warmup_steps: int
    schedule_steps: int
    """Where the learning rate would end; a phase may stop before."""
    average_decay: float
    padding: str
    """Of the trunk, see `training.efficientnet.EfficientNet`."""
    frozen_blocks: int
    """The stem and so many blocks of the trunk do not learn."""


@dataclass(frozen=True, slots=True)
class HeadsRecipe:
    """Training of the exam's heads on summaries of whole exams that the map network has not seen."""

    first_exam: int
    exams: int
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    view_dropout: float


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """Exams of the other splits, from each split's first seed."""

    validation: int
    calibration: int
    test: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run. `seed` decides initial weights and every draw."""

    name: str
    version: str
    seed: int
    width: int
    crops: TilesRecipe
    maps: TilesRecipe
    heads: HeadsRecipe
    splits: SplitSizes


def load_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises ValueError naming a key that is missing or unknown."""
    with path.open("rb") as file:
        table = tomllib.load(file)
    parts = {name: _build(kind, table.pop(name, {}), name) for name, kind in _PARTS.items()}
    recipe: Recipe = _build(Recipe, {**table, **parts}, path.name)
    return recipe


def _build(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    wanted = {field.name for field in fields(kind)}
    if wrong := wanted ^ set(table):
        raise ValueError(f"{where}: missing or unknown keys: {', '.join(sorted(wrong))}")
    return kind(**table)


_PARTS: dict[str, type[Any]] = {"crops": TilesRecipe, "maps": TilesRecipe, "heads": HeadsRecipe, "splits": SplitSizes}
