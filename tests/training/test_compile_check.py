"""The compile check on small graphs: TensorRT for RTX from build/compile, where scripts/compile has put it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.training.test_precision import network
from training.compile_check import Compiled, check_graph, report
from training.precision import PrecisionError

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build/compile"
SHAPES = {"x": {"min": [1, 1, 8, 8], "opt": [4, 1, 8, 8], "max": [8, 1, 8, 8]}}
CHECK = """
import json, sys, onnx
from pathlib import Path
from training.compile_check import check_graph
shapes, found = json.loads(sys.argv[2]), {}
for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
    cards = ("SM75", "SM120") if file.stem == "half" else ("SM89",)
    found[file.stem] = {one.capability: one.problems for one in check_graph(onnx.load(file), shapes, cards)}
print(json.dumps(found))
"""


def with_last(*nodes: onnx.NodeProto, **initialisers: onnx.TensorProto) -> onnx.ModelProto:
    """The network in half precision with other nodes behind its last product, which they take as `product`."""
    graph = network(half=True)
    graph.graph.node[-1].CopyFrom(helper.make_node("MatMul", ["flat", "projection"], ["product"], name="product"))
    graph.graph.initializer.extend(initialisers.values())
    graph.graph.node.extend(nodes)
    return graph


def unknown() -> onnx.ModelProto:
    graph = with_last(
        helper.make_node("Reshape", ["product", "shape"], ["square"], name="square"),
        helper.make_node("Det", ["square"], ["y"], name="determinant"),
        shape=helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 1, 1]),
    )
    del graph.graph.output[0].type.tensor_type.shape.dim[1:]
    return graph


def looping() -> onnx.ModelProto:
    """As often doubled as there are exams in the batch: a number that only the data tell."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["held", "held"], ["doubled"], name="doubled"),
            helper.make_node("Identity", ["going"], ["goes_on"], name="goes_on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, ["B", 3]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["B", 3]),
        ],
    )
    return with_last(
        helper.make_node("Shape", ["product"], ["sizes"], name="sizes"),
        helper.make_node("Gather", ["sizes", "first_axis"], ["turns"], name="turns"),
        helper.make_node("Loop", ["turns", "always", "product"], ["y"], name="loop", body=body),
        first_axis=helper.make_tensor("first_axis", TensorProto.INT64, [], [0]),
        always=helper.make_tensor("always", TensorProto.BOOL, [], [True]),
    )


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """By graph and card; in one process of its own: the tools pin other versions of what the tests use."""
    if not (TOOLS / "installed").exists():
        pytest.skip("scripts/compile --install-only has not fetched TensorRT for RTX")
    folder = tmp_path_factory.mktemp("graphs")
    graphs = {"half": network(half=True), "full": network(), "unknown": unknown(), "looping": looping()}
    for name, graph in graphs.items():
        onnx.save(graph, folder / f"{name}.onnx")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, folder, json.dumps(SHAPES)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


Problems = dict[str, dict[str, list[str]]]


def test_half_precision_compiles_for_old_and_new_cards(problems: Problems) -> None:
    assert problems["half"] == {"SM75": [], "SM120": []}


def test_a_convolution_in_float32_fails_by_name(problems: Problems) -> None:
    assert "a: a convolution in FLOAT" in problems["full"]["SM89"]
    assert "nothing is in half precision" in problems["full"]["SM89"]


def test_an_operator_that_tensorrt_does_not_know_fails_by_name(problems: Problems) -> None:
    assert any(one.startswith("parser: determinant: ") for one in problems["unknown"]["SM89"])


def test_a_loop_fails(problems: Problems) -> None:
    assert any("a layer TRIP_LIMIT" in one or "a layer RECURRENCE" in one for one in problems["looping"]["SM89"])


def test_without_the_tools_the_words_say_what_to_run() -> None:
    with pytest.raises(PrecisionError, match=r"TensorRT for RTX cannot be imported .* scripts/compile"):
        check_graph(network(half=True), SHAPES)


def test_a_line_for_each_card_and_each_problem() -> None:
    good, bad = Compiled("SM89", 10.8, 0.88, ()), Compiled("SM75", 0.0, 0.0, ("FP32 GEMM is not supported",))
    assert report("exam_encoder", [good, bad]) == [
        "PASS  exam_encoder SM89: plan 10.8 MB, scratch 0.88 GiB",
        "FAIL  exam_encoder SM75 (float32 products as sums): plan 0.0 MB, scratch 0.00 GiB",
        "      FP32 GEMM is not supported",
    ]
