"""Released checkpoints, once converted: safetensors with our own names beside a JSON record that shows the licence."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.mammo_clip.model import EfficientNetEncoder, MammoClip, published
from training.mammo_clip.released import CheckpointError, Released, read_released, split_state

WEIGHTS, RECORD = "model.safetensors", "model.json"


def import_checkpoint(source: Path, folder: Path) -> Released:
    """Read a released file, check every key against the published model, write WEIGHTS and RECORD into `folder`.

    The optimiser's state is left out. Raises CheckpointError; then nothing is written.
    """
    released = read_released(source)
    state = checked_state(source, released)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value.contiguous() for key, value in state.items()}
    save_file(kept, folder / WEIGHTS)
    record = {**released.record, "variant": released.variant, "tensors": len(kept)}
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return released


def checked_state(source: Path, released: Released) -> dict[str, Tensor]:
    """The state with every key accounted for: none missing, none unexpected, all of the published shape."""
    if released.kind == "pretrained":
        return split_state(source, released.state, "", _expected(published, released.variant))
    if released.kind == "detector":
        # Its network is built by `training.mammo_clip.detection`, which checks its keys when it loads them.
        return dict(released.state)
    trunk = split_state(source, released.state, "image_encoder.", _expected(EfficientNetEncoder, released.variant))
    rest = {key: value for key, value in released.state.items() if not key.startswith("image_encoder.")}
    known = "classifier.classification_head." if released.kind == "classifier" else "pool."
    foreign = [key for key in rest if not key.startswith(known)]
    if foreign:
        raise CheckpointError(f"{source}: does not fit: {', '.join(foreign[:5])} unexpected in a {released.kind}")
    return {**{f"image_encoder.{key}": value for key, value in trunk.items()}, **rest}


def _expected(build: Callable[[str], nn.Module], variant: str) -> dict[str, Tensor]:
    """The published state, shapes only."""
    with torch.device("meta"):
        return dict(build(variant).state_dict())


def load_pretrained(folder: Path) -> MammoClip:
    """The dual encoder of an imported pretraining checkpoint, in eval mode. Raises CheckpointError."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record["kind"] != "pretrained":
        raise CheckpointError(f"{folder}: holds a {record['kind']}, not a pretrained dual encoder")
    model = published(record["variant"])
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    return model.eval()
