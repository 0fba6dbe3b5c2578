"""Training of what is not frozen: adapters, view embeddings. AdamW, a warm-up, a cosine, class-weighted cross-entropy.

Cross-entropy on the softmax of two cosines is binary cross-entropy on their difference, the logit here. The epoch is
chosen by the AUC on validation cases, which are neither trained nor tested on. A run that was cut off goes on exactly.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from training.mammo_clip.augmentation import Augmentation
from training.mammo_clip.bookkeeping import Bookkeeping, Pace
from training.mammo_clip.breasts import DataError
from training.mammo_clip.checkpoint import Progress, latest_checkpoint
from training.mammo_clip.gradients import NotFiniteError, autocast
from training.mammo_clip.pretraining_recipe import Keeping
from training.mammo_clip.processes import Process
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.sampling import batches_of
from training.mammo_clip.schedule import rate_factor
from training.multi_view.case_items import CaseBatch, CaseImages, CaseItems, collate_cases
from training.statistics import auc

COLUMNS = ("step", "epoch", "training_loss", "validation_loss", "validation_auc", "learning_rate", "rows_per_second")
LEARNT = "learnt.safetensors"
"""The trained parameters alone: the frozen ones are the encoder's own file."""
CLASS_WEIGHTS = ("balanced", "none")
Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CaseOptimisation:
    """AdamW over the adapters, mammo-clip.md 10.6. `warmup_share` of all steps rise in a line, the rest fall by cosine.

    `patience`: epochs without a better validation AUC after which it ends, 0: never. `class_weights` "balanced": either
    class counts half. `view_dropout`: chance with which a view that is there is hidden from training.
    """

    learning_rate: float
    weight_decay: float
    epochs: int
    warmup_share: float
    batch: int
    precision: str
    patience: int
    class_weights: str
    view_dropout: float


class CaseSource(Protocol):
    """Cases to learn from: images, or tokens of a frozen encoder."""

    def __len__(self) -> int: ...

    @property
    def malignant(self) -> NDArray[np.bool_]:
        """(N)."""

    def drawn(self, view_dropout: float, seed: int, epoch: int) -> Dataset[CaseBatch]:
        """One epoch's views."""

    def plain(self) -> Dataset[CaseBatch]:
        """The cases as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """Images, augmented when they are drawn."""

    images: CaseImages
    augmentation: Augmentation

    def __len__(self) -> int:
        return len(self.images)

    @property
    def malignant(self) -> NDArray[np.bool_]:
        """The labels."""
        return self.images.malignant

    def drawn(self, view_dropout: float, seed: int, epoch: int) -> Dataset[CaseBatch]:
        """Augmented, views hidden by chance."""
        return CaseItems(self.images, self.augmentation, view_dropout, seed, epoch)

    def plain(self) -> Dataset[CaseBatch]:
        """As they are."""
        return CaseItems(self.images, None, 0.0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class CaseRun:
    """One run: what it learns from, what chooses its epoch, the folder it writes into. `workers` draw items."""

    folder: Path
    training: CaseSource
    validation: CaseSource
    optimisation: CaseOptimisation
    keeping: Keeping
    seed: int
    device: torch.device
    workers: int = 0


class CaseTraining:
    """One run in memory. `go` trains to the end, or from where the last checkpoint stands.

    `model(inputs, present) -> (B)` is the logit of malignancy; what requires no gradient is frozen and not saved.
    """

    def __init__(self, run: CaseRun, model: nn.Module, *, resume: bool = False) -> None:
        self.run, self.model = run, model.to(run.device)
        self.learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimisation = run.optimisation
        self.steps = len(run.training) // optimisation.batch
        if not self.steps:
            raise DataError(
                f"{len(run.training)} training cases are fewer than a batch of {optimisation.batch}; make it smaller"
            )
        pace = Pace(optimisation.epochs, self.steps, optimisation.batch, optimisation.patience, run.keeping)
        self.books = Bookkeeping(run.folder, pace, Process(0, 1, True, run.device), COLUMNS)
        self.weights = class_weights(run.training.malignant, optimisation.class_weights).to(run.device)
        self.optimiser = torch.optim.AdamW(decay_groups(self.learnt.values(), optimisation.weight_decay))
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=optimisation.precision == "float16")
        torch.manual_seed(run.seed)
        if resume:
            last = latest_checkpoint(run.folder)
            if last is not None:
                load_learnt(self.model, last)
            self.books.go_on(self.optimiser, self.scaler)

    def go(self) -> Progress:
        """Train until the last epoch, or until validation gets no better. Raises NotFiniteError."""
        while not self.books.progress.finished:
            self._epoch()
            self._end_epoch()
        return self.books.progress

    def _epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        self.model.train()
        run, progress = self.run, self.books.progress
        rows = batches_of(len(run.training), run.optimisation.batch, run.seed, progress.epoch)[progress.done :]
        items = run.training.drawn(run.optimisation.view_dropout, run.seed, progress.epoch)
        started, seen = time.monotonic(), 0
        for batch in loaded(items, rows, run.workers):
            self._step(batch.to(run.device))
            seen += len(batch.rows)
            self.books.write_down(self.optimiser.param_groups[0]["lr"], seen / (time.monotonic() - started))
            if self.books.is_due:
                self._save()

    def _step(self, batch: CaseBatch) -> None:
        optimisation, total = self.run.optimisation, self.run.optimisation.epochs * self.steps
        factor = rate_factor(self.books.progress.scheduled, round(optimisation.warmup_share * total), total)
        for group in self.optimiser.param_groups:
            group["lr"] = optimisation.learning_rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        if not bool(torch.isfinite(loss)):
            where = f"epoch {self.books.progress.epoch + 1}, step {self.books.progress.step + 1}"
            raise NotFiniteError(f"{where}: the loss is {loss.item()}; batch of {', '.join(batch.rows)}")
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        before = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.books.count(loss.item(), scheduled=self.scaler.get_scale() >= before)

    def _loss(self, batch: CaseBatch) -> Tensor:
        with autocast(self.run.optimisation.precision, self.run.device):
            logits = self.model(batch.inputs, batch.present)
        return weighted_loss(logits.float(), batch.malignant, self.weights)

    def _end_epoch(self) -> None:
        """Measure, keep the best epoch's weights, stop where it gets no better."""
        validation = self.run.validation
        logits = predict(self.model, validation, self.run.optimisation, self.run.device, self.run.workers)
        figure = auc(logits, validation.malignant)
        if not np.isfinite(figure):
            raise DataError("the validation cases are of one class; no epoch can be chosen")
        truth = torch.from_numpy(validation.malignant).float()
        loss = weighted_loss(torch.from_numpy(logits).float(), truth, self.weights.cpu()).item()
        better = self.books.end_epoch(1.0 - figure, self._save_weights)
        self.books.curves.add(self.books.progress, validation_loss=loss, validation_auc=figure)
        told = f"epoch {self.books.progress.epoch} validation AUC {figure:.4f}, loss {loss:.4f}"
        print(f"{told}{', the best' if better else ''}", flush=True)
        self._save()

    def _save(self) -> None:
        self.books.save(self.optimiser, self.scaler, self._save_weights)

    def _save_weights(self, folder: Path) -> None:
        save_file({name: p.detach().cpu().contiguous() for name, p in self.learnt.items()}, folder / LEARNT)


def load_learnt(model: nn.Module, folder: Path) -> None:
    """Put saved adapters into a model of the same shape. Raises CheckpointError saying what does not fit."""
    path = folder / LEARNT
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a best-epoch folder that the training wrote")
    saved = load_file(path)
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wrong = sorted(saved.keys() ^ own.keys()) or [n for n, p in own.items() if p.shape != saved[n].shape]
    if wrong:
        raise CheckpointError(f"{path}: fits another model: {wrong[0]} differs; is the recipe the run's own?")
    model.load_state_dict(saved, strict=False)


def decay_groups(parameters: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Decay on matrices alone: norms, biases and embeddings of one row each are spared."""
    learnt = list(parameters)
    if not learnt:
        raise DataError("nothing of the model can be trained; switch an adapter on")
    groups = [
        {"params": [p for p in learnt if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def class_weights(malignant: NDArray[np.bool_], how: str) -> Tensor:
    """What a benign and a malignant case count, (2). Raises DataError where a class is missing."""
    counts = np.bincount(malignant.astype(int), minlength=2)
    if not counts.all():
        raise DataError(f"of the training cases {counts[1]} are malignant and {counts[0]} benign; it takes both")
    return torch.ones(2) if how == "none" else torch.tensor(counts.sum() / (2.0 * counts), dtype=torch.float32)


def weighted_loss(logits: Tensor, malignant: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy (B) by class weights (2), over the sum of the weights as `nn.CrossEntropyLoss` does."""
    each = weights[malignant.long()]
    losses = functional.binary_cross_entropy_with_logits(logits, malignant, reduction="none")
    return (losses * each).sum() / each.sum()


def loaded(items: Dataset[CaseBatch], rows: Sequence[Sequence[int]], workers: int = 0) -> "DataLoader[Any]":
    """Batches of these rows, in order."""
    return DataLoader(
        items,
        batch_sampler=list(map(list, rows)),
        num_workers=workers,
        collate_fn=collate_cases,
        generator=torch.Generator().manual_seed(0),
    )


def predict(
    model: nn.Module, source: CaseSource, optimisation: CaseOptimisation, device: torch.device, workers: int = 0
) -> Logits:
    """Logits (N) of cases as they are, in eval mode."""
    return predict_items(model, source.plain(), len(source), optimisation, device, workers)


@torch.no_grad()
def predict_items(
    model: nn.Module,
    items: Dataset[CaseBatch],
    count: int,
    optimisation: CaseOptimisation,
    device: torch.device,
    workers: int = 0,
) -> Logits:
    """Logits (N) of any items."""
    model.eval()
    size = optimisation.batch
    rows = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
    found = []
    for batch in loaded(items, rows, workers):
        with autocast(optimisation.precision, device):
            found.append(model(batch.inputs.to(device), batch.present.to(device)).double().cpu())
    logits: Logits = torch.cat(found).numpy()
    return logits
