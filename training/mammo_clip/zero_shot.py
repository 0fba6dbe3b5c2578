"""Classes told by prompts alone: cosine of an image with a negative and a positive phrase, each an ensemble of prompts.

On phantoms, whose training sentences held the classes, this is text-prompted, not zero-shot. It is no basis of a
decision: with the released weights it is near chance (results of arXiv 2405.12255).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.figures.report import Measured, Section
from training.mammo_clip.evaluation_recipe import (
    EvaluationData,
    check_choices,
    check_data,
    known_labels,
    load_rows,
)
from training.mammo_clip.factor import phrase_embedding
from training.mammo_clip.features import Encoding, Features, encode
from training.mammo_clip.labelled import Labelled
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.predictions import Prediction, predictions_of
from training.mammo_clip.pretraining_recipe import RecipeError, read_recipe
from training.mammo_clip.prompts import DENSITY, PUBLISHED, SETS, Prompts, prompts_of
from training.mammo_clip.unit_figures import (
    Scored,
    density_measures,
    finding_measures,
    published_density,
    published_measures,
)

__all__ = ["PUBLISHED", "Prompts", "ZeroShotRecipe", "class_embeddings", "class_probabilities", "run_zero_shot"]

SCORINGS = ("published", "calibrated")
_SENTENCES = 128


@dataclass(frozen=True, slots=True)
class ZeroShotRecipe:
    """One evaluation by prompts. `prompts`: sets of prompts.py; `scorings`: "published", softmax of raw cosines, or
    "calibrated": cosines times the model's scale, calibrated on rows that are not reported.
    """

    name: str
    labels: tuple[str, ...]
    units: tuple[str, ...]
    prompts: tuple[str, ...]
    scorings: tuple[str, ...]
    data: EvaluationData
    encoding: Encoding


@dataclass(frozen=True, slots=True, eq=False)
class ZeroShotResult:
    """Sections of the report, predictions of the calibrated scoring, what was left out, and facts of the data."""

    sections: tuple[Section, ...]
    predictions: tuple[Prediction, ...]
    problems: tuple[str, ...]
    facts: dict[str, Any]


def load_zero_shot_recipe(path: Path) -> ZeroShotRecipe:
    """Raises RecipeError naming the file and the key."""
    recipe: ZeroShotRecipe = read_recipe(ZeroShotRecipe, path)
    check_data(recipe.data, recipe.units)
    check_choices("prompts", recipe.prompts, SETS)
    check_choices("scorings", recipe.scorings, SCORINGS)
    if not recipe.labels or not recipe.prompts or not recipe.scorings:
        raise RecipeError(f"{path.name}: labels, prompts and scorings need one entry at least")
    return recipe


def class_embeddings(embeddings: Sequence[Tensor]) -> Tensor:
    """One unit vector a class (K, D) from the embeddings of its prompts, each (N, D)."""
    return torch.stack([phrase_embedding(prompts) for prompts in embeddings])


def class_probabilities(images: Tensor, classes: Tensor, scale: Tensor | float | None) -> Tensor:
    """Softmax over classes of the cosines times `scale`: unit (B, D) and (K, D) -> (B, K), float32.

    `scale` None is the published scoring, on raw cosines, whose probabilities cluster at 1 / K; the model's own is
    exp(logit scale). For two classes the ranks do not depend on it.
    """
    cosines = images.float() @ classes.float().T
    scaled = cosines if scale is None else cosines * torch.as_tensor(scale, dtype=torch.float32)
    return functional.softmax(scaled, dim=1)


@torch.inference_mode()
def prompt_embeddings(model: LoadedModel, prompts: Prompts) -> Tensor:
    """Unit (K, D): each class's prompts encoded, averaged, normalised. Raises CheckpointError without a text tower."""
    found = []
    for sentences in prompts.classes:
        parts = [sentences[start : start + _SENTENCES] for start in range(0, len(sentences), _SENTENCES)]
        found.append(torch.cat([model.embed_texts(part).cpu() for part in parts]))
    return class_embeddings(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    recipe: ZeroShotRecipe
    model: LoadedModel
    labelled: Labelled
    features: Features
    reported: str

    @property
    def held_out(self) -> str:
        """The split that calibrates."""
        return "calibration" if self.labelled.of("calibration") else "validation"

    def scored(self, split: str, logits: Tensor) -> Scored:
        """The rows of one split whose pictures could be read, with their logits of (N) or (N, K)."""
        images = self.labelled.images
        rows = [row for row, image in enumerate(images) if image.split == split and row not in self.features.problems]
        return Scored(tuple(images[row] for row in rows), logits[rows].double().numpy())


def run_zero_shot(
    recipe: ZeroShotRecipe, model: LoadedModel, source: str, cache: Path, *, reported: str, strict: bool
) -> ZeroShotResult:
    """Everything but the report's files. `reported` is the split of the figures: "test" or "validation". Raises
    TableError, DataError, RecipeError, and CheckpointError for a model without a text tower.
    """
    model.clip()
    splits = tuple(dict.fromkeys(("validation", "calibration", reported)))
    preset = recipe.encoding.input_of(model).preset
    labelled = load_rows(source, recipe.data, preset, splits, strict=strict, needed=(reported,))
    known_labels(labelled, tuple(label for label in recipe.labels if label != DENSITY))
    features = encode(model, [image.picture for image in labelled.images], cache, recipe.encoding, strict=strict)
    run = _Run(recipe, model, labelled, features, reported)
    sections, predictions, problems = [], [], [*labelled.problems, *features.problems.values()]
    for kind in recipe.prompts:
        section, found, missing = _one_set(run, kind)
        sections.append(section)
        predictions += found
        problems += missing
    return ZeroShotResult(tuple(sections), tuple(predictions), tuple(problems), _facts(run))


def _one_set(run: _Run, kind: str) -> tuple[Section, list[Prediction], list[str]]:
    measures: list[Measured] = []
    predictions: list[Prediction] = []
    problems, counts = [], []
    for label in run.recipe.labels:
        prompts = prompts_of(kind, label, sided=not run.model.input.preset.startswith("fit-"))
        if prompts is None:
            problems.append(f"{label}: no prompts in the set {kind}")
            continue
        counts.append(f"{label} {' / '.join(str(len(sentences)) for sentences in prompts.classes)}")
        found, rows = _one_label(run, kind, label, prompts)
        measures += found
        predictions += rows
    words = f"Prompts of a class, in the order of classes: {'; '.join(counts) or 'none'}."
    return Section(f"{_called(run)}, prompts: {kind}", (words, _WARNING), _tables(measures)), predictions, problems


_WARNING = "Prompted classes are no basis of a decision; probes and fine-tuned classifiers are."


def _called(run: _Run) -> str:
    return "Text-prompted" if run.labelled.source == "phantoms" else "Zero-shot"


def _tables(measures: list[Measured]) -> tuple[dict[str, Any], ...]:
    return tuple(measured.as_table() for measured in measures)


def _one_label(run: _Run, kind: str, label: str, prompts: Prompts) -> tuple[list[Measured], list[Prediction]]:
    assert run.features.embeddings is not None
    cosines = run.features.embeddings @ prompt_embeddings(run.model, prompts).T
    measures: list[Measured] = []
    predictions: list[Prediction] = []
    if "published" in run.recipe.scorings:
        raw = functional.softmax(cosines, dim=1)
        measures += _published(run, label, raw)
    if "calibrated" in run.recipe.scorings:
        scale = float(run.model.clip().logit_scale.detach().exp())
        found, rows = _calibrated(run, kind, label, cosines * scale)
        measures += found
        predictions += rows
    return measures, predictions


def _published(run: _Run, label: str, probabilities: Tensor) -> list[Measured]:
    if label == DENSITY:
        return published_density(run.scored(run.reported, probabilities), run.recipe.units)
    return published_measures(label, run.scored(run.reported, probabilities[:, 1]), run.recipe.units)


def _calibrated(run: _Run, kind: str, label: str, scaled: Tensor) -> tuple[list[Measured], list[Prediction]]:
    units = run.recipe.units
    if label == DENSITY:
        ours, others = (run.scored(split, scaled) for split in (run.reported, run.held_out))
        return density_measures(ours, others, units)[0], []
    ours, others = (run.scored(split, scaled[:, 1] - scaled[:, 0]) for split in (run.reported, run.held_out))
    measures, platt = finding_measures(label, ours, others, units, whole=True)
    return measures, predictions_of(f"{label}, {kind}", ours, platt)


def _facts(run: _Run) -> dict[str, Any]:
    held_out = len(run.labelled.of(run.held_out))
    return {
        "source": run.labelled.source,
        "rows are": run.labelled.unit,
        "calibrated on": f"{held_out} {run.held_out} rows" if held_out else "nothing: there are no other rows",
        "logit scale": round(float(run.model.clip().logit_scale.detach().exp()), 3),
        "images of one value": int(np.count_nonzero(run.features.constant.numpy())),
        "images whose rows contradict each other": dict(run.labelled.contradictory) or "none",
        "data": asdict(run.recipe.data),
    }
