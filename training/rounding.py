"""A graph in half precision -> one in float32 that rounds as it would: what a CPU can tell of a GPU's numbers.

ONNX Runtime has no half-precision kernels on most CPUs: it computes such nodes in float32 and drops the rounding
between them. Here each tensor that is half in the graph is rounded in so many words. Sums inside a node are float32, as
in tensor cores.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def rounded(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same numbers from float32 nodes, with a Cast to half and back behind each that was half."""
    halves = half_tensors(graph)
    full = onnx.ModelProto()
    full.CopyFrom(graph)
    del full.graph.value_info[:]
    for tensor in full.graph.initializer:
        if tensor.data_type in HALVES:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes = []
    for node in full.graph.node:
        _use_float32(node)
        nodes.append(node)
        for at, name in enumerate(node.output):
            if name in halves and node.op_type != "Constant":
                node.output[at] = f"{name}/exact"
                nodes += _rounding(name, halves[name])
    del full.graph.node[:]
    full.graph.node.extend(nodes)
    onnx.checker.check_model(full)
    return full


def half_tensors(graph: onnx.ModelProto) -> dict[str, int]:
    """Tensors that are half in the graph, with which half."""
    typed = onnx.shape_inference.infer_shapes(graph, strict_mode=False)
    known = {info.name: info.type.tensor_type.elem_type for info in typed.graph.value_info}
    return {name: kind for name, kind in known.items() if kind in HALVES}


def _use_float32(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and node.op_type == "Cast" and attribute.i in HALVES:
            attribute.i = TensorProto.FLOAT
        elif attribute.HasField("t") and attribute.t.data_type in HALVES:
            value = numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))


def _rounding(name: str, kind: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [f"{name}/exact"], [f"{name}/short"], name=f"{name}/shorten", to=kind),
        helper.make_node("Cast", [f"{name}/short"], [name], name=f"{name}/lengthen", to=TensorProto.FLOAT),
    ]
