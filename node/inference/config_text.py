"""A row of the table of targets, a model's tensors and its parameters -> the text of config.pbtxt."""

from collections.abc import Mapping, Sequence

from node.inference.tensors import Signature
from node.inference.triton_targets import DEFAULT_PRIORITY, PRIORITIES, TURNS, Target

TRITON_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
    "int64": "TYPE_INT64",
}
MICROSECONDS = 1_000_000
PLAN_PROFILE = "0"
"""Plans are built with one optimisation profile."""
HEADER = "# Written by python -m node.inference.triton_config from the table in node/inference/triton_targets.py."

Samples = Mapping[str, Sequence[int]]
"""Inputs of the warm-up sample by name, with their shapes less the batch: files of these names in MODEL/warmup."""


def config_text(
    name: str,
    signature: tuple[Signature, Signature],
    target: Target,
    *,
    tags: Mapping[str, str],
    samples: Samples | None = None,
    keep: int = 1,
) -> str:
    """config.pbtxt without its parameters. `tags` become labels of the server's metrics; `keep`: versions served."""
    inputs, outputs = signature
    lines = [
        HEADER,
        f'backend: "{target.backend}"',
        f'default_model_filename: "{_served_file(target)}"',
        f"version_policy: {{ latest {{ num_versions: {keep} }} }}",
        f"max_batch_size: {target.max_batch}",
        *_tensors(inputs, outputs),
        _instances(name, target),
        *_batching(target),
        *_optimization(target, inputs, samples),
        *_warm_up(inputs, samples),
        *(f'metric_tags {{ key: "{key}" value: "{value}" }}' for key, value in tags.items()),
    ]
    return "\n".join(lines) + "\n"


def parameter_text(name: str, lines: Sequence[bytes]) -> str:
    """A parameter; adjacent strings are one string."""
    quoted = [f'  "{_octets(line)}"' for line in lines]
    return "\n".join([f'parameters {{ key: "{name}" value: {{ string_value:', *quoted, "} }"]) + "\n"


def _served_file(target: Target) -> str:
    return "model.py" if target.backend == "python" else target.file


def _tensors(inputs: Signature, outputs: Signature) -> list[str]:
    lines = []
    for name, (element_type, shape) in inputs.items():
        lines.append(f'input {{ name: "{name}" data_type: {TRITON_TYPES[element_type]} dims: {list(shape[1:])} }}')
    for name, (element_type, shape) in outputs.items():
        dims = f"dims: {list(shape[1:])}" if shape[1:] else "dims: [1] reshape { shape: [] }"
        labels = ' label_filename: "labels.txt"' if name == "finding_logits" else ""
        lines.append(f'output {{ name: "{name}" data_type: {TRITON_TYPES[element_type]} {dims}{labels} }}')
    return lines


def _instances(name: str, target: Target) -> str:
    """One model at a time on a shared resource, in turns, where the server counts them; else this says nothing."""
    limit = f'resources {{ name: "{target.resource}" global: true count: 1 }} priority: {TURNS.get(name, len(TURNS))}'
    profile = f' profile: ["{PLAN_PROFILE}"]' if target.file == "model.plan" else ""
    return f"instance_group {{ kind: {target.kind} count: {target.instances}{profile}\n  rate_limiter {{ {limit} }} }}"


def _batching(target: Target) -> list[str]:
    lines = [
        f"dynamic_batching {{ preferred_batch_size: {list(target.preferred)}",
        f"  max_queue_delay_microseconds: {target.delay_microseconds}",
        f"  priority_levels: {len(PRIORITIES)} default_priority_level: {DEFAULT_PRIORITY.level}",
    ]
    for one in PRIORITIES:
        lines.append(
            f"  priority_queue_policy {{ key: {one.level} value {{ timeout_action: REJECT allow_timeout_override: true"
            f" default_timeout_microseconds: {one.queue_seconds * MICROSECONDS} max_queue_size: {one.queued} }} }}"
        )
    return [*lines, "}"]


def _optimization(target: Target, inputs: Signature, samples: Samples | None) -> list[str]:
    """CUDA graphs of whole batches; a graph is for one shape, so only where all shapes are known."""
    if not target.graphs:
        return []
    shapes = {name: tuple(shape[1:]) for name, (_, shape) in inputs.items()}
    if any(-1 in shape for shape in shapes.values()):
        return ["optimization { cuda { output_copy_stream: true } eager_batching: true }"]
    dims = " ".join(f'input {{ key: "{name}" value {{ dim: {list(shape)} }} }}' for name, shape in shapes.items())
    graphs = [f"  graph_spec {{ batch_size: {size} {dims} }}" for size in (1, *target.preferred)]
    return ["optimization { eager_batching: true cuda { graphs: true output_copy_stream: true", *graphs, "} }"]


def _warm_up(inputs: Signature, samples: Samples | None) -> list[str]:
    """A batch of one before the model is ready, from files that a real sample was written to."""
    if samples is None:
        return []
    lines = ['model_warmup { name: "sample" batch_size: 1']
    for name, (element_type, _) in inputs.items():
        data = f'data_type: {TRITON_TYPES[element_type]} dims: {list(samples[name])} input_data_file: "{name}"'
        lines.append(f'  inputs {{ key: "{name}" value {{ {data} }} }}')
    return [*lines, "}"]


def _octets(line: bytes) -> str:
    """As the text format writes bytes: ASCII as it stands, others by their octal numbers."""
    return "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in line
    )
