"""Files that users of System A have: released checkpoints, read without running anything that stands in them.

They are pickles, some with omegaconf objects inside. `torch.load(weights_only=True)` reads them with a fixed list of
names, and each foreign one of these becomes an inert object that keeps its state. Any other name is refused.
"""

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor

LICENCE = (
    "Checkpoints of github.com/batmanlab/Mammo-CLIP: CC BY-NC-SA 4.0 since 2025-10-16 (their README bars commercial "
    "use and deployment), CC BY 4.0 before; the model page says CC BY 4.0. They may not be passed on with this project."
)


class CheckpointError(Exception):
    """A file that cannot be imported. The message names the file, what is wrong, and the cure."""


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """What one file holds: `kind` "pretrained", "classifier", "detector" or "factor"; `variant` "b2" or "b5".

    `state` maps keys to tensors, without `module.`; `record` has the file's name and SHA-256, its licence, its
    configuration and its figures, as JSON takes them.
    """

    kind: str
    variant: str
    state: dict[str, Tensor]
    record: dict[str, Any]


class _Inert:
    """In place of a foreign object: takes whatever it is made of, keeps its state, does nothing."""

    def __init__(self, *parts: object) -> None:
        self.parts: tuple[object, ...] = parts
        self.state: object = parts

    def __setstate__(self, state: object) -> None:
        self.state = state


def _inert(name: str) -> tuple[type[_Inert], str]:
    """A class of its own for each name: torch keeps one class a name."""
    return type(name.rpartition(".")[2], (_Inert,), {}), name


_FOREIGN = [
    _inert(name)
    for name in (
        "omegaconf.listconfig.ListConfig",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.nodes.AnyNode",
        "omegaconf.nodes.StringNode",
        "omegaconf.nodes.IntegerNode",
        "omegaconf.nodes.FloatNode",
        "omegaconf.nodes.BooleanNode",
        "typing.Any",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
    )
]
_PLAIN: list[Any] = [(list, "builtins.list"), (dict, "builtins.dict"), (int, "builtins.int")]
_PLAIN += [(defaultdict, "collections.defaultdict")]
_PLAIN += [(list, "__builtin__.list"), (dict, "__builtin__.dict"), (int, "__builtin__.int"), (int, "__builtin__.long")]


def load_file(path: Path) -> dict[str, Any]:
    """The file's top-level dictionary. Raises CheckpointError where it is no such file or holds a foreign name."""
    try:
        with torch.serialization.safe_globals([*_FOREIGN, *_PLAIN]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that torch itself does not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refusal(error)}") from error
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: cannot be read: {_unreadable(path, error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds no dictionary but {type(content).__name__}: no checkpoint of Mammo-CLIP")
    return content


_UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What torch raises for a file that is cut off or is none of its own."""


def _refusal(error: Exception) -> str:
    """What the restricted unpickler met, and the cure."""
    found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    if found is None:
        return (
            "refused: it is nothing that torch.save wrote, or holds what no checkpoint holds; take it from the "
            "authors' page again"
        )
    return (
        f"refused: it wants {found.group(1)}. Such a file can run anything when it is opened; take it from the "
        "authors' page again"
    )


def _unreadable(path: Path, error: Exception) -> str:
    """Why, and the cure: the authors' downstream files come in a zip, which looks like a checkpoint to torch."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            shown = ", ".join(names[:3])
            return f"it is a zip of other files ({shown}); unpack it and import one of them"
    return f"{_first_line(error)}. Is it whole? Compare its size with the authors' page and fetch it again"


def _first_line(error: Exception) -> str:
    words = str(error).strip().splitlines()
    return (words[0] if words else type(error).__name__)[:200]


def read_released(path: Path) -> Released:
    """Read one released file and say what it is. Raises CheckpointError where it is none that is known."""
    content = load_file(path)
    kind, state = _kind_of(path, content)
    if odd := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path}: does not fit: {', '.join(odd[:5])} under its weights is no tensor")
    tensors = {str(key).removeprefix("module."): value for key, value in state.items()}
    others = {key: value for key, value in content.items() if key not in _HEAVY and not isinstance(value, Tensor)}
    record = {
        "file": path.name,
        "sha256": _sha256(path),
        "kind": kind,
        "licence": LICENCE,
        **{key: plain(value) for key, value in others.items()},
    }
    return Released(kind, _variant(path, tensors), tensors, record)


_HEAVY = frozenset({"model", "state_dict", "optimizer", "scheduler", "predictions"})
"""Left out of the record: weights, and what only a resumed training wants."""


def _kind_of(path: Path, content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """By what stands in it, never by its name."""
    if isinstance(state := content.get("model"), Mapping):
        is_classifier = any("classifier.classification_head" in str(key) for key in state)
        return ("classifier" if is_classifier else "pretrained"), state
    if isinstance(state := content.get("state_dict"), Mapping):
        return "detector", state
    if any(str(key).removeprefix("module.").startswith("pool.") for key in content):
        return "factor", content
    raise CheckpointError(
        f"{path}: no checkpoint of Mammo-CLIP: its keys are {', '.join(map(str, list(content)[:6])) or 'none'}; known "
        "are files with weights under `model` (pretraining, classifier) or `state_dict` (detector), and bare FActOR "
        "weights"
    )


def _variant(path: Path, state: Mapping[str, Tensor]) -> str:
    """B2 or B5 by the channels of the head, whatever the configuration calls it."""
    heads = [value for key, value in state.items() if key.endswith("_conv_head.weight")]
    channels = heads[0].shape[0] if heads and heads[0].dim() else 0
    variant = {1408: "b2", 2048: "b5"}.get(channels)
    if variant is None:
        which = f"ends in {channels} channels" if channels else "has no _conv_head.weight"
        raise CheckpointError(
            f"{path}: a checkpoint of another model: its image encoder {which}; Mammo-CLIP's B2 ends in 1408, B5 in "
            "2048"
        )
    return variant


def plain(value: object) -> Any:
    """What JSON takes: omegaconf's containers as lists and dictionaries, unknown objects by their class's name."""
    if isinstance(value, _Inert):
        if type(value).__name__ == "scalar":
            return _number(value)
        state = value.state if isinstance(value.state, dict) else {}
        inner = state.get("_content", state.get("_val"))
        return plain(inner) if inner is not None else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


_FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}


def _number(scalar: _Inert) -> float | None:
    """The number of one of numpy's scalars, from its type's name and its bytes; None where it is another."""
    match scalar.parts:
        case (_Inert(parts=(str(name), *_)), bytes(raw)) if name in _FORMATS:
            (number,) = struct.unpack(f"<{_FORMATS[name]}", raw)
            return number if isinstance(number, int | float) else None
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError."""
    try:
        state: dict[str, Tensor] = load_safetensors(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}. Is it whole? Copy it again") from error
    return state


def split_state(
    path: Path, state: Mapping[str, Tensor], prefix: str, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors under `prefix` that a module with the state `expected` wants; every one accounted for.

    Raises CheckpointError that names what is missing, unexpected, or of another shape.
    """
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for optional in _OPTIONAL:
        if optional not in expected:
            own.pop(optional, None)
    problems = list(_differences(own, expected))
    if problems:
        shown = "; ".join(problems[:5])
        raise CheckpointError(f"{path}: does not fit: {shown}{f'; {len(problems) - 5} more' if problems[5:] else ''}")
    return own


_OPTIONAL = (
    "text_encoder.text_encoder.embeddings.position_ids",
    "_fc.weight",
    "_fc.bias",
    "image_encoder._fc.weight",
    "image_encoder._fc.bias",
    "efficientnet._fc.weight",
    "efficientnet._fc.bias",
)
"""Older transformers store position ids; some files, all detectors among them, carry the unused ImageNet classifier."""


def _differences(own: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[str]:
    yield from (f"{key} is missing" for key in expected if key not in own)
    yield from (f"{key} is unexpected" for key in own if key not in expected)
    for key in own.keys() & expected.keys():
        if own[key].shape != expected[key].shape:
            yield f"{key} is {list(own[key].shape)}, not {list(expected[key].shape)}"
