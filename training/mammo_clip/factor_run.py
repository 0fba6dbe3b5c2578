"""One run of FActOR: the frozen encoder's statistics, a mapper for each seed, the choice, figures, folder and card."""

import csv
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node.mammography.known_phrases import KnownPhrases
from node.mammography.regions import HeatGrid
from training.mammo_clip.factor import PaperMapper, SharedMapper, fixed_weights
from training.mammo_clip.factor_card import write_factor_card
from training.mammo_clip.factor_features import Encoded, ViewSet, encode, grid_of, view_set
from training.mammo_clip.factor_figures import HeatSource, Table, ViewHeat, heat_of_maps, locate, pointing
from training.mammo_clip.factor_folder import (
    FIGURES,
    SEEDS,
    save_baselines,
    save_mapper,
    save_phrases,
)
from training.mammo_clip.factor_phrases import (
    PhraseSet,
    SplitPhrases,
    finding_embeddings,
    phrase_set,
    phrase_truth,
    plain_phrase,
    split_phrases,
)
from training.mammo_clip.factor_recipe import FactorRecipe
from training.mammo_clip.factor_thresholds import known_phrases, thresholds_of
from training.mammo_clip.factor_training import (
    MapViews,
    StatisticViews,
    Trained,
    train_paper,
    train_shared,
)
from training.mammo_clip.factor_views import FINDINGS, FactorSets, balanced
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.localising import at_cells, breast_of
from training.mammo_clip.multiple_instance import train_pooling
from training.mammo_clip.open_vocabulary import Asker
from training.mammo_clip.phrase_figures import PhraseFigures, held_out_words
from training.mammo_clip.run_folder import CURVES

CHOSEN = "FActOR"
FIXED = "fixed channel weights"
POOLING = "multiple-instance pooling, seed {}"
CURVE_COLUMNS = ("seed", "epoch", "training_loss", "validation_loss")
_CHUNK = 8


@dataclass(frozen=True, slots=True, eq=False)
class FactorRun:
    """What a run has: recipe, model, decoded views, encoded views, where cells lie."""

    recipe: FactorRecipe
    model: LoadedModel
    training: ViewSet
    validation: ViewSet
    encoded: tuple[Encoded, Encoded]
    """Training and validation; of validation all maps are kept."""
    grid: HeatGrid

    @property
    def names(self) -> tuple[str, ...]:
        """Findings that validation shows, in the order of the finding axis."""
        seen = {one.name for view in self.validation.views for one in view.seen}
        trained = {one.name for view in self.training.views for one in view.seen}
        return tuple(name for name in FINDINGS if name in seen & trained)


def prepare_run(recipe: FactorRecipe, model: LoadedModel, sets: FactorSets, cache: Path) -> FactorRun:
    """Decode and encode: the long part. What lies in `cache` from an earlier run with these weights is taken."""
    for part in model.image_encoder.parameters():
        part.requires_grad_(False)
    model.image_encoder.eval()
    size = (model.input.height, model.input.width)
    training = view_set(balanced(sets.training, recipe.data.normal_views, recipe.first_seed), size, cache)
    validation = view_set(sets.validation, size, cache)
    maps = -1 if recipe.mapper == "paper" else recipe.baselines.views
    first = encode(model, training, cache, maps=maps, coarse=recipe.data.coarse)
    second = encode(model, validation, cache, maps=-1)
    return FactorRun(recipe, model, training, validation, (first, second), grid_of(model))


@dataclass(frozen=True, slots=True, eq=False)
class FactorResult:
    """All seeds, the one that was kept, and what is written beside it."""

    trained: tuple[Trained, ...]
    chosen: Trained
    record: Table
    baselines: dict[str, Tensor]
    known: KnownPhrases
    figures: Table


def run_factor(run: FactorRun) -> FactorResult:
    """Train all seeds, choose one; every figure is told of validation views."""
    started = time.monotonic()
    split = split_phrases(run.recipe.phrases, run.names)
    heads = _heads(run)
    plain = tuple(plain_phrase(name) for name in run.names)
    phrases = phrase_set(run.model, split.training if run.recipe.mapper == "shared" else plain)
    trained = _train(run, phrases, heads)
    sources = [_source(str(one.seed), run, one.mapper, heads) for one in trained]
    found = pointing(_heats(run, sources, lesions=True), run.names, run.grid)
    chosen = max(trained, key=lambda one: (_mean(found[str(one.seed)]), -one.seed))
    baselines = _baselines(run, chosen, heads)
    best = _source(CHOSEN, run, chosen.mapper, heads)
    limits = thresholds_of(_heats(run, [best]), run.names, run.grid, CHOSEN)
    beside = [best, *(HeatSource(name, weights=weights) for name, weights in baselines.items())]
    figures: Table = {
        "unit": "view of validation",
        "views": len(run.validation),
        "seeds": {str(one.seed): _seed_table(one, found[str(one.seed)]) for one in trained},
        "chosen seed": chosen.seed,
        "pointing over seeds": _over_seeds(found, run.names),
        **locate(_heats(run, beside), run.names, run.grid, CHOSEN),
    }
    if isinstance(chosen.mapper, SharedMapper):
        figures["open vocabulary"] = _open_vocabulary(run, chosen.mapper, limits, split)
    figures["seconds"] = round(time.monotonic() - started, 1)
    record = _record(run, chosen, limits, split, len(phrases))
    return FactorResult(tuple(trained), chosen, record, baselines, known_phrases(run.model, phrases, split), figures)


def _heads(run: FactorRun) -> Tensor:
    """(K, D): what a finding is called. The paper's mapper takes the mean of all prompts, as published; the shared one
    its plain name, as anyone would ask.
    """
    if run.recipe.mapper == "paper":
        return finding_embeddings(run.model, run.names)
    return phrase_set(run.model, [plain_phrase(name) for name in run.names]).texts.clone()


def _train(run: FactorRun, phrases: PhraseSet, heads: Tensor) -> list[Trained]:
    seeds = range(run.recipe.first_seed, run.recipe.first_seed + run.recipe.seeds)
    sets = (run.training, run.validation)
    if run.recipe.mapper == "shared":
        views = [
            StatisticViews(encoded.tensor(), phrase_truth(phrases.phrases, one.views), _rows(one))
            for one, encoded in zip(sets, run.encoded, strict=True)
        ]
        return [train_shared(run.recipe, seed, phrases, *views) for seed in seeds]
    plain = [plain_phrase(name) for name in run.names]
    maps = [
        MapViews(encoded.maps_of, phrase_truth(plain, one.views), _rows(one))
        for one, encoded in zip(sets, run.encoded, strict=True)
    ]
    return [train_paper(run.recipe, seed, heads, *maps) for seed in seeds]


def _rows(views: ViewSet) -> tuple[str, ...]:
    return tuple(view.row for view in views.views)


def _source(name: str, run: FactorRun, mapper: torch.nn.Module, heads: Tensor) -> HeatSource:
    assert isinstance(mapper, SharedMapper | PaperMapper)
    return HeatSource(name, mapper, heads, run.recipe.heat)


def _heats(run: FactorRun, sources: Sequence[HeatSource], *, lesions: bool = False) -> Iterator[ViewHeat]:
    """Heat of validation views from the maps that are kept; with `lesions` only of views that show something."""
    numbers = [number for number, view in enumerate(run.validation.views) if view.seen or not lesions]
    for first in range(0, len(numbers), _CHUNK):
        some = numbers[first : first + _CHUNK]
        yield from heat_of_maps(run.validation, some, run.encoded[1].maps_of(some), sources)


def _mean(by_finding: dict[str, float]) -> float:
    return statistics.fmean(by_finding.values()) if by_finding else 0.0


def _seed_table(one: Trained, found: dict[str, float]) -> Table:
    return {
        "best epoch": one.best_epoch,
        "validation loss": round(one.validation_loss, 4),
        "pointing": {name: round(value, 4) for name, value in found.items()},
    }


def _over_seeds(found: dict[str, dict[str, float]], names: Sequence[str]) -> Table:
    """Mean and range."""
    table = {}
    for name in names:
        values = [by[name] for by in found.values() if name in by]
        table[name] = {
            "mean": round(statistics.fmean(values), 4),
            "least": round(min(values), 4),
            "most": round(max(values), 4),
        }
    return table


def _baselines(run: FactorRun, chosen: Trained, heads: Tensor) -> dict[str, Tensor]:
    """Fixed weights of the chosen mapper, and pooling on the same maps, (C, K) each."""
    plain = [plain_phrase(name) for name in run.names]
    present = phrase_truth(plain, run.training.views).present
    found = {FIXED: _fixed(run, chosen, heads, present)}
    settings, encoded = run.recipe.baselines, run.encoded[0]
    if not settings.views:
        return found
    count, _, *cells = encoded.maps.shape
    planes = [breast_of(run.training.plane(number)) for number in range(count)]
    inside = torch.from_numpy(np.stack([at_cells(plane, run.grid, (cells[0], cells[1])) for plane in planes]))
    for seed in range(settings.seeds):
        weights = train_pooling(encoded.maps_of, inside, present[:count], settings.epochs, seed)
        found[POOLING.format(seed)] = weights
    return found


@torch.no_grad()
def _fixed(run: FactorRun, chosen: Trained, heads: Tensor, present: Tensor) -> Tensor:
    """Mean cosine over training views with the finding less that over those without."""
    mapper, encoded = chosen.mapper, run.encoded[0]
    if isinstance(mapper, SharedMapper):
        parts = [mapper.vectors(some) @ heads.T for some in torch.split(encoded.tensor(), 64)]
    else:
        parts = [mapper(encoded.maps_of([number]), heads) for number in range(len(run.training))]
    return fixed_weights(torch.cat(parts), present)


def _open_vocabulary(run: FactorRun, mapper: SharedMapper, limits: Any, split: SplitPhrases) -> Table:
    asker = Asker(run.model, run.model, mapper, run.recipe.heat, run.grid, limits)
    figures = PhraseFigures(asker, split, run.grid)
    for number, view in enumerate(run.validation.views):
        figures.add(view, run.validation.plane(number), run.encoded[1].maps_of([number]))
    return figures.as_table()


def _record(run: FactorRun, chosen: Trained, limits: Any, split: SplitPhrases, phrases: int) -> Table:
    return {
        "findings": {
            name: {
                "text": plain_phrase(name).text,
                "presence": limits[name].presence,
                "heat_scale": limits[name].heat_scale,
            }
            for name in run.names
        },
        "model_weights": run.model.weights_hash,
        "stride": list(run.grid.stride),
        "offset": list(run.grid.offset),
        "seed": chosen.seed,
        "epoch": chosen.best_epoch,
        "chosen_by": "pointing on validation views: masks were used for that alone",
        "phrases": phrases,
        "held_out": list(held_out_words(split)),
        "licence": run.model.licence,
    }


def write_result(run: FactorRun, result: FactorResult, out: Path, facts: dict[str, Any]) -> None:
    """Fill a run's folder that was begun."""
    chosen, heat = result.chosen, run.recipe.heat
    save_mapper(out, chosen.mapper, heat, result.record)
    for one in result.trained:
        words = result.record["chosen_by"] if one is chosen else "not chosen"
        seed = {**result.record, "seed": one.seed, "epoch": one.best_epoch, "chosen_by": words}
        save_mapper(out / SEEDS / f"seed-{one.seed}", one.mapper, heat, seed)
    save_baselines(out, result.baselines)
    save_phrases(out, result.known)
    (out / FIGURES).write_text(json.dumps(result.figures, indent=1) + "\n", encoding="utf-8")
    with (out / CURVES).open("a", newline="", encoding="utf-8") as file:
        rows = [(one.seed, *row) for one in result.trained for row in one.curve]
        csv.writer(file).writerows([seed, epoch, f"{loss:.6g}", f"{other:.6g}"] for seed, epoch, loss, other in rows)
    write_factor_card(out, run.recipe, facts, result.figures, run.model.licence)
