"""One recipe from start to end: crops, maps, heads. A phase whose file is there is not run again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.cache import PRESET, cached_seeds, render_seeds
from training.crops import list_crops
from training.data import CropTiles, PhantomTiles, TileSources, load_exams
from training.deployment import round_values, served
from training.evaluation import TestSet, answer, crop_figures, dicom_figures, mias_figures, phantom_figures
from training.exam_encoder import FINDINGS, ExamEncoder, ExamHeads
from training.export import contract_of, write_model
from training.finish import (
    best_shift,
    calibration_table,
    head_logits,
    heat_of,
    heat_scales,
    operating_point,
    probability_of,
)
from training.maps import OFFSET, STRIDE, MapNetwork
from training.phantoms import CALIBRATION_SEED, GENERATOR_VERSION, TEST_SEED, TRAIN_SEED, VALIDATION_SEED
from training.recipe import Recipe, TilesRecipe
from training.served_model import ServedModel, read_contract
from training.summaries import ExamSummaries, summarise_exams
from training.train_heads import train_heads
from training.train_maps import fresh_network, start, train_maps

PHASES = ("crops", "maps", "heads")


EVALUATED_PARTS = ("phantoms", "crops", "mias", "dicom")
"""Test phantoms, held-out crops, half of mini-MIAS, test phantoms through full-size DICOM."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What to evaluate on: which parts, phantom exams, those that go through DICOM, and the folder of mini-MIAS."""

    parts: tuple[str, ...]
    exams: int
    dicom_exams: int
    mias: Path


def train(recipe: Recipe, cache: Path, crops: Path, out: Path, until: str = "heads") -> None:
    """Run the phases up to `until`; an unfinished one continues at its last checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    wanted = PHASES[: PHASES.index(until) + 1]
    if "crops" in wanted and not finished(out, "crops"):
        sources = tile_sources(recipe.crops, cache, crops)
        run_tiles(
            "crops",
            recipe.crops,
            fresh_network(recipe.seed, recipe.width, recipe.crops.padding, sources),
            sources,
            out,
            recipe.seed,
        )
    if "maps" in wanted and not finished(out, "maps"):
        sources = tile_sources(recipe.maps, cache, crops)
        run_tiles(
            "maps", recipe.maps, load_maps(out, "crops", recipe.width, recipe.maps.padding), sources, out, recipe.seed
        )
    if "heads" in wanted and not finished(out, "heads"):
        network = served_maps(recipe, out)
        first = TRAIN_SEED + recipe.heads.first_exam
        data = summaries(network, cache, out / "heads.summaries", (first, recipe.heads.exams))
        torch.save(train_heads(data, recipe.heads, recipe.width, recipe.seed).state_dict(), out / "heads.pt")


def summaries(network: MapNetwork, cache: Path, path: Path, seeds: tuple[int, int]) -> ExamSummaries:
    """Summaries of the exams first, first + 1, ..., made once; exams that the cache lacks are rendered first."""
    if not path.exists():
        render_seeds(cache, *seeds)
        summarise_exams(network, cached_seeds(cache, *seeds)).save(path)
    return ExamSummaries.load(path)


def served_maps(recipe: Recipe, out: Path) -> MapNetwork:
    """The trained map network as the exported file computes it."""
    return served(load_maps(out, "maps", recipe.width, recipe.maps.padding))


def assemble(recipe: Recipe, cache: Path, out: Path) -> tuple[ExamEncoder, dict[str, Any]]:
    """The finished network and the parts of its contract that validation and calibration decide."""
    network, heads = served_maps(recipe, out), ExamHeads(recipe.width)
    heads.load_state_dict(torch.load(out / "heads.pt", weights_only=True))
    round_values(heads)
    splits = recipe.splits
    calibration_data = summaries(network, cache, out / "calibration.summaries", (CALIBRATION_SEED, splits.calibration))
    calibration = calibration_table(head_logits(heads, calibration_data), calibration_data)
    seeds = (VALIDATION_SEED, splits.validation)
    data, paths = summaries(network, cache, out / "validation.summaries", seeds), cached_seeds(cache, *seeds)
    shift = best_shift(data, paths)
    scales = heat_scales(data, shift)
    model = ExamEncoder(network, heads)
    model.heat_shift.fill_(shift)
    model.heat_scale.copy_(torch.tensor(scales))
    round_values(model)
    heat, logits, points = heat_of(data, shift, model.heat_scale.tolist()), head_logits(heads, data), {}
    for kind, name in enumerate(FINDINGS):
        probabilities = probability_of(logits.findings[:, :, kind], calibration[f"finding_logits.{name}"])
        points[name] = operating_point(kind, probabilities, data, heat[:, :, kind], paths).as_table()
    figures = {"embed_dim": heads.embed.out_features, "calibration": calibration, "operating_points": points}
    return model, figures


def export(recipe: Recipe, cache: Path, out: Path, folder: Path) -> str:
    """Write the served model; what validation decided goes to `out`/validation.json. Returns the weights' hash."""
    model, figures = assemble(recipe, cache, out)
    (out / "validation.json").write_text(json.dumps({**figures, "heat_shift": model.heat_shift.tolist()}, indent=1))
    wanted = ("probability", "heat")
    figures["operating_points"] = {
        name: {key: point[key] for key in wanted} for name, point in figures["operating_points"].items()
    }
    height, width = (int(part) for part in PRESET.removeprefix("fit-").split("x"))
    cells = (-(-height // STRIDE), -(-width // STRIDE), STRIDE, OFFSET)
    contract = contract_of((recipe.name, recipe.version, PRESET), (height, width), cells, figures)
    return write_model(model, contract, folder)


def evaluate(recipe: Recipe, cache: Path, crops: Path, out: Path, model_path: Path, options: Evaluated) -> None:
    """Figures of an exported model, a file for each part: `out`/figures-PART.json.

    The test sets are meant to be run once a release.
    """
    model, contract = ServedModel(model_path), read_contract(model_path)
    for part in options.parts:
        if part == "phantoms":
            figures = phantom_figures(_answered(model, cache, options.exams), contract)
        elif part == "crops":
            figures = crop_figures(served_maps(recipe, out), list_crops(crops, "test"))
        elif part == "mias":
            figures = mias_figures(model, options.mias, contract["preset"])
        else:
            figures = dicom_figures(model, _answered(model, cache, options.dicom_exams), contract)
        identity = {"weights_hash": contract["weights_hash"], "generator": GENERATOR_VERSION}
        (out / f"figures-{part}.json").write_text(json.dumps({**identity, **figures}, indent=1))


def _answered(model: ServedModel, cache: Path, count: int) -> TestSet:
    """The first test exams with what the model says of them."""
    render_seeds(cache, TEST_SEED, count)
    return answer(model, cached_seeds(cache, TEST_SEED, count))


def finished(out: Path, phase: str) -> bool:
    """Whether a phase has its weights."""
    return (out / f"{phase}.pt").exists()


def tile_sources(recipe: TilesRecipe, cache: Path, crops: Path) -> TileSources:
    """Tiles of one phase; exams that the cache lacks are rendered first."""
    phantoms = None
    if recipe.phantom_tiles:
        first = TRAIN_SEED + recipe.first_exam
        render_seeds(cache, first, recipe.exams)
        phantoms = PhantomTiles(load_exams(cached_seeds(cache, first, recipe.exams)))
    return TileSources(phantoms, CropTiles.load(list_crops(crops, "train")) if recipe.crop_tiles else None)


def run_tiles(phase: str, recipe: TilesRecipe, network: MapNetwork, sources: TileSources, out: Path, seed: int) -> None:
    """Train one phase of the map network and write its averaged weights."""
    training, checkpoint = start(recipe, network), out / f"{phase}.checkpoint"
    if checkpoint.exists():
        training.load(checkpoint)
    train_maps(training, recipe, sources, checkpoint, seed)
    torch.save(training.average.state_dict(), out / f"{phase}.pt")


def load_maps(out: Path, phase: str, width: int, padding: str) -> MapNetwork:
    """The map network as a phase left it."""
    network: MapNetwork = MapNetwork(width, padding).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.load_state_dict(torch.load(out / f"{phase}.pt", map_location="cpu", weights_only=True))
    return network
