"""Cross-validation of System B on cases, and its five models on an external set. A fold that is done is kept."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training.figures.report import Section, write_report
from training.mammo_clip.breasts import DataError
from training.mammo_clip.run_folder import LEFT_OUT, RECIPE, check_same, code_version, facts_of, start_folder
from training.multi_view.case_items import CaseImages, decode_cases
from training.multi_view.case_prompts import CasePrompts, load_prompts, prompt_ids
from training.multi_view.case_scorer import CaseScorer, learnt_share
from training.multi_view.case_testing import external_figures, fit_line
from training.multi_view.case_training import COLUMNS, CaseRun, CaseTraining, ImageSource, load_learnt, predict
from training.multi_view.cases import CaseReading, joined, load_cases
from training.multi_view.cases_recipe import CasesRecipe
from training.multi_view.clip_tokenizer import load_clip_tokenizer, packaged_vocabulary
from training.multi_view.crossval import (
    Judged,
    Parts,
    cross_validation_figures,
    few_shots,
    folds_of,
    judged_of,
    parts_of,
    read_judged,
    together,
    write_judged,
)
from training.multi_view.exam_checkpoint import (
    VOCABULARY_FILE,
    Backbone,
    load_backbone,
    load_exam_clip,
    save_exam_clip,
)
from training.multi_view.exam_model import build_exam_clip

LOGITS, MODEL = "logits.csv", "model"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What stands on the command line, read: the backbone and its vocabulary, the recipe and its file."""

    recipe: CasesRecipe
    file: Path
    backbone: Backbone
    vocabulary: Path
    out: Path
    device: torch.device
    workers: int = 0

    @property
    def prompts(self) -> CasePrompts:
        """By name, or by a file beside the recipe."""
        words = self.recipe.model.prompts
        beside = self.file.parent / words
        return load_prompts(beside if beside.is_file() else words)


def read_backbone(clip: Path, vocabulary: Path | None) -> tuple[Backbone, Path]:
    """Weights, and the vocabulary: the one given, the one beside weights of our own, or open_clip_torch's."""
    own = clip / VOCABULARY_FILE
    return load_backbone(clip), vocabulary or (own if own.is_file() else packaged_vocabulary())


def read_images(
    sources: Sequence[str], reading: CaseReading, cache: Path, threads: int = 1
) -> tuple[CaseImages, list[str]]:
    """Cases of all sources, decoded. Raises TableError, DataError."""
    found = joined([load_cases(source, reading) for source in sources])
    return decode_cases(found, reading.size, cache, threads=threads, strict=reading.strict)


def cross_validate(given: Given, images: CaseImages, problems: list[str]) -> str:
    """Train and test every fold that is not done, then write the report. Raises DataError, RecipeError."""
    sections = []
    for shots in given.recipe.shots:
        for seed in given.recipe.data.draws(shots):
            judged = together([_fold(given, images, problems, shots, seed, fold) for fold in _numbers(given, images)])
            what = f"{shots} shots a class, draw {seed}" if shots else "all cases"
            figures = cross_validation_figures(judged, what)
            sections.append(Section(what, (_words(given, shots),), figures))
            print(f"{what}: mean AUC {figures[0]['value']}, {figures[0]['note']}", flush=True)
    markdown, record = write_report(given.out, f"Cross-validation: {given.recipe.name}", _facts(given), sections)
    (given.out / LEFT_OUT).write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
    return f"{markdown}, {record}"


def _numbers(given: Given, images: CaseImages) -> range:
    return range(len(folds_of(images, given.recipe.data.folds, given.recipe.seed)))


def fold_folder(out: Path, shots: int, seed: int, fold: int) -> Path:
    """Where one fold's run lies."""
    return out / (f"shots-{shots:03d}" if shots else "all") / f"draw-{seed}" / f"fold-{fold}"


def _fold(given: Given, images: CaseImages, problems: list[str], shots: int, seed: int, fold: int) -> Judged:
    """The test rows of one fold, judged by its model, now or before."""
    recipe, folder = given.recipe, fold_folder(given.out, shots, seed, fold)
    folds = folds_of(images, recipe.data.folds, recipe.seed)
    parts = parts_of(images, folds, fold, recipe.data.validation_share, recipe.seed)
    parts = replace(parts, training=few_shots(images, parts.training, shots, recipe.seed + seed))
    facts = facts_of(_data_facts(images, parts), None, 1, given.device)
    if (folder / RECIPE).exists():
        check_same(folder, given.file, facts)
        if (folder / LOGITS).exists():
            return read_judged(folder / LOGITS)
    else:
        start_folder(folder, given.file, facts, problems, COLUMNS)
    judged = _trained(given, images, parts, folder, fold, recipe.seed + seed)
    write_judged(folder / LOGITS, judged)
    return judged


def _trained(given: Given, images: CaseImages, parts: Parts, folder: Path, fold: int, seed: int) -> Judged:
    recipe = given.recipe
    model = _scorer(given, seed + fold)
    learnt, every = learnt_share(model)
    print(f"{folder}: {len(parts.training)} cases train {learnt:,} of {every:,} parameters", flush=True)
    sources = [ImageSource(images.only(rows), recipe.augmentation) for rows in (parts.training, parts.validation)]
    run = CaseRun(
        folder,
        sources[0],
        sources[1],
        recipe.optimisation,
        recipe.keeping,
        seed + fold,
        given.device,
        given.workers,
    )
    training = CaseTraining(run, model, resume=any((folder / "checkpoints").glob("step-*")))
    progress = training.go()
    load_learnt(model, training.books.best_folder)
    (folder / MODEL).mkdir(exist_ok=True)
    facts = {"epoch": progress.best_epoch, "validation AUC": round(1.0 - progress.best_loss, 4)}
    plan = recipe.model.plan
    save_exam_clip(folder / MODEL, model.exam, plan, given.backbone, given.prompts, given.vocabulary, facts)
    test = images.only(parts.test)
    source = ImageSource(test, recipe.augmentation)
    return judged_of(test, predict(model, source, recipe.optimisation, given.device, given.workers), fold)


def _scorer(given: Given, seed: int) -> CaseScorer:
    """The model before training. View dropout is the data's, so that a run that goes on hides the same views."""
    torch.manual_seed(seed)
    model, config = given.recipe.model, given.backbone.config
    exam = build_exam_clip(config, model.plan, model.global_blocks, 0.0, given.backbone.state)
    ids = prompt_ids(given.prompts, load_clip_tokenizer(given.vocabulary), config.context)
    return CaseScorer(exam, ids, frozen_image=model.adapters in ("text", "none"))


def _data_facts(images: CaseImages, parts: Parts) -> dict[str, Any]:
    """Counts and a hash of rows and labels, by which a run that goes on knows its data again."""
    digest = hashlib.sha256()
    facts: dict[str, Any] = {}
    for words, rows in (("training", parts.training), ("validation", parts.validation), ("test", parts.test)):
        chosen = [images.cases[row] for row in rows]
        for case in chosen:
            digest.update(f"{words} {case.study} {case.malignant}\n".encode())
        facts[f"{words} cases"] = f"{len(chosen)}, {sum(case.malignant for case in chosen)} malignant"
    return {**facts, "hash": digest.hexdigest()[:16]}


def _facts(given: Given) -> dict[str, Any]:
    model = given.recipe.model
    return {
        "model": f"System B on {given.backbone.source}, {model.global_blocks} blocks across views, {model.size} px",
        "code": code_version(),
    }


def _words(given: Given, shots: int) -> str:
    few = f"{shots} cases of either class train; " if shots else ""
    return f"{few}validation cases of each fold chose its epoch and are no part of its test."


def tested_section(given: Given, run: Path, shots: int, images: CaseImages, prevalence: float | None) -> Section:
    """The models of the folds on cases that none of them saw. Raises DataError where there are none."""
    folders = sorted(fold_folder(run, shots, 0, 0).parent.glob(f"fold-*/{LOGITS}"))
    if not folders:
        raise DataError(f"{run}: no fold of a cross-validation is done there; run cases-cross-validate first")
    inside = together([read_judged(path) for path in folders])
    judged = [
        judged_of(images, _predicted(given, path.parent / MODEL, images), number) for number, path in enumerate(folders)
    ]
    what = "External test set"
    words = (
        "The models of the folds, and the mean of their logits. The calibration line was fitted on out-of-fold logits "
        f"of the cross-validation, where {inside.malignant.mean():.3f} of the cases are malignant; here it is "
        f"{images.malignant.mean():.3f}. " + _moved_words(prevalence)
    )
    return Section(what, (words,), external_figures(judged, fit_line(inside), prevalence))


def _moved_words(prevalence: float | None) -> str:
    if prevalence is None:
        return "No prevalence was given (--prevalence), so the line stays: its probabilities hold for the inside alone."
    return f"The line is moved by the log-odds to a prevalence of {prevalence:g}, given beforehand."


def _predicted(given: Given, folder: Path, images: CaseImages) -> Any:
    loaded = load_exam_clip(folder, given.backbone)
    ids = prompt_ids(loaded.prompts, loaded.tokenizer, loaded.model.clip.config.context)
    model = CaseScorer(loaded.model, ids).to(given.device)
    source = ImageSource(images, given.recipe.augmentation)
    return predict(model, source, given.recipe.optimisation, given.device, given.workers)


def external_test(given: Given, run: Path, shots: int, images: CaseImages, prevalence: float | None) -> Iterator[str]:
    """Write the report, and say it in words."""
    section = tested_section(given, run, shots, images, prevalence)
    markdown, record = write_report(given.out, f"External test: {given.recipe.name}", _facts(given), [section])
    for row in section.figures:
        yield f"{row['what']}: {row['figure']} {row['value']} ({row['low']} to {row['high']}), {row['method']}"
    yield f"{markdown}, {record}"
