"""System A, its tokens, the blocks across the views of every seed -> the joined exam encoder and both its parents.

The joined model is written as the three models that are served; System A the same way, and System B alone as an exam
encoder with A's heatmaps and embeddings, so that the comparison is one of served files.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.mammo_clip.served_export import (
    Fitted,
    Parts,
    Source,
    finish_parts,
    finished_record,
    fit_heads,
    parts_of,
    write_exam_encoder,
    write_fitted,
    write_models,
)
from training.mammo_clip.served_finish import Finished, logits_of
from training.mammo_clip.served_recipe import ServedRecipe
from training.mammo_clip.served_summaries import ClipSummaries, summarise
from training.mammo_clip.served_training import validation_aucs
from training.multi_view.joined_exams import TriedRule, try_rules
from training.multi_view.joined_model import ServedJoined
from training.multi_view.joined_recipe import JoinedRecipe
from training.multi_view.joined_tokens import TokenGraph, TokenPooling, TokenViews
from training.multi_view.joined_training import Rows, Trained, head_logits, judged, rows_of, train_networks
from training.phantoms import GENERATOR_VERSION, TRAIN_SEED

JOINED, PARENT_A, PARENT_B = "joined", "parent-a", "parent-b"
RECORD = "validation.json"


@dataclass(frozen=True, slots=True, eq=False)
class Joining:
    """What the steps share: System A, its parts with tokens, and where exams and results lie."""

    source: Source
    recipe: JoinedRecipe
    served: ServedRecipe
    parts: Parts
    views: TokenViews
    fitted: Fitted
    cache: Path
    out: Path

    @property
    def summaries(self) -> Path:
        """Where summaries and tokens are kept."""
        return self.out / "summaries"


def join(source: Source, recipes: tuple[JoinedRecipe, ServedRecipe], cache: Path, out: Path) -> dict[str, Any]:
    """Train, choose on validation, calibrate, and write OUT/joined, OUT/parent-a, OUT/parent-b; returns what validation
    said, which is kept as OUT/validation.json. Raises DataError where exams do not fit.
    """
    recipe, served = recipes[0], recipes[1]
    parts = parts_of(source, served)
    part = recipe.tokens
    views = TokenViews(parts.views, TokenPooling(parts.cells, (part.rows, part.columns), part.largest_cells)).eval()
    graph = TokenGraph(views, part, torch.get_num_threads())
    fitted = fit_heads(graph, served, cache, out / "summaries")
    joining = Joining(source, recipe, served, parts, views, fitted, cache, out)
    write_fitted(source, served, parts, fitted, cache, (_made(out / PARENT_A), out / PARENT_A))
    first, exams = TRAIN_SEED + recipe.learning.first_exam, recipe.learning.exams
    training = summarise(graph, cache, joining.summaries, (first, exams))
    tried = _tried_rules(joining, training)
    rows = rows_of(training, fitted.heads, fitted.scale, _unseen_logits(fitted))
    validation = rows_of(fitted.validation, fitted.heads, fitted.scale)
    both = train_networks(rows, validation, fitted.heads, recipe), train_networks(rows, validation, None, recipe)
    record = _written(joining, validation, both) | {"test_set": [asdict(one) for one in tried]}
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unseen_logits(fitted: Fitted) -> dict[int, torch.Tensor]:
    """Exams that A's probes learnt from are judged by probes of the other folds, as unseen ones would be."""
    return dict(zip(fitted.training.seeds.tolist(), fitted.probes.own, strict=True))


def _tried_rules(joining: Joining, training: ClipSummaries) -> list[TriedRule]:
    """The rule of the test set, on validation and on the blocks' exams that A has not learnt from."""
    fitted = joining.fitted
    learnt = torch.isin(training.seeds, fitted.training.seeds)
    own = logits_of(fitted.heads, training, fitted.scale).exam[~learnt.numpy()]
    others = logits_of(fitted.heads, fitted.validation, fitted.scale).exam
    seeds = [*training.seeds[~learnt].tolist(), *fitted.validation.seeds.tolist()]
    malignant = torch.cat([training.breasts[~learnt], fitted.validation.breasts]).any(1).numpy()
    return try_rules(joining.recipe.test_set, seeds, np.concatenate([own, others]), malignant)


def _written(joining: Joining, validation: Rows, both: tuple[list[Trained], list[Trained]]) -> dict[str, Any]:
    """Calibrate and write the chosen network of either sort; what validation said of all."""
    fitted, calibrating = joining.fitted, joining.fitted.calibrating
    rows = rows_of(calibrating, fitted.heads, fitted.scale)
    own = validation_aucs(fitted.heads, fitted.validation, fitted.scale)
    record: dict[str, Any] = {
        "recipe": asdict(joining.recipe),
        "served": asdict(joining.served),
        "generator": GENERATOR_VERSION,
        PARENT_A: own,
    }
    for name, tried in zip((JOINED, PARENT_B), both, strict=True):
        chosen = tried[0]
        answers = head_logits(judged(chosen.heads, validation)), head_logits(judged(chosen.heads, rows))
        finished = finish_parts(joining.parts, answers, fitted, joining.cache)
        exam = ServedJoined(joining.views, fitted.heads, fitted.scale, chosen.heads).eval()
        hashes = _write(joining, name, exam, finished)
        record[name] = _record(tried) | finished_record(finished, fitted.scale) | {"weights_hash": hashes}
    record["ship"] = JOINED if _better(record[JOINED]["seeds"], own) else PARENT_A
    return record


def _write(joining: Joining, name: str, exam: ServedJoined, finished: Finished) -> dict[str, str]:
    recipe = replace(joining.served, version=joining.recipe.version)
    folder = joining.out / name
    if name == JOINED:
        return write_models(joining.source, recipe, joining.parts, exam, finished, folder)
    return {"exam_encoder": write_exam_encoder(joining.source, recipe, joining.parts, exam, finished, folder)}


def _record(tried: list[Trained]) -> dict[str, Any]:
    return {
        "chosen_seed": tried[0].seed,
        "seeds": {
            str(one.seed): {"epoch": one.epoch, "losses": one.losses, "validation": one.validation} for one in tried
        },
    }


def _better(seeds: dict[str, Any], own: dict[str, float]) -> bool:
    """The joined model is to be shipped where the mean over its seeds of each of A's two AUCs of malignancy is above
    A's, and that of the findings together is not below.
    """
    reached = {name: float(np.mean([one["validation"][name] for one in seeds.values()])) for name in own}
    findings = [name for name in own if name.startswith("finding")]
    above = all(reached[name] > own[name] for name in ("exam", "breast"))
    return above and np.mean([reached[name] for name in findings]) >= np.mean([own[name] for name in findings])
