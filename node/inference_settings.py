"""The settings of [inference]: which model, where, and how a Triton server is asked."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.errors import SettingsError

BACKENDS = ("openvino", "triton")
PRECISIONS = ("auto", "f32", "bf16")
SHARED_MEMORY = ("auto", "always", "never")
SECRET_VARIABLE = "MAMMOCLIP_INFERENCE_TRITON_SECRET"

Condition = tuple[bool, str, str]
"""Whether it holds, the key, what is wrong with it where it does not."""


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """Which model, where."""

    backend: str
    """"openvino" or "triton"."""
    model_folder: Path
    """Folder of one model in the repository layout: config.pbtxt, labels.txt, <version>/model.onnx."""
    precision: str
    """OpenVINO: "auto" (bf16 where the CPU has it), "f32" or "bf16"."""
    threads: int
    """0: as many as there are cores."""
    triton_url: str
    """host:port of Triton's gRPC."""
    triton_model: str
    deadline_seconds: float
    """Of one inference of a routine exam (a rule's priority 3 to 6), with all its attempts."""
    attempts: int
    urgent_deadline_seconds: float = 20.0
    """Of priority 0 to 2."""
    retrospective_deadline_seconds: float = 180.0
    """Of priority 7 to 9."""
    triton_version: str = ""
    """Number of the model's version on the server; empty: its latest."""
    shared_memory: str = "auto"
    """"auto" (where server and worker share a host and it works), "always" or "never"."""
    triton_tls: bool = False
    triton_ca_file: Path | None = None
    """Certificates of who signed the server's, PEM; None: those of the system."""
    triton_certificate_file: Path | None = None
    """The node's own certificate, PEM, where the server asks for one; with `triton_key_file`."""
    triton_key_file: Path | None = None
    triton_secret_header: str = ""
    """Key of the server's restricted protocols ("admin-key"); empty: none."""
    triton_secret: str = field(default="", repr=False)
    """Its value; from the environment."""


def with_secret(inference: InferenceSettings, environment: Mapping[str, str]) -> InferenceSettings:
    """With the value of the header that opens the server's restricted protocols. Raises SettingsError."""
    if inference.triton_secret:
        raise SettingsError(f"inference.triton_secret: never in the file; set {SECRET_VARIABLE}")
    return replace(inference, triton_secret=environment.get(SECRET_VARIABLE, ""))


def inference_conditions(inference: InferenceSettings, lease_seconds: float) -> Iterator[Condition]:
    """What must hold of values that have the right type."""
    yield inference.backend in BACKENDS, "inference.backend", f"must be one of {', '.join(BACKENDS)}"
    yield inference.precision in PRECISIONS, "inference.precision", f"must be one of {', '.join(PRECISIONS)}"
    yield inference.threads >= 0, "inference.threads", "must not be negative"
    yield inference.attempts >= 1, "inference.attempts", "must be at least 1"
    known = ", ".join(SHARED_MEMORY)
    yield inference.shared_memory in SHARED_MEMORY, "inference.shared_memory", f"must be one of {known}"
    is_version = re.fullmatch(r"[0-9]*", inference.triton_version) is not None
    yield is_version, "inference.triton_version", "must be a whole number in quotes, or empty"
    yield from _deadline_conditions(inference, lease_seconds)
    yield from _file_conditions(inference)
    yield from _secret_conditions(inference)


def _deadline_conditions(inference: InferenceSettings, lease_seconds: float) -> Iterator[Condition]:
    for name in ("deadline_seconds", "urgent_deadline_seconds", "retrospective_deadline_seconds"):
        seconds = getattr(inference, name)
        yield seconds > 0, f"inference.{name}", "must be above 0"
        fits = inference.backend != "triton" or seconds < lease_seconds
        yield fits, f"inference.{name}", f"is {seconds:g}; it must be below worker.lease_seconds, {lease_seconds:g}"


def _file_conditions(inference: InferenceSettings) -> Iterator[Condition]:
    for name in ("triton_ca_file", "triton_certificate_file", "triton_key_file"):
        file: Path | None = getattr(inference, name)
        yield file is None or inference.triton_tls, f"inference.{name}", "is used with triton_tls = true only"
        yield file is None or file.is_file(), f"inference.{name}", f"there is no file {file}"
    is_pair = (inference.triton_certificate_file is None) == (inference.triton_key_file is None)
    yield is_pair, "inference.triton_certificate_file", "and triton_key_file belong together; one is missing"


def _secret_conditions(inference: InferenceSettings) -> Iterator[Condition]:
    key, header, secret = "inference.triton_secret_header", inference.triton_secret_header, inference.triton_secret
    yield re.fullmatch(r"[a-z0-9-]*", header) is not None, key, "holds lower-case letters, digits and - only"
    yield bool(secret) or not header, key, f"has no value: set {SECRET_VARIABLE} in the environment"
    yield bool(header) or not secret, SECRET_VARIABLE, f"is set in the environment, and {key} does not name its key"
    is_safe = not secret or inference.triton_tls or is_loopback(inference.triton_url)
    yield is_safe, key, "its value would cross the network in clear text; set triton_tls = true"


def is_loopback(url: str) -> bool:
    """Whether host:port names this host itself."""
    host = url.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]+){3}", host) is not None
