"""Fine-tuning: an image encoder and a linear head learn findings and density of single images.

Optimiser and schedule as published (section 3 of arXiv 2405.12255 and its code): AdamW, a warm-up, cos^2, binary
cross-entropy with a weight of positive rows, cross-entropy for density. What departs from it is a key of the recipe.
Several processes (torchrun) share each batch.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from training.mammo_clip.bookkeeping import Bookkeeping, Pace
from training.mammo_clip.breasts import DataError
from training.mammo_clip.checkpoint import Progress, latest_checkpoint
from training.mammo_clip.finetuned import Classifier, build_classifier, load_start, save_classifier
from training.mammo_clip.finetuning_data import UNKNOWN, Batch, PlainItems, TargetImages, TrainingItems, collate
from training.mammo_clip.finetuning_recipe import FinetuningRecipe
from training.mammo_clip.gradients import NotFiniteError, autocast
from training.mammo_clip.importing import WEIGHTS
from training.mammo_clip.pretrain import optimiser_of, set_rate, steps_an_epoch
from training.mammo_clip.probing import DENSITY, weight_of_positives
from training.mammo_clip.processes import Process
from training.mammo_clip.run_folder import CARD
from training.mammo_clip.sampling import batches_of
from training.mammo_clip.units import grouped, grouped_density
from training.statistics import auc

COLUMNS = ("step", "epoch", "training_loss", "selection_loss", "selection", "learning_rate", "rows_per_second")
"""Of curves.csv; selection: the figure that chooses the epoch, see `selection_figure`."""
Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of. `selection` chooses the epoch; `facts` go into its record; `workers` draw items."""

    recipe: FinetuningRecipe
    training: TargetImages
    selection: TargetImages
    folder: Path
    facts: dict[str, Any]
    process: Process
    workers: int = 0


class FineTuning:
    """One run in memory. `go` trains to the end, or from where the last checkpoint stands."""

    def __init__(self, run: Run, start: Path | None = None, *, resume: bool = False) -> None:
        self.run, self.recipe, self.process = run, run.recipe, run.process
        optimisation = run.recipe.optimisation
        self.steps = steps_an_epoch(len(run.training), optimisation, run.process.count)
        rows = optimisation.batch * optimisation.accumulate
        pace = Pace(optimisation.epochs, self.steps, rows, optimisation.patience, run.recipe.keeping)
        self.books = Bookkeeping(run.folder, pace, run.process, COLUMNS)
        self.loss = TargetLoss(run.recipe, run.training)
        last = latest_checkpoint(run.folder) if resume else None
        model = build_classifier(run.recipe)
        self.facts = dict(run.facts)
        if last is None:
            self.facts |= load_start(model, run.recipe, start)
        else:
            model.load_state_dict(load_file(last / WEIGHTS))
        self.model = model.to(run.process.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = optimiser_of(self.model, optimisation)
        self.scaler = torch.amp.GradScaler(run.process.device.type, enabled=optimisation.precision == "float16")
        torch.manual_seed(run.recipe.seed + run.process.rank)
        if resume:
            self.books.go_on(self.optimiser, self.scaler)
        self.learning = self._wrapped()

    def _wrapped(self) -> nn.Module:
        """The model compiled and shared between processes, where that is wanted."""
        if self.recipe.keeping.compile:
            self.model.compile()
        if self.process.count == 1:
            return self.model
        on_gpu = self.process.device.type == "cuda"
        return DistributedDataParallel(self.model, device_ids=[self.process.device.index] if on_gpu else None)

    def go(self) -> Progress:
        """Train until the last epoch, or until the selection split gets no better. Raises NotFiniteError."""
        while not self.books.progress.finished:
            self._epoch()
            self._end_epoch()
        return self.books.progress

    def _epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        self.model.set_mode(self.recipe)
        optimisation, progress = self.recipe.optimisation, self.books.progress
        rows = batches_of(len(self.run.training), optimisation.batch, self.recipe.seed, progress.epoch)
        rows = rows[progress.done * optimisation.accumulate : self.steps * optimisation.accumulate]
        items = TrainingItems(
            self.run.training, self.recipe.input, self.recipe.augmentation, self.recipe.seed, progress.epoch
        )
        started, seen = time.monotonic(), 0
        group: list[Batch] = []
        for batch in self._loader(items, rows):
            group.append(batch)
            if len(group) < optimisation.accumulate:
                continue
            seen += optimisation.batch * len(group)
            self._step(group)
            group = []
            self.books.write_down(self.optimiser.param_groups[0]["lr"], seen / (time.monotonic() - started))
            if self.books.is_due:
                self._save()

    def _loader(self, items: TrainingItems | PlainItems, rows: list[list[int]]) -> "DataLoader[Any]":
        return DataLoader(
            items,
            batch_sampler=[self.process.part(batch) for batch in rows],
            num_workers=self.run.workers,
            collate_fn=collate,
            pin_memory=self.process.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),
        )

    def _step(self, group: list[Batch]) -> None:
        """One step of the optimiser from one or more batches."""
        set_rate(self.optimiser, self.recipe.optimisation, self.books.progress.scheduled, self.steps)
        self.optimiser.zero_grad(set_to_none=True)
        total = sum(self._learn(batch, len(group), last=batch is group[-1]) for batch in group) / len(group)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        taken = self.scaler.get_scale() >= before
        self.books.count(total, scheduled=taken or self.recipe.optimisation.skipped_steps_count)

    def _learn(self, batch: Batch, of: int, *, last: bool) -> float:
        """Add the gradients of one of `of` batches. Raises NotFiniteError that names the batch's rows."""
        shared = isinstance(self.learning, DistributedDataParallel)
        with self.learning.no_sync() if shared and not last else nullcontext():  # type: ignore[operator]
            logits = logits_of(self.learning, batch, self.recipe, self.process.device)
            loss = self.loss(logits, batch.targets.to(self.process.device))
            if not bool(torch.isfinite(loss)):
                where = f"epoch {self.books.progress.epoch + 1}, step {self.books.progress.step + 1}"
                raise NotFiniteError(f"{where}: the loss is {loss.item()}; batch of {', '.join(batch.rows)}")
            self.scaler.scale(loss / of).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _end_epoch(self) -> None:
        """Measure, keep the best epoch's weights, stop where it gets no better."""
        logits = predict(self.model, self.run.selection, self.recipe, self.process.device, self.run.workers)
        figure = selection_figure(logits, self.run.selection, self.recipe)
        loss = self.loss(torch.from_numpy(logits), self.run.selection.targets).item()
        better = self.books.end_epoch(1.0 - figure, self._save_weights)
        if self.process.leads:
            epoch, split = self.books.progress.epoch, self.recipe.data.selection_split
            self.books.curves.add(self.books.progress, selection_loss=loss, selection=figure)
            told = f"epoch {epoch} {split} {selection_name(self.recipe)} {figure:.4f}, loss {loss:.4f}"
            print(f"{told}{', the best' if better else ''}", flush=True)
            write_card(self.run.folder, self.recipe, self.facts, self.books.progress)
        self._save()

    def _save(self) -> None:
        self.books.save(self.optimiser, self.scaler, self._save_weights)

    def _save_weights(self, folder: Path) -> None:
        progress = self.books.progress
        facts = {**self.facts, "epoch": progress.epoch, "step": progress.step}
        save_classifier(folder, self.model, self.recipe, facts)


def logits_of(model: nn.Module, batch: Batch, recipe: FinetuningRecipe, device: torch.device) -> Tensor:
    """Logits (B, outputs) of a batch, in the recipe's arithmetic."""
    wide = torch.float64 if recipe.optimisation.precision == "float64" else torch.float32
    with autocast(recipe.optimisation.precision, device):
        logits: Tensor = model(batch.to(device, wide).images)
    return logits


def predict(
    model: Classifier, images: TargetImages, recipe: FinetuningRecipe, device: torch.device, workers: int = 0
) -> Logits:
    """Logits (N, outputs) of images as they are, in eval mode."""
    model.eval()
    size = recipe.optimisation.batch
    rows = [list(range(first, min(first + size, len(images)))) for first in range(0, len(images), size)]
    loader: DataLoader[Any] = DataLoader(
        PlainItems(images, recipe.input), batch_sampler=rows, num_workers=workers, collate_fn=collate
    )
    with torch.no_grad():
        found = [logits_of(model, batch, recipe, device).double().cpu() for batch in loader]
    logits: Logits = torch.cat(found).numpy()
    return logits


class TargetLoss:
    """Sum over the targets of the batch's mean loss; what is not known counts 0.

    Positive rows weigh what the recipe says; "balanced" counts the training rows.
    """

    def __init__(self, recipe: FinetuningRecipe, training: TargetImages) -> None:
        self.targets = recipe.data.targets
        self.weights = torch.ones(len(self.targets))
        for column, name in enumerate(self.targets):
            known = training.targets[:, column]
            if name != DENSITY:
                self.weights[column] = weight_of_positives(recipe.positive_weight, known[known != UNKNOWN], name)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, outputs), targets int64 (B, targets)."""
        total = logits.new_zeros(())
        for column, values in enumerate(by_target(logits, self.targets)):
            total = total + self._one(values, targets[:, column], self.weights[column].to(logits))
        return total

    @staticmethod
    def _one(values: Tensor, told: Tensor, weight: Tensor) -> Tensor:
        known = told != UNKNOWN
        if values.shape[1] > 1:
            return functional.cross_entropy(values[known], told[known], reduction="sum") / len(told)
        losses = functional.binary_cross_entropy_with_logits(
            values[known, 0], told[known].to(values.dtype), pos_weight=weight, reduction="sum"
        )
        return losses / len(told)


def by_target(logits: Any, targets: tuple[str, ...]) -> list[Any]:
    """Columns of each target, in the order of the targets: the head has the findings first, then density."""
    findings = [name for name in targets if name != DENSITY]
    return [
        logits[:, len(findings) :] if name == DENSITY else logits[:, findings.index(name) : findings.index(name) + 1]
        for name in targets
    ]


def selection_name(recipe: FinetuningRecipe) -> str:
    """The figure's name."""
    what = "AUC" if DENSITY not in recipe.data.targets else "AUC and balanced accuracy"
    what = "balanced accuracy" if not recipe.findings else what
    return f"{'mean ' if len(recipe.data.targets) > 1 else ''}{what} by {recipe.data.selection_unit}"


def selection_figure(logits: Logits, images: TargetImages, recipe: FinetuningRecipe) -> float:
    """Mean over the targets of the AUC of a finding and the balanced accuracy of density, in the selection's unit."""
    unit, found = recipe.data.selection_unit, []
    for name, values in zip(recipe.data.targets, by_target(logits, recipe.data.targets), strict=True):
        if name == DENSITY:
            units = grouped_density(softmax(values), images.images, unit)
            right = units.values.argmax(1) == units.truth
            found.append(float(np.mean([right[units.truth == told].mean() for told in np.unique(units.truth)])))
        else:
            units = grouped(values[:, 0], images.images, name, unit)
            found.append(float(auc(units.values, units.truth > 0)))
    figure = float(np.mean(found))
    if not np.isfinite(figure):
        raise DataError(f"the {recipe.data.selection_split} rows give no figure by {unit}: a class is missing")
    return figure


def softmax(logits: Logits) -> Logits:
    """Over the last axis."""
    shares: Logits = torch.from_numpy(logits).softmax(-1).numpy()
    return shares


def write_card(folder: Path, recipe: FinetuningRecipe, facts: dict[str, Any], progress: Progress) -> None:
    """The model card of a run: what made the classifier, its one figure, and what it is not."""
    data = "\n".join(f"- {key}: {value}" for key, value in facts["data"].items())
    licence = f"\nLicence of the weights that it began from: {facts['licence']}\n" if "licence" in facts else ""
    split = recipe.data.selection_split
    figure = f"{selection_name(recipe)} on {split} {1.0 - progress.best_loss:.4f}"
    text = f"""# {recipe.name}

A classifier of {", ".join(recipe.data.targets)} in single mammograms: an image encoder with a linear head, after
Mammo-CLIP (arXiv 2405.12255). For research; no medical device. Its logits are not calibrated.

- Image encoder: {recipe.image.encoder}, {recipe.data.height} x {recipe.data.width}, padding {recipe.image.padding},
  begun from weights "{recipe.image.weights}", {_learnt(recipe)}
- Code: {facts["code"]}; torch {facts["torch"]}; {facts["device"]}; {facts["processes"]} processes
- Kept: epoch {progress.best_epoch} of {progress.epoch}, {figure}
{licence}
## Data

{data}

The {split} rows chose the epoch{"." if split == "validation" else ", as published: figures on them are too good."}
Phantom exams are drawn by a program and stand for no patient.
"""
    (folder / CARD).write_text(text, encoding="utf-8")


def _learnt(recipe: FinetuningRecipe) -> str:
    return f"frozen in {recipe.image.frozen_mode} mode" if recipe.image.frozen else "trained"
