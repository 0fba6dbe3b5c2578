"""A whole probe: rows read, encoded once, heads fitted for each label and data fraction, calibrated, reported."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.figures.report import Measured, Section
from training.mammo_clip.breasts import DataError
from training.mammo_clip.evaluation_recipe import (
    EvaluationData,
    check_choices,
    check_data,
    known_labels,
    load_rows,
)
from training.mammo_clip.features import Encoding, Features, encode
from training.mammo_clip.labelled import Labelled, LabelledImage
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.predictions import Prediction, predictions_of
from training.mammo_clip.pretraining_recipe import RecipeError, read_recipe
from training.mammo_clip.probing import (
    DENSITIES,
    DENSITY,
    Fitting,
    Head,
    Rows,
    check_fitting,
    fit_head,
    sampled_patients,
    save_probe,
)
from training.mammo_clip.unit_figures import Scored, density_measures, finding_measures

SAMPLED = ("patients", "rows")


@dataclass(frozen=True, slots=True)
class ProbeRecipe:
    """One probe. `labels` are findings, "cancer", "density"; `fractions` of the training data, each with every one of
    `fraction_seeds` (1.0 once); `sampled`: "patients", none of which is split, or "rows", as published. Phantoms to
    train on begin at `phantom_first_training_exam`: the encoder should not have learnt from them.
    """

    name: str
    labels: tuple[str, ...]
    units: tuple[str, ...]
    fractions: tuple[float, ...]
    fraction_seeds: tuple[float, ...]
    sampled: str
    phantom_first_training_exam: int
    data: EvaluationData
    encoding: Encoding
    fitting: Fitting


@dataclass(frozen=True, slots=True, eq=False)
class ProbeResult:
    """What a probe gives: sections of the report, the largest fraction's predictions, and what could not be fitted."""

    sections: tuple[Section, ...]
    predictions: tuple[Prediction, ...]
    problems: tuple[str, ...]
    facts: dict[str, Any]


def load_probe_recipe(path: Path) -> ProbeRecipe:
    """Raises RecipeError naming the file and the key."""
    recipe: ProbeRecipe = read_recipe(ProbeRecipe, path)
    check_data(recipe.data, recipe.units)
    check_choices("sampled", [recipe.sampled], SAMPLED)
    check_fitting(recipe.fitting)
    if not recipe.labels or not recipe.fractions or not recipe.fraction_seeds:
        raise RecipeError(f"{path.name}: labels, fractions and fraction_seeds need one entry at least")
    if wrong := [fraction for fraction in recipe.fractions if not 0.0 < fraction <= 1.0]:
        raise RecipeError(f"{path.name}: fractions holds {wrong[0]}; each lies above 0 and is 1 at most")
    return recipe


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    images: tuple[LabelledImage, ...]
    pooled: torch.Tensor

    def rows(self, label: str, among: frozenset[int] | None = None) -> Rows:
        """Rows that tell the label."""
        targets = [_target(image, label) for image in self.images]
        kept = [row for row, target in enumerate(targets) if target is not None and (among is None or row in among)]
        return Rows(self.pooled[kept], torch.tensor([targets[row] for row in kept], dtype=torch.int64))

    def scored(self, head: Head) -> Scored:
        logits = head.logits(self.pooled).double().numpy()
        return Scored(self.images, logits[:, 0] if logits.shape[1] == 1 else logits)


def _target(image: LabelledImage, label: str) -> int | None:
    value = image.density if label == DENSITY else image.labels.get(label)
    return None if value is None else int(value)


def run_probe(
    recipe: ProbeRecipe, model: LoadedModel, source: str, out: Path, cache: Path, *, reported: str, strict: bool
) -> ProbeResult:
    """Everything but the report's files. `reported` is the split of the figures: "test", or "validation" for a look
    before. Raises TableError, DataError, RecipeError.
    """
    names = tuple(dict.fromkeys(("training", "validation", "calibration", reported)))
    needed = tuple(name for name in names if name != "calibration")
    first = recipe.phantom_first_training_exam
    preset = recipe.encoding.input_of(model).preset
    labelled = load_rows(source, recipe.data, preset, names, strict=strict, needed=needed, first_training_exam=first)
    known_labels(labelled, tuple(label for label in recipe.labels if label != DENSITY))
    features = encode(model, [image.picture for image in labelled.images], cache, recipe.encoding, strict=strict)
    splits = {name: _split(labelled, features, name) for name in names}
    if not splits["calibration"].images:
        splits["calibration"] = splits["validation"]
    sections: list[Section] = []
    predictions: list[Prediction] = []
    problems = [*labelled.problems, *features.problems.values()]
    for fraction, seed in _draws(recipe):
        fitted = _fit_all(recipe, splits["training"], splits["validation"], fraction, seed)
        problems += fitted.problems
        section, calibrations, rows = _report(recipe, fitted.heads, splits, reported, fraction, seed)
        sections.append(section)
        predictions = rows if fraction == max(recipe.fractions) else predictions
        folder = out / f"probe-{round(100 * fraction):03d}-seed-{seed}"
        save_probe(folder, fitted.heads, _record(recipe, model, calibrations, fraction, seed))
    if not any(section.figures for section in sections):
        raise DataError(f"{source}: no head could be fitted: {problems[-1] if problems else 'nothing is labelled'}")
    return ProbeResult(tuple(sections), tuple(predictions), tuple(problems), _facts(labelled, features, splits))


def _split(labelled: Labelled, features: Features, name: str) -> _Split:
    """Rows of one split whose pictures could be read."""
    rows = [row for row, image in enumerate(labelled.images) if image.split == name and row not in features.problems]
    return _Split(tuple(labelled.images[row] for row in rows), features.pooled[rows])


def _draws(recipe: ProbeRecipe) -> list[tuple[float, int]]:
    seeds = [int(seed) for seed in recipe.fraction_seeds]
    return [(fraction, seed) for fraction in recipe.fractions for seed in (seeds if fraction < 1.0 else seeds[:1])]


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    heads: dict[str, Head]
    problems: list[str]


def _fit_all(recipe: ProbeRecipe, training: _Split, validation: _Split, fraction: float, seed: int) -> _Fitted:
    among = _sample(recipe, training, fraction, seed)
    heads, problems = {}, []
    for label in recipe.labels:
        trains, validates = training.rows(label, among), validation.rows(label)
        if min(len(set(rows.targets.tolist())) for rows in (trains, validates)) < 2:
            problems.append(f"{label} at {fraction:.0%} of the data: one class alone in training or validation")
            continue
        heads[label] = fit_head(trains, validates, DENSITIES if label == DENSITY else 1, recipe.fitting, label)
    return _Fitted(heads, problems)


def _sample(recipe: ProbeRecipe, training: _Split, fraction: float, seed: int) -> frozenset[int] | None:
    """Numbers of the rows of a data fraction, None for all."""
    if fraction == 1.0:
        return None
    if recipe.sampled == "rows":
        drawn = sampled_patients([str(row).zfill(9) for row in range(len(training.images))], fraction, seed)
        return frozenset(int(row) for row in drawn)
    patients = sampled_patients([image.patient for image in training.images], fraction, seed)
    return frozenset(row for row, image in enumerate(training.images) if image.patient in patients)


def _report(
    recipe: ProbeRecipe, heads: dict[str, Head], splits: dict[str, _Split], reported: str, fraction: float, seed: int
) -> tuple[Section, dict[str, Any], list[Prediction]]:
    measures: list[Measured] = []
    calibrations: dict[str, Any] = {}
    predictions: list[Prediction] = []
    whole = fraction == max(recipe.fractions)
    for label, head in heads.items():
        ours, held_out = splits[reported].scored(head), splits["calibration"].scored(head)
        if label == DENSITY:
            found, temperature = density_measures(ours, held_out, recipe.units)
            calibrations[label] = {"temperature": temperature}
        else:
            found, platt = finding_measures(label, ours, held_out, recipe.units, whole=whole)
            calibrations[label] = asdict(platt)
            predictions += predictions_of(label, ours, platt)
        measures += found
    share = f"{fraction:.0%} of the training {recipe.sampled}" + ("" if fraction == 1.0 else f", drawn by seed {seed}")
    rows = max((head.rows for head in heads.values()), default=0)
    words = f"Linear probe on frozen pooled features, {share}: {rows} rows. Figures of the {reported} rows."
    return Section(f"Linear probe, {share}", (words,), tuple(m.as_table() for m in measures)), calibrations, predictions


def _record(
    recipe: ProbeRecipe, model: LoadedModel, calibrations: dict[str, Any], fraction: float, seed: int
) -> dict[str, Any]:
    return {
        "recipe": asdict(recipe),
        "encoder": {"kind": model.kind, "weights_hash": model.weights_hash, "licence": model.licence},
        "input": asdict(recipe.encoding.input_of(model)),
        "fraction": fraction,
        "seed": seed,
        "calibration": calibrations,
    }


def _facts(labelled: Labelled, features: Features, splits: dict[str, _Split]) -> dict[str, Any]:
    calibration = "validation" if splits["calibration"] is splits["validation"] else "calibration"
    return {
        "source": labelled.source,
        "rows are": labelled.unit,
        "rows read": ", ".join(f"{name} {len(split.images)}" for name, split in splits.items()),
        "patients": ", ".join(f"{name} {len({i.patient for i in split.images})}" for name, split in splits.items()),
        "calibrated on": f"{calibration} rows",
        "images of one value": int(np.count_nonzero(features.constant.numpy())),
        "images whose rows contradict each other": dict(labelled.contradictory) or "none",
    }
