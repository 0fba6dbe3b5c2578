"""Where a run stands: weights, optimiser, loss scale, random state and counters, from which it goes on exactly.

A checkpoint is a folder that appears whole, by a rename: RUN/checkpoints/step-00000012 with model.safetensors,
model.json and vocabulary.txt (the weights, also without the rest) and state.pt.
"""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.mammo_clip.gradients import RandomState
from training.mammo_clip.released import CheckpointError

STATE = "state.pt"
_FOLDER = "checkpoints"


@dataclass(slots=True)
class Progress:
    """Counters of a run. `step` counts steps of the optimiser, skipped ones too; `scheduled` those that the schedule
    counts; `done` the steps of the unfinished epoch; the loss is summed up since it was last written down.
    """

    epoch: int = 0
    done: int = 0
    step: int = 0
    scheduled: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    worse_epochs: int = 0
    finished: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """What a checkpoint holds beside the weights; `random` has an entry for each process."""

    progress: Progress
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    random: list[RandomState]


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder that is there whole or not at all; one that is there stays."""
    if folder.exists():
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    fill(part)
    part.replace(folder)


def save_checkpoint(run: Path, state: TrainingState, save_weights: Callable[[Path], None]) -> None:
    """Write a checkpoint, then remove the older ones."""
    folder = run / _FOLDER / f"step-{state.progress.step:08d}{'-end' if not state.progress.done else ''}"

    def fill(part: Path) -> None:
        save_weights(part)
        content = {
            "progress": asdict(state.progress),
            "optimiser": state.optimiser,
            "scaler": state.scaler,
            "random": state.random,
        }
        torch.save(content, part / STATE)

    write_folder(folder, fill)
    for other in _checkpoints(run):
        if other != folder:
            shutil.rmtree(other)


def latest_checkpoint(run: Path) -> Path | None:
    """The last whole checkpoint of a run."""
    return max(_checkpoints(run), default=None)


def _checkpoints(run: Path) -> list[Path]:
    """Of one step the one at the end of its epoch comes last."""
    return sorted(path for path in (run / _FOLDER).glob("step-*") if not path.name.endswith(".part"))


def load_state(folder: Path) -> TrainingState:
    """What `save_checkpoint` wrote beside the weights. Raises CheckpointError."""
    try:
        content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        progress = Progress(**content["progress"])
        return TrainingState(progress, content["optimiser"], content["scaler"], content["random"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder / STATE}: cannot be read: {type(error).__name__}: {error}") from error
