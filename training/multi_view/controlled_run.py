"""Controlled runs from start to table: exams, encoder, tokens, arms. What is done is kept and never done again."""

import json
import shutil
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.run_folder import FACTS, RECIPE, code_version
from training.multi_view.clip import Clip
from training.multi_view.clip_tokenizer import OWN_VOCABULARY, ClipTokenizer, load_clip_tokenizer, packaged_vocabulary
from training.multi_view.controlled_arms import Ground, arm_folder, is_done, run_arm
from training.multi_view.controlled_exams import ExamStore
from training.multi_view.controlled_recipe import ControlledRecipe, load_controlled_recipe
from training.multi_view.controlled_sources import exams_of
from training.multi_view.controlled_table import read_tested, write_table
from training.multi_view.controlled_tokens import Frozen, keep_tokens
from training.multi_view.exam_checkpoint import load_backbone
from training.multi_view.own_vit import OwnEncoder, pooled_side
from training.multi_view.own_vit_training import COLUMNS, ENCODER, OwnTraining, Views

FREE = ("arms", "contrasts", "keeping", "draws", "seeds", "name")
"""Parts of a recipe that may change between two evenings; an arm that is done must stay as it was."""
ARM_SPLITS = ("training", "validation", "test")


@dataclass(frozen=True, slots=True)
class Given:
    """The command line. `only`: arms to run, all if empty; `minutes` 0: no limit."""

    recipe: Path
    data: str
    out: Path
    only: tuple[str, ...] = ()
    minutes: float = 0.0
    clip: Path | None = None
    vocabulary: Path | None = None
    workers: int = 1


class Clock:
    """How much of the time that was given is left."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60.0 * minutes if minutes else float("inf")

    def may_go_on(self) -> bool:
        """Whether another piece may be begun."""
        return time.monotonic() < self.end


def run_all(given: Given) -> str:
    """Do what is left until the time is spent, write the table, say what remains. Raises RecipeError, DataError."""
    recipe = load_controlled_recipe(given.recipe)
    if unknown := sorted(set(given.only) - set(recipe.arms)):
        raise RecipeError(f"--only {unknown[0]}: there is no such arm; there are {', '.join(recipe.arms)}")
    _begin(given, recipe)
    clock = Clock(given.minutes)
    exams = exams_of(given.data, recipe, given.out, clock.may_go_on, given.workers)
    if exams is None:
        return "the time was spent rendering exams; start the same command again to go on"
    ground = _ground(given, recipe, exams, clock)
    if ground is None:
        return "the time was spent on the encoder; start the same command again to go on"
    left = _run_arms(given, ground, clock)
    markdown, record = write_table(given.out, read_tested(given.out, recipe, exams["test"]), _notes(given, recipe))
    told = f"; {left} runs are left, start the same command again to go on" if left else ""
    return f"{markdown}, {record}{told}"


def _begin(given: Given, recipe: ControlledRecipe) -> None:
    """Copy the recipe, or see that it is the one that the folder was begun with."""
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / RECIPE
    if kept.exists():
        old, new = (tomllib.loads(path.read_text(encoding="utf-8")) for path in (kept, given.recipe))
        wrong = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key not in FREE)
        if wrong and not (wrong == ["base"] and _same_arms(given.out, recipe)):
            raise RecipeError(
                f"{given.recipe}: differs in {', '.join(wrong)} from the recipe {kept}; take another --out"
            )
    if not _same_arms(given.out, recipe):
        raise RecipeError(f"{given.recipe}: an arm that is done in {given.out} was changed; give it another name")
    shutil.copyfile(given.recipe, kept)
    facts = {"code": code_version(), "torch": torch.__version__, "data": given.data.partition("=")[0]}
    (given.out / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _same_arms(out: Path, recipe: ControlledRecipe) -> bool:
    done = [(name, seed) for name in recipe.arms for seed in range(recipe.seeds) if is_done(out, name, seed)]
    found = (json.loads((arm_folder(out, n, s) / FACTS).read_text(encoding="utf-8"))["arm"] for n, s in done)
    return all(arm == asdict(recipe.arms[name]) for (name, _), arm in zip(done, found, strict=True))


def _ground(given: Given, recipe: ControlledRecipe, exams: dict[str, ExamStore], clock: Clock) -> Ground | None:
    if recipe.encoder.kind == "own":
        tokenizer = load_clip_tokenizer(OWN_VOCABULARY)
        clips = _own_clips(given, recipe, exams["pretraining"], tokenizer, clock)
    else:
        tokenizer = load_clip_tokenizer(given.vocabulary or packaged_vocabulary())
        clips = _given_clips(given, recipe)
    if clips is None:
        return None
    return Ground(recipe, given.recipe, exams, clips, tokenizer)


def _given_clips(given: Given, recipe: ControlledRecipe) -> dict[int, Clip]:
    if given.clip is None:
        raise RecipeError('encoder.kind is "clip": give its weights by --clip FILE')
    weights = load_backbone(given.clip)
    config, encoder = weights.config, recipe.encoder
    if (config.vision_layers, config.patch) != (encoder.layers, encoder.patch):
        raise RecipeError(
            f"{given.clip}: {config.vision_layers} blocks, patch {config.patch}; the recipe says {encoder.layers} and "
            f"{encoder.patch}"
        )
    clip = Clip(config)
    clip.load_state_dict(weights.state)
    return dict.fromkeys(recipe.sizes, clip.eval())


def _own_clips(
    given: Given, recipe: ControlledRecipe, store: ExamStore, tokenizer: ClipTokenizer, clock: Clock
) -> dict[int, Clip] | None:
    """Pretrained encoders by size: the smallest from nothing, each larger one from the one before."""
    found: dict[int, Clip] = {}
    smaller: OwnEncoder | None = None
    for size in recipe.sizes:
        side = pooled_side(recipe.encoder, size, recipe.sizes[0])
        torch.manual_seed(recipe.seed + size)
        model = OwnEncoder(recipe.encoder, size, side, tokenizer.size)
        if smaller is not None:
            model.begin_from(smaller)
        if not _pretrained(given.out / f"encoder-{size}", recipe, store, model, tokenizer, size, clock):
            return None
        found[size], smaller = model.clip.eval(), model
    return found


def _pretrained(
    folder: Path,
    recipe: ControlledRecipe,
    store: ExamStore,
    model: OwnEncoder,
    tokenizer: ClipTokenizer,
    size: int,
    clock: Clock,
) -> bool:
    """Fill the model with its pretrained weights; false where the time was spent before the end."""
    weights = folder / ENCODER
    if not weights.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "curves.csv").exists():
            (folder / "curves.csv").write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        settings = recipe.pretraining
        views = Views(store, settings, size, recipe.encoder.patch, recipe.seed + size)
        epochs = settings.epochs if size == recipe.sizes[0] else settings.larger_epochs
        training = OwnTraining(folder, views, model, tokenizer, epochs, recipe.keeping)
        if not training.go(clock.may_go_on):
            return False
        model.load_state_dict(load_file(training.books.best_folder / ENCODER))
        loss, figure = training.measured()
        facts = {"size": size, "epochs": training.books.progress.epoch, "loss": loss, "AUC of views": round(figure, 4)}
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        part = weights.with_suffix(".part")
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, part)
        part.replace(weights)
    model.load_state_dict(load_file(weights))
    return True


def _run_arms(given: Given, ground: Ground, clock: Clock) -> int:
    """Runs that are left when the time is spent."""
    recipe, kept = ground.recipe, _Kept(given.out / "tokens", ground, clock)
    wanted = [
        (name, seed)
        for name in recipe.arms
        for seed in range(recipe.seeds)
        if (not given.only or name in given.only) and not is_done(given.out, name, seed)
    ]
    for number, (name, seed) in enumerate(wanted):
        if not clock.may_go_on():
            return len(wanted) - number
        tokens = kept.of(recipe.arms[name].size, joint=recipe.is_joint(recipe.arms[name]))
        if tokens is None:
            return len(wanted) - number
        print(f"arm {name}, seed {seed}, {len(wanted) - number} runs to go", flush=True)
        run_arm(given.out, name, seed, ground, tokens)
    return 0


class _Kept:
    """Tokens by size and by whether views meet from the first block on."""

    def __init__(self, folder: Path, ground: Ground, clock: Clock) -> None:
        self.folder, self.ground, self.clock = folder, ground, clock
        self.found: dict[tuple[int, bool], dict[str, NDArray[np.float16]]] = {}

    def of(self, size: int, *, joint: bool) -> dict[str, NDArray[np.float16]] | None:
        """Those of every split; None where the time was spent before the end."""
        if (size, joint) in self.found:
            return self.found[size, joint]
        recipe = self.ground.recipe
        side = pooled_side(recipe.encoder, size, recipe.sizes[0])
        frozen = Frozen(self.ground.clips[size], recipe.encoder.cached_blocks, side, recipe.encoder.precision)
        made: dict[str, NDArray[np.float16]] = {}
        for split in ARM_SPLITS:
            exams, go_on = self.ground.exams[split], self.clock.may_go_on
            tokens = keep_tokens(self.folder, split, exams, frozen, size, go_on, joint=joint)
            if tokens is None:
                return None
            made[split] = tokens
        self.found[size, joint] = made
        return made


def _notes(given: Given, recipe: ControlledRecipe) -> Sequence[str]:
    """What must be known to read the table."""
    exams, encoder = recipe.exams, recipe.encoder
    told: list[Any] = [
        f"code: {code_version()}",
        f"encoder: {_encoder_words(given, recipe)}; its first {encoder.cached_blocks} of {encoder.layers} blocks have "
        "no adapters and learn nothing",
        f"interval: bootstrap over test exams and {recipe.seeds} seeds together, {recipe.draws} draws; an interval "
        'that holds 0 is "no difference seen"',
    ]
    if given.data.startswith("phantoms"):
        told.append(
            f"phantoms, {exams.training} training, {exams.validation} validation, {exams.test} test exams; drawn by a "
            "program, they stand for no patient"
        )
    return told


def _encoder_words(given: Given, recipe: ControlledRecipe) -> str:
    if recipe.encoder.kind == "clip":
        return f"CLIP {recipe.encoder.variant}, weights {given.clip.name if given.clip else ''}"
    words = []
    for size in recipe.sizes:
        facts = json.loads((given.out / f"encoder-{size}" / FACTS).read_text(encoding="utf-8"))
        words.append(f"{size} px, {facts['epochs']} epochs, AUC of single views {facts['AUC of views']}")
    return f"own, d {recipe.encoder.width}, pretrained on single views ({'; '.join(words)})"
