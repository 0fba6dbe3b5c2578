"""Phrases as FActOR sees them: their embeddings by the frozen text tower, which views show them, which train."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.mammo_clip.factor import phrase_embedding
from training.mammo_clip.factor_recipe import FactorPhrases
from training.mammo_clip.factor_views import FINDINGS, FactorView
from training.mammo_clip.grammar import Location
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.phrases import PHANTOM_WORDS, Phrase, phrases, truth_table
from training.mammo_clip.pretraining_recipe import RecipeError

_TEXTS_AT_A_TIME = 128


def plain_phrase(name: str) -> Phrase:
    """The finding without more: "mass", "suspicious calcifications"."""
    return Phrase(name, PHANTOM_WORDS[name][0], Location())


@torch.inference_mode()
def embed(model: LoadedModel, texts: Sequence[str]) -> Tensor:
    """(N, D) of unit length, float32, on the CPU."""
    parts = [
        model.embed_texts(texts[first : first + _TEXTS_AT_A_TIME]).float().cpu()
        for first in range(0, len(texts), _TEXTS_AT_A_TIME)
    ]
    return functional.normalize(torch.cat(parts), dim=1).clone()


@dataclass(frozen=True, slots=True, eq=False)
class PhraseSet:
    """`embeddings` (K, W, D): each phrase in W wordings, unit length; the first is its text."""

    phrases: tuple[Phrase, ...]
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.phrases)

    @property
    def texts(self) -> Tensor:
        """(K, D)."""
        return self.embeddings[:, 0]

    @property
    def placed(self) -> NDArray[np.bool_]:
        """(K,): says where."""
        return np.array([phrase.located for phrase in self.phrases])


def phrase_set(model: LoadedModel, chosen: Sequence[Phrase]) -> PhraseSet:
    """Phrases with the embeddings of all their wordings."""
    wordings = len(chosen[0].wordings)
    embeddings = embed(model, [text for phrase in chosen for text in phrase.wordings])
    return PhraseSet(tuple(chosen), embeddings.view(len(chosen), wordings, -1))


@dataclass(frozen=True, slots=True)
class SplitPhrases:
    """Phrases that train, and those that do not: without a place, and combinations with one."""

    training: tuple[Phrase, ...]
    held_out: tuple[Phrase, ...]
    held_out_placed: tuple[Phrase, ...]


def split_phrases(settings: FactorPhrases, names: Sequence[str] = FINDINGS) -> SplitPhrases:
    """The recipe's split of the phrases of some findings. Words that are held out train in no place either.

    Raises RecipeError for unknown ones.
    """
    known = {phrase.bare for phrase in phrases()}
    every = [phrase for phrase in phrases() if phrase.name in names]
    if unknown := [words for words in settings.held_out if words not in known]:
        raise RecipeError(f"phrases.held_out: {', '.join(unknown)}: not among the phrases of phrases.py")
    plain = {plain_phrase(name).bare for name in FINDINGS}
    if wanted := plain & set(settings.held_out):
        raise RecipeError(f"phrases.held_out: {', '.join(sorted(wanted))}: the findings themselves must train")
    out = [phrase for phrase in every if phrase.bare in settings.held_out and not phrase.located]
    placed = [phrase for phrase in every if phrase.located and phrase.bare not in settings.held_out]
    step = settings.hold_out_every
    out_placed = placed[::step] if step else []
    left = set(out_placed)
    training = [phrase for phrase in every if phrase.bare not in settings.held_out and phrase not in left]
    return SplitPhrases(tuple(training), tuple(out), tuple(out_placed))


@dataclass(frozen=True, slots=True, eq=False)
class PhraseTruth:
    """Bool (N, K): views that show a phrase, and views that count as without it.

    A view that shows the finding in another place than a phrase says is neither: channels do not tell places, words do.
    """

    present: Tensor
    absent: Tensor


def phrase_truth(chosen: Sequence[Phrase], views: Sequence[FactorView]) -> PhraseTruth:
    """What the views show of the phrases; a finding that a view's labels do not tell of is neither there nor absent."""
    seen = [view.seen for view in views]
    present = truth_table(chosen, seen)
    nowhere = [Phrase(phrase.name, phrase.words, Location()) for phrase in chosen]
    told = np.array([[phrase.name in view.known for phrase in chosen] for view in views], dtype=np.bool_)
    absent = ~truth_table(nowhere, seen) & told.reshape(present.shape)
    return PhraseTruth(torch.from_numpy(present), torch.from_numpy(absent))


def finding_embeddings(model: LoadedModel, names: Sequence[str]) -> Tensor:
    """(K, D): one vector a finding, the mean of all its phrases without a place in all wordings, as published."""
    found = []
    for name in names:
        texts = [text for phrase in phrases() if phrase.name == name and not phrase.located for text in phrase.wordings]
        found.append(phrase_embedding(embed(model, texts)))
    return torch.stack(found)
