"""Tiny models that keep the contracts: bright blobs are masses, bright specks are calcifications.

`python -m tests.models FOLDER` writes an exam encoder in the layout of triton_models/exam_encoder.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from node.inference.triton_config import write_config

VIEWS = 4
KINDS = ("mass", "suspicious_calcification")
FOUR_KINDS = (*KINDS, "architectural_distortion", "asymmetry")
"""The last two are heat of blobs and specks again."""
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
    kinds: Sequence[str] = KINDS,
) -> Path:
    """Write config.pbtxt, labels.txt, 1/model.onnx and 1/model.py; returns `folder`.

    `contract` overrides keys of the contract, also with nonsense; None for a value removes the key.
    `leaky` lets the pixels of absent views into the exam's embedding: a model to be refused.
    """
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    model = _model(height, width, leaky, len(kinds))
    document = _contract(model, height, width, kinds) | dict(contract or {})
    removed = [key for key, value in (contract or {}).items() if value is None and key != "text_space"]
    text = json.dumps({key: value for key, value in document.items() if key not in removed})
    helper.set_model_props(model, {"contract": text})
    onnx.checker.check_model(model)
    onnx.save(model, version / "model.onnx")
    (folder / "labels.txt").write_text("".join(f"{kind}\n" for kind in kinds), encoding="utf-8")
    if BACKEND.exists():
        shutil.copy(BACKEND, version / "model.py")
    if not contract:
        write_config(folder)
    return folder


def _embed_dim(kinds: int) -> int:
    """1, tissue share, mean and greatest brightness, mean and greatest heat of each kind."""
    return 4 + 2 * kinds


def _contract(model: onnx.ModelProto, height: int, width: int, kinds: Sequence[str]) -> dict[str, Any]:
    calibrated = ("exam_logit", "breast_logits", *(f"finding_logits.{kind}" for kind in kinds))
    return {
        "contract_version": 1,
        "name": "exam_encoder",
        "version": "0.0.1-tiny",
        "preset": f"fit-{height}x{width}",
        "views": ["RCC", "LCC", "RMLO", "LMLO"],
        "findings": list(kinds),
        "outputs": list(OUTPUTS),
        "input_shape": [height, width],
        "wire_type": "float32",
        "embed_dim": _embed_dim(len(kinds)),
        "heatmap_shape": [_cells(height), _cells(width)],
        "heatmap_stride": [STRIDE, STRIDE],
        "heatmap_offset": [OFFSET, OFFSET],
        "calibration": {name: {"a": 1.0, "b": 0.0, "dataset": "none", "prevalence": 0.5} for name in calibrated},
        "operating_points": {kind: {"probability": 0.5, "heat": 0.5} for kind in kinds},
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


def _model(height: int, width: int, leaky: bool, kinds: int) -> onnx.ModelProto:
    nodes = _masking(leaky) + _heat(kinds) + _logits() + _embeddings(leaky)
    rows, columns, embed_dim = _cells(height), _cells(width), _embed_dim(kinds)
    shapes: dict[str, list[Any]] = {
        "exam_logit": ["B"],
        "exam_embedding": ["B", embed_dim],
        "breast_logits": ["B", 2],
        "finding_logits": ["B", VIEWS, kinds],
        "heatmaps": ["B", VIEWS, kinds, rows, columns],
        "view_embeddings": ["B", VIEWS, embed_dim],
    }
    integers = {
        "each_view": [-1, 1, height, width],
        "by_exam_maps": [-1, VIEWS, kinds, rows, columns],
        "by_exam_kinds": [-1, VIEWS, kinds],
        "by_exam_embedding": [-1, VIEWS, embed_dim],
        "axis_1": [1],
        "axis_2": [2],
        "axis_last": [-1],
        "axes_view": [2, 3, 4],
        "axes_map": [2, 3],
        "right": [0, 2],
        "left": [1, 3],
    }
    constants = _constants(integers)
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


def _constants(integers: Mapping[str, Sequence[int]]) -> list[onnx.TensorProto]:
    floats = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in _FLOATS.items()]
    return floats + [
        helper.make_tensor(name, TensorProto.INT64, [len(value)], value) for name, value in integers.items()
    ]


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


def _heat(kinds: int) -> list[onnx.NodeProto]:
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
        _node("Concat", " ".join(["blob_heat speck_heat"] * (kinds // 2)), "both", axis=1),
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
    """Plain numbers of a view, see _embed_dim; then unit length."""
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


PHRASE_DIM = 8
MAX_TOKENS = 12
TEXT_SPACE = "e" * 64
WORDS = ("mass", "calcifications", "distortion", "spiculated", "suspicious", "grouped")
"""The vocabulary's words: the first looks for blobs, the second for specks, the others turn a phrase a little away."""
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *"abcdefgimnoprst", *(f"##{c}" for c in "abcdefgimnoprst"))


def make_tiny_phrase_models(
    folder: Path,
    *,
    height: int = 760,
    width: int = 456,
    query: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    leaky: bool = False,
) -> Path:
    """exam_encoder, exam_query and text_encoder of one text space below `folder`; returns exam_encoder's folder.

    `query` and `text` override keys of their contracts, None removes one. `leaky`: a query's heat holds that of others.
    """
    exam = make_tiny_model(folder / "exam_encoder", height=height, width=width, contract={"text_space": TEXT_SPACE})
    write_config(exam)
    lines = "".join(f"{piece}\n" for piece in VOCABULARY).encode()
    (folder / "text_encoder/1").mkdir(parents=True)
    (folder / "text_encoder/vocabulary.txt").write_bytes(lines)
    model = _query_model(height, width, leaky)
    _save(model, folder / "exam_query", _query_contract(model, height, width) | dict(query or {}), bool(query))
    model = _text_model()
    _save(model, folder / "text_encoder", _text_contract(model, lines) | dict(text or {}), bool(text))
    return exam


def _save(model: onnx.ModelProto, folder: Path, contract: Mapping[str, Any], changed: bool) -> None:
    (folder / "1").mkdir(parents=True, exist_ok=True)
    text = json.dumps({key: value for key, value in contract.items() if value is not None})
    helper.set_model_props(model, {"contract": text})
    onnx.checker.check_model(model)
    onnx.save(model, folder / "1/model.onnx")
    if not changed:
        write_config(folder)


def _query_contract(model: onnx.ModelProto, height: int, width: int) -> dict[str, Any]:
    exam = _contract(model, height, width, KINDS)
    shared = ("contract_version", "version", "preset", "views", "input_shape", "wire_type", "heatmap_shape")
    return {key: exam[key] for key in (*shared, "heatmap_stride", "heatmap_offset", "weights_hash", "variant")} | {
        "name": "exam_query",
        "outputs": ["query_heatmaps", "query_logits"],
        "embed_dim": PHRASE_DIM,
        "calibration": {"query_logits": {"a": 1.0, "b": 0.0, "dataset": "none", "prevalence": 0.5}},
        "operating_point": {"probability": 0.5, "heat": 0.5},
        "calibrated_on_patients": False,
        "text_space": TEXT_SPACE,
    }


def _text_contract(model: onnx.ModelProto, vocabulary: bytes) -> dict[str, Any]:
    return {
        "contract_version": 1,
        "name": "text_encoder",
        "version": "0.0.1-tiny",
        "outputs": ["text_embeddings"],
        "embed_dim": PHRASE_DIM,
        "max_tokens": MAX_TOKENS,
        "lower_case": True,
        "vocabulary": "vocabulary.txt",
        "vocabulary_hash": hashlib.sha256(vocabulary).hexdigest(),
        "weights_hash": _weights_hash(model),
        "text_space": TEXT_SPACE,
        "variant": "fp32 onnx",
    }


def _query_model(height: int, width: int, leaky: bool) -> onnx.ModelProto:
    """The heat of blobs times the query's first number, of specks times its second."""
    rows, columns = _cells(height), _cells(width)
    integers = {
        "each_view": [-1, 1, height, width],
        "by_exam_maps": [-1, VIEWS, len(KINDS), rows, columns],
        "axis_1": [1],
        "axis_2": [2],
        "axes_view": [2, 3, 4],
        "axes_cells": [3, 4],
        "first": [0],
        "kinds": [len(KINDS)],
    }
    mixed = [_node("ReduceMax", "looked axis_1", "mix", keepdims=1), _node("Max", "looked mix zero", "weights")]
    nodes = [
        *_masking(leaky=False),
        *_heat(len(KINDS))[:-1],
        _node("Slice", "query_embeddings first kinds axis_2", "looked"),
        *(mixed if leaky else [_node("Relu", "looked", "weights")]),
        _node("Einsum", "heat_5 weights", "raw", equation="bvchw,bqc->bvqhw"),
        _node("Where", "present_5 raw zero", "query_heatmaps"),
        _node("ReduceMax", "raw axes_cells", "hottest", keepdims=0),
        _node("Mul", "hottest slope", "steep"),
        _node("Add", "steep middle", "raw_logits"),
        _node("Unsqueeze", "present axis_2", "present_3"),
        _node("Where", "present_3 raw_logits absent", "query_logits"),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("views", TensorProto.FLOAT, ["B", VIEWS, 1, height, width]),
        value("present", TensorProto.BOOL, ["B", VIEWS]),
        value("query_embeddings", TensorProto.FLOAT, ["B", "Q", PHRASE_DIM]),
    ]
    outputs = [
        value("query_heatmaps", TensorProto.FLOAT, ["B", VIEWS, "Q", rows, columns]),
        value("query_logits", TensorProto.FLOAT, ["B", VIEWS, "Q"]),
    ]
    graph = helper.make_graph(nodes, "tiny_exam_query", inputs, outputs, _constants(integers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _text_model() -> onnx.ModelProto:
    """The sum of the words' vectors, of unit length."""
    table = np.zeros((len(VOCABULARY), PHRASE_DIM), np.float32)
    table[:, -1] = 0.01
    for number, word in enumerate(WORDS):
        row = VOCABULARY.index(word)
        table[row] = np.eye(PHRASE_DIM)[min(number, 2)] * (1.0 if number < 2 else 0.3)
    nodes = [
        _node("Gather", "table token_ids", "vectors"),
        _node("Cast", "mask", "weights", to=TensorProto.FLOAT),
        _node("Unsqueeze", "weights axis_2", "weights_3"),
        _node("Mul", "vectors weights_3", "counted"),
        _node("ReduceSum", "counted axis_1", "total", keepdims=0),
        _node("ReduceL2", "total axis_1", "length", keepdims=1),
        _node("Div", "total length", "text_embeddings"),
    ]
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", MAX_TOKENS]) for name in ("token_ids", "mask")
    ]
    output = helper.make_tensor_value_info("text_embeddings", TensorProto.FLOAT, ["B", PHRASE_DIM])
    constants = [numpy_helper.from_array(table, "table"), *_constants({"axis_1": [1], "axis_2": [2]})]
    graph = helper.make_graph(nodes, "tiny_text_encoder", tokens, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


if __name__ == "__main__":
    print(make_tiny_model(Path(sys.argv[1])))
