"""Pretraining of the own encoder: single views against the words of their reports, and their cells against phrases.

What is true of a view is known for every sentence of a batch, so each pair of a view and a sentence is a question of
its own, answered by a sigmoid (the form of Zhai et al. 2023, arXiv 2303.15343). Cells of the lower blocks are asked in
the same way for the phrase of a lesion whose box covers them: without that a transformer of this size learns nothing of
small lesions from a few thousand views.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from node.mammography.views import STANDARD_VIEWS
from training.mammo_clip.bookkeeping import Bookkeeping, Pace
from training.mammo_clip.breasts import DataError
from training.mammo_clip.checkpoint import latest_checkpoint
from training.mammo_clip.gradients import autocast
from training.mammo_clip.pretraining_recipe import Keeping
from training.mammo_clip.processes import Process
from training.mammo_clip.schedule import rate_factor
from training.multi_view.case_items import drawn_number
from training.multi_view.case_training import decay_groups
from training.multi_view.clip_tokenizer import ClipTokenizer
from training.multi_view.controlled_exams import BENIGN, NEGATIVE, SUSPICIOUS, ExamStore, cleaned
from training.multi_view.controlled_recipe import OwnPretraining
from training.multi_view.own_vit import OwnEncoder
from training.phantoms.lesions import KINDS
from training.phantoms.reports import phrase_of
from training.statistics import auc

COLUMNS = ("step", "epoch", "training_loss", "validation_loss", "validation_auc", "learning_rate", "rows_per_second")
ENCODER = "encoder.safetensors"
VALIDATION_SHARE = 0.1
IMPRESSIONS = (SUSPICIOUS, BENIGN, NEGATIVE)
"""Said of a view whose breast holds something to be recalled, something else, nothing."""
_COVERED = 0.25
"""Part of a cell that a lesion's box must cover, or of the box that must lie in the cell."""
_SHIFT = 0.05
_VIEWS = len(STANDARD_VIEWS)


@dataclass(frozen=True, slots=True, eq=False)
class ViewBatch:
    """Images (B, 1, S, S) in [0, 1]; token ids of S sentences; whether view b shows s, (B, S); cells against the
    phrases, the first P of the sentences, (B, g * g, P).
    """

    images: Tensor
    sentences: list[str]
    truth: Tensor
    cells: Tensor


def known_phrases() -> list[str]:
    """Each lesion phrase once, in the order of the table of kinds."""
    return list(dict.fromkeys(cleaned(phrase_of(kind)) for kind in KINDS))


class Views:
    """Single views of a store, numbered 4 * exam + view."""

    def __init__(self, store: ExamStore, recipe: OwnPretraining, size: int, patch: int, seed: int) -> None:
        self.store, self.recipe, self.size, self.patch, self.seed = store, recipe, size, patch, seed
        self.phrases = known_phrases()
        exams = len(store)
        self.split = exams - max(1, round(VALIDATION_SHARE * exams))
        shown = {_VIEWS * number + mark.view for number, record in enumerate(store.records) for mark in record.marks}
        training = range(_VIEWS * self.split)
        if not shown & set(training) or len(shown) >= len(training):
            raise DataError(f"{exams} pretraining exams give no views with and without lesions; take more")
        self.with_lesion = np.array([view for view in training if view in shown], np.int64)
        self.without = np.array([view for view in training if view not in shown], np.int64)

    @property
    def validation(self) -> NDArray[np.int64]:
        """Views of the last exams."""
        return np.arange(_VIEWS * self.split, _VIEWS * len(self.store))

    @property
    def steps(self) -> int:
        """Of one epoch: as many views as there are."""
        return max(1, _VIEWS * self.split // self.recipe.batch)

    def rows_of(self, epoch: int) -> list[NDArray[np.int64]]:
        """One epoch's batches, `lesion_share` of each with a lesion."""
        rng = np.random.default_rng((self.seed, 81, epoch))
        wanted = round(self.recipe.lesion_share * self.recipe.batch)
        lesions, others = _endless(self.with_lesion, rng), _endless(self.without, rng)
        found = []
        for _ in range(self.steps):
            rows = [next(lesions) for _ in range(wanted)] + [next(others) for _ in range(self.recipe.batch - wanted)]
            found.append(np.array(rows, np.int64))
        return found

    def batch(self, rows: NDArray[np.int64], epoch: int | None) -> ViewBatch:
        """Some views with their sentences; `epoch` None: nothing drawn."""
        planes = torch.from_numpy(self.store.views(rows, self.size)).float()[:, None] / 255.0
        chance = random.Random(0 if epoch is None else drawn_number(self.seed, epoch, *rows[:4].tolist()))
        shifts = [0] * len(rows)
        if epoch is not None:
            planes, shifts = self._varied(planes, chance)
        texts = [self._text(int(row), chance) for row in rows]
        sentences = list(dict.fromkeys([*self.phrases, *IMPRESSIONS, *texts]))
        truth = torch.stack([self._said(int(row), text, sentences) for row, text in zip(rows, texts, strict=True)])
        cells = torch.stack([self._covered(int(row), shift) for row, shift in zip(rows, shifts, strict=True)])
        return ViewBatch(planes, sentences, truth, cells)

    def _varied(self, planes: Tensor, chance: random.Random) -> tuple[Tensor, list[int]]:
        """Moved up or down by up to a twentieth, another gamma and gain; the chest wall stays on its edge."""
        most = round(_SHIFT * self.size)
        shifts = [chance.randint(-most, most) for _ in range(len(planes))]
        moved = torch.stack([_moved(plane, shift) for plane, shift in zip(planes, shifts, strict=True)])
        powers = torch.tensor([chance.uniform(0.85, 1.18) for _ in shifts]).view(-1, 1, 1, 1)
        gains = torch.tensor([chance.uniform(0.9, 1.1) for _ in shifts]).view(-1, 1, 1, 1)
        return (moved.pow(powers) * gains).clamp(0.0, 1.0), shifts

    def _text(self, row: int, chance: random.Random) -> str:
        exam, view = divmod(row, _VIEWS)
        record = self.store.records[exam]
        said = [mark.sentence for mark in record.marks if mark.view == view]
        impression = record.impressions[view]
        if not said or chance.random() < self.recipe.report_chance:
            said.append(impression)
        return " ".join(said)

    def _said(self, row: int, text: str, sentences: list[str]) -> Tensor:
        exam, view = divmod(row, _VIEWS)
        record = self.store.records[exam]
        true = {mark.phrase for mark in record.marks if mark.view == view} | {text, record.impressions[view]}
        return torch.tensor([float(sentence in true) for sentence in sentences])

    def _covered(self, row: int, shift: int) -> Tensor:
        """Cells (g * g, P) that a lesion's box covers, or that hold a part of a small one."""
        exam, view = divmod(row, _VIEWS)
        grid, patch = self.size // self.patch, self.patch
        scale = self.size / self.store.planes.shape[-1]
        found = torch.zeros(grid, grid, len(self.phrases))
        edges = torch.arange(grid) * float(patch)
        for mark in self.store.records[exam].marks:
            if mark.view != view:
                continue
            left, top, right, bottom = (edge * scale for edge in mark.box)
            high = _overlap(edges, patch, top + shift, bottom + shift)
            wide = _overlap(edges, patch, left, right)
            area = high[:, None] * wide[None, :]
            least = _COVERED * min(float(patch * patch), max((right - left) * (bottom - top), 1e-6))
            found[..., self.phrases.index(mark.phrase)] += (area >= least).float()
        return found.clamp(max=1.0).flatten(0, 1)


def _overlap(edges: Tensor, patch: int, low: float, high: float) -> Tensor:
    """Length of each cell that lies between two places."""
    return ((edges + patch).clamp(max=high) - edges.clamp(min=low)).clamp(min=0.0)


def _moved(plane: Tensor, shift: int) -> Tensor:
    moved = torch.roll(plane, shift, 1)
    if shift > 0:
        moved[:, :shift] = 0.0
    elif shift < 0:
        moved[:, shift:] = 0.0
    return moved


def _endless(rows: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(rows).tolist()


def sigmoid_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Mean error of true pairs plus that of the others, halved; (..., S) both."""
    errors = functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    true, false = truth.sum().clamp_min(1.0), (1.0 - truth).sum().clamp_min(1.0)
    return 0.5 * ((errors * truth).sum() / true + (errors * (1.0 - truth)).sum() / false)


class OwnTraining:
    """One run of pretraining. `go` trains to the end, or from where the last checkpoint stands."""

    def __init__(
        self, folder: Path, views: Views, model: OwnEncoder, tokenizer: ClipTokenizer, epochs: int, keeping: Keeping
    ) -> None:
        self.views, self.model, self.recipe = views, model, views.recipe
        self.tokenizer = tokenizer
        self.device = torch.device("cpu")
        pace = Pace(epochs, views.steps, self.recipe.batch, 0, keeping)
        self.books = Bookkeeping(folder, pace, Process(0, 1, True, self.device), COLUMNS)
        groups = decay_groups(model.parameters(), self.recipe.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=self.recipe.learning_rate)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        last = latest_checkpoint(folder)
        if last is not None:
            model.load_state_dict(load_file(last / ENCODER))
            self.books.go_on(self.optimiser, self.scaler)

    def go(self, may_go_on: Callable[[], bool]) -> bool:
        """Train; false where the time was spent before the end, at the end of an epoch."""
        while not self.books.progress.finished:
            if not may_go_on():
                return False
            self._epoch()
            self._end_epoch()
        return True

    def _epoch(self) -> None:
        self.model.train()
        progress = self.books.progress
        total = self.books.pace.epochs * self.views.steps
        started, seen = time.monotonic(), 0
        for rows in self.views.rows_of(progress.epoch)[progress.done :]:
            factor = rate_factor(progress.scheduled, round(self.recipe.warmup_share * total), total)
            for group in self.optimiser.param_groups:
                group["lr"] = self.recipe.learning_rate * factor
            loss = self.loss(self.views.batch(rows, progress.epoch))[0]
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.books.count(loss.item())
            seen += len(rows)
            self.books.write_down(self.optimiser.param_groups[0]["lr"], seen / (time.monotonic() - started))
            if self.books.is_due:
                self._save()

    def loss(self, batch: ViewBatch) -> tuple[Tensor, Tensor]:
        """The loss, and scores (B, S) of views and sentences."""
        clip = self.model.clip
        with autocast(self.recipe.precision, self.device):
            views, cells = self.model(batch.images)
            texts = clip.encode_text(torch.from_numpy(self.tokenizer.batch(batch.sentences, clip.config.context)))
        scale, texts = clip.logit_scale.clamp(max=4.6052).exp(), texts.float()
        scores = scale * views.float() @ texts.T + self.model.bias[0]
        phrases = texts[: batch.cells.shape[2]]
        region = sigmoid_loss(scale * cells.float() @ phrases.T + self.model.bias[1], batch.cells)
        return sigmoid_loss(scores, batch.truth) + self.recipe.region_weight * region, scores

    @torch.no_grad()
    def measured(self) -> tuple[float, float]:
        """Loss on the views of the last exams, and the AUC of "suspicious" less "negative" among them."""
        self.model.eval()
        rows, size = self.views.validation, self.recipe.batch
        losses, differences, truth = [], [], []
        at = [len(self.views.phrases) + IMPRESSIONS.index(words) for words in (SUSPICIOUS, NEGATIVE)]
        for first in range(0, len(rows), size):
            batch = self.views.batch(rows[first : first + size], None)
            loss, scores = self.loss(batch)
            losses.append(float(loss))
            differences.append((scores[:, at[0]] - scores[:, at[1]]).double())
            truth.append(batch.truth[:, at[0]] > 0)
        return float(np.mean(losses)), auc(torch.cat(differences).numpy(), torch.cat(truth).numpy())

    def _end_epoch(self) -> None:
        loss, figure = self.measured()
        self.books.end_epoch(loss, self._save_weights)
        self.books.curves.add(self.books.progress, validation_loss=loss, validation_auc=figure)
        print(f"encoder: epoch {self.books.progress.epoch} loss {loss:.4f}, AUC of views {figure:.4f}", flush=True)
        self._save()

    def _save(self) -> None:
        self.books.save(self.optimiser, self.scaler, self._save_weights)

    def _save_weights(self, folder: Path) -> None:
        save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, folder / ENCODER)
