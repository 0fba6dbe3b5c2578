"""Pretraining: epochs of batches, validation after each, checkpoints from which a killed run goes on exactly.

Optimiser, schedule and order as published (section 3 of arXiv 2405.12255 and its code); what departs from it is a key
of the recipe. Several processes (torchrun) share each batch: the loss compares all of its rows.
"""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from node.mammography.wordpiece import WordPiece
from training.efficientnet import freeze_statistics
from training.mammo_clip.bookkeeping import Bookkeeping, Pace
from training.mammo_clip.breasts import DataError
from training.mammo_clip.building import Given, build_model, load_starting_weights, save_model, tokenizer_of, trunk_of
from training.mammo_clip.checkpoint import Progress, latest_checkpoint
from training.mammo_clip.gradients import PRECISIONS, Learner, NotFiniteError, Towers
from training.mammo_clip.importing import WEIGHTS
from training.mammo_clip.model import MammoClip
from training.mammo_clip.pretraining_data import PretrainingData
from training.mammo_clip.pretraining_recipe import Optimisation, PretrainingRecipe
from training.mammo_clip.processes import Process
from training.mammo_clip.run_folder import COLUMNS, write_card
from training.mammo_clip.sampling import Batch, Collate, TrainingItems, ValidationItems, batches_of
from training.mammo_clip.schedule import rate_factor


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of: `folder` it writes into, `facts` for its card, `workers` that draw items beside it."""

    recipe: PretrainingRecipe
    data: PretrainingData
    folder: Path
    vocabulary: Path
    facts: dict[str, Any]
    process: Process
    workers: int = 0


class Pretraining:
    """One run in memory. `go` trains to the end, or from where the last checkpoint stands."""

    def __init__(self, run: Run, given: Given | None = None, *, resume: bool = False) -> None:
        self.run, self.recipe, self.process = run, run.recipe, run.process
        self.tokenizer: WordPiece = tokenizer_of(run.recipe, run.vocabulary)
        self.sampling = replace(run.recipe.sampling, sentences=run.data.sentences)
        optimisation = run.recipe.optimisation
        self.steps = steps_an_epoch(len(run.data.training), optimisation, run.process.count)
        rows = optimisation.batch * optimisation.accumulate
        pace = Pace(optimisation.epochs, self.steps, rows, optimisation.patience, run.recipe.keeping)
        self.books = Bookkeeping(run.folder, pace, run.process, COLUMNS)
        last = latest_checkpoint(run.folder) if resume else None
        dtype = PRECISIONS[_stored(run.recipe.optimisation.precision)]
        model = build_model(run.recipe, len(self.tokenizer.ids)).to(dtype)
        if last is None:
            load_starting_weights(model, run.recipe, given or Given())
        else:
            _load_weights(model, last)
        self.model = model.to(run.process.device)
        self.learner = self._learner()
        self.optimiser = optimiser_of(self.model, run.recipe.optimisation)
        self.constant: set[str] = set()
        torch.manual_seed(run.recipe.seed + run.process.rank)
        if resume:
            self.books.go_on(self.optimiser, self.learner.scaler)

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self.books.progress

    def go(self) -> Progress:
        """Train until the last epoch, or until validation gets no better. Raises NotFiniteError."""
        while not self.progress.finished:
            self._epoch()
            self._end_epoch()
        return self.progress

    def _learner(self) -> Learner:
        precision = self.recipe.optimisation.precision
        bare = Towers(self.model, self.recipe.image.channels)
        bare.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recipe.keeping.compile:
            bare.compile()
        towers: nn.Module = bare
        if self.process.count > 1:
            on_gpu = self.process.device.type == "cuda"
            towers = DistributedDataParallel(bare, device_ids=[self.process.device.index] if on_gpu else None)
        scaler = torch.amp.GradScaler(self.process.device.type, enabled=precision == "float16")
        return Learner(towers, bare, self.recipe.loss, scaler, precision, self.recipe.optimisation.cached_chunk)

    def _train_mode(self) -> None:
        self.learner.towers.train()
        image, encoder = self.recipe.image, self.model.image_encoder
        if image.frozen_statistics:
            freeze_statistics(encoder)
        elif image.frozen_blocks:
            freeze_statistics(trunk_of(encoder))

    def _epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        self._train_mode()
        accumulate, epoch = self.recipe.optimisation.accumulate, self.progress.epoch
        rows = batches_of(len(self.run.data.training), self.recipe.optimisation.batch, self.recipe.seed, epoch)
        rows = rows[self.progress.done * accumulate : self.steps * accumulate]
        items = TrainingItems(self.run.data.training, self.sampling, epoch)
        started, done = time.monotonic(), 0
        group: list[Batch] = []
        for batch in self._loader(items, rows):
            group.append(batch)
            self._say_constant(batch)
            if len(group) < accumulate:
                continue
            self._step(group)
            done, group = done + 1, []
            self._write_down(done * accumulate * self.recipe.optimisation.batch / (time.monotonic() - started))
            if self.books.is_due:
                self._save()

    def _say_constant(self, batch: Batch) -> None:
        """Rows with an image of one value, each once."""
        for row in set(batch.constant) - self.constant:
            print(f"{row}: an image has one value throughout", flush=True)
            self.constant.add(row)

    def _loader(self, items: TrainingItems | ValidationItems, rows: list[list[int]]) -> "DataLoader[Any]":
        return DataLoader(
            items,
            batch_sampler=[self.process.part(batch) for batch in rows],
            num_workers=self.run.workers,
            collate_fn=Collate(self.tokenizer, self.recipe.text.max_length, self.sampling.phrases),
            generator=torch.Generator().manual_seed(0),
        )

    def _step(self, group: list[Batch]) -> None:
        """One step of the optimiser from one or more batches."""
        set_rate(self.optimiser, self.recipe.optimisation, self.progress.scheduled, self.steps)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for number, batch in enumerate(group):
            total += self._learn(batch, len(group), last=number == len(group) - 1) / len(group)
        scaler = self.learner.scaler
        before = scaler.get_scale()
        scaler.step(self.optimiser)
        scaler.update()
        bound_logit_scale(self.model, self.recipe.loss.maximum_logit_scale)
        taken = scaler.get_scale() >= before
        self.books.count(total, scheduled=taken or self.recipe.optimisation.skipped_steps_count)

    def _learn(self, batch: Batch, of: int, *, last: bool) -> float:
        try:
            return self.learner.learn(self._on_device(batch), share=1.0 / of, last=last)
        except NotFiniteError as error:
            raise NotFiniteError(f"epoch {self.progress.epoch + 1}, step {self.progress.step + 1}: {error}") from error

    def _on_device(self, batch: Batch) -> Batch:
        kept = batch.pinned() if self.process.device.type == "cuda" else batch
        return kept.to(self.process.device, PRECISIONS[_stored(self.recipe.optimisation.precision)])

    def _write_down(self, rows_per_second: float) -> None:
        rate, scale = self.optimiser.param_groups[0]["lr"], self.model.logit_scale.exp().item()
        self.books.write_down(rate, rows_per_second, logit_scale=scale)

    def _save(self) -> None:
        self.books.save(self.optimiser, self.learner.scaler, self._save_weights)

    def _save_weights(self, folder: Path) -> None:
        facts = {**self.run.facts, "epoch": self.progress.epoch, "step": self.progress.step}
        facts["best_validation_loss"] = self.progress.best_loss if math.isfinite(self.progress.best_loss) else None
        save_model(folder, self.model, self.recipe, self.run.vocabulary, facts)

    def _end_epoch(self) -> None:
        """Validate, keep the best epoch's weights, stop where it gets no better."""
        loss = self.validate()
        better = self.books.end_epoch(loss, self._save_weights)
        if self.process.leads:
            self.books.curves.add(self.progress, validation_loss=loss)
            told = f"epoch {self.progress.epoch} validation loss {loss:.4f}"
            print(f"{told}{', the best' if better else ''}", flush=True)
            write_card(self.run.folder, self.recipe, self.run.facts, self.progress)
        self._save()

    def validate(self) -> float:
        """Mean loss over the validation rows, batch by batch, nothing drawn; rows that fill no batch are left out."""
        self.learner.towers.eval()
        count = len(self.run.data.validation)
        size = min(self.recipe.optimisation.batch, count) // self.process.count * self.process.count
        if not size:
            raise DataError(f"{count} validation rows are too few for {self.process.count} processes")
        rows = [list(range(start, start + size)) for start in range(0, count - size + 1, size)]
        items = ValidationItems(self.run.data.validation, self.sampling)
        losses = [self.learner.measure(self._on_device(batch)) for batch in self._loader(items, rows)]
        return self.process.mean(sum(losses) / len(losses))


def _stored(precision: str) -> str:
    """How weights are held: the halves are for arithmetic alone."""
    return precision if precision == "float64" else "float32"


def _load_weights(model: MammoClip, checkpoint: Path) -> None:
    model.load_state_dict(load_file(checkpoint / WEIGHTS))


def steps_an_epoch(rows: int, optimisation: Optimisation, processes: int) -> int:
    """Steps of the optimiser in one epoch. Raises DataError where there are too few rows, or a batch does not part."""
    if optimisation.batch % processes:
        raise DataError(f"a batch of {optimisation.batch} rows does not part into {processes} processes")
    steps = rows // (optimisation.batch * optimisation.accumulate)
    if not steps:
        wanted = optimisation.batch * optimisation.accumulate
        raise DataError(f"{rows} training rows are fewer than one step takes, {wanted}; make the batch smaller")
    return steps


def optimiser_of(model: nn.Module, optimisation: Optimisation) -> torch.optim.AdamW:
    """AdamW with weight decay on every parameter, or on matrices and kernels alone."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in learnt if optimisation.decay == "all" or p.dim() > 1]
    spared = [p for p in learnt if optimisation.decay != "all" and p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": optimisation.weight_decay}]
    groups += [{"params": spared, "weight_decay": 0.0}] if spared else []
    return torch.optim.AdamW(groups, lr=optimisation.learning_rate)


def set_rate(optimiser: torch.optim.Optimizer, optimisation: Optimisation, step: int, steps_an_epoch: int) -> None:
    """The learning rate of a step of the schedule."""
    warmup = round(optimisation.warmup_epochs * steps_an_epoch)
    factor = rate_factor(step, warmup, optimisation.epochs * steps_an_epoch)
    for group in optimiser.param_groups:
        group["lr"] = optimisation.learning_rate * factor


def bound_logit_scale(model: MammoClip, maximum: float | None) -> None:
    """Keep the learnt logit scale where the loss bounds it: beyond, it would get no gradient."""
    if maximum is not None:
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(maximum))
