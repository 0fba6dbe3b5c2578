"""The contract in an exported ONNX -> config.pbtxt, and labels.txt or model.py beside it, for Triton.

`python -m node.inference.triton_config triton_models/exam_encoder` rewrites them after an export; so for exam_query
and text_encoder, which are told by the outputs of their contracts.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from node.errors import ContractError
from node.inference.contract import contract_from_json, contract_to_json
from node.inference.openvino_graph import onnx_file, read_onnx
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
from node.inference.tensors import Signature, signature_of
from node.mammography.contract import ModelContract, QueryContract, TextContract

MAX_BATCH_SIZE = 8
QUEUE_DELAY_MICROSECONDS = 2000
TRITON_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
    "int64": "TYPE_INT64",
}
BACKEND = Path(__file__).parents[2] / "triton_models/exam_encoder/1/model.py"
"""Triton's Python backend around any of the three graphs."""


def triton_config(contract: ModelContract) -> str:
    """config.pbtxt of exam_encoder for Triton's Python backend on CPU; its contract is the parameter `contract`."""
    return _config(signature_of(contract), contract_to_json(contract))


def query_config(contract: QueryContract) -> str:
    """config.pbtxt of exam_query."""
    return _config(query_signature(contract), query_contract_to_json(contract))


def text_config(contract: TextContract, vocabulary: bytes, phrases: bytes = b"") -> str:
    """config.pbtxt of text_encoder; the files of its vocabulary and of known phrases are parameters."""
    files = {"vocabulary": vocabulary} | ({"phrases": phrases} if phrases else {})
    return _config(text_signature(contract), text_contract_to_json(contract)) + "".join(
        _parameter(name, [f'  "{_octets(line)}"' for line in content.splitlines(keepends=True)])
        for name, content in files.items()
    )


def write_config(model_folder: Path) -> None:
    """Write what stands beside the folder's ONNX of the highest version. Raises ContractError."""
    file = onnx_file(model_folder)
    _, written = read_onnx(file)
    outputs = _outputs(written)
    if outputs == set(QUERY_OUTPUTS):
        text = query_config(query_contract_from_json(written))
    elif outputs == set(TEXT_OUTPUTS):
        contract = text_contract_from_json(written)
        phrases = model_folder / KNOWN_PHRASES
        known = phrases.read_bytes() if phrases.exists() else b""
        text = text_config(contract, (model_folder / contract.vocabulary).read_bytes(), known)
    else:
        exam = contract_from_json(written)
        text = triton_config(exam)
        labels = "".join(f"{kind.value}\n" for kind in exam.findings)
        (model_folder / "labels.txt").write_text(labels, encoding="ascii")
    (model_folder / "config.pbtxt").write_text(text, encoding="ascii")
    backend = file.with_name("model.py")
    if BACKEND.exists() and not backend.exists():
        shutil.copyfile(BACKEND, backend)


def _config(signature: tuple[Signature, Signature], contract: str) -> str:
    inputs, outputs = signature
    lines = [
        "# Written by python -m node.inference.triton_config; docs/triton.md says what changes on a GPU.",
        'backend: "python"',
        f"max_batch_size: {MAX_BATCH_SIZE}",
    ]
    for name, (element_type, shape) in inputs.items():
        lines.append(f'input {{ name: "{name}" data_type: {TRITON_TYPES[element_type]} dims: {list(shape[1:])} }}')
    for name, (element_type, shape) in outputs.items():
        dims = f"dims: {list(shape[1:])}" if shape[1:] else "dims: [1] reshape { shape: [] }"
        labels = ' label_filename: "labels.txt"' if name == "finding_logits" else ""
        lines.append(f'output {{ name: "{name}" data_type: {TRITON_TYPES[element_type]} {dims}{labels} }}')
    lines += [
        "instance_group { kind: KIND_CPU count: 1 }",
        f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS} }}",
        'parameters { key: "precision" value: { string_value: "f32" } }',
    ]
    quoted = [f'  "{_escaped(line)}"' for line in contract.splitlines()]
    return "\n".join(lines) + "\n" + _parameter("contract", quoted)


def _parameter(name: str, lines: Sequence[str]) -> str:
    """Adjacent strings are one string."""
    return "\n".join([f'parameters {{ key: "{name}" value: {{ string_value:', *lines, "} }"]) + "\n"


def _outputs(written: str) -> set[str]:
    """What a contract says that the graph gives; which of the three models it is."""
    try:
        return set(json.loads(written)["outputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError("contract: outputs: is missing or no list") from error


def _escaped(line: str) -> str:
    return line.replace("\\", "\\\\").replace('"', '\\"')


def _octets(line: bytes) -> str:
    """As the text format writes bytes: ASCII as it stands, others by their octal numbers."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in line)


if __name__ == "__main__":
    write_config(Path(sys.argv[1]))
