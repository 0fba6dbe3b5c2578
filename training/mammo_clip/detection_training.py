"""Training of a detector: epochs of batches, average precision on the selection split after each, exact resume.

As published (Adam, no schedule, short gradients, the encoder learns too) or otherwise: a key of the recipe each.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from training.mammo_clip.bookkeeping import Bookkeeping, Pace
from training.mammo_clip.breasts import DataError
from training.mammo_clip.checkpoint import Progress, latest_checkpoint
from training.mammo_clip.detection import Detections, Detector, Outputs, detections
from training.mammo_clip.detection_data import Batch, BoxedImages, PlainItems, TrainingItems, collate
from training.mammo_clip.detection_figures import mean_precision
from training.mammo_clip.detection_losses import detection_losses
from training.mammo_clip.detection_model import (
    build_detector,
    load_encoder,
    said_of_encoder,
    save_detector,
    write_card,
)
from training.mammo_clip.detection_recipe import DetectionOptimisation, DetectionRecipe
from training.mammo_clip.gradients import NotFiniteError, autocast
from training.mammo_clip.importing import WEIGHTS
from training.mammo_clip.processes import Process
from training.mammo_clip.sampling import batches_of
from training.mammo_clip.schedule import rate_factor

COLUMNS = ("step", "epoch", "training_loss", "precision", "learning_rate", "rows_per_second")
"""Of curves.csv; precision: mean average precision on the selection split."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of. `selection` chooses the epoch; `facts` go into its record; `workers` draw items."""

    recipe: DetectionRecipe
    training: BoxedImages
    selection: BoxedImages
    folder: Path
    facts: dict[str, Any]
    process: Process
    workers: int = 0


class DetectorTraining:
    """One run in memory. `go` trains to the end, or from where the last checkpoint stands."""

    def __init__(self, run: Run, encoder: Path | None = None, *, resume: bool = False) -> None:
        self.run, self.recipe, self.device = run, run.recipe, run.process.device
        optimisation = run.recipe.optimisation
        self.precision = optimisation.precision
        self.steps = len(run.training) // optimisation.batch
        if not self.steps:
            raise DataError(f"{len(run.training)} training images are fewer than a batch, {optimisation.batch}")
        pace = Pace(optimisation.epochs, self.steps, optimisation.batch, optimisation.patience, run.recipe.keeping)
        self.books = Bookkeeping(run.folder, pace, run.process, COLUMNS)
        last = latest_checkpoint(run.folder) if resume else None
        self.facts = dict(run.facts)
        detector = build_detector(run.recipe)
        if last is None:
            self.facts |= load_encoder(detector, run.recipe, encoder)
        else:
            self.facts |= said_of_encoder(last)
            detector.load_state_dict(load_file(last / WEIGHTS))
        self.detector: Detector = detector.to(self.device)
        self.detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = optimiser_of(self.detector, optimisation)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        torch.manual_seed(run.recipe.seed)
        if resume:
            self.books.go_on(self.optimiser, self.scaler)

    def go(self) -> Progress:
        """Train until the last epoch, or until the selection split gets no better. Raises NotFiniteError."""
        while not self.books.progress.finished:
            self._epoch()
            self._end_epoch()
        return self.books.progress

    def _epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        self.detector.train()
        progress, size = self.books.progress, self.recipe.optimisation.batch
        rows = batches_of(len(self.run.training), size, self.recipe.seed, progress.epoch)[progress.done :]
        started = time.monotonic()
        loader = self._loader(TrainingItems(self.run.training, self.recipe, progress.epoch), rows)
        for number, batch in enumerate(loader, 1):
            self.books.count(self._step(batch))
            self.books.write_down(self._rate(progress.step - 1), number * size / (time.monotonic() - started))
            if self.books.is_due:
                self._save()

    def _loader(self, items: TrainingItems | PlainItems, rows: list[list[int]]) -> "DataLoader[Any]":
        return DataLoader(
            items,
            batch_sampler=rows,
            num_workers=self.run.workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),
        )

    def _step(self, batch: Batch) -> float:
        """One step of the optimiser; returns the loss. Raises NotFiniteError that names the batch's rows."""
        progress = self.books.progress
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(progress.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(batch.to(self.device))
        if not bool(torch.isfinite(loss)):
            where = f"epoch {progress.epoch + 1}, step {progress.step + 1}"
            raise NotFiniteError(f"{where}: the loss is {loss.item()}; batch of {', '.join(batch.rows)}")
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        if self.recipe.optimisation.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.detector.parameters(), self.recipe.optimisation.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.item()

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self._outputs(batch.images)
        settings = self.recipe.loss
        of_classes, of_boxes = detection_losses(*outputs, batch.targets, settings.matching, settings.focal)
        return of_classes + settings.box_weight * of_boxes

    def _outputs(self, images: Tensor) -> Outputs:
        with autocast(self.precision, self.device):
            outputs: Outputs = self.detector(images.to(next(self.detector.parameters()).dtype))
            return outputs

    def _rate(self, step: int) -> float:
        optimisation = self.recipe.optimisation
        if optimisation.schedule == "constant":
            return optimisation.learning_rate
        warmup, total = round(optimisation.warmup_epochs * self.steps), optimisation.epochs * self.steps
        return optimisation.learning_rate * rate_factor(step, warmup, total)

    def _save(self) -> None:
        self.books.save(self.optimiser, self.scaler, self._save_weights)

    def _save_weights(self, folder: Path) -> None:
        progress = self.books.progress
        best = 1.0 - progress.best_loss if math.isfinite(progress.best_loss) else None
        facts = {**self.facts, "epoch": progress.epoch, "step": progress.step, "best_precision": best}
        save_detector(folder, self.detector, self.recipe, facts)

    def _end_epoch(self) -> None:
        """Measure, keep the best epoch's weights, stop where it gets no better."""
        images, data = self.run.selection, self.recipe.data
        precision = mean_precision(
            self.find(images), images, len(data.classes), self.recipe.optimisation.selection_overlap
        )
        better = self.books.end_epoch(1.0 - precision, self._save_weights)
        progress, split = self.books.progress, data.selection_split
        self.books.curves.add(progress, precision=precision)
        best = ", the best" if better else ""
        print(f"epoch {progress.epoch} {split} precision {precision:.4f}{best}", flush=True)
        kept = f"epoch {progress.best_epoch} of {progress.epoch}, {split} precision {1.0 - progress.best_loss:.4f}"
        write_card(self.run.folder, self.recipe, self.facts, kept)
        self._save()

    def find(self, images: BoxedImages) -> list[Detections]:
        """Boxes in the images of a split as they are, in eval mode."""
        self.detector.eval()
        size = self.recipe.optimisation.batch
        rows = [list(range(first, min(first + size, len(images)))) for first in range(0, len(images), size)]
        found: list[Detections] = []
        with torch.no_grad():
            for batch in self._loader(PlainItems(images, self.recipe.input), rows):
                outputs = self._outputs(batch.to(self.device).images)
                found += detections(outputs, self.recipe.size, self.recipe.reading)
        return found


def optimiser_of(detector: Detector, optimisation: DetectionOptimisation) -> torch.optim.Optimizer:
    """Adam on what learns, as published; AdamW where there is a weight decay."""
    learnt = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    if optimisation.weight_decay:
        return torch.optim.AdamW(learnt, lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay)
    return torch.optim.Adam(learnt, lr=optimisation.learning_rate)
