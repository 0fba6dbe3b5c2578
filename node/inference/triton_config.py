"""The contract in an exported ONNX -> config.pbtxt and labels.txt beside it, for Triton.

`python -m node.inference.triton_config triton_models/exam_encoder` rewrites both after an export.
"""

import sys
from pathlib import Path

from node.inference.contract import contract_to_json
from node.inference.openvino_model import onnx_file, read_graph
from node.inference.tensors import signature_of
from node.mammography.contract import ModelContract

MAX_BATCH_SIZE = 8
QUEUE_DELAY_MICROSECONDS = 2000
TRITON_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "bool": "TYPE_BOOL"}


def triton_config(contract: ModelContract) -> str:
    """config.pbtxt for Triton's Python backend on CPU; the contract stands in the parameter `contract`."""
    inputs, outputs = signature_of(contract)
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
        'parameters { key: "contract" value: { string_value:',
        *(f'  "{_escaped(line)}"' for line in contract_to_json(contract).splitlines()),
        "} }",
    ]
    return "\n".join(lines) + "\n"


def write_config(model_folder: Path) -> None:
    """Write config.pbtxt and labels.txt for the folder's ONNX of the highest version. Raises ContractError."""
    _, contract = read_graph(onnx_file(model_folder))
    (model_folder / "config.pbtxt").write_text(triton_config(contract), encoding="ascii")
    (model_folder / "labels.txt").write_text("".join(f"{kind.value}\n" for kind in contract.findings), encoding="ascii")


def _escaped(line: str) -> str:
    return line.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    write_config(Path(sys.argv[1]))
