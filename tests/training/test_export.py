import hashlib
import json
import struct

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, numpy_helper

from training.deployment import round_values, served
from training.exam_encoder import ExamEncoder
from training.export import contract_of, hash_of_graph, write_model
from training.served_model import read_contract
from training.weights import weights_hash

SHAPE = (96, 64)
CELLS = (12, 8, 8, 0.5)


def make_contract():
    calibration = {"a": 1.0, "b": 0.0, "dataset": "none", "prevalence": 0.5}
    names = ("exam_logit", "breast_logits", "finding_logits.mass", "finding_logits.suspicious_calcification")
    points = {name: {"probability": 0.5, "heat": 0.5} for name in ("mass", "suspicious_calcification")}
    figures = {"embed_dim": 16, "calibration": dict.fromkeys(names, calibration), "operating_points": points}
    return contract_of(("exam_encoder", "0.0.1", "fit-96x64"), SHAPE, CELLS, figures)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, encoder):
    """An exported tiny model with its torch twin: folder, twin, hash."""
    twin = ExamEncoder(served(encoder.map_network), encoder.heads)
    round_values(twin)
    folder = tmp_path_factory.mktemp("exam_encoder")
    return folder, twin.eval(), write_model(twin, make_contract(), folder)


@pytest.fixture(scope="module")
def exam():
    rng = np.random.default_rng(0)
    views = rng.random((3, 4, 1, *SHAPE), dtype=np.float32)
    present = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], bool)
    views[~present] = np.nan
    return views, present


@torch.inference_mode()
def torch_outputs(twin, views, present):
    return [tensor.numpy() for tensor in twin(torch.from_numpy(views), torch.from_numpy(present))]


def test_onnx_runtime_agrees_with_torch_for_any_batch(exported, exam):
    folder, twin, _ = exported
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    for rows in (slice(0, 1), slice(0, 3)):
        views, present = exam[0][rows], exam[1][rows]
        answers = session.run(None, {"views": views, "present": present})
        for a, b in zip(answers, torch_outputs(twin, views, present), strict=True):
            assert np.abs(a - b).max() < 1e-3


def test_openvino_agrees_with_torch(exported, exam):
    folder, twin, _ = exported
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(folder / "1" / "model.onnx", "CPU", settings)
    answer = compiled({"views": exam[0], "present": exam[1]})
    for output, wanted in zip(compiled.outputs, torch_outputs(twin, *exam), strict=True):
        assert np.abs(answer[output] - wanted).max() < 1e-3


def test_the_file_carries_its_contract(exported):
    folder, _, digest = exported
    contract = read_contract(folder / "1" / "model.onnx")
    assert contract == {**make_contract(), "weights_hash": digest}
    assert json.loads(json.dumps(contract)) == contract
    assert (folder / "labels.txt").read_text().splitlines() == contract["findings"]


def test_large_weights_are_stored_as_float16_and_hashed_as_float32(exported):
    folder, _, digest = exported
    graph = onnx.load(folder / "1" / "model.onnx")
    sizes = {tensor.data_type: 0 for tensor in graph.graph.initializer}
    for tensor in graph.graph.initializer:
        sizes[tensor.data_type] += int(np.prod(tensor.dims))
    assert sizes[TensorProto.FLOAT16] > 0.95 * sum(sizes.values())
    plain = {t.name.removesuffix(".half"): numpy_helper.to_array(t).copy() for t in graph.graph.initializer}
    single = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in plain.items()}
    assert weights_hash(single) == hash_of_graph(graph) == digest


def test_batch_is_dynamic_and_the_rest_is_not(exported):
    graph = onnx.load(exported[0] / "1" / "model.onnx").graph
    dims = [[d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input]
    assert dims == [["B", 4, 1, *SHAPE], ["B", 4]]
    assert [output.name for output in graph.output] == make_contract()["outputs"]


def test_the_hash_follows_names_shapes_and_values_and_not_their_order():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)
    first = weights_hash({"a": a, "b": b})
    assert first == weights_hash({"b": b, "a": a.astype(np.float16)})
    assert (
        len({first, weights_hash({"a": a.T, "b": b}), weights_hash({"c": a, "b": b}), weights_hash({"a": -a, "b": b})})
        == 4
    )
    by_hand = (
        b"a\0float32\0" + b"2,3\0" + struct.pack("<6f", *range(6)) + b"b\0float32\0" + b"2\0" + struct.pack("<2f", 1, 1)
    )
    assert first == hashlib.sha256(by_hand).hexdigest()


def test_a_file_without_a_contract_is_refused(exported, tmp_path):
    graph = onnx.load(exported[0] / "1" / "model.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="carries no contract"):
        read_contract(tmp_path / "bare.onnx")
