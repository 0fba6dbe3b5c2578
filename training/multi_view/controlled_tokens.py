"""Tokens of a frozen encoder's first blocks, computed once and kept as float16 files; arms learn from these.

A file appears with a counter beside it, so that a run that was cut off goes on. Tokens depend on the encoder's
weights, the split, the size of the images and on whether the blocks worked across the views.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from node.mammography.views import STANDARD_VIEWS, Laterality, ViewPosition
from training.mammo_clip.gradients import autocast
from training.multi_view.case_items import CaseBatch, drawn_number
from training.multi_view.clip import Clip
from training.multi_view.controlled_exams import ExamStore
from training.multi_view.exam_model import drop_views
from training.multi_view.own_vit import frozen_tokens

_CHUNK = 8
_VIEWS = len(STANDARD_VIEWS)


@dataclass(frozen=True, slots=True)
class Frozen:
    """The encoder, its blocks whose tokens are kept, their pooled side, and its arithmetic."""

    clip: Clip
    blocks: int
    side: int
    precision: str

    def digest(self) -> str:
        """Changes with any weight."""
        found = hashlib.sha256(f"{self.blocks} {self.side} {self.precision}".encode())
        for name, value in sorted(self.clip.state_dict().items()):
            found.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
        return found.hexdigest()[:12]


def keep_tokens(
    folder: Path, split: str, store: ExamStore, frozen: Frozen, size: int, may_go_on: Callable[[], bool], *, joint: bool
) -> NDArray[np.float16] | None:
    """Tokens (N, 4, T, d) of a split, mapped from their file; None where the time was spent before the end."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{split}-{size}{'-joint' if joint else ''}-{frozen.digest()}"
    file, counter = folder / f"{name}.f16", folder / f"{name}.done"
    shape = (len(store), _VIEWS, frozen.side**2 + 1, frozen.clip.config.vision_width)
    done = int(counter.read_text(encoding="utf-8")) if counter.exists() else 0
    if done < len(store):
        tokens = np.memmap(file, np.float16, "r+" if done else "w+", shape=shape)
        for first in range(done, len(store), _CHUNK):
            if not may_go_on():
                return None
            last = min(first + _CHUNK, len(store))
            tokens[first:last] = _tokens(store, frozen, size, range(first, last), joint)
            tokens.flush()
            counter.write_text(str(last), encoding="utf-8")
    return np.memmap(file, np.float16, "r", shape=shape)


def _tokens(store: ExamStore, frozen: Frozen, size: int, rows: range, joint: bool) -> NDArray[np.float16]:
    views = np.arange(_VIEWS * rows.start, _VIEWS * rows.stop)
    planes = torch.from_numpy(store.views(views, size)).float().view(len(rows), _VIEWS, 1, size, size) / 255.0
    present = torch.from_numpy(store.present[rows.start : rows.stop])
    with autocast(frozen.precision, torch.device("cpu")):
        found = frozen_tokens(frozen.clip, planes, present, frozen.blocks, frozen.side, joint=joint)
    made: NDArray[np.float16] = found.to(torch.float16).numpy()
    return made


@dataclass(frozen=True, slots=True, eq=False)
class TokenSource:
    """Exams as kept tokens. `seen` bool (N, 4): views that the arm may see."""

    tokens: NDArray[np.float16]
    seen: NDArray[np.bool_]
    positive: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.positive)

    @property
    def malignant(self) -> NDArray[np.bool_]:
        """The labels."""
        return self.positive

    def drawn(self, view_dropout: float, seed: int, epoch: int) -> Dataset[CaseBatch]:
        """With views hidden by chance."""
        return TokenItems(self, view_dropout, seed, epoch)

    def plain(self) -> Dataset[CaseBatch]:
        """As they are."""
        return TokenItems(self, 0.0, 0, 0)


class TokenItems(Dataset[CaseBatch]):
    """Batches of one exam; what is not seen is 0."""

    def __init__(self, source: TokenSource, view_dropout: float, seed: int, epoch: int) -> None:
        self.source, self.view_dropout, self.seed, self.epoch = source, view_dropout, seed, epoch

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> CaseBatch:
        present = torch.from_numpy(self.source.seen[index].copy())
        if self.view_dropout:
            generator = torch.Generator().manual_seed(drawn_number(self.seed, self.epoch, index))
            present = drop_views(present, self.view_dropout, generator)
        tokens = torch.from_numpy(self.source.tokens[index].astype(np.float32)) * present[:, None, None]
        label = torch.tensor(float(self.source.positive[index]))
        return CaseBatch(tokens, present, label, (f"exam {index}",))


def seen_views(present: NDArray[np.bool_], views: str) -> NDArray[np.bool_]:
    """Of the views (N, 4) that are there those of "all", "CC" or "MLO"."""
    if views == "all":
        return present
    seen: NDArray[np.bool_] = present & np.array([view.position is ViewPosition(views) for view in STANDARD_VIEWS])
    return seen


def left_out(present: NDArray[np.bool_], missing: str) -> NDArray[np.bool_]:
    """Views (N, 4) that a test leaves; an exam that would lose all keeps what it had. See `MISSING`."""
    rng = np.random.default_rng((len(present), 91))
    if missing == "one view":
        gone = np.eye(_VIEWS, dtype=bool)[rng.integers(_VIEWS, size=len(present))]
    elif missing == "one breast":
        is_right = np.array([view.laterality is Laterality.RIGHT for view in STANDARD_VIEWS])
        gone = is_right[None] == (rng.random(len(present)) < 0.5)[:, None]
    else:
        gone = ~seen_views(np.ones_like(present), "MLO" if missing == "CC" else "CC")
    kept = present & ~gone
    found: NDArray[np.bool_] = np.where(kept.any(1, keepdims=True), kept, present)
    return found
