"""Failures of a Triton server: which are tried again at once, which later, which never, and in which words."""

import pytest

from node.errors import (
    ContractError,
    InferenceError,
    InferenceUnavailableError,
    ModelDiedError,
    ModelError,
    ModelWaitError,
    NotServedError,
    retry_after,
)
from node.inference.triton_failures import Retry, error_of, failure_of

DEAD = "Failed to process the request(s) for model instance 'm_0_0', message: Stub process 'm_0_0' is not healthy."
FULL = "[request id: <id_unknown>] Exceeds maximum queue size"
EXPIRED = "Request timeout expired"
RESTRICTED = "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'"
UNKNOWN = "Request for unknown model: 'm' is not found"
NO_VERSION = "Request for unknown model: 'm' has no available versions"
WRONG = "[request id: <id_unknown>] unexpected shape for input 'views' for model 'm'. Expected [-1,4], got [1,3]"
RAISED = "Failed to process the request(s) for model instance 'm_0_0', message: RuntimeError: out of memory"


# fmt: off
FAILURES = [
    ("UNAVAILABLE", "failed to connect to all addresses", Retry.NOW, InferenceUnavailableError, "is away: failed"),
    ("UNAVAILABLE", "Socket closed", Retry.NOW, InferenceUnavailableError, "is away: Socket closed"),
    ("UNAVAILABLE", FULL, Retry.LATER, ModelWaitError, "is busy: its queue for m is full"),
    ("UNAVAILABLE", EXPIRED, Retry.LATER, ModelWaitError, "is busy: the request waited too long"),
    ("UNAVAILABLE", RESTRICTED, Retry.LATER, InferenceUnavailableError, "set inference.triton_secret_header"),
    ("UNAVAILABLE", UNKNOWN, Retry.NOW, NotServedError, "serves no model m"),
    ("UNAVAILABLE", NO_VERSION, Retry.NOW, NotServedError, "serves no model m"),
    ("NOT_FOUND", UNKNOWN, Retry.LATER, NotServedError, "serves no model m"),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", Retry.LATER, InferenceUnavailableError, "within 2.5 s"),
    ("INTERNAL", DEAD, Retry.LATER, ModelDiedError, "has died; unload and load the model"),
    ("INTERNAL", RAISED, Retry.LATER, InferenceUnavailableError, "answered INTERNAL: Failed to process"),
    ("UNAUTHENTICATED", "no", Retry.LATER, InferenceUnavailableError, "does not let this node in: no"),
    ("PERMISSION_DENIED", "no", Retry.LATER, InferenceUnavailableError, "does not let this node in: no"),
    ("INVALID_ARGUMENT", WRONG, Retry.NEVER, InferenceError, "answered INVALID_ARGUMENT: "),
    ("RESOURCE_EXHAUSTED", "Received message larger than max", Retry.NEVER, InferenceError, "larger than max"),
    ("RESOURCE_EXHAUSTED", "too many calls", Retry.LATER, InferenceUnavailableError, "too many calls"),
    ("UNIMPLEMENTED", "Method not found", Retry.NEVER, ContractError, "cannot do what the node asks"),
    ("UNKNOWN", "Stream removed", Retry.LATER, InferenceUnavailableError, "answered UNKNOWN: Stream removed"),
    ("CANCELLED", "", Retry.LATER, InferenceUnavailableError, "answered CANCELLED"),
    ("None", "", Retry.LATER, InferenceUnavailableError, "answered None"),
]
# fmt: on


@pytest.mark.parametrize(("status", "message", "retry", "kind", "words"), FAILURES)
def test_each_failure_has_its_class_and_words(
    status: str, message: str, retry: Retry, kind: type[ModelError], words: str
) -> None:
    error = error_of(f"StatusCode.{status}", message, "host:8001", "m", 2.5)
    assert failure_of(status, message).retry is retry
    assert type(error) is kind
    assert str(error).startswith("Triton at host:8001")
    assert words in str(error)
    assert (retry_after(error, 1) is None) == (retry is Retry.NEVER)


def test_words_are_one_line() -> None:
    error = error_of("INTERNAL", "first\nAt:\n  /somewhere/model.py(3): execute", "host:8001", "m", 1.0)
    assert str(error) == "Triton at host:8001 answered INTERNAL: first"
