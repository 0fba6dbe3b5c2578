"""A served graph in half precision, strongly typed, by nvidia-modelopt's autocast, as TensorRT wants it.

Half precision is the trunk alone: everything between the first and the last convolution. What stands before (min-max,
normalisation) and behind (pooling, projection, norms, cosines, heads) stays float32. A graph without convolutions, the
text tower, has its products with weights in half precision; attention, layer norms and the projection stay float32.
"""

import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from node.errors import NodeError

TYPES = {"f16": "fp16"}
"""By the node's name of a precision, autocast's."""
HALF = ".half"
LARGEST_SEEN = 4096.0
"""A node that reads or gives more than this on the sample stays float32: a sixteenth of what float16 can hold."""
CONTRACT = "contract"


class PrecisionError(NodeError):
    """A graph that cannot be brought to this precision, or a tool that is not installed."""


def read_graph(file: Path) -> onnx.ModelProto:
    """An exported ONNX. Raises PrecisionError."""
    try:
        graph = onnx.load(file)
        onnx.checker.check_model(graph)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise PrecisionError(f"{file}: cannot be read as ONNX; export it again") from error
    return graph


def expand(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph before `training.export.store_half`: weights stored as float16 are float32 again, no Cast behind."""
    full = onnx.ModelProto()
    full.CopyFrom(graph)
    stored = {}
    for tensor in full.graph.initializer:
        if tensor.name.endswith(HALF) and tensor.data_type == TensorProto.FLOAT16:
            name = tensor.name.removesuffix(HALF)
            stored[tensor.name] = name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), name))
    nodes = [node for node in full.graph.node if not (node.op_type == "Cast" and node.input[0] in stored)]
    del full.graph.node[:]
    full.graph.node.extend(nodes)
    return full


def half_nodes(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute in half precision, see the top of this file. Raises PrecisionError: none."""
    nodes = list(graph.graph.node)
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    found = _between(nodes, convolutions) if convolutions else _weight_products(graph)
    if not found:
        raise PrecisionError(f"{graph.graph.name}: has neither convolutions nor products with weights")
    return found


def _between(nodes: list[onnx.NodeProto], ends: list[onnx.NodeProto]) -> list[str]:
    """The ends, and what lies on a way from one to another."""
    makers = {name: node for node in nodes for name in node.output}
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    behind = _reached(ends, lambda node: [taker for name in node.output for taker in takers.get(name, [])])
    before = _reached(ends, lambda node: [makers[name] for name in node.input if name in makers])
    return [node.name for node in nodes if node.name in behind & before]


def _reached(starts: list[onnx.NodeProto], step: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto]]) -> set[str]:
    seen: set[str] = set()
    left = list(starts)
    while left:
        node = left.pop()
        if node.name not in seen:
            seen.add(node.name)
            left.extend(step(node))
    return seen


def _weight_products(graph: onnx.ModelProto) -> list[str]:
    weights = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) == 2}
    return [node.name for node in graph.graph.node if node.op_type == "MatMul" and weights & set(node.input)]


def cast(graph: onnx.ModelProto, precision: str, sample: dict[str, NDArray[np.generic]] | None) -> onnx.ModelProto:
    """The graph with its trunk in `precision`, a key of TYPES; inputs, outputs and metadata as they were.

    `sample`: inputs with their batch axis, on which the range of each tensor is looked at. Raises PrecisionError.
    """
    full = expand(graph)
    inner = set(half_nodes(full))
    outside = "|".join(re.escape(node.name) for node in full.graph.node if node.name not in inner)
    with tempfile.TemporaryDirectory() as folder:
        file, data = Path(folder) / "model.onnx", Path(folder) / "sample.npz"
        onnx.save(full, file)
        if sample is not None:
            np.savez(data, allow_pickle=False, **sample)
        typed = _autocast(file, precision, f"(?:{outside})$", data if sample is not None else None)
    del typed.metadata_props[:]
    typed.metadata_props.extend(graph.metadata_props)
    _check_ports(graph, typed)
    return typed


def _autocast(file: Path, precision: str, outside: str, sample: Path | None) -> onnx.ModelProto:
    try:
        from modelopt.onnx.autocast import convert_to_mixed_precision
    except ImportError as error:
        raise PrecisionError(
            f"nvidia-modelopt cannot be imported ({error}); run this through scripts/compile, which installs it apart"
        ) from error
    for name in ("modelopt.onnx", "modelopt.onnx.autocast"):  # a line for each node otherwise
        logging.getLogger(name).setLevel(logging.ERROR)
    converted: onnx.ModelProto = convert_to_mixed_precision(
        str(file),
        TYPES[precision],
        nodes_to_exclude=[outside],  # one expression: autocast tries each on each node
        keep_io_types=True,
        data_max=np.inf if sample is None else LARGEST_SEEN,
        calibration_data=None if sample is None else str(sample),
        providers=["cpu"],
    )
    return converted


def _check_ports(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    for name, old, new in (
        ("input", before.graph.input, after.graph.input),
        ("output", before.graph.output, after.graph.output),
    ):
        if [port.name for port in old] != [port.name for port in new] or any(
            one.type.tensor_type.elem_type != other.type.tensor_type.elem_type
            for one, other in zip(old, new, strict=True)
        ):
            raise PrecisionError(f"autocast changed an {name}; the file cannot keep its contract")


def with_variant(graph: onnx.ModelProto, variant: str) -> None:
    """Name the derived file in its contract; the weights' hash stays that of the original. Raises PrecisionError."""
    for entry in graph.metadata_props:
        if entry.key == CONTRACT:
            entry.value = json.dumps({**json.loads(entry.value), "variant": variant}, sort_keys=True)
            return
    raise PrecisionError("the graph carries no contract")
