"""Gradients of one batch: in one pass, or for batches larger than memory by cached gradients (Gao et al. 2021, arXiv
2101.06983): embeddings chunk by chunk without a graph, the loss's gradient on them, then each chunk again with a graph.

The second pass sees the random state of the first, so dropout is the same, and leaves batch norm's statistics alone, so
that they are updated once.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from training.efficientnet import statistics_left_alone
from training.mammo_clip.loss import Embeddings, LossSettings, bounded_scale, contrastive_loss, phrase_loss
from training.mammo_clip.model import MammoClip
from training.mammo_clip.phrases import main_phrases
from training.mammo_clip.sampling import Batch, Said

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Embeddings of image, view, text and second text (B, D), and the logit scale."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Arithmetic in a half type, where the recipe wants that."""
    if precision in ("bfloat16", "float16"):
        return torch.autocast(device.type, dtype=PRECISIONS[precision])
    return nullcontext()


class Towers(nn.Module):
    """Both towers in one forward, as DistributedDataParallel wants it; the logit scale comes out for its gradient."""

    def __init__(self, model: MammoClip, channels: int) -> None:
        super().__init__()
        self.model, self.channels = model, channels

    def forward(self, images: Tensor, token_ids: Tensor, mask: Tensor) -> Outputs:
        """(B, 2, 1, H, W), int64 (B, 2, T) twice. Both views go through the encoder together, and both texts."""
        views = images.transpose(0, 1).flatten(0, 1).expand(-1, self.channels, -1, -1)
        view_rows = self.model.encode_image(views.contiguous(memory_format=torch.channels_last))
        text_rows = self.model.encode_text(token_ids.transpose(0, 1).flatten(0, 1), mask.transpose(0, 1).flatten(0, 1))
        (image, view), (text, text2) = view_rows.chunk(2), text_rows.chunk(2)
        return image, view, text, text2, self.model.logit_scale * 1.0


class NotFiniteError(Exception):
    """The loss of a batch is no number. The message names rows, never patients."""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """What turns a batch into gradients.

    `towers` may be wrapped for several processes or compiled; `bare` is the module inside. `chunk` rows at once in
    cached gradients, 0: the whole batch at once. `precision`: of PRECISIONS; the two halves by autocast.
    """

    towers: nn.Module
    bare: Towers
    loss: LossSettings
    scaler: torch.amp.GradScaler
    precision: str = "float32"
    chunk: int = 0

    def learn(self, batch: Batch, *, share: float = 1.0, last: bool = True) -> float:
        """Add the gradients of `share` of the batch's loss to the parameters; returns the loss.

        `last`: no other batch of this step follows, so processes exchange gradients. Raises NotFiniteError.
        """
        whole = not self.chunk or self.chunk >= len(batch)
        return self._plain(batch, share, last) if whole else self._cached(batch, share, last)

    def measure(self, batch: Batch) -> float:
        """The loss without gradients, in eval mode as the caller set it."""
        with torch.no_grad():
            size = self.chunk or len(batch)
            parts = [self._embed(self.bare, batch, start, start + size) for start in range(0, len(batch), size)]
            return self._loss(_joined(parts), parts[0][4], batch, training=False).item()

    def _plain(self, batch: Batch, share: float, last: bool) -> float:
        with self._exchange(last):
            *embeddings, scale = self._embed(self.towers, batch, 0, len(batch))
            loss = self._loss(embeddings, scale, batch)
            self._checked(loss, embeddings, batch)
            self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _cached(self, batch: Batch, share: float, last: bool) -> float:
        starts = list(range(0, len(batch), self.chunk))
        states, parts = [], []
        with torch.no_grad():
            for start in starts:
                states.append(random_state(batch.images.device))
                parts.append(self._embed(self.bare, batch, start, start + self.chunk))
        embeddings = [part.requires_grad_() for part in _joined(parts)]
        scale = parts[0][4].clone().requires_grad_()
        loss = self._loss(embeddings, scale, batch)
        self._checked(loss, embeddings, batch)
        self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        after = random_state(batch.images.device)
        with statistics_left_alone(self.bare):
            for start, state in zip(starts, states, strict=True):
                set_random_state(state, batch.images.device)
                self._second(batch, start, embeddings, scale, last and start == starts[-1])
        set_random_state(after, batch.images.device)
        return loss.item()

    def _second(self, batch: Batch, start: int, embeddings: list[Tensor], scale: Tensor, last: bool) -> None:
        """One chunk with a graph; the logit scale's gradient goes in with the first."""
        with self._exchange(last):
            *parts, own_scale = self._embed(self.towers, batch, start, start + self.chunk)
            gradients = [_gradient(whole)[start : start + self.chunk] for whole in embeddings]
            of_scale = _gradient(scale) if start == 0 else torch.zeros_like(scale)
            torch.autograd.backward([*parts, own_scale], [*gradients, of_scale])

    def _embed(self, towers: nn.Module, batch: Batch, start: int, end: int) -> Outputs:
        with autocast(self.precision, batch.images.device):
            rows = slice(start, end)
            outputs: Outputs = towers(batch.images[rows], batch.token_ids[rows], batch.mask[rows])
            return outputs

    def _loss(self, embeddings: list[Tensor], scale: Tensor, batch: Batch, *, training: bool = True) -> Tensor:
        image, view, text, text2 = embeddings
        loss = contrastive_loss(
            Embeddings(image, view, text, text2, batch.text_keys), scale, self.loss, training=training
        )
        if batch.phrases is not None:
            loss = loss + self.loss.phrase_weight * self._phrase_loss(image, view, scale, batch.phrases)
        if batch.sentences is not None:
            loss = loss + self.loss.text_weight * self._sentence_loss(scale, batch.sentences)
        return loss

    def _phrase_loss(self, image: Tensor, view: Tensor, scale: Tensor, said: Said) -> Tensor:
        with autocast(self.precision, image.device):
            phrases = self.bare.model.encode_text(said.token_ids, said.mask)
        truth = said.truth.transpose(0, 1).flatten(0, 1)
        return phrase_loss(
            torch.cat([image, view]), phrases, truth, bounded_scale(scale, self.loss), len(main_phrases())
        )

    def _sentence_loss(self, scale: Tensor, said: Said) -> Tensor:
        """Two orders of one report find each other among the batch's reports; equal reports are no negatives."""
        with autocast(self.precision, scale.device):
            embedded = self.bare.model.encode_text(said.token_ids, said.mask)
        first, second = embedded[0::2], embedded[1::2]
        keys = said.token_ids[0::2].sort(dim=1).values
        same = (keys[:, None] == keys[None, :]).all(2)
        logits = bounded_scale(scale, self.loss) * (first.float() @ second.float().T)
        target = torch.arange(len(first), device=scale.device)
        masked = logits.masked_fill(same & ~torch.eye(len(first), dtype=torch.bool, device=scale.device), float("-inf"))
        return 0.5 * (functional.cross_entropy(masked, target) + functional.cross_entropy(masked.T, target))

    def _exchange(self, last: bool) -> AbstractContextManager[object]:
        if last or not isinstance(self.towers, DistributedDataParallel):
            return nullcontext()
        return self.towers.no_sync()

    def _checked(self, loss: Tensor, embeddings: list[Tensor], batch: Batch) -> None:
        if bool(torch.isfinite(loss)):
            return
        images = _rows_not_finite(batch, [batch.images.flatten(1)])
        rows = _rows_not_finite(batch, embeddings)
        which = f"no finite image of {', '.join(images)}" if images else f"no finite embedding of {', '.join(rows)}"
        constant = f"; of one value throughout: {', '.join(batch.constant)}" if batch.constant else ""
        whole = f"batch of {', '.join(batch.rows)}"
        raise NotFiniteError(f"the loss is {loss.item()}; {which if images or rows else whole}{constant}")


def _rows_not_finite(batch: Batch, parts: list[Tensor]) -> list[str]:
    """Rows of which a part, (B, n), holds what is no number. A batch norm in training spreads it over all rows."""
    finite = torch.stack([torch.isfinite(part).all(dim=1) for part in parts]).all(dim=0).tolist()
    return [row for row, is_good in zip(batch.rows, finite, strict=True) if not is_good]


def _joined(parts: list[Outputs]) -> list[Tensor]:
    return [torch.cat([part[which] for part in parts]) for which in range(4)]


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


RandomState = dict[str, Tensor]


def random_state(device: torch.device) -> RandomState:
    """The state of torch's generators, of the CPU and of a GPU in use."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: RandomState, device: torch.device) -> None:
    """The opposite of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
