"""Half precision: which nodes, how it rounds, what is derived, and the words for what cannot be."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from node.errors import ContractError
from node.inference.triton_targets import TARGETS
from tests.models import make_tiny_model, make_tiny_phrase_models
from training.compared import Runner
from training.derived import BUILD, derive, sha256_of
from training.export import store_half
from training.precision import PrecisionError, cast, expand, half_nodes, read_graph, with_variant
from training.products import without_products
from training.rounding import rounded

TOLERANCE = 1e-6


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def network(half: bool = False) -> onnx.ModelProto:
    """Normalised, two convolutions, pooled, projected: the shape of an encoder. (B, 1, 8, 8) -> (B, 3)."""
    generator = np.random.default_rng(1)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    weights = {
        "first": generator.normal(0, 0.3, (4, 1, 3, 3)).astype(np.float16),
        "second": generator.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float16),
    }
    initialisers = [
        numpy_helper.from_array(value.astype("f2" if half else "f4"), name) for name, value in weights.items()
    ]
    projection = generator.normal(0, 0.3, (4, 3)).astype(np.float16).astype(np.float32)
    initialisers.append(numpy_helper.from_array(projection, "projection"))
    initialisers.append(numpy_helper.from_array(np.array(0.5, np.float32), "middle"))
    nodes = [
        node("Sub", "x middle", "centred"),
        node("Cast", "centred", "narrow", to=kind),
        node("Conv", "narrow first", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b second", "c", pads=[1, 1, 1, 1]),
        node("Cast", "c", "wide", to=TensorProto.FLOAT),
        node("GlobalAveragePool", "wide", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("MatMul", "flat projection", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 3])],
        initialisers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answer(graph: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, inputs)[0]
    return result


X = np.random.default_rng(2).random((2, 1, 8, 8), dtype=np.float32)


def test_only_what_lies_between_convolutions_is_half() -> None:
    assert half_nodes(network()) == ["a", "b", "c"]


def test_a_graph_without_convolutions_has_its_products_with_weights_in_half() -> None:
    graph = network()
    kept = [one for one in graph.graph.node if one.op_type != "Conv"]
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    assert half_nodes(graph) == ["y"]


def test_a_graph_with_neither_is_refused() -> None:
    graph = network()
    del graph.graph.node[3:]
    del graph.graph.node[2:]
    with pytest.raises(PrecisionError, match="neither convolutions nor products"):
        half_nodes(graph)


def test_expand_undoes_the_storage_of_weights() -> None:
    graph = network()
    full = expand(store_half(graph))
    assert not any(one.data_type == TensorProto.FLOAT16 for one in full.graph.initializer)
    assert {one.name for one in full.graph.initializer} == {one.name for one in graph.graph.initializer}
    np.testing.assert_array_equal(answer(full, x=X), answer(store_half(graph), x=X))


def test_rounding_is_that_of_half_precision_node_by_node() -> None:
    graph = network(half=True)
    weights = {one.name: numpy_helper.to_array(one).astype(np.float32) for one in graph.graph.initializer}

    def half(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32)

    def convolve(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        return np.einsum("bchwij,ocij->bohw", windows, kernel)

    first = np.maximum(half(convolve(half(X - 0.5), weights["first"])), 0)
    second = half(convolve(first, weights["second"]))
    expected = second.mean((2, 3)) @ weights["projection"]
    found = answer(rounded(graph), x=X)
    np.testing.assert_allclose(found, expected, atol=2e-4)  # one unit of half, where the order of sums decides
    exact = answer(network(), x=X)
    assert 1e-6 < np.abs(found - exact).max() < 5e-3


def test_products_as_sums_are_the_same_numbers() -> None:
    graph = without_products(network())
    assert "MatMul" not in {one.op_type for one in graph.graph.node}
    np.testing.assert_allclose(answer(graph, x=X), answer(network(), x=X), atol=TOLERANCE)


@pytest.mark.parametrize(("equation", "shape"), [("bchw,ck->bkhw", (3, 2)), ("bchw,bck->bkhw", ("B", 3, 2))])
def test_heat_as_sums_is_the_same(equation: str, shape: tuple[object, ...]) -> None:
    graph = helper.make_model(
        helper.make_graph(
            [node("Einsum", "maps weights", "heat", equation=equation)],
            "heat",
            [
                helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["B", 3, 5, 4]),
                helper.make_tensor_value_info("weights", TensorProto.FLOAT, list(shape)),
            ],
            [helper.make_tensor_value_info("heat", TensorProto.FLOAT, ["B", 2, 5, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    generator = np.random.default_rng(3)
    maps = generator.random((2, 3, 5, 4), dtype=np.float32)
    weights = generator.random([2 if size == "B" else size for size in shape], dtype=np.float32)
    inputs = {"maps": maps, "weights": weights}
    np.testing.assert_allclose(answer(without_products(graph), **inputs), answer(graph, **inputs), atol=TOLERANCE)


def test_an_einsum_of_another_form_is_refused() -> None:
    graph = helper.make_model(
        helper.make_graph(
            [node("Einsum", "a b", "c", equation="ij,jk->ik")],
            "products",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "ab"],
            [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 2])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    with pytest.raises(PrecisionError, match="an Einsum ij,jk->ik is not known"):
        without_products(graph)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_phrase_models(folder, height=152, width=96)
    return folder


@pytest.mark.parametrize("name", ["exam_encoder", "exam_query", "text_encoder"])
def test_a_derived_model_keeps_its_weights_and_names_its_variant(models: Path, tmp_path: Path, name: str) -> None:
    made = derive(models / name, tmp_path / name, TARGETS["onnxruntime"], "f32")
    before, after = (
        json.loads(read_graph(folder / "1/model.onnx").metadata_props[0].value)
        for folder in (models / name, made.folder)
    )
    assert after["variant"] == "f32 onnxruntime"
    assert after["weights_hash"] == before["weights_hash"] == made.weights_hash
    text = (made.folder / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text
    assert "f32 onnxruntime" in text
    table = json.loads((made.folder / BUILD).read_text())
    assert table["onnx_sha256"] == sha256_of(made.folder / "1/model.onnx")
    assert {shape[bound][0] for shape in table["inputs"].values() for bound in ("min",)} == {1}
    assert {shape["max"][0] for shape in table["inputs"].values()} == {8}


def test_shapes_of_phrases_and_tokens_have_bounds(models: Path, tmp_path: Path) -> None:
    query = derive(models / "exam_query", tmp_path / "q", TARGETS["tensorrt_plan"], "f32").folder
    text = derive(models / "text_encoder", tmp_path / "t", TARGETS["tensorrt_plan"], "f32").folder
    embeddings = json.loads((query / BUILD).read_text())["inputs"]["query_embeddings"]
    assert [embeddings[bound] for bound in ("min", "opt", "max")] == [[1, 1, 8], [4, 8, 8], [8, 32, 8]]
    assert json.loads((text / BUILD).read_text())["inputs"]["token_ids"]["max"] == [8, 12]


def test_the_model_itself_is_not_overwritten(models: Path) -> None:
    with pytest.raises(PrecisionError, match="is the model itself"):
        derive(models / "exam_encoder", models / "exam_encoder", TARGETS["onnxruntime"], "f32")


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "exam_encoder", height=152, width=96)
    (folder / "1/model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ContractError, match=r"model\.onnx cannot be read as ONNX"):
        derive(folder, tmp_path / "out", TARGETS["onnxruntime"], "f32")
    with pytest.raises(PrecisionError, match="cannot be read as ONNX; export it again"):
        read_graph(folder / "1/model.onnx")


def test_without_modelopt_the_words_say_what_to_run() -> None:
    with pytest.raises(PrecisionError, match=r"nvidia-modelopt cannot be imported .* scripts/compile"):
        cast(network(), "f16", None)


def test_a_graph_without_contract_gets_no_variant() -> None:
    with pytest.raises(PrecisionError, match="carries no contract"):
        with_variant(network(), "f16 tensorrt")


def test_the_runner_rounds_a_half_graph(tmp_path: Path) -> None:
    ours, theirs = (Runner(graph, 1).run({"x": X})["y"] for graph in (network(), network(half=True)))
    assert 0 < np.abs(ours - theirs).max() < 5e-3
