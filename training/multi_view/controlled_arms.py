"""The arms of controlled runs: each is trained with each seed on kept tokens, tested once, kept as a file of logits.

An arm that is done is never run again; started again, the table goes on where it was cut off.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.mammo_clip.checkpoint import latest_checkpoint
from training.mammo_clip.run_folder import FACTS
from training.multi_view.case_prompts import prompt_ids
from training.multi_view.case_scorer import CaseScorer, learnt_share
from training.multi_view.case_training import COLUMNS, CaseRun, CaseTraining, load_learnt, predict
from training.multi_view.clip import Clip
from training.multi_view.clip_tokenizer import ClipTokenizer
from training.multi_view.controlled_exams import ExamStore
from training.multi_view.controlled_recipe import MISSING, Arm, ControlledRecipe
from training.multi_view.controlled_tokens import TokenSource, left_out, seen_views
from training.multi_view.exam_model import build_exam_clip

RESULT = "logits.npz"
FULL = "as tested"
"""Key of the logits on test exams with the views that the arm sees; beside it those of `MISSING`."""
SEED_STEP = 101
Logits = NDArray[np.float64]
Tokens = Mapping[str, NDArray[np.float16]]
"""By split."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What all arms share: the recipe and its file, exams by split, the encoder by size, the tokenizer."""

    recipe: ControlledRecipe
    file: Path
    exams: Mapping[str, ExamStore]
    clips: Mapping[int, Clip]
    tokenizer: ClipTokenizer


def arm_folder(out: Path, name: str, seed: int) -> Path:
    """Where the run of an arm with a seed lies."""
    return out / "arms" / name / f"seed-{seed}"


def is_done(out: Path, name: str, seed: int) -> bool:
    """Whether its logits are there."""
    return (arm_folder(out, name, seed) / RESULT).exists()


def read_logits(out: Path, name: str, seed: int) -> dict[str, Logits]:
    """Logits of the test exams by what was left out."""
    with np.load(arm_folder(out, name, seed) / RESULT) as file:
        return {key: np.asarray(file[key], np.float64) for key in file.files}


def scorer_of(ground: Ground, arm: Arm, seed: int) -> CaseScorer:
    """The arm's system before training."""
    recipe, clip = ground.recipe, ground.clips[arm.size]
    torch.manual_seed(recipe.seed + SEED_STEP * seed)
    late = recipe.encoder.layers - recipe.encoder.cached_blocks
    state = {name: value.detach().clone() for name, value in clip.state_dict().items()}
    model = build_exam_clip(clip.config, recipe.plan(arm), min(arm.global_blocks, late), 0.0, state)
    prompts, context = recipe.prompts[arm.prompts], clip.config.context
    return CaseScorer(
        model,
        prompt_ids(prompts, ground.tokenizer, context),
        recipe.encoder.cached_blocks,
        frozen_image=arm.adapters in ("text", "none"),
    )


def run_arm(out: Path, name: str, seed: int, ground: Ground, tokens: Tokens) -> None:
    """Train, test, write. An arm without anything to train is tested as it stands."""
    arm, folder, started = ground.recipe.arms[name], arm_folder(out, name, seed), time.monotonic()
    sources = {split: _source(ground, tokens, split, arm) for split in ("training", "validation", "test")}
    model = scorer_of(ground, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    learnt, every = learnt_share(model)
    facts: dict[str, Any] = {"arm": asdict(arm), "learnt parameters": learnt, "parameters": every}
    if model.learns:
        facts |= _trained(folder, ground, sources, model, arm, seed)
    found = _tested(model, sources["test"], ground, arm)
    facts["seconds since it was last started"] = round(time.monotonic() - started)
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    part = folder / f"part-{RESULT}"
    np.savez(part, **found)  # type: ignore[arg-type]
    part.replace(folder / RESULT)


def _source(ground: Ground, tokens: Tokens, split: str, arm: Arm) -> TokenSource:
    store = ground.exams[split]
    return TokenSource(tokens[split], seen_views(store.present, arm.views), store.positive)


def _trained(
    folder: Path, ground: Ground, sources: Mapping[str, TokenSource], model: CaseScorer, arm: Arm, seed: int
) -> dict[str, Any]:
    """Train to the end and take the best epoch's weights."""
    recipe = ground.recipe
    optimisation = replace(recipe.optimisation, view_dropout=arm.view_dropout)
    curves = folder / "curves.csv"
    if not curves.exists():
        curves.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    run = CaseRun(
        folder,
        sources["training"],
        sources["validation"],
        optimisation,
        recipe.keeping,
        recipe.seed + SEED_STEP * seed,
        torch.device("cpu"),
    )
    training = CaseTraining(run, model, resume=latest_checkpoint(folder) is not None)
    progress = training.go()
    load_learnt(model, training.books.best_folder)
    return {"best epoch": progress.best_epoch, "validation AUC": round(1.0 - progress.best_loss, 4)}


def _tested(model: CaseScorer, test: TokenSource, ground: Ground, arm: Arm) -> dict[str, Logits]:
    optimisation, device = ground.recipe.optimisation, torch.device("cpu")
    found = {FULL: predict(model, test, optimisation, device)}
    for missing in MISSING if arm.missing else ():
        fewer = TokenSource(test.tokens, left_out(test.seen, missing), test.positive)
        found[missing] = predict(model, fewer, optimisation, device)
    return found
