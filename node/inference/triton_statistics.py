"""What a Triton server says of itself and of its models: readiness, waiting, computing, batch sizes.

Asked by the protocol's own calls (ServerMetadata, RepositoryIndex, ModelStatistics), over the connection that exams
take: no second port is needed, and the sizes of batches are told, which the metrics page only has as a mean.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from node.errors import ModelError
from node.inference.triton_served import ServedModel
from node.settings import InferenceSettings

T = TypeVar("T")
State = tuple[str, str]
"""A model's state and the reason for it."""
COLUMNS = ("model", "version", "state", "exams", "failed", "queue ms", "compute ms", "batches (size x number)")
NANOSECONDS_PER_MS = 1e6
READY = "ready"
LONGEST_REASON = 300
WHERE_RAISED = r"Exception from \S+:\d+:|\bAt:.*"
"""What OpenVINO and Python add to an error: lines of their own source."""


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Batches of one size since the model was loaded, and the mean time that the model computed on one."""

    size: int
    batches: int
    compute_ms: float


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """One version of one model since it was loaded. Means are over all requests, None where there was none."""

    name: str
    version: str
    state: str
    """The server's word, "ready" where it can be asked; empty where it does not tell."""
    reason: str
    """Why it is not ready, as the server says it: a file that cannot be read, a configuration that does not fit."""
    exams: int
    failed: int
    queue_ms: float | None
    """Waiting for a free instance and for a fuller batch, of one request."""
    compute_ms: float | None
    """The model's own work on the batch that a request was in."""
    batch_sizes: tuple[BatchSize, ...]


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server that answers. `missing` says in words what it does not tell."""

    url: str
    name: str
    version: str
    models: tuple[ModelStatistics, ...]
    tells_states: bool
    missing: tuple[str, ...]

    def of(self, model: str) -> tuple[ModelStatistics, ...]:
        """The versions of one model."""
        return tuple(each for each in self.models if each.name == model)


def server_state(settings: InferenceSettings) -> ServerState:
    """Ask the server. Raises InferenceUnavailableError while it is away."""
    served = ServedModel(replace(settings, shared_memory="never"), settings.triton_model)
    try:
        return _asked(settings, served)
    finally:
        served.close()


def _asked(settings: InferenceSettings, served: ServedModel) -> ServerState:
    about = served.ask(lambda client, seconds: client.get_server_metadata(client_timeout=seconds))
    missing: list[str] = []
    index = _tried(missing, "the state of its models", lambda: served.ask(_index))
    statistics = _tried(missing, "metrics", lambda: served.ask(_statistics))
    states = {(each.name, each.version): _state(each) for each in (index.models if index else ())}
    found = [_of_model(each, states) for each in (statistics.model_stats if statistics else ())]
    told = {(each.name, each.version) for each in found}
    found += [_without_numbers(key, state) for key, state in states.items() if key not in told and state[0]]
    found.sort(key=lambda each: (each.name != settings.triton_model, each.name, each.version))
    return ServerState(settings.triton_url, about.name, about.version, tuple(found), index is not None, tuple(missing))


def _index(client: Any, seconds: float) -> Any:
    return client.get_model_repository_index(client_timeout=seconds)


def _statistics(client: Any, seconds: float) -> Any:
    return client.get_inference_statistics(client_timeout=seconds)


def _tried(missing: list[str], what: str, ask: Callable[[], T]) -> T | None:
    """The answer, or None where the server does not give it, which `missing` then says."""
    try:
        return ask()
    except ModelError as error:
        missing.append(f"{what}: not told: {error}")
        return None


def _state(model: Any) -> State:
    """The state, empty for a model of the repository that was never asked for, and the reason in one line."""
    reason = " ".join(re.sub(WHERE_RAISED, "", model.reason, flags=re.DOTALL).split())
    state = model.state.rpartition(".")[2].lower()  # MLServer says State.READY
    return state, "" if state == READY else reason[:LONGEST_REASON]


def _of_model(told: Any, states: Mapping[tuple[str, str], State]) -> ModelStatistics:
    stats = told.inference_stats
    sizes = tuple(_batch_size(each) for each in told.batch_stats if each.compute_infer.count)
    state, reason = states.get((told.name, told.version), ("", ""))
    return ModelStatistics(
        name=told.name,
        version=told.version,
        state=state,
        reason=reason,
        exams=told.inference_count,
        failed=stats.fail.count,
        queue_ms=_mean_ms(stats.queue),
        compute_ms=_mean_ms(stats.compute_infer),
        batch_sizes=sizes,
    )


def _batch_size(told: Any) -> BatchSize:
    return BatchSize(told.batch_size, told.compute_infer.count, _mean_ms(told.compute_infer) or 0.0)


def _mean_ms(duration: Any) -> float | None:
    return duration.ns / duration.count / NANOSECONDS_PER_MS if duration.count else None


def _without_numbers(key: tuple[str, str], state: State) -> ModelStatistics:
    return ModelStatistics(*key, *state, 0, 0, None, None, ())


def as_json(state: ServerState) -> dict[str, Any]:
    """What `status --server --json` prints."""
    return asdict(state)


def as_words(state: ServerState) -> str:
    """A line for the server, a line for each model, and what was not told."""
    rows = [COLUMNS, *(_row(each) for each in state.models)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table = lines if state.models else ["no model is loaded"]
    reasons = [f"{each.name} {each.version}: {each.reason}" for each in state.models if each.reason]
    return "\n".join([f"{state.name} {state.version} at {state.url} answers", *table, *reasons, *state.missing])


def in_a_line(models: Iterable[ModelStatistics]) -> str:
    """Metrics of a model's versions in a sentence, for doctor."""
    said = [
        f"version {each.version}: {each.exams} exams since it was loaded, {each.failed} failed, "
        f"waiting {_ms(each.queue_ms)} ms, computing {_ms(each.compute_ms)} ms, batches {_batches(each)}"
        for each in models
        if each.exams or each.failed
    ]
    return "; ".join(said) or "no exam yet"


def _row(model: ModelStatistics) -> tuple[str, ...]:
    counts = (str(model.exams), str(model.failed), _ms(model.queue_ms), _ms(model.compute_ms), _batches(model))
    return (model.name, model.version, model.state or "not told", *counts)


def _batches(model: ModelStatistics) -> str:
    return ", ".join(f"{each.size} x {each.batches}" for each in model.batch_sizes) or "none"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
