"""What a run of training writes down, whatever it trains: progress, curves, checkpoints, the best epoch, the end."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training.mammo_clip.checkpoint import (
    Progress,
    TrainingState,
    latest_checkpoint,
    load_state,
    save_checkpoint,
    write_folder,
)
from training.mammo_clip.gradients import random_state, set_random_state
from training.mammo_clip.pretraining_recipe import Keeping
from training.mammo_clip.processes import Process
from training.mammo_clip.run_folder import CURVES, Curves

SaveWeights = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Epochs of `steps` steps of `rows` rows; after `patience` epochs without a better one a run ends, 0: never."""

    epochs: int
    steps: int
    rows: int
    patience: int
    keeping: Keeping


class Bookkeeping:
    """One run's. Only the leading process writes and prints."""

    def __init__(self, folder: Path, pace: Pace, process: Process, columns: tuple[str, ...]) -> None:
        self.folder, self.pace, self.process = folder, pace, process
        self.progress = Progress()
        self.curves = Curves(folder / CURVES, columns)
        self.saved = time.monotonic()

    def go_on(self, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Stand where the last checkpoint stands, random state included; without one, at the beginning."""
        last = latest_checkpoint(self.folder)
        if last is not None:
            state = load_state(last)
            self.progress = state.progress
            optimiser.load_state_dict(state.optimiser)
            scaler.load_state_dict(state.scaler)
            set_random_state(state.random[self.process.rank], self.process.device)
        if self.process.leads:
            self.curves.rewind(self.progress)
            print(f"goes on after epoch {self.progress.epoch}, step {self.progress.step}", flush=True)

    def count(self, loss: float, *, scheduled: bool = True) -> None:
        """One step of the optimiser was done."""
        progress = self.progress
        progress.step, progress.done = progress.step + 1, progress.done + 1
        progress.scheduled += int(scheduled)
        progress.loss_sum, progress.loss_count = progress.loss_sum + loss, progress.loss_count + 1

    def write_down(self, rate: float, rows_per_second: float, **more: float) -> None:
        """A line and a row of the curves, every so many steps; `more` are other columns, told by their last word."""
        progress, pace = self.progress, self.pace
        if progress.step % pace.keeping.log_steps:
            return
        loss = self.process.mean(progress.loss_sum / progress.loss_count)
        progress.loss_sum, progress.loss_count = 0.0, 0
        if not self.process.leads:
            return
        self.curves.add(progress, training_loss=loss, learning_rate=rate, rows_per_second=rows_per_second, **more)
        others = "".join(f"{name.rpartition('_')[2]} {value:.2f} " for name, value in more.items())
        minutes = ((pace.epochs - progress.epoch) * pace.steps - progress.done) * pace.rows / rows_per_second / 60
        print(
            f"epoch {progress.epoch + 1}/{pace.epochs} step {progress.done}/{pace.steps} loss {loss:.4f} "
            f"rate {rate:.2e} {others}{rows_per_second:.1f} rows/s, {minutes:.0f} min left",
            flush=True,
        )

    @property
    def is_due(self) -> bool:
        """A checkpoint is wanted: every so many steps or minutes; the clock is looked at where a line is printed."""
        keeping, step = self.pace.keeping, self.progress.step
        if keeping.checkpoint_steps and step % keeping.checkpoint_steps == 0:
            return True
        if step % keeping.log_steps:
            return False
        late = time.monotonic() - self.saved > keeping.checkpoint_minutes * 60
        return self.process.agree(late and keeping.checkpoint_minutes > 0)

    def save(self, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, save_weights: SaveWeights) -> None:
        """Write a checkpoint, from which `go_on` goes on exactly."""
        random = self.process.all_of(random_state(self.process.device))
        if self.process.leads:
            state = TrainingState(self.progress, optimiser.state_dict(), scaler.state_dict(), random)
            save_checkpoint(self.folder, state, save_weights)
        self.saved = time.monotonic()

    def end_epoch(self, loss: float, save_weights: SaveWeights) -> bool:
        """Count an epoch whose selection gave `loss`, keep its weights if it is the best, say whether it is."""
        progress = self.progress
        progress.epoch, progress.done = progress.epoch + 1, 0
        better = loss < progress.best_loss
        progress.worse_epochs = 0 if better else progress.worse_epochs + 1
        stale = bool(self.pace.patience) and progress.worse_epochs >= self.pace.patience
        progress.finished = progress.epoch >= self.pace.epochs or stale
        if better:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            if self.process.leads:
                self._keep_best(save_weights)
        return better

    def _keep_best(self, save_weights: SaveWeights) -> None:
        write_folder(self.best_folder, save_weights)
        for other in self.folder.glob("best-epoch-*"):
            if other != self.best_folder:
                shutil.rmtree(other)

    @property
    def best_folder(self) -> Path:
        """Where the weights of the best epoch lie."""
        return self.folder / f"best-epoch-{self.progress.best_epoch:02d}"
