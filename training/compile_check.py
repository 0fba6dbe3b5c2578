"""Does TensorRT take a graph? TensorRT for RTX compiles it ahead of time on the CPU, for each generation of cards.

What can be seen without a GPU, and fails: an operator that the parser does not know; a layer that leaves the fast path
(a convolution outside half precision, loops, conditions, shapes that depend on data, plugins, more casts than islands
of half precision account for); a warning or an error of the compiler; scratch memory beyond the limit. What cannot be
seen: which kernels run, and how fast. That is deploy/gpu-acceptance.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from training.precision import PrecisionError
from training.products import without_products

CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120")
TURING = "SM75"
"""Compiled without float32 products, see `training.products`."""
MOST_CASTS = 16
"""Casts between float32 and half; each is a pass over a tensor. Products in half precision, of the text tower, have two
each: they stand alone between attention and norms in float32."""
EXPECTED = ("Int64 binding",)
"""Warnings that say nothing of speed: token ids are int64."""
SLOW_LAYERS = (
    *("RECURRENCE", "ITERATOR", "TRIP_LIMIT", "LOOP_OUTPUT", "CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT"),
    *("NON_ZERO", "NMS", "PLUGIN", "PLUGIN_V2", "PLUGIN_V3"),
)
GIGABYTE = 1 << 30
MOST_SCRATCH = 8 * GIGABYTE
"""Memory for activations at the greatest batch: that of the smallest cards in use."""

Shapes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Compiled:
    """One graph for one generation of cards."""

    capability: str
    megabytes: float
    scratch_gigabytes: float
    problems: tuple[str, ...]


class _Log:
    """What the compiler says; warnings and errors are problems."""

    def __init__(self, rtx: Any) -> None:
        self.lines: list[tuple[Any, str]] = []
        kept, severity = self.lines, rtx.ILogger

        class Logger(severity):  # type: ignore[misc, valid-type]
            def log(self, level: Any, words: str) -> None:
                kept.append((level, words))

        self.logger = Logger()
        self._bad = (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING)

    def problems(self) -> list[str]:
        said = [words.strip() for level, words in self.lines if level in self._bad]
        return [words for words in said if not any(known in words for known in EXPECTED)]

    def scratch(self) -> int:
        found = [re.search(r"Max Scratch Memory: (\d+) bytes", words) for _, words in self.lines]
        return max((int(one.group(1)) for one in found if one), default=0)


def check_graph(graph: onnx.ModelProto, shapes: Shapes, capabilities: Sequence[str] = CAPABILITIES) -> list[Compiled]:
    """Compile for each capability, each from a fresh parse. `shapes`: by input min, opt, max, see `training.derived`.

    Raises PrecisionError where TensorRT for RTX is not installed or a capability is not known.
    """
    rtx, found = _compiler(), []
    for capability in capabilities:
        if not hasattr(rtx.ComputeCapability, capability):
            raise PrecisionError(f"TensorRT for RTX compiles for no {capability}; it knows {', '.join(CAPABILITIES)}")
        compiled = without_products(graph) if capability == TURING else graph
        found.append(_compile(rtx, compiled.SerializeToString(), shapes, capability))
    return found


def _compiler() -> Any:
    try:
        import tensorrt_rtx_bindings as rtx
    except (ImportError, OSError) as error:
        raise PrecisionError(
            f"TensorRT for RTX cannot be imported ({error}); run this through scripts/compile, which installs it apart"
        ) from error
    return rtx


def _compile(rtx: Any, data: bytes, shapes: Shapes, capability: str) -> Compiled:
    log = _Log(rtx)
    builder = rtx.Builder(log.logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, log.logger)
    if not parser.parse(data):
        errors = [parser.get_error(at) for at in range(parser.num_errors)]
        return Compiled(capability, 0.0, 0.0, tuple(f"parser: {one.node_name()}: {one.desc()}" for one in errors))
    problems = slow_layers(rtx, network)
    config = _config(rtx, builder, network, shapes, capability)
    plan = builder.build_serialized_network(network, config)
    problems += log.problems()
    if log.scratch() > MOST_SCRATCH:
        most = MOST_SCRATCH / GIGABYTE
        problems.append(f"needs {log.scratch() / GIGABYTE:.1f} GiB of scratch memory (at most {most:g})")
    if plan is None and not problems:
        problems.append("the compiler gave no plan and no reason")
    return Compiled(capability, plan.nbytes / 1e6 if plan else 0.0, log.scratch() / GIGABYTE, tuple(problems))


def _config(rtx: Any, builder: Any, network: Any, shapes: Shapes, capability: str) -> Any:
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for at in range(network.num_inputs):
        name = network.get_input(at).name
        profile.set_shape(name, *(tuple(shapes[name][bound]) for bound in ("min", "opt", "max")))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(rtx.ComputeCapability, capability), 0)
    return config


def slow_layers(rtx: Any, network: Any) -> list[str]:
    """What leaves the fast path in a parsed network, as far as types and kinds of its layers tell."""
    problems, casts, most = [], 0, MOST_CASTS
    halves = (rtx.DataType.HALF, rtx.DataType.BF16)
    has_halves = False
    for at in range(network.num_layers):
        layer = network.get_layer(at)
        kind = str(layer.type).removeprefix("LayerType.")
        types = [tensor.dtype for tensor in _tensors(layer)]
        has_halves |= any(one in halves for one in types)
        if kind in SLOW_LAYERS:
            problems.append(f"{layer.name}: a layer {kind}")
        if kind == "CONVOLUTION" and layer.get_input(0).dtype not in halves:
            problems.append(f"{layer.name}: a convolution in {str(layer.get_input(0).dtype).removeprefix('DataType.')}")
        most += 2 * (kind == "MATRIX_MULTIPLY" and types[0] in halves)
        casts += kind == "CAST" and sum(one in halves for one in types) == 1 and rtx.DataType.FLOAT in types
    if casts > most:
        problems.append(f"{casts} casts between float32 and half precision (at most {most})")
    return problems if has_halves else [*problems, "nothing is in half precision"]


def _tensors(layer: Any) -> list[Any]:
    inputs = [layer.get_input(at) for at in range(layer.num_inputs)]
    return [one for one in (*inputs, *(layer.get_output(at) for at in range(layer.num_outputs))) if one is not None]


def report(name: str, found: Sequence[Compiled]) -> list[str]:
    """A line for each capability, and one for each problem."""
    lines = []
    for one in found:
        how = " (float32 products as sums)" if one.capability == TURING else ""
        facts = f"plan {one.megabytes:.1f} MB, scratch {one.scratch_gigabytes:.2f} GiB"
        lines.append(f"{'FAIL' if one.problems else 'PASS'}  {name} {one.capability}{how}: {facts}")
        lines += [f"      {problem}" for problem in one.problems]
    return lines
