"""Figures of fine-tuned classifiers, one section for each fraction of the training data, each figure with its unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.figures.report import Measured, Section
from training.mammo_clip.finetuned import load_classifier
from training.mammo_clip.finetuning import Logits, by_target, predict
from training.mammo_clip.finetuning_data import TargetImages, TuningImages
from training.mammo_clip.finetuning_recipe import FinetuningRecipe
from training.mammo_clip.predictions import Prediction, predictions_of
from training.mammo_clip.probing import DENSITY
from training.mammo_clip.unit_figures import Scored, density_measures, finding_measures


@dataclass(frozen=True, slots=True)
class Tuned:
    """One finished run: `share` of the training data, `rows` of them, and the folder of its best epoch."""

    share: float
    rows: int
    best: Path


@dataclass(frozen=True, slots=True)
class TunedFigures:
    """Sections of the report, and the predictions of the run with most data."""

    sections: tuple[Section, ...]
    predictions: tuple[Prediction, ...]


def tuned_figures(
    recipe: FinetuningRecipe, runs: Sequence[Tuned], images: TuningImages, reported: str, device: torch.device
) -> TunedFigures:
    """Figures on the `reported` split. The rows that chose the epoch also calibrate and choose thresholds."""
    sections: list[Section] = []
    predictions: list[Prediction] = []
    most = max(run.share for run in runs)
    for run in runs:
        model = load_classifier(run.best)[0].to(device)
        ours, held_out = (
            _scored(recipe, images.splits[split], predict(model, images.splits[split], recipe, device))
            for split in (reported, recipe.data.selection_split)
        )
        whole = run.share == most and not _is_selected(recipe, reported)
        measures, rows = _measures(recipe, ours, held_out, whole=whole)
        sections.append(_section(recipe, run, reported, measures))
        predictions = rows if run.share == most else predictions
    return TunedFigures(tuple(sections), tuple(predictions))


def _scored(recipe: FinetuningRecipe, images: TargetImages, logits: Logits) -> dict[str, Scored]:
    """Each target's logits beside the images."""
    values = zip(recipe.data.targets, by_target(logits, recipe.data.targets), strict=True)
    return {name: Scored(images.images, value if name == DENSITY else value[:, 0]) for name, value in values}


def _measures(
    recipe: FinetuningRecipe, ours: dict[str, Scored], held_out: dict[str, Scored], *, whole: bool
) -> tuple[list[Measured], list[Prediction]]:
    measures: list[Measured] = []
    predictions: list[Prediction] = []
    for name in recipe.data.targets:
        if name == DENSITY:
            measures += density_measures(ours[name], held_out[name], recipe.units)[0]
            continue
        found, platt = finding_measures(name, ours[name], held_out[name], recipe.units, whole=whole)
        measures += found
        predictions += predictions_of(name, ours[name], platt)
    return measures, predictions


def _is_selected(recipe: FinetuningRecipe, reported: str) -> bool:
    return recipe.data.selection_split == reported


def _section(recipe: FinetuningRecipe, run: Tuned, reported: str, measures: Sequence[Measured]) -> Section:
    share = f"{run.share:.0%} of the training {recipe.data.fraction_of}"
    words = f"Encoder and head trained on {share}: {run.rows} rows. Figures of the {reported} rows."
    if recipe.image.frozen:
        words = f"Head trained on {share}: {run.rows} rows; the encoder is frozen. Figures of the {reported} rows."
    if _is_selected(recipe, reported):
        words += " These rows also chose the epoch, and calibrated: the figures are too good."
    return Section(f"Fine-tuning, {share}", (words,), tuple(measure.as_table() for measure in measures))
