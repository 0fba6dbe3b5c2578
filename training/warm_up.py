"""The warm-up sample of each served model: a phantom exam, a phrase; written into their folders after an export.

`python -m training warm-up --models triton_models`
"""

import argparse
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from node.mammography.contract import TextContract
    from training.mammo_clip.commands import Commands

SEED = 5_000_000
"""A phantom of its own, outside every split."""
PHRASE = "mass"
Arrays = dict[str, NDArray[Any]]


def add_warm_up(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser("warm-up", help="write the sample that each served model answers before it is ready")
    parser.add_argument("--models", type=Path, required=True, help="folder of exam_encoder and those beside it")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(lambda a: print(*write_samples(a.models), sep="\n"), arguments)


def write_samples(models: Path) -> list[Path]:
    """Write the sample of every model below the folder. Raises ContractError."""
    from node.inference.openvino_graph import onnx_file
    from node.inference.triton_config import read_contract
    from node.inference.warm_up import write_sample
    from node.mammography.contract import QueryContract, TextContract

    folders = sorted(folder for folder in models.iterdir() if (folder / "config.pbtxt").exists())
    contracts = {folder: read_contract(onnx_file(folder)) for folder in folders}
    texts = [(folder, one) for folder, one in contracts.items() if isinstance(one, TextContract)]
    tokens, embedding = _phrase(*texts[0]) if texts else ({}, None)
    written = []
    for folder, contract in contracts.items():
        sample = tokens if isinstance(contract, TextContract) else _exam(contract.preset)
        if isinstance(contract, QueryContract) and embedding is not None:
            sample = sample | {"query_embeddings": embedding[None]}
        written.append(write_sample(folder, sample))
    return written


@cache
def _exam(preset: str) -> Arrays:
    """A phantom exam as the model sees it, 8-bit: views (4, 1, H, W), all present."""
    from training.cache import prepare_exam

    return {"views": prepare_exam(SEED, preset_name=preset).images[:, None], "present": np.ones(4, np.bool_)}


def _phrase(folder: Path, contract: "TextContract") -> tuple[Arrays, NDArray[np.float32]]:
    """A phrase as the text encoder takes it, without the batch axis, and its embedding (D)."""
    from node.inference.openvino_graph import OpenVinoGraph, onnx_file, read_onnx
    from node.inference.query_tensors import embed_text
    from node.mammography.wordpiece import wordpiece_of

    vocabulary = (folder / contract.vocabulary).read_bytes()
    words = wordpiece_of(vocabulary, contract.vocabulary, lower_case=contract.lower_case)
    graph = OpenVinoGraph(read_onnx(onnx_file(folder))[0], contract.outputs, "f32", 1)
    seen: Arrays = {}

    def run(inputs: Arrays) -> Arrays:
        seen.update({name: value[0] for name, value in inputs.items()})
        return dict(graph.run(inputs))

    return seen, embed_text(run, PHRASE, contract, words)
