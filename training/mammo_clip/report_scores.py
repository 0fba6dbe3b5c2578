"""Logits of rows by what is frozen: prompts in the common space, or a fitted probe on pooled features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.probing import load_probe
from training.mammo_clip.prompts import DENSITY, Prompts, prompts_of
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.report_data import Rows
from training.mammo_clip.report_parts import Logits, Scorer
from training.mammo_clip.zero_shot import prompt_embeddings


@torch.inference_mode()
def prompt_scorer(model: LoadedModel, labels: Sequence[str], sets: Sequence[str]) -> Scorer:
    """Of a finding: cosine with its prompts less that with those of its absence, times the logit scale; of density: the
    four cosines times the scale. A label takes the first of `sets` that has it.
    """
    sided = not model.input.preset.startswith("fit-")
    chosen = {label: _first(sets, label, sided) for label in labels}
    classes = {label: prompt_embeddings(model, prompts) for label, prompts in chosen.items() if prompts}
    scale = float(model.clip().logit_scale.exp())

    def score(rows: Rows) -> Logits:
        if rows.embeddings is None:
            raise CheckpointError(f"{model.folder}: has no projection of images; prompts need a pretraining checkpoint")
        images = torch.from_numpy(np.array(rows.embeddings))
        scaled = {label: scale * (images @ vectors.T).double().numpy() for label, vectors in classes.items()}
        return {label: logits if label == DENSITY else logits[:, 1] - logits[:, 0] for label, logits in scaled.items()}

    return score


def _first(sets: Sequence[str], label: str, sided: bool) -> Prompts | None:
    found = (prompts_of(kind, label, sided=sided) for kind in sets)
    return next((prompts for prompts in found if prompts), None)


def probe_scorer(folder: Path, model: LoadedModel) -> Scorer:
    """Heads of `python -m training probe`. Raises CheckpointError where they are another encoder's."""
    heads, record = load_probe(folder)
    fitted_on = record.get("encoder", {}).get("weights_hash")
    if fitted_on != model.weights_hash:
        raise CheckpointError(
            f"{folder}: was fitted on weights {str(fitted_on)[:16]}, these are {model.weights_hash[:16]}"
        )

    def score(rows: Rows) -> Logits:
        pooled = torch.from_numpy(np.array(rows.pooled))
        found = {label: head.logits(pooled).double().numpy() for label, head in heads.items()}
        return {label: logits[:, 0] if logits.shape[1] == 1 else logits for label, logits in found.items()}

    return score
