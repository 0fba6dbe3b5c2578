"""System B's model as a folder: what was trained beside the hash of the frozen backbone, so that files stay small.

model.safetensors has the adapters, the view embedding and, where trained, norms and projections; model.json the shape,
the plan of the adapters, the prompts and the backbone's hash; vocabulary.txt the tokenizer's file. A backbone of our
own is a folder of the same three files with all its weights.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.mammo_clip.pretraining_recipe import RecipeError, build
from training.mammo_clip.released import CheckpointError, read_safetensors, split_state
from training.multi_view.adapters import AdapterPlan
from training.multi_view.blocks import Activation
from training.multi_view.case_prompts import CasePrompts
from training.multi_view.clip import Clip, ClipConfig
from training.multi_view.clip_keys import read_clip_weights
from training.multi_view.clip_tokenizer import ClipTokenizer, load_clip_tokenizer
from training.multi_view.exam_model import ExamClip, build_exam_clip

WEIGHTS, RECORD, VOCABULARY_FILE = "model.safetensors", "model.json", "vocabulary.txt"
CLIP_KIND, EXAM_KIND = "clip", "multi-view"


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A whole CLIP: its shape and its state, and `source`, the file's or folder's name."""

    config: ClipConfig
    state: dict[str, Tensor]
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class LoadedExamClip:
    """A trained System B in eval mode, its tokenizer, its prompts and the JSON beside its weights."""

    model: ExamClip
    tokenizer: ClipTokenizer
    prompts: CasePrompts
    record: dict[str, Any]


def load_backbone(path: Path, activation: Activation | None = None) -> Backbone:
    """A folder that `save_clip` wrote, or a file of weights, see `clip_keys`. Raises CheckpointError."""
    if not path.is_dir():
        given = read_clip_weights(path, activation)
        return Backbone(given.config, given.state, path.name)
    record = _record(path, CLIP_KIND)
    config = _part(ClipConfig, record, "config", path)
    with torch.device("meta"):
        expected = Clip(config).state_dict()
    weights = path / WEIGHTS
    return Backbone(config, split_state(weights, read_safetensors(weights), "", expected), path.name)


def save_clip(folder: Path, clip: Clip, vocabulary: Path, facts: Mapping[str, Any]) -> None:
    """Write a whole CLIP of our own, without adapters, into a folder that exists."""
    state = {key: value for key, value in _on_cpu(clip.state_dict()).items() if "_adapter." not in key}
    save_file(state, folder / WEIGHTS)
    record = {"kind": CLIP_KIND, **facts, "config": asdict(clip.config), "hash": state_hash(state)}
    _write_record(folder, record, vocabulary)


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the keys, shapes and float32 values of a state, in the order of the keys."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key} {list(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def save_exam_clip(
    folder: Path,
    model: ExamClip,
    plan: AdapterPlan,
    backbone: Backbone,
    prompts: CasePrompts,
    vocabulary: Path,
    facts: Mapping[str, Any],
) -> None:
    """Write what was trained, and what it belongs to, into a folder that exists."""
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    save_file({key: value for key, value in _on_cpu(model.state_dict()).items() if key in trained}, folder / WEIGHTS)
    record = {
        "kind": EXAM_KIND,
        **facts,
        "config": asdict(model.clip.config),
        "adapters": asdict(plan),
        "global_blocks": model.clip.config.vision_layers - model.local_blocks,
        "view_dropout": model.view_dropout,
        "prompts": asdict(prompts),
        "backbone": {"source": backbone.source, "hash": state_hash(backbone.state)},
    }
    _write_record(folder, record, vocabulary)


def load_exam_clip(folder: Path, backbone: Backbone) -> LoadedExamClip:
    """What `save_exam_clip` wrote, on the backbone it was trained on. Raises CheckpointError for any other."""
    record = _record(folder, EXAM_KIND)
    try:
        wanted = record["backbone"]
        splits = int(record["global_blocks"]), float(record["view_dropout"])
        names = str(wanted["source"]), str(wanted["hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / RECORD}: {type(error).__name__}: {error}: no record of System B") from error
    found = state_hash(backbone.state)
    if found != names[1]:
        raise CheckpointError(
            f"{folder}: was trained on another backbone: {names[0]} with hash {names[1][:12]}, not {backbone.source} "
            f"with {found[:12]}; give that one"
        )
    plan = _part(AdapterPlan, record, "adapters", folder)
    config = _part(ClipConfig, record, "config", folder)
    try:
        model = _filled(folder, build_exam_clip(config, plan, *splits, backbone.state))
    except RecipeError as error:
        raise CheckpointError(f"{folder / RECORD}: {error}") from error
    prompts = _part(CasePrompts, record, "prompts", folder)
    return LoadedExamClip(model.eval(), load_clip_tokenizer(folder / VOCABULARY_FILE), prompts, record)


def _filled(folder: Path, model: ExamClip) -> ExamClip:
    """The trained parameters put in their places, every one accounted for."""
    own = model.state_dict()
    trained = {name: own[name] for name, value in model.named_parameters() if value.requires_grad}
    path = folder / WEIGHTS
    model.load_state_dict({**own, **split_state(path, read_safetensors(path), "", trained)})
    return model


def _record(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as a model's record: {error}") from error
    said = record.get("kind") if isinstance(record, dict) else None
    if said != kind:
        raise CheckpointError(f"{path}: is a record of kind {said!r}; wanted is {kind!r}")
    found: dict[str, Any] = record
    return found


def _part(kind: type[Any], record: Mapping[str, Any], key: str, folder: Path) -> Any:
    """A frozen value of the record. Raises CheckpointError naming the key."""
    try:
        return build(kind, record.get(key), f"{folder / RECORD}: {key}")
    except RecipeError as error:
        raise CheckpointError(str(error)) from error


def _write_record(folder: Path, record: Mapping[str, Any], vocabulary: Path) -> None:
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / VOCABULARY_FILE).write_bytes(vocabulary.read_bytes())


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu").contiguous() for key, value in state.items()}
