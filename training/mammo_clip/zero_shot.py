"""Classes told by prompts alone: cosine of an image with a negative and a positive phrase, each an ensemble of prompts.

On phantoms, whose training sentences held the classes, this is text-prompted, not zero-shot. It is no basis of a
decision: with the released weights it is near chance (results of arXiv 2405.12255).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.mammo_clip.factor import phrase_embedding


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of one class after another: two for a finding (negative first), four for density."""

    name: str
    classes: tuple[tuple[str, ...], ...]


PUBLISHED: tuple[Prompts, ...] = (
    Prompts("Mass", (("no mass",), ("mass",))),
    Prompts("Suspicious_Calcification", (("no suspicious calcification",), ("suspicious calcification",))),
    Prompts("cancer", (("no malignancy",), ("malignancy",))),
)
"""The pairs of the authors' evaluation."""


def class_embeddings(embeddings: Sequence[Tensor]) -> Tensor:
    """One unit vector a class (K, D) from the embeddings of its prompts, each (N, D)."""
    return torch.stack([phrase_embedding(prompts) for prompts in embeddings])


def class_probabilities(images: Tensor, classes: Tensor, scale: Tensor | float | None) -> Tensor:
    """Softmax over classes of the cosines times `scale`: unit (B, D) and (K, D) -> (B, K), float32.

    `scale` None is the published scoring, on raw cosines, whose probabilities cluster at 1 / K; the model's own is
    exp(logit scale). For two classes the ranks do not depend on it.
    """
    cosines = images.float() @ classes.float().T
    scaled = cosines if scale is None else cosines * torch.as_tensor(scale, dtype=torch.float32)
    return functional.softmax(scaled, dim=1)


def balanced_accuracy(predicted: Tensor, truth: Tensor, classes: int) -> float:
    """Mean recall over the classes that occur: what plain accuracy hides where one class is most of the set."""
    recalls = [
        float((predicted[truth == index] == index).float().mean()) for index in range(classes) if (truth == index).any()
    ]
    return sum(recalls) / len(recalls)
