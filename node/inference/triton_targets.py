"""Where and how Triton runs a model: one table of targets and one of priorities, from which config.pbtxt is written.

The words are those of Triton's model configuration (model_config.proto).
"""

from dataclasses import dataclass

from node.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Priority:
    """One level of a served model's queue. A request that waits longer than its level allows is rejected."""

    level: int
    """The request parameter `priority`: 1 is served first."""
    name: str
    last: int
    """The greatest priority of a rule (0 first to 9 last) that belongs here."""
    queued: int
    """Requests that may wait; the next is rejected."""
    queue_seconds: int
    """Longest wait in the queue; a request may ask for less by its parameter `timeout`, never for more."""


PRIORITIES = (
    Priority(1, "urgent", last=2, queued=32, queue_seconds=20),
    Priority(2, "routine", last=6, queued=64, queue_seconds=60),
    Priority(3, "retrospective", last=9, queued=16, queue_seconds=180),
)
"""Retrospective exams may wait long but not many at once: what is rejected waits in the node's database instead."""
DEFAULT_PRIORITY = PRIORITIES[1]


def priority_of(rule_priority: int) -> Priority:
    """The level for a rule's priority, 0 first to 9 last."""
    return next((one for one in PRIORITIES if rule_priority <= one.last), PRIORITIES[-1])


@dataclass(frozen=True, slots=True)
class Target:
    """One way to run a model."""

    name: str
    backend: str
    file: str
    """What stands in the version's folder."""
    kind: str
    """KIND_CPU, KIND_GPU, or KIND_AUTO: a GPU where there is one."""
    instances: int
    max_batch: int
    preferred: tuple[int, ...]
    """Batch sizes at which the batcher does not wait any longer."""
    delay_microseconds: int
    """Longest wait for a batch to fill."""
    precision: str
    """What the model computes in, where nothing else is said."""
    resource: str
    """What its instances share with other models; counted where the server runs with --rate-limit=execution_count."""
    graphs: bool = False
    """CUDA graphs for the preferred batch sizes, and for one exam."""


TARGETS = {
    target.name: target
    for target in (
        # Two instances: one copies while the other computes. Plans have one profile, 1 to 8 exams.
        Target("tensorrt_plan", "tensorrt", "model.plan", "KIND_GPU", 2, 8, (4, 8), 5000, "f16", "gpu", graphs=True),
        Target("onnxruntime", "onnxruntime", "model.onnx", "KIND_AUTO", 1, 8, (4, 8), 5000, "f32", "processor"),
        # On a CPU a batch is no faster than its exams one by one, and takes the memory of all.
        Target("python", "python", "model.onnx", "KIND_CPU", 1, 4, (2,), 2000, "f32", "cpu"),
    )
}
DEFAULT_TARGET = TARGETS["python"]

TURNS = {"exam_encoder": 1, "text_encoder": 2, "exam_query": 3}
"""Which model takes a shared resource first: a report waits for an exam, a person who asks waits for a phrase."""


def target_of(name: str) -> Target:
    """A row of the table. Raises SettingsError."""
    if name not in TARGETS:
        raise SettingsError(f"target is {name}; known are {', '.join(TARGETS)}")
    return TARGETS[name]
