"""A tiny exam encoder that keeps the contract: bright blobs are masses, bright specks are calcifications.

`python -m tests.models FOLDER` writes one in the layout of triton_models/exam_encoder.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from node.inference.triton_config import write_config

VIEWS = 4
KINDS = ("mass", "suspicious_calcification")
EMBED_DIM = 8
STRIDE = 8
OFFSET = 0.5
SPECK = 9  # pixels, odd: the window of a heatmap cell
SURROUNDINGS = 9  # cells, odd: 73 pixels
OUTPUTS = ("exam_logit", "exam_embedding", "breast_logits", "finding_logits", "heatmaps", "view_embeddings")
BACKEND = Path(__file__).parents[1] / "triton_models/exam_encoder/1/model.py"

_FLOATS: dict[str, Any] = {
    "zero": 0.0,
    "one": 1.0,
    "air": 0.02,
    "least_breast": 0.05,
    "absent": -30.0,
    "blob_floor": 0.06,
    "blob_gain": 5.0,
    "speck_floor": 0.2,
    "speck_gain": 4.0,
    "slope": 6.0,
    "middle": -3.0,
}


def make_tiny_model(
    folder: Path,
    *,
    height: int = 760,
    width: int = 456,
    contract: Mapping[str, Any] | None = None,
    leaky: bool = False,
) -> Path:
    """Write config.pbtxt, labels.txt, 1/model.onnx and 1/model.py; returns `folder`.

    `contract` overrides keys of the contract, also with nonsense; None for a value removes the key.
    `leaky` lets the pixels of absent views into the exam's embedding: a model to be refused.
    """
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    model = _model(height, width, leaky)
    document = _contract(model, height, width) | dict(contract or {})
    removed = [key for key, value in (contract or {}).items() if value is None and key != "text_space"]
    text = json.dumps({key: value for key, value in document.items() if key not in removed})
    helper.set_model_props(model, {"contract": text})
    onnx.checker.check_model(model)
    onnx.save(model, version / "model.onnx")
    (folder / "labels.txt").write_text("".join(f"{kind}\n" for kind in KINDS), encoding="utf-8")
    if BACKEND.exists():
        shutil.copy(BACKEND, version / "model.py")
    if not contract:
        write_config(folder)
    return folder


def _contract(model: onnx.ModelProto, height: int, width: int) -> dict[str, Any]:
    calibrated = ("exam_logit", "breast_logits", *(f"finding_logits.{kind}" for kind in KINDS))
    return {
        "contract_version": 1,
        "name": "exam_encoder",
        "version": "0.0.1-tiny",
        "preset": f"fit-{height}x{width}",
        "views": ["RCC", "LCC", "RMLO", "LMLO"],
        "findings": list(KINDS),
        "outputs": list(OUTPUTS),
        "input_shape": [height, width],
        "wire_type": "float32",
        "embed_dim": EMBED_DIM,
        "heatmap_shape": [_cells(height), _cells(width)],
        "heatmap_stride": [STRIDE, STRIDE],
        "heatmap_offset": [OFFSET, OFFSET],
        "calibration": {name: {"a": 1.0, "b": 0.0, "dataset": "none", "prevalence": 0.5} for name in calibrated},
        "operating_points": {kind: {"probability": 0.5, "heat": 0.5} for kind in KINDS},
        "calibrated_on_patients": False,
        "weights_hash": _weights_hash(model),
        "text_space": None,
        "variant": "fp32 onnx",
    }


def _cells(size: int) -> int:
    return (size - 1) // STRIDE + 1


def _weights_hash(model: onnx.ModelProto) -> str:
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        array = numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _model(height: int, width: int, leaky: bool) -> onnx.ModelProto:
    nodes = _masking(leaky) + _heat() + _logits() + _embeddings(leaky)
    rows, columns, kinds = _cells(height), _cells(width), len(KINDS)
    shapes: dict[str, list[Any]] = {
        "exam_logit": ["B"],
        "exam_embedding": ["B", EMBED_DIM],
        "breast_logits": ["B", 2],
        "finding_logits": ["B", VIEWS, kinds],
        "heatmaps": ["B", VIEWS, kinds, rows, columns],
        "view_embeddings": ["B", VIEWS, EMBED_DIM],
    }
    integers = {
        "each_view": [-1, 1, height, width],
        "by_exam_maps": [-1, VIEWS, kinds, rows, columns],
        "by_exam_kinds": [-1, VIEWS, kinds],
        "by_exam_embedding": [-1, VIEWS, EMBED_DIM],
        "axis_1": [1],
        "axis_2": [2],
        "axis_last": [-1],
        "axes_view": [2, 3, 4],
        "axes_map": [2, 3],
        "right": [0, 2],
        "left": [1, 3],
    }
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in _FLOATS.items()]
    constants += [helper.make_tensor(name, TensorProto.INT64, [len(value)], value) for name, value in integers.items()]
    constants.append(numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "scale"))
    graph = helper.make_graph(
        nodes,
        "tiny_exam_encoder",
        [
            helper.make_tensor_value_info("views", TensorProto.FLOAT, ["B", VIEWS, 1, height, width]),
            helper.make_tensor_value_info("present", TensorProto.BOOL, ["B", VIEWS]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def _window(size: int) -> dict[str, Any]:
    """A window centred on the pixel (0, 0) and every STRIDE pixels from there: the cell's centre lies at 0.5."""
    half = size // 2
    return {"kernel_shape": [size, size], "strides": [STRIDE, STRIDE], "pads": [half] * 4}


def _masking(leaky: bool) -> list[onnx.NodeProto]:
    return [
        _node("Unsqueeze", "present axes_view", "present_5"),
        _node("Identity", "views", "masked") if leaky else _node("Where", "present_5 views zero", "masked"),
        _node("Reshape", "masked each_view", "x"),
    ]


def _heat() -> list[onnx.NodeProto]:
    """Blobs: brighter than the breast around them. Specks: a pixel brighter than its cell."""
    around = {"kernel_shape": [SURROUNDINGS] * 2, "pads": [SURROUNDINGS // 2] * 4}
    return [
        _node("Greater", "x air", "breast"),
        _node("Cast", "breast", "tissue", to=TensorProto.FLOAT),
        _node("AveragePool", "x", "near_sum", **_window(SPECK)),
        _node("AveragePool", "tissue", "near_share", **_window(SPECK)),
        _node("AveragePool", "near_sum", "far_sum", **around),
        _node("AveragePool", "near_share", "far_share", **around),
        _node("Max", "near_share least_breast", "near_weight"),
        _node("Max", "far_share least_breast", "far_weight"),
        _node("Div", "near_sum near_weight", "near"),
        _node("Div", "far_sum far_weight", "far"),
        _node("Sub", "near far", "contrast"),
        _node("Sub", "contrast blob_floor", "blob"),
        _node("Mul", "blob blob_gain", "blob_heat"),
        _node("MaxPool", "x", "peak", **_window(SPECK)),
        _node("Sub", "peak near", "spike"),
        _node("Sub", "spike speck_floor", "speck"),
        _node("Mul", "speck speck_gain", "speck_heat"),
        _node("Concat", "blob_heat speck_heat", "both", axis=1),
        _node("Relu", "both", "heat"),
        _node("Reshape", "heat by_exam_maps", "heat_5"),
        _node("Where", "present_5 heat_5 zero", "heatmaps"),
    ]


def _logits() -> list[onnx.NodeProto]:
    return [
        _node("ReduceMax", "heat axes_map", "hottest", keepdims=0),
        _node("Reshape", "hottest by_exam_kinds", "hottest_3"),
        _node("Mul", "hottest_3 slope", "steep"),
        _node("Add", "steep middle", "raw_findings"),
        _node("Unsqueeze", "present axis_2", "present_3"),
        _node("Where", "present_3 raw_findings absent", "finding_logits"),
        _node("ReduceMax", "finding_logits axis_2", "view_logits", keepdims=0),
        _node("Gather", "view_logits right", "right_views", axis=1),
        _node("Gather", "view_logits left", "left_views", axis=1),
        _node("ReduceMax", "right_views axis_1", "right_logit", keepdims=1),
        _node("ReduceMax", "left_views axis_1", "left_logit", keepdims=1),
        _node("Concat", "right_logit left_logit", "breast_logits", axis=1),
        _node("ReduceMax", "breast_logits axis_1", "exam_logit", keepdims=0),
    ]


def _embeddings(leaky: bool) -> list[onnx.NodeProto]:
    """Eight plain numbers of a view: 1, tissue share, mean brightness, mean and greatest heat; then unit length."""
    return [
        _node("ReduceMean", "heat axes_map", "mean_heat", keepdims=1),
        _node("ReduceMax", "heat axes_map", "greatest_heat", keepdims=1),
        _node("ReduceMean", "x axes_map", "mean_x", keepdims=1),
        _node("ReduceMax", "x axes_map", "greatest_x", keepdims=1),
        _node("ReduceMean", "tissue axes_map", "mean_tissue", keepdims=1),
        _node("Sub", "mean_x mean_x", "nothing"),
        _node("Add", "nothing scale", "constant"),
        _node("Concat", "constant mean_tissue mean_x greatest_x mean_heat greatest_heat", "features", axis=1),
        _node("Reshape", "features by_exam_embedding", "features_3"),
        _node("Where", "present_3 features_3 zero", "present_features"),
        _node("ReduceL2", "present_features axis_last", "length", keepdims=1),
        _node("Where", "present_3 length one", "safe_length"),
        _node("Div", "present_features safe_length", "view_embeddings"),
        _node("ReduceSum", f"{'features_3' if leaky else 'present_features'} axis_1", "exam_features", keepdims=0),
        _node("ReduceL2", "exam_features axis_last", "exam_length", keepdims=1),
        _node("Max", "exam_length least_breast", "safe_exam_length"),
        _node("Div", "exam_features safe_exam_length", "exam_embedding"),
    ]


if __name__ == "__main__":
    print(make_tiny_model(Path(sys.argv[1])))
