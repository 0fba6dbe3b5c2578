"""Failures of a Triton server, sorted: try again now, later, or never. A table; the first row that fits decides.

Messages are those of Triton 2.51 and of gRPC 1.85, seen on real servers except where a row says so. Where a failure may
be the server's or the exam's (INTERNAL), it is taken for the server's: the exam waits, and one that fails every time is
given up after errors.MAX_ATTEMPTS tries, with the server's words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from node.errors import (
    ContractError,
    InferenceError,
    InferenceUnavailableError,
    ModelDiedError,
    ModelError,
    ModelWaitError,
    NotServedError,
)

BUSY_SECONDS = 30.0
"""How long an exam waits that found the server's queue full."""


class Retry(StrEnum):
    """When a failed request may be tried again."""

    NOW = "now"
    """Within the deadline of the same call."""
    LATER = "later"
    """When the exam has its next turn."""
    NEVER = "never"
    """The same request fails again."""


def _wait(words: str) -> ModelWaitError:
    return ModelWaitError(words, BUSY_SECONDS)


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of failure: gRPC's status (empty: any), a part of the message in lower case (empty: any), what it means.

    `words` follow "Triton at HOST:PORT"; {model}, {seconds}, {message} and {status} are filled in.
    """

    status: str
    says: str
    retry: Retry
    error: Callable[[str], ModelError]
    words: str


_DEAD = ": the process of model {model} has died; unload and load the model"
_FULL = " is busy: its queue for {model} is full"
_EXPIRED = " is busy: the request waited too long in its queue for {model}"
_RESTRICTED = " wants a secret: set inference.triton_secret_header and its value ({message})"
_NOT_SERVED = " serves no model {model}: {message}"
_SHUT = " does not let this node in: {message}"
_ANSWERED = " answered {status}: {message}"

# fmt: off
FAILURES = (
    Failure("", "stub process", Retry.LATER, ModelDiedError, _DEAD),
    Failure("", "exceeds maximum queue size", Retry.LATER, _wait, _FULL),
    Failure("", "request timeout expired", Retry.LATER, _wait, _EXPIRED),
    Failure("", "is restricted", Retry.LATER, InferenceUnavailableError, _RESTRICTED),
    Failure("UNAVAILABLE", "not found", Retry.NOW, NotServedError, _NOT_SERVED),
    Failure("UNAVAILABLE", "no available versions", Retry.NOW, NotServedError, _NOT_SERVED),
    Failure("UNAVAILABLE", "not at ready state", Retry.NOW, NotServedError, _NOT_SERVED),
    Failure("UNAVAILABLE", "", Retry.NOW, InferenceUnavailableError, " is away: {message}"),
    Failure("DEADLINE_EXCEEDED", "", Retry.LATER, InferenceUnavailableError, " did not answer within {seconds:g} s"),
    Failure("NOT_FOUND", "", Retry.LATER, NotServedError, _NOT_SERVED),
    Failure("UNAUTHENTICATED", "", Retry.LATER, InferenceUnavailableError, _SHUT),
    Failure("PERMISSION_DENIED", "", Retry.LATER, InferenceUnavailableError, _SHUT),
    Failure("UNIMPLEMENTED", "", Retry.NEVER, ContractError, " cannot do what the node asks: {message}"),
    Failure("INVALID_ARGUMENT", "", Retry.NEVER, InferenceError, _ANSWERED),
    Failure("RESOURCE_EXHAUSTED", "larger than max", Retry.NEVER, InferenceError, _ANSWERED),
    Failure("OUT_OF_RANGE", "", Retry.NEVER, InferenceError, _ANSWERED),
    Failure("", "", Retry.LATER, InferenceUnavailableError, _ANSWERED),
)
# fmt: on


def failure_of(status: str, message: str) -> Failure:
    """The row for a gRPC status ("StatusCode.UNAVAILABLE" or "UNAVAILABLE") and the server's message."""
    name, said = status.removeprefix("StatusCode."), message.lower()
    return next(row for row in FAILURES if row.status in ("", name) and row.says in said)


def error_of(status: str, message: str, url: str, model: str, seconds: float) -> ModelError:
    """The error of the tree in errors.py, in words; `seconds`: the deadline that was given."""
    row = failure_of(status, message)
    said, name = message.strip().partition("\n")[0], status.removeprefix("StatusCode.")
    words = row.words.format(model=model, seconds=seconds, message=said, status=name)
    return row.error(f"Triton at {url}{words}")
