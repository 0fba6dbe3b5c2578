"""Products of matrices in float32 -> sums of products: TensorRT for RTX has no float32 matrix product on Turing (SM75).

Its words: "FP32 GEMM is not supported". The numbers are the same up to the order of summation. Only for that compiler.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.precision import PrecisionError
from training.rounding import half_tensors

HEAT = ("bchw,ck->bkhw", "bchw,bck->bkhw")


class _Axes:
    """Axes as initialisers, each made once."""

    def __init__(self, graph: onnx.ModelProto) -> None:
        self._graph = graph
        self._made: dict[tuple[int, ...], str] = {}

    def name(self, *axes: int) -> str:
        if axes not in self._made:
            name = self._made[axes] = f"axes{''.join(f'/{axis}' for axis in axes)}"
            self._graph.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
        return self._made[axes]


def without_products(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without float32 MatMul, Gemm and Einsum. Raises PrecisionError for an Einsum of another form."""
    halves, changed = half_tensors(graph), onnx.ModelProto()
    changed.CopyFrom(graph)
    del changed.graph.value_info[:]
    axes, nodes = _Axes(changed), []
    for node in changed.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Einsum") or node.output[0] in halves:
            nodes.append(node)
        elif node.op_type == "MatMul":
            nodes += _sum(node, node.input[0], node.input[1], axes, node.output[0])
        elif node.op_type == "Gemm":
            nodes += _gemm(node, axes)
        else:
            nodes += _einsum(node, axes)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    onnx.checker.check_model(changed)
    return changed


def _sum(node: onnx.NodeProto, left: str, right: str, axes: _Axes, output: str) -> list[onnx.NodeProto]:
    """(..., M, K) and (..., K, N) -> (..., M, N)."""
    name = node.name
    return [
        helper.make_node("Unsqueeze", [left, axes.name(-1)], [f"{name}/left"], name=f"{name}/left"),
        helper.make_node("Unsqueeze", [right, axes.name(-3)], [f"{name}/right"], name=f"{name}/right"),
        helper.make_node("Mul", [f"{name}/left", f"{name}/right"], [f"{name}/products"], name=f"{name}/products"),
        helper.make_node("ReduceSum", [f"{name}/products", axes.name(-2)], [output], name=f"{name}/sum", keepdims=0),
    ]


def _gemm(node: onnx.NodeProto, axes: _Axes) -> list[onnx.NodeProto]:
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0 or settings.get("transA", 0):
        raise PrecisionError(f"{node.name}: a Gemm of this form is not known here")
    nodes, right = [], node.input[1]
    if settings.get("transB", 0):
        right = f"{node.name}/turned"
        nodes.append(helper.make_node("Transpose", [node.input[1]], [right], name=right, perm=[1, 0]))
    biased = len(node.input) > 2
    output = f"{node.name}/unbiased" if biased else node.output[0]
    nodes += _sum(node, node.input[0], right, axes, output)
    if biased:
        nodes.append(helper.make_node("Add", [output, node.input[2]], [node.output[0]], name=f"{node.name}/biased"))
    return nodes


def _einsum(node: onnx.NodeProto, axes: _Axes) -> list[onnx.NodeProto]:
    """Heat: maps (B, C, h, w) and weights (C, K) or (B, C, K) -> (B, K, h, w)."""
    equation = helper.get_attribute_value(node.attribute[0]).decode().replace(" ", "")
    if equation not in HEAT:
        raise PrecisionError(f"{node.name}: an Einsum {equation} is not known here")
    name, (maps, weights) = node.name, node.input
    return [
        helper.make_node("Unsqueeze", [maps, axes.name(2)], [f"{name}/maps"], name=f"{name}/maps"),
        helper.make_node("Unsqueeze", [weights, axes.name(-2, -1)], [f"{name}/weights"], name=f"{name}/weights"),
        helper.make_node("Mul", [f"{name}/maps", f"{name}/weights"], [f"{name}/products"], name=f"{name}/products"),
        helper.make_node(
            "ReduceSum", [f"{name}/products", axes.name(1)], list(node.output), name=f"{name}/sum", keepdims=0
        ),
    ]
