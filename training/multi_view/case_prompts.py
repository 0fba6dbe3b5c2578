"""What an exam is compared with: sentences for a benign and for a malignant case, and the score that follows.

The paper compares the exam with one negative and one positive description of the case and trains on the cross-entropy
of the softmax of the two cosines; its sentences cannot be read. Here each side is an ensemble: unit vectors of its
sentences, their mean, made unit again. Order everywhere: negative, positive.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from training.mammo_clip.pretraining_recipe import RecipeError, build
from training.multi_view.clip import unit
from training.multi_view.clip_tokenizer import ClipTokenizer


@dataclass(frozen=True, slots=True)
class CasePrompts:
    """Sentences for either side, at least one each. Raises RecipeError."""

    name: str
    negative: tuple[str, ...]
    positive: tuple[str, ...]

    def __post_init__(self) -> None:
        for side, sentences in (("negative", self.negative), ("positive", self.positive)):
            if not sentences or not all(sentence.strip() for sentence in sentences):
                raise RecipeError(f"prompts {self.name}: {side} has no sentence, or an empty one")
        if both := set(self.negative) & set(self.positive):
            raise RecipeError(f"prompts {self.name}: {min(both)!r} stands on both sides")


SIMPLE = CasePrompts("simple", ("mammograms showing a benign finding",), ("mammograms showing a malignant tumor",))
"""One plain sentence a side: the default."""

DETAILED = CasePrompts(
    "detailed",
    (
        "mammograms of both breasts in two views showing a benign finding",
        "mammograms without a suspicious mass, distortion or calcifications in either breast",
        "both breasts look alike in craniocaudal and mediolateral oblique views, no sign of cancer",
        "mammograms showing a circumscribed oval mass or coarse calcifications, benign",
    ),
    (
        "mammograms of both breasts in two views showing a malignant tumor",
        "mammograms with a suspicious mass, distortion or calcifications in one breast",
        "one breast differs from the other in craniocaudal and mediolateral oblique views, suspicious of cancer",
        "mammograms showing a spiculated irregular mass or fine pleomorphic calcifications, malignant",
    ),
)
"""Several sentences a side that name signs."""

SETS = {prompts.name: prompts for prompts in (SIMPLE, DETAILED)}


def load_prompts(words: str | Path) -> CasePrompts:
    """One of SETS by name, or a TOML file with name, negative and positive. Raises RecipeError."""
    if isinstance(words, str) and words in SETS:
        return SETS[words]
    path = Path(words)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{words}: neither a file nor one of the prompt sets {', '.join(SETS)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as prompts: {error}") from error
    prompts: CasePrompts = build(CasePrompts, table, path.name)
    return prompts


PromptIds = tuple[Tensor, Tensor]
"""Token ids int64 (N, context) of the negative and of the positive sentences."""


def prompt_ids(prompts: CasePrompts, tokenizer: ClipTokenizer, context: int) -> PromptIds:
    """The sentences as token ids. Raises RecipeError where two sides cannot be told apart once they are cut off."""
    negative, positive = (tokenizer.batch(side, context) for side in (prompts.negative, prompts.positive))
    if {tuple(row) for row in negative.tolist()} & {tuple(row) for row in positive.tolist()}:
        raise RecipeError(
            f"prompts {prompts.name}: a negative and a positive sentence are the same in {context} tokens; shorten them"
        )
    return torch.from_numpy(negative), torch.from_numpy(positive)


def class_features(encode: Callable[[Tensor], Tensor], ids: PromptIds) -> Tensor:
    """Embeddings of negative and positive (2, D), unit length, by `encode_text` of a model.

    Gradients reach the adapters of the text tower.
    """
    sentences, negatives = encode(torch.cat(ids)), len(ids[0])
    return unit(torch.stack([side.mean(0) for side in (sentences[:negatives], sentences[negatives:])]))


def case_logits(exams: Tensor, classes: Tensor, logit_scale: Tensor) -> Tensor:
    """Exam embeddings (B, D) and classes (2, D), unit length -> scaled cosines (B, 2), float32.

    `logit_scale` is the logarithm of the scale, as CLIP keeps it.
    """
    return logit_scale.exp().float() * (exams.float() @ classes.float().T)


def malignancy(logits: Tensor) -> Tensor:
    """Probability of the positive side (B,): the softmax, not yet calibrated."""
    return logits.softmax(1)[:, 1]


def case_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (B, 2) and labels (B,), 1 = malignant; `weights` (2,) of negative and positive.

    With weights the mean is weighted too, as torch does.
    """
    return F.cross_entropy(logits, labels.long(), weights)


def class_weights(labels: Tensor) -> Tensor:
    """Weights (2,) by which both classes count alike and an exam counts 1 on average. Raises RecipeError."""
    counts = torch.bincount(labels.long().flatten(), minlength=2).float()
    if len(counts) != 2 or bool((counts == 0).any()):
        raise RecipeError(
            f"labels: {counts.int().tolist()} exams of class 0, 1 and so on; wanted are both 0 and 1 alone"
        )
    return len(labels) / (2 * counts)
