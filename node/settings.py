"""settings.toml and the environment become frozen Settings. The only reader of either."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """The Storage SCP."""

    ae_title: str
    host: str
    port: int
    calling_ae_titles: tuple[str, ...]
    """Calling AE titles that may store; empty: any."""
    maximum_pdu_bytes: int


@dataclass(frozen=True, slots=True)
class ExamSettings:
    """When an exam is read, and what counts as a view."""

    settle_seconds: float
    """After the last image of an exam that is not complete at once, read (or skip) it as it stands."""
    read_incomplete: bool
    """True: read what is there when the settle time ends; False: skip with "views missing: ..."."""
    accept_synthetic_2d: bool
    view_from_patient_orientation: bool
    """Take a view's name from Patient Orientation where nothing else tells it (CBIS-DDSM)."""


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
    attempts: int


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """What is made of the model's numbers."""

    site_prevalence: float | None
    """Share of exams with a malignancy at this site, in (0, 1); None: the calibration set's."""
    allow_probability_from_phantoms: bool
    """Write "probability of cancer" even where the model was calibrated on phantoms only."""


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a rule on a DICOM keyword; exactly one of the four is set."""

    keyword: str
    equals: str | None = None
    one_of: tuple[str, ...] | None = None
    regex: str | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """First rule whose conditions all hold wins. Either a reading or a skip with its reason."""

    name: str
    match: tuple[Match, ...]
    skip: str | None = None
    model: str = "exam_encoder"
    thresholds: tuple[tuple[str, float], ...] = ()
    """Finding name to probability threshold, overriding the model's operating points."""
    priority: int = 5
    """0 (first) to 9 (last)."""
    destinations: tuple[str, ...] = ()
    """Names of destinations; empty: all."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go: C-STORE (protocol "dicom") or STOW-RS (protocol "dicomweb")."""

    name: str
    protocol: str
    host: str = ""
    port: int = 0
    ae_title: str = ""
    url: str = ""
    username: str = ""
    password: str = ""
    """From the environment, MAMMOCLIP_DESTINATION_<NAME>_PASSWORD; never from the file."""
    timeout_seconds: float = 30.0
    objects: tuple[str, ...] = ("SR", "SEG", "SC")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The Celery worker and the sweep."""

    concurrency: int
    lease_seconds: float
    """A reading or a delivery that has not ended by then is taken up by another worker."""
    sweep_seconds: float


@dataclass(frozen=True, slots=True)
class Settings:
    """All of settings.toml."""

    data_folder: Path
    database_url: str
    """SQLAlchemy URL; the default is SQLite in the data folder."""
    broker_url: str
    """Redis URL; empty: the embedded Valkey."""
    listener: ListenerSettings
    exam: ExamSettings
    inference: InferenceSettings
    reading: ReadingSettings
    worker: WorkerSettings
    rules: tuple[Rule, ...]
    destinations: tuple[Destination, ...]
