"""The served models -> a repository for another target: graphs in its precision, config.pbtxt, shapes to build for.

Nothing is trained and no weight changes: `weights_hash` and calibration are copied; `variant` says precision and
target.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from node.inference.openvino_graph import onnx_file
from node.inference.phrase_models import KNOWN_PHRASES, PHRASES_AT_ONCE
from node.inference.tensors import Signature
from node.inference.triton_config import Contract, read_contract, signature_of_contract, write_config
from node.inference.triton_targets import Target
from node.inference.warm_up import FOLDER, SAMPLE, read_sample
from node.mammography.contract import TextContract
from training.precision import TYPES, PrecisionError, cast, read_graph, with_variant

BUILD = "build.json"
"""Beside config.pbtxt: the shapes that a plan is built for."""
FULL = "f32"


@dataclass(frozen=True, slots=True)
class Derived:
    """One derived model."""

    folder: Path
    variant: str
    weights_hash: str


def derive(source: Path, out: Path, target: Target, precision: str) -> Derived:
    """Write the model of one folder for `target` into the folder `out`, whole. Raises ContractError, PrecisionError."""
    if out.resolve() == source.resolve():
        raise PrecisionError(f"{out}: is the model itself; give a folder of its own")
    file = onnx_file(source)
    contract = read_contract(file)
    inputs = signature_of_contract(contract)[0]
    sample = read_sample(source, inputs)
    graph = read_graph(file)
    variant = f"{precision} {target.backend}"
    if precision in TYPES:
        graph = cast(graph, precision, batched(sample))
    with_variant(graph, variant)
    written = out / "1" / "model.onnx"
    written.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, written)
    _copy_beside(source, out, contract)
    write_config(out, target, precision)
    facts = {"precision": precision, "weights_hash": contract.weights_hash, "onnx_sha256": sha256_of(written)}
    table = facts | {"inputs": shapes(inputs, sizes_of(contract, target))}
    (out / BUILD).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return Derived(out, variant, contract.weights_hash)


def batched(sample: dict[str, NDArray[np.generic]] | None) -> dict[str, NDArray[np.generic]] | None:
    """A sample as a batch of one."""
    return None if sample is None else {name: value[None] for name, value in sample.items()}


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Sizes:
    """Smallest, usual and greatest size of the batch and of the axis that varies beside it."""

    batch: tuple[int, int, int]
    inner: tuple[int, int, int]


def sizes_of(contract: Contract, target: Target) -> Sizes:
    """For which sizes a plan is built: batches up to the target's, phrases and tokens up to what the node asks."""
    usual = min(target.max_batch, max(target.preferred[0], 1))
    most = contract.max_tokens if isinstance(contract, TextContract) else PHRASES_AT_ONCE
    return Sizes((1, usual, target.max_batch), (1, max(1, most // 4), most))


def shapes(inputs: Signature, sizes: Sizes) -> dict[str, dict[str, Any]]:
    """By input: its element type, and its shape in the profile's min, opt and max."""
    table: dict[str, dict[str, Any]] = {}
    for name, (element_type, shape) in inputs.items():
        table[name] = {"type": element_type}
        for at, bound in enumerate(("min", "opt", "max")):
            inner = [sizes.inner[at] if size == -1 else size for size in shape[1:]]
            table[name][bound] = [sizes.batch[at], *inner]
    return table


def _copy_beside(source: Path, out: Path, contract: Contract) -> None:
    """Vocabulary, phrases and the warm-up sample; labels are written anew with the configuration."""
    names = [f"{FOLDER}/{SAMPLE}"]
    if isinstance(contract, TextContract):
        names += [contract.vocabulary, KNOWN_PHRASES]
    for name in names:
        if (source / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)
