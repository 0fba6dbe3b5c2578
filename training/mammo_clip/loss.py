"""The contrastive loss: image against text, view against view, text against text (paper, section 2; arXiv 2405.12255).

Notation: I and V are embeddings of an image and of a second view, T and U of a text and of a second text, all (B, D)
and of unit length. Logits and cross-entropies are float32 (float64 where the embeddings are), whatever autocast says.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import functional

VIEW_WEIGHT = 1.0
TEXT_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights of the published loss, and corrections of it, off where the paper's behaviour is wanted."""

    view_weight: float = VIEW_WEIGHT
    text_weight: float = TEXT_WEIGHT
    label_smoothing: float = 0.0
    """Of the image-text terms, in training."""
    mask_identical_texts: bool = False
    """Rows with the same text are no negatives of each other in any term that has a text."""
    maximum_logit_scale: float | None = None
    """Bound of exp(logit scale); None: unbounded, as published."""
    phrase_weight: float = 0.0
    """Of `phrase_loss`, which is not published; 0: without it."""


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """One batch: `image`, `view`, `text`, `text2` (B, D) of unit length; `text_keys` int64 (B, 2) names equal texts."""

    image: Tensor
    view: Tensor
    text: Tensor
    text2: Tensor
    text_keys: Tensor | None = None


def contrastive_loss(
    batch: Embeddings, logit_scale: Tensor, settings: LossSettings | None = None, *, training: bool = True
) -> Tensor:
    """The published loss of this process's rows; negatives come from all ranks where `torch.distributed` runs.

    Gradients through gathered rows are summed over the ranks, so that the mean over ranks (as DistributedDataParallel
    takes it) is the gradient of the whole batch. Raises ValueError where identical texts are to be masked and
    `text_keys` is None.
    """
    settings = settings or LossSettings()
    with torch.autocast(batch.image.device.type, enabled=False):
        terms = _Terms(batch, bounded_scale(logit_scale, settings), settings, training)
        images, texts = (batch.image, batch.view), (batch.text, batch.text2)
        pairs = [(a, b, column) for a in images for column, b in enumerate(texts)]
        image_text = 0.5 * sum(
            (terms.image_to_text(a, b, column) + terms.text_to_image(b, a, column)) / 4.0 for a, b, column in pairs
        )
        views = 0.5 * (terms.entropy(batch.image, batch.view) + terms.entropy(batch.view, batch.image))
        sentences = 0.5 * (terms.text_to_text(1, 0) + terms.text_to_text(0, 1))
        return image_text + settings.view_weight * views + settings.text_weight * sentences


def bounded_scale(logit_scale: Tensor, settings: LossSettings) -> Tensor:
    """exp(logit scale), bounded where the settings bound it."""
    scale = _precise(logit_scale).exp()
    return scale if settings.maximum_logit_scale is None else scale.clamp(max=settings.maximum_logit_scale)


class _Terms:
    """Cross-entropies of one batch, with what all of them share."""

    def __init__(self, batch: Embeddings, scale: Tensor, settings: LossSettings, training: bool) -> None:
        self.batch, self.scale = batch, scale
        self.smoothing = settings.label_smoothing if training else 0.0
        self.keys = batch.text_keys if settings.mask_identical_texts else None
        if settings.mask_identical_texts and self.keys is None:
            raise ValueError("identical texts can be masked only where text_keys name them")
        self.all_keys = None if self.keys is None else gather(self.keys)

    def entropy(self, rows: Tensor, columns: Tensor, same: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy of scale * rows columns^T with the own row as target; `same` marks what counts not."""
        gathered = gather(_precise(columns))
        logits = self.scale * _precise(rows) @ gathered.T
        targets = torch.arange(len(rows), device=rows.device) + first_row(len(rows))
        if same is not None:
            own = functional.one_hot(targets, logits.shape[1]).bool()
            logits = logits.masked_fill(same & ~own, float("-inf"))
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)

    def image_to_text(self, image: Tensor, text: Tensor, column: int) -> Tensor:
        return self.entropy(image, text, self._same(column, column), self.smoothing)

    def text_to_image(self, text: Tensor, image: Tensor, column: int) -> Tensor:
        return self.entropy(text, image, self._same(column, column), self.smoothing)

    def text_to_text(self, row: int, column: int) -> Tensor:
        texts = (self.batch.text, self.batch.text2)
        return self.entropy(texts[row], texts[column], self._same(row, column))

    def _same(self, row: int, column: int) -> Tensor | None:
        """(B, G): whether the row's text is the column's text."""
        if self.keys is None or self.all_keys is None:
            return None
        return self.keys[:, row, None] == self.all_keys[None, :, column]


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


class _Gather(torch.autograd.Function):
    """Rows of all ranks; backward sums over the ranks and keeps the own rows (a reduce-scatter)."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]


def gather(rows: Tensor) -> Tensor:
    """(B, ...) of this rank -> (B * ranks, ...), in the order of the ranks; `rows` itself where there is one rank.

    All ranks must have equally many rows.
    """
    if not is_distributed():
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def is_distributed() -> bool:
    """Whether more than one process trains together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def first_row(count: int) -> int:
    """Index of this rank's first row among the gathered ones, `count` rows a rank."""
    return distributed.get_rank() * count if is_distributed() else 0


def phrase_loss(images: Tensor, phrases: Tensor, truth: Tensor, scale: Tensor, findings: int) -> Tensor:
    """Images against phrases whose truth is known: images (B, D), phrases (P, D) of unit length, `truth` int8 (B, P),
    -1 where it is not known; the first `findings` phrases name a finding each, the next as many deny it.

    Two means: of each pair of an image and a phrase that it shows, against the batch's images that do not show it (the
    form of FActOR's loss); and of the softmax between a finding's phrase and its denial.
    """
    scores = scale * (_precise(images) @ _precise(phrases).T)
    rows, columns = torch.nonzero(truth == 1, as_tuple=True)
    others = torch.logsumexp(scores.masked_fill(truth != 0, float("-inf")), dim=0)[columns]
    positives = scores[rows, columns]
    found = (torch.logaddexp(positives, others) - positives).sum() / max(len(rows), 1)
    difference = scores[:, :findings] - scores[:, findings : 2 * findings]
    stated = truth[:, :findings]
    known = stated >= 0
    if not bool(known.any()):
        return found
    return found + functional.binary_cross_entropy_with_logits(difference[known], stated[known].to(scores.dtype))
