"""The served file: an ONNX graph with weights stored as float16, its contract in the metadata."""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training.exam_encoder import FINDINGS, ExamEncoder, ExamOutputs
from training.weights import weights_hash

OPSET = 18
INPUTS = ("views", "present")
OUTPUTS = ExamOutputs._fields

SMALLEST_STORED = 64
"""Initialisers with fewer values stay float32."""


def trace(model: ExamEncoder, height: int, width: int) -> onnx.ModelProto:
    """The network as an ONNX graph in float32 with a dynamic batch B."""
    views = torch.rand(2, 4, 1, height, width)
    present = torch.ones(2, 4, dtype=torch.bool)
    return trace_module(model, {"views": views, "present": present}, OUTPUTS, {})


def trace_module(
    module: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...], axes: dict[str, dict[int, str]]
) -> onnx.ModelProto:
    """A module as an ONNX graph in float32. `inputs` by name, as the module takes them, with a batch of at least 2.

    Axis 0 is the batch B everywhere; `axes` names further axes that are not fixed, by tensor.
    """
    file = io.BytesIO()
    named = {name: {0: "B", **axes.get(name, {})} for name in (*inputs, *outputs)}
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing is deprecated and warns of every shape; the newer exporter takes minutes for this graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=named,
        )
        answered = module(*inputs.values())
    graph = onnx.load_from_string(file.getvalue())
    _state_shapes(graph, answered if isinstance(answered, tuple) else (answered,), named)
    return graph


def _state_shapes(graph: onnx.ModelProto, outputs: Sequence[Tensor], axes: dict[str, dict[int, str]]) -> None:
    """Every output has its named axes and else numbers, whatever the exporter could follow."""
    for info, tensor in zip(graph.graph.output, outputs, strict=True):
        for axis, (dim, size) in enumerate(zip(info.type.tensor_type.shape.dim, tensor.shape, strict=True)):
            if axis in axes[info.name]:
                dim.dim_param = axes[info.name][axis]
            else:
                dim.dim_value = size


def store_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph whose larger float32 initialisers are float16 with a Cast back to float32 behind each."""
    stored, casts = onnx.ModelProto(), []
    stored.CopyFrom(graph)
    for tensor in stored.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < SMALLEST_STORED:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *stored.graph.node]
    del stored.graph.node[:]
    stored.graph.node.extend(nodes)
    onnx.checker.check_model(stored)
    return stored


def hash_of_graph(graph: onnx.ModelProto) -> str:
    """weights_hash of a stored graph: names as in float32, values as it computes with them."""
    values = {tensor.name.removesuffix(".half"): numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    return weights_hash(values)


def contract_of(
    model: tuple[str, str, str], shape: tuple[int, int], cells: tuple[int, int, int, float], figures: dict[str, Any]
) -> dict[str, Any]:
    """The contract's fields. `model`: name, version, preset; `cells`: rows, columns, stride, offset of the heatmap;
    `figures`: calibration and operating_points, as JSON has them. The weights' hash is added by `write_model`.
    """
    name, version, preset = model
    rows, columns, stride, offset = cells
    return {
        "contract_version": 1,
        "name": name,
        "version": version,
        "preset": preset,
        "views": ["RCC", "LCC", "RMLO", "LMLO"],
        "findings": list(FINDINGS),
        "outputs": list(OUTPUTS),
        "input_shape": list(shape),
        "wire_type": "float32",
        "embed_dim": figures["embed_dim"],
        "heatmap_shape": [rows, columns],
        "heatmap_stride": [float(stride), float(stride)],
        "heatmap_offset": [offset, offset],
        "calibration": figures["calibration"],
        "operating_points": figures["operating_points"],
        "calibrated_on_patients": False,
        "text_space": None,
        "variant": "fp16-stored onnx",
    }


def write_model(model: ExamEncoder, contract: dict[str, Any], folder: Path) -> str:
    """Write `1/model.onnx` and `labels.txt` below `folder`; returns the weights' hash."""
    height, width = contract["input_shape"]
    digest = write_graph(store_half(trace(model, height, width)), contract, folder)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in FINDINGS))
    return digest


def write_graph(graph: onnx.ModelProto, contract: dict[str, Any], folder: Path) -> str:
    """Write a stored graph with its contract to `1/model.onnx` below `folder`; returns the weights' hash."""
    digest = hash_of_graph(graph)
    del graph.metadata_props[:]
    entry = graph.metadata_props.add()
    entry.key, entry.value = "contract", json.dumps({**contract, "weights_hash": digest}, sort_keys=True)
    graph.doc_string, graph.producer_name = "Research use, not a medical device.", "mammoclip-node training"
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, path)
    return digest
