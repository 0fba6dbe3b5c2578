"""The contract in an exported ONNX -> config.pbtxt, and labels.txt or model.py beside it, for Triton.

`python -m node.inference.triton_config triton_models/exam_encoder` rewrites them after an export; so for exam_query
and text_encoder, which are told by the outputs of their contracts. `--target` names a row of the table in
triton_targets.py.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node.errors import ContractError, NodeError
from node.inference.config_text import Samples, config_text, parameter_text
from node.inference.contract import contract_from_json, contract_to_json
from node.inference.openvino_graph import onnx_file, onnx_versions, port_signature, read_onnx
from node.inference.phrase_models import KNOWN_PHRASES
from node.inference.query_contract import (
    QUERY_OUTPUTS,
    TEXT_OUTPUTS,
    query_contract_from_json,
    query_contract_to_json,
    text_contract_from_json,
    text_contract_to_json,
)
from node.inference.query_tensors import query_signature, text_signature
from node.inference.tensors import Signature, check_signature, signature_of
from node.inference.triton_targets import DEFAULT_TARGET, TARGETS, Target, target_of
from node.inference.warm_up import read_sample, write_files
from node.mammography.contract import ModelContract, QueryContract, TextContract

BACKEND = Path(__file__).parents[2] / "triton_models/exam_encoder/1/model.py"
"""Triton's Python backend around any of the three graphs."""
PRECISIONS = ("f32", "f16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class Serving:
    """How one folder is served: on which target, from which versions, after which sample."""

    target: Target = DEFAULT_TARGET
    precision: str | None = None
    """What the model computes in; None: what its variant says, else the target's."""
    samples: Samples | None = None
    older: Mapping[str, str] = field(default_factory=dict)
    """Contracts of the other versions that are served, as JSON by version number."""


def triton_config(contract: ModelContract, serving: Serving | None = None) -> str:
    """config.pbtxt of exam_encoder; its contract is the parameter `contract`."""
    return _config(contract, signature_of(contract), contract_to_json(contract), serving or Serving())


def query_config(contract: QueryContract, serving: Serving | None = None) -> str:
    """config.pbtxt of exam_query."""
    return _config(contract, query_signature(contract), query_contract_to_json(contract), serving or Serving())


def text_config(contract: TextContract, vocabulary: bytes, phrases: bytes = b"", serving: Serving | None = None) -> str:
    """config.pbtxt of text_encoder; the files of its vocabulary and of known phrases are parameters."""
    files = {"vocabulary": vocabulary} | ({"phrases": phrases} if phrases else {})
    return _config(contract, text_signature(contract), text_contract_to_json(contract), serving or Serving()) + "".join(
        parameter_text(name, content.splitlines(keepends=True)) for name, content in files.items()
    )


def write_config(
    model_folder: Path, target: Target = DEFAULT_TARGET, precision: str | None = None, keep: int = 1
) -> None:
    """Write what stands beside the folder's ONNX of the highest version; `keep`: versions served, the highest ones.

    Raises ContractError where a file or a contract does not fit.
    """
    file = onnx_file(model_folder)
    contract = read_contract(file)
    signature = signature_of_contract(contract)
    sample = None if target.backend == "python" else read_sample(model_folder, signature[0])
    if sample is not None:
        write_files(model_folder, sample)
    samples = None if sample is None else {name: value.shape for name, value in sample.items()}
    serving = Serving(target, precision, samples, _older(model_folder, keep, signature))
    (model_folder / "config.pbtxt").write_text(_text(model_folder, contract, serving), encoding="ascii")
    backend = file.with_name("model.py")
    if target.backend == "python" and BACKEND.exists() and not backend.exists():
        shutil.copyfile(BACKEND, backend)


Contract = ModelContract | QueryContract | TextContract


def read_contract(file: Path) -> Contract:
    """The checked contract in an ONNX whose tensors fit it. Raises ContractError."""
    graph, written = read_onnx(file)
    outputs = _outputs(written)
    contract: Contract
    if outputs == set(QUERY_OUTPUTS):
        contract = query_contract_from_json(written)
    elif outputs == set(TEXT_OUTPUTS):
        contract = text_contract_from_json(written)
    else:
        contract = contract_from_json(written)
    inputs, given = signature_of_contract(contract)
    check_signature(port_signature(graph.inputs), inputs)
    check_signature(port_signature(graph.outputs), given)
    return contract


def signature_of_contract(contract: Contract) -> tuple[Signature, Signature]:
    """Inputs and outputs of a graph that keeps any of the three contracts."""
    if isinstance(contract, ModelContract):
        return signature_of(contract)
    return query_signature(contract) if isinstance(contract, QueryContract) else text_signature(contract)


def _text(model_folder: Path, contract: Contract, serving: Serving) -> str:
    if isinstance(contract, QueryContract):
        return query_config(contract, serving)
    if isinstance(contract, TextContract):
        phrases = model_folder / KNOWN_PHRASES
        known = phrases.read_bytes() if phrases.exists() else b""
        return text_config(contract, (model_folder / contract.vocabulary).read_bytes(), known, serving)
    labels = "".join(f"{kind.value}\n" for kind in contract.findings)
    (model_folder / "labels.txt").write_text(labels, encoding="ascii")
    return triton_config(contract, serving)


def _older(model_folder: Path, keep: int, signature: tuple[Signature, Signature]) -> dict[str, str]:
    """Contracts of the versions served beside the highest. One config.pbtxt is for one set of tensors."""
    contracts = {}
    for file in onnx_versions(model_folder)[:-1][1 - keep :] if keep > 1 else []:
        contract = read_contract(file)
        if signature_of_contract(contract) != signature:
            raise ContractError(
                f"model: version {file.parent.name} has other tensors than the highest; give it a name of its own"
            )
        contracts[file.parent.name] = _json(contract)
    return contracts


def _json(contract: Contract) -> str:
    if isinstance(contract, ModelContract):
        return contract_to_json(contract)
    return query_contract_to_json(contract) if isinstance(contract, QueryContract) else text_contract_to_json(contract)


def _config(contract: Contract, signature: tuple[Signature, Signature], written: str, serving: Serving) -> str:
    precision = serving.precision or _precision(contract.variant, serving.target)
    tags = {"release": contract.version, "precision": precision, "weights": contract.weights_hash[:12]}
    keep = 1 + len(serving.older)
    text = config_text(contract.name, signature, serving.target, tags=tags, samples=serving.samples, keep=keep)
    text += f'parameters {{ key: "precision" value: {{ string_value: "{precision}" }} }}\n'
    contracts = {"contract": written} | {f"contract.{version}": other for version, other in serving.older.items()}
    return text + "".join(
        parameter_text(name, [line.encode("ascii") for line in lines.splitlines()]) for name, lines in contracts.items()
    )


def _precision(variant: str, target: Target) -> str:
    """A derived file's variant begins with what it computes in; an original one is computed as the target does."""
    first = variant.partition(" ")[0]
    return first if first in PRECISIONS else target.precision


def _outputs(written: str) -> set[str]:
    """What a contract says that the graph gives; which of the three models it is."""
    try:
        return set(json.loads(written)["outputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError("contract: outputs: is missing or no list") from error


def main() -> None:
    """The command; an error ends it with its words alone."""
    parser = argparse.ArgumentParser(prog="python -m node.inference.triton_config", description="Write config.pbtxt.")
    parser.add_argument("folder", type=Path, help="a model's folder, <version>/model.onnx in it")
    parser.add_argument("--target", default=DEFAULT_TARGET.name, help=f"{', '.join(TARGETS)}; python if not given")
    parser.add_argument("--precision", choices=PRECISIONS, help="what it computes in, where the file does not say")
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="versions served at once, the highest N")
    arguments = parser.parse_args()
    try:
        write_config(arguments.folder, target_of(arguments.target), arguments.precision, arguments.keep)
    except NodeError as error:
        raise SystemExit(f"error: {error}") from error
    except OSError as error:
        raise SystemExit(f"error: {error.filename}: {error.strerror}") from error


if __name__ == "__main__":
    main()
