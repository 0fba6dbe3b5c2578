"""Training of a detector: epochs of batches, average precision on the selection split after each, exact resume.

As published (Adam, no schedule, short gradients, the encoder learns too) or otherwise: a key of the recipe each.
"""

import math
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from training.mammo_clip.breasts import DataError
from training.mammo_clip.checkpoint import (
    Progress,
    TrainingState,
    latest_checkpoint,
    load_state,
    save_checkpoint,
    write_folder,
)
from training.mammo_clip.detection import Detections, Detector, Outputs, detections
from training.mammo_clip.detection_data import Batch, BoxedImages, PlainItems, TrainingItems, collate
from training.mammo_clip.detection_figures import mean_precision
from training.mammo_clip.detection_losses import detection_losses
from training.mammo_clip.detection_model import build_detector, load_encoder, save_detector, write_card
from training.mammo_clip.detection_recipe import DetectionOptimisation, DetectionRecipe
from training.mammo_clip.gradients import PRECISIONS, NotFiniteError, random_state, set_random_state
from training.mammo_clip.importing import WEIGHTS
from training.mammo_clip.run_folder import CURVES, Curves
from training.mammo_clip.sampling import batches_of
from training.mammo_clip.schedule import rate_factor

COLUMNS = ("step", "epoch", "training_loss", "precision", "learning_rate", "images_per_second")
"""Of curves.csv; precision: mean average precision on the selection split."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of. `selection` chooses the epoch; `facts` go into its record; `workers` draw items."""

    recipe: DetectionRecipe
    training: BoxedImages
    selection: BoxedImages
    folder: Path
    facts: dict[str, Any]
    device: torch.device
    workers: int = 0


class DetectorTraining:
    """One run in memory. `go` trains to the end, or from where the last checkpoint stands."""

    def __init__(self, run: Run, encoder: Path | None = None, *, resume: bool = False) -> None:
        self.run, self.recipe = run, run.recipe
        self.precision = run.recipe.optimisation.precision
        self.progress = Progress()
        self.curves = Curves(run.folder / CURVES, COLUMNS)
        self.steps = len(run.training) // run.recipe.optimisation.batch
        if not self.steps:
            raise DataError(
                f"{len(run.training)} training images are fewer than a batch, {run.recipe.optimisation.batch}"
            )
        last = latest_checkpoint(run.folder) if resume else None
        detector = build_detector(run.recipe)
        self.facts = dict(run.facts)
        if last is None:
            self.facts |= load_encoder(detector, run.recipe, encoder)
        else:
            detector.load_state_dict(load_file(last / WEIGHTS))
        self.detector: Detector = detector.to(run.device)
        self.detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = optimiser_of(self.detector, run.recipe.optimisation)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=self.precision == "float16")
        self.saved = time.monotonic()
        torch.manual_seed(run.recipe.seed)
        if last is not None:
            self._restore(last)
        if resume:
            self.curves.rewind(self.progress)
            print(f"goes on after epoch {self.progress.epoch}, step {self.progress.step}", flush=True)

    def go(self) -> Progress:
        """Train until the last epoch, or until the selection split gets no better. Raises NotFiniteError."""
        while not self.progress.finished:
            self._epoch()
            self._end_epoch()
        return self.progress

    def _restore(self, checkpoint: Path) -> None:
        state = load_state(checkpoint)
        self.progress = state.progress
        self.optimiser.load_state_dict(state.optimiser)
        self.scaler.load_state_dict(state.scaler)
        set_random_state(state.random[0], self.run.device)

    def _epoch(self) -> None:
        """The steps of this epoch that are not done yet."""
        self.detector.train()
        epoch = self.progress.epoch
        rows = batches_of(len(self.run.training), self.recipe.optimisation.batch, self.recipe.seed, epoch)
        rows = rows[self.progress.done :]
        loader = self._loader(TrainingItems(self.run.training, self.recipe, epoch), rows)
        started = time.monotonic()
        for number, batch in enumerate(loader, 1):
            self._step(batch)
            self._write_down(number * len(batch.rows) / (time.monotonic() - started))
            self._keep()

    def _loader(self, items: TrainingItems | PlainItems, rows: list[list[int]]) -> "DataLoader[Any]":
        return DataLoader(
            items,
            batch_sampler=rows,
            num_workers=self.run.workers,
            collate_fn=collate,
            pin_memory=self.run.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),
        )

    def _step(self, batch: Batch) -> None:
        """One step of the optimiser. Raises NotFiniteError that names the batch's rows."""
        rate = self._rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(batch.to(self.run.device))
        if not bool(torch.isfinite(loss)):
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.step + 1}"
            raise NotFiniteError(f"{where}: the loss is {loss.item()}; batch of {', '.join(batch.rows)}")
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        if self.recipe.optimisation.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.detector.parameters(), self.recipe.optimisation.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.progress.step += 1
        self.progress.done += 1
        self.progress.loss_sum += loss.item()
        self.progress.loss_count += 1

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self._outputs(batch.images)
        settings = self.recipe.loss
        of_classes, of_boxes = detection_losses(*outputs, batch.targets, settings.matching, settings.focal)
        return of_classes + settings.box_weight * of_boxes

    def _outputs(self, images: Tensor) -> Outputs:
        with autocast(self.precision, self.run.device):
            outputs: Outputs = self.detector(images.to(next(self.detector.parameters()).dtype))
            return outputs

    def _rate(self) -> float:
        optimisation = self.recipe.optimisation
        if optimisation.schedule == "constant":
            return optimisation.learning_rate
        warmup, total = round(optimisation.warmup_epochs * self.steps), optimisation.epochs * self.steps
        return optimisation.learning_rate * rate_factor(self.progress.step, warmup, total)

    def _write_down(self, images_per_second: float) -> None:
        """A line and a row of the curves, every so many steps."""
        progress, epochs = self.progress, self.recipe.optimisation.epochs
        if progress.step % self.recipe.keeping.log_steps:
            return
        loss = progress.loss_sum / progress.loss_count
        progress.loss_sum, progress.loss_count = 0.0, 0
        rate = self.optimiser.param_groups[0]["lr"]
        self.curves.add(progress, training_loss=loss, learning_rate=rate, images_per_second=images_per_second)
        left = (epochs - progress.epoch) * self.steps - progress.done
        minutes = left * self.recipe.optimisation.batch / images_per_second / 60
        print(
            f"epoch {progress.epoch + 1}/{epochs} step {progress.done}/{self.steps} loss {loss:.4f} rate {rate:.2e} "
            f"{images_per_second:.1f} images/s, {minutes:.0f} min left",
            flush=True,
        )

    def _keep(self) -> None:
        """A checkpoint, every so many steps or minutes."""
        keeping, step = self.recipe.keeping, self.progress.step
        wanted = bool(keeping.checkpoint_steps) and step % keeping.checkpoint_steps == 0
        late = bool(keeping.checkpoint_minutes) and time.monotonic() - self.saved > keeping.checkpoint_minutes * 60
        if wanted or late:
            self._save()

    def _save(self) -> None:
        random = [random_state(self.run.device)]
        state = TrainingState(self.progress, self.optimiser.state_dict(), self.scaler.state_dict(), random)
        save_checkpoint(self.run.folder, state, self._save_weights)
        self.saved = time.monotonic()

    def _save_weights(self, folder: Path) -> None:
        best = 1.0 - self.progress.best_loss if math.isfinite(self.progress.best_loss) else None
        facts = {**self.facts, "epoch": self.progress.epoch, "step": self.progress.step, "best_precision": best}
        save_detector(folder, self.detector, self.recipe, facts)

    def _end_epoch(self) -> None:
        """Measure, keep the best epoch's weights, stop where it gets no better."""
        progress, optimisation = self.progress, self.recipe.optimisation
        precision = mean_precision(
            self.find(self.run.selection),
            self.run.selection,
            len(self.recipe.data.classes),
            optimisation.selection_overlap,
        )
        progress.epoch, progress.done = progress.epoch + 1, 0
        better = 1.0 - precision < progress.best_loss
        progress.worse_epochs = 0 if better else progress.worse_epochs + 1
        stale = bool(optimisation.patience) and progress.worse_epochs >= optimisation.patience
        progress.finished = progress.epoch >= optimisation.epochs or stale
        if better:
            progress.best_loss, progress.best_epoch = 1.0 - precision, progress.epoch
        self.curves.add(progress, precision=precision)
        which = self.recipe.data.selection_split
        print(f"epoch {progress.epoch} {which} precision {precision:.4f}{', the best' if better else ''}", flush=True)
        if better:
            self._keep_best()
        kept = f"epoch {progress.best_epoch} of {progress.epoch}, {which} precision {1.0 - progress.best_loss:.4f}"
        write_card(self.run.folder, self.recipe, self.facts, kept)
        self._save()

    def _keep_best(self) -> None:
        best = best_folder(self.run.folder, self.progress)
        write_folder(best, self._save_weights)
        for other in self.run.folder.glob("best-epoch-*"):
            if other != best:
                shutil.rmtree(other)

    def find(self, images: BoxedImages) -> list[Detections]:
        """Boxes in the images of a split as they are, in eval mode."""
        self.detector.eval()
        size = self.recipe.optimisation.batch
        rows = [list(range(first, min(first + size, len(images)))) for first in range(0, len(images), size)]
        found: list[Detections] = []
        with torch.no_grad():
            for batch in self._loader(PlainItems(images, self.recipe.input), rows):
                outputs = self._outputs(batch.to(self.run.device).images)
                found += detections(outputs, self.recipe.size, self.recipe.reading)
        return found


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Arithmetic in a half type, where the recipe wants that."""
    if precision in ("bfloat16", "float16"):
        return torch.autocast(device.type, dtype=PRECISIONS[precision])
    return nullcontext()


def best_folder(run: Path, progress: Progress) -> Path:
    """Where the weights of the best epoch lie."""
    return run / f"best-epoch-{progress.best_epoch:02d}"


def optimiser_of(detector: Detector, optimisation: DetectionOptimisation) -> torch.optim.Optimizer:
    """Adam on what learns, as published; AdamW where there is a weight decay."""
    learnt = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    if optimisation.weight_decay:
        return torch.optim.AdamW(learnt, lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay)
    return torch.optim.Adam(learnt, lr=optimisation.learning_rate)
