"""A mapper's folder: weights as safetensors, what belongs to them as JSON, the phrases it knows, all seeds beside it.

FOLDER/mapper.safetensors, mapper.json, phrases.json; seeds/seed-N/ with the first two for each seed;
baselines.safetensors with fixed weights of channels (C, K); recipe.toml, run.json, curves.csv, figures.json, card.md.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from node.mammography.known_phrases import KnownPhrases, known_phrases_json, load_known_phrases
from training.mammo_clip.factor import HeatSettings, PaperMapper, SharedMapper
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.released import CheckpointError, split_state

MAPPER, RECORD, PHRASES, BASELINES = "mapper.safetensors", "mapper.json", "phrases.json", "baselines.safetensors"
FIGURES, SEEDS = "figures.json", "seeds"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedMapper:
    """A mapper in eval mode with its record. `finding_names`: what a paper mapper's heads stand for."""

    mapper: SharedMapper | PaperMapper
    heat: HeatSettings
    record: dict[str, Any]

    @property
    def finding_names(self) -> tuple[str, ...]:
        """In the order of the heads."""
        return tuple(self.record["findings"])


def save_mapper(folder: Path, mapper: nn.Module, heat: HeatSettings, record: Mapping[str, Any]) -> None:
    """Write MAPPER and RECORD."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().cpu().contiguous() for key, value in mapper.state_dict().items()}, folder / MAPPER)
    shape = _shape(mapper)
    (folder / RECORD).write_text(
        json.dumps({**shape, "heat": asdict(heat), **record}, indent=2) + "\n", encoding="utf-8"
    )


def _shape(mapper: nn.Module) -> dict[str, Any]:
    if isinstance(mapper, SharedMapper):
        return {
            "kind": "shared",
            "channels": mapper.channels,
            "embed_dim": mapper.embed_dim,
            "hidden": mapper.hidden,
            "silent": mapper.silent,
        }
    assert isinstance(mapper, PaperMapper)
    last = mapper.pool[0][-1]  # type: ignore[index]
    return {
        "kind": "paper",
        "cells": mapper.cells,
        "embed_dim": int(last.out_features),
        "heads": len(mapper.pool),
        "heads_mixed": mapper.heads_mixed,
    }


def load_any_mapper(folder: Path) -> LoadedMapper:
    """A shared or a paper mapper. Raises CheckpointError that names the folder and the cure."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        mapper: SharedMapper | PaperMapper
        if record["kind"] == "shared":
            shape = (int(record["channels"]), int(record["embed_dim"]), int(record["hidden"]))
            mapper = SharedMapper(*shape, silent=bool(record.get("silent", False)))
        else:
            mapper = PaperMapper(
                int(record["cells"]), int(record["embed_dim"]), int(record["heads"]), heads_mixed=record["heads_mixed"]
            )
        state = split_state(folder / MAPPER, load_file(folder / MAPPER), "", mapper.state_dict())
        mapper.load_state_dict(state)
        heat = HeatSettings(int(record["heat"]["strongest"]), float(record["heat"]["temperature"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: holds no mapper: {type(error).__name__}: {error}; give one that `python -m training factor` "
            "wrote"
        ) from error
    return LoadedMapper(mapper.eval(), heat, record)


def load_mapper(folder: Path) -> tuple[SharedMapper, HeatSettings, dict[str, Any]]:
    """A shared mapper, how its heat is made, and its record. Raises CheckpointError."""
    found = load_any_mapper(folder)
    if not isinstance(found.mapper, SharedMapper):
        raise CheckpointError(f"{folder}: holds the paper's mapper, which takes no other phrase; train a shared one")
    return found.mapper, found.heat, found.record


def check_fits(folder: Path, found: LoadedMapper, model: LoadedModel) -> None:
    """Whether the mapper was trained on this model's weights. Raises CheckpointError."""
    if (wanted := found.record.get("model_weights")) != model.weights_hash:
        raise CheckpointError(
            f"{folder}: was trained on other weights ({str(wanted)[:12]}) than {model.folder} has "
            f"({model.weights_hash[:12]}); give its own --model, or train a mapper for this one"
        )


def save_baselines(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Weights (C, K) by their names: "fixed", "multiple instance, seed 0", ..."""
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / BASELINES)


def load_baselines(folder: Path) -> dict[str, Tensor]:
    """See `save_baselines`; empty where there are none."""
    path = folder / BASELINES
    return dict(load_file(path)) if path.is_file() else {}


def seed_folders(folder: Path) -> dict[int, Path]:
    """The mappers of all seeds, the chosen one too."""
    found = (path.parent for path in (folder / SEEDS).glob(f"seed-*/{RECORD}"))
    return {int(path.name.removeprefix("seed-")): path for path in sorted(found)}


def save_phrases(folder: Path, known: KnownPhrases) -> None:
    """Write PHRASES."""
    (folder / PHRASES).write_text(known_phrases_json(known), encoding="utf-8")


def load_phrases(folder: Path) -> KnownPhrases:
    """Read PHRASES. Raises SettingsError."""
    return load_known_phrases(folder / PHRASES)
