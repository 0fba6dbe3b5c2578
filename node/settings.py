"""settings.toml and the environment become frozen Settings. The only reader of either.

A key that is unknown, missing or of the wrong type is a SettingsError that names the file and the key. Keys of tables
are required, except where the dataclass gives a default. Relative paths are relative to the file. The environment wins:

MAMMOCLIP_DATA_FOLDER, MAMMOCLIP_DATABASE_URL, MAMMOCLIP_BROKER_URL   the keys of these names
MAMMOCLIP_LISTENER_HOST, MAMMOCLIP_LISTENER_PORT                      listener.host, listener.port
MAMMOCLIP_INFERENCE_BACKEND, MAMMOCLIP_INFERENCE_TRITON_URL           inference.backend, inference.triton_url
MAMMOCLIP_INFERENCE_TRITON_SECRET                                     value of inference.triton_secret_header
MAMMOCLIP_DESTINATION_<NAME>_PASSWORD                                 password of a DICOMweb destination
MAMMOCLIP_SETTINGS                                                    the file itself, read by the entry points
"""

import math
import re
import socket
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from node.candidate import CandidateSettings as CandidateSettings
from node.candidate import check_candidate
from node.destinations import Destination as Destination
from node.destinations import check_destination, is_ae_title, is_port
from node.errors import SettingsError
from node.inference_settings import InferenceSettings as InferenceSettings
from node.inference_settings import inference_conditions, with_secret


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
    prefer_for_processing: bool = False
    """Read the For Processing image of a view where there is one; marks stand on its For Presentation twin."""


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


MODEL = "exam_encoder"
"""The only model that a rule can name; inference.model_folder and inference.triton_model say where it is."""


@dataclass(frozen=True, slots=True)
class Rule:
    """First rule whose conditions all hold wins. Either a reading or a skip with its reason."""

    name: str
    match: tuple[Match, ...]
    skip: str | None = None
    model: str = MODEL
    thresholds: tuple[tuple[str, float], ...] = ()
    """Finding name to probability threshold, overriding the model's operating points."""
    priority: int = 5
    """0 (first) to 9 (last)."""
    destinations: tuple[str, ...] = ()
    """Names of destinations; empty: all."""


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
    destinations: tuple[Destination, ...] = ()
    """None: results stay in the data folder."""
    candidate: CandidateSettings | None = None
    """The second model, where one is tried."""


# fmt: off
ROUTING_KEYWORDS = (
    "Modality", "SOPClassUID", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "DeviceSerialNumber", "DetectorID", "StationName", "InstitutionName", "InstitutionalDepartmentName",
    "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription",
    "BodyPartExamined", "PresentationIntentType", "ImageType", "ImageLaterality", "ViewPosition",
    "BreastImplantPresent", "PartialView", "QualityControlImage",
)
# fmt: on
"""What routing rules may match in a data set: nothing about the patient."""
OF_THE_SENDER = "SourceApplicationEntityTitle"
"""What they may match in the file meta information: who sent the image."""
ENVIRONMENT_KEYS: dict[str, tuple[str, ...]] = {
    "MAMMOCLIP_DATA_FOLDER": ("data_folder",),
    "MAMMOCLIP_DATABASE_URL": ("database_url",),
    "MAMMOCLIP_BROKER_URL": ("broker_url",),
    "MAMMOCLIP_LISTENER_HOST": ("listener", "host"),
    "MAMMOCLIP_LISTENER_PORT": ("listener", "port"),
    "MAMMOCLIP_INFERENCE_BACKEND": ("inference", "backend"),
    "MAMMOCLIP_INFERENCE_TRITON_URL": ("inference", "triton_url"),
}
SETTINGS_VARIABLE = "MAMMOCLIP_SETTINGS"
PARENT_VARIABLE = "MAMMOCLIP_PARENT"
"""Set by `serve` and `work` for their workers: the process id that they end with."""
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""Of all processes of the node."""


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """Settings of the TOML file at `path`, overridden by `environment`. Raises SettingsError that names the key."""
    table = _read_toml(path)
    _apply_environment(table, environment)
    try:
        settings = _build(Settings, table, path.resolve().parent, "")
        settings = _with_defaults(settings, environment)
        _check(settings)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    return settings


def candidate_inference(settings: Settings) -> InferenceSettings:
    """Where the candidate is. Raises SettingsError where there is none."""
    if settings.candidate is None:
        raise SettingsError("candidate: settings.toml has no [candidate]")
    known = {field.name for field in fields(InferenceSettings)}
    given = {field.name: getattr(settings.candidate, field.name) for field in fields(CandidateSettings)}
    return replace(settings.inference, **{key: value for key, value in given.items() if key in known and value})


def password_variable(destination_name: str) -> str:
    """Name of the environment variable that holds the password of a destination."""
    return f"MAMMOCLIP_DESTINATION_{re.sub(r'[^A-Z0-9]', '_', destination_name.upper())}_PASSWORD"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error


def _apply_environment(table: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable, keys in ENVIRONMENT_KEYS.items():
        if variable not in environment:
            continue
        text = environment[variable]
        target = table
        for key in keys[:-1]:
            target = target.setdefault(key, {})
        if keys[-1] == "data_folder":
            text = str(Path(text).resolve())  # relative to where the command runs, not to the file
        target[keys[-1]] = int(text) if keys[-1] == "port" and text.isdigit() else text


T = TypeVar("T")


def _build(cls: type[T], table: object, folder: Path, where: str) -> T:
    """An instance of the dataclass `cls` from a TOML table; `where` is the key path so far."""
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: must be a table, not {_said(table)}")
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise SettingsError(f"{_join(where, key)}: unknown key; known here: {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], folder, _join(where, name))
        elif _is_optional(hints[name]):
            values[name] = None if field.default is MISSING else field.default
        elif field.default is MISSING:
            raise SettingsError(f"{_join(where, name)}: missing key")
    return cls(**values)


def _convert(hint: Any, value: object, folder: Path, where: str) -> object:
    if _is_optional(hint):
        hint = next(option for option in get_args(hint) if option is not type(None))
    if hint is Path:
        return folder / _typed(str, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is tuple:
        return _convert_tuple(get_args(hint)[0], value, folder, where)
    if is_dataclass(hint):
        return _build(hint, value, folder, where)  # type: ignore[arg-type]
    typed = _typed(hint, value, where)
    if isinstance(typed, float) and not math.isfinite(typed):
        raise SettingsError(f"{where}: must be a finite number, not {typed}")
    return typed


def _convert_tuple(item: Any, value: object, folder: Path, where: str) -> tuple[object, ...]:
    if get_origin(item) is tuple:  # ((name, number), ...) is written as a table
        named = _typed(dict, value, where)
        return tuple((name, _convert(float, number, folder, _join(where, name))) for name, number in named.items())
    listed = _typed(list, value, where)
    return tuple(_convert(item, entry, folder, f"{where}[{index}]") for index, entry in enumerate(listed))


def _typed(kind: type[T], value: object, where: str) -> T:
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise SettingsError(f"{where}: must be {_TOML_WORDS.get(kind, kind.__name__)}, not {_said(value)}")
    return value


_TOML_WORDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _said(value: object) -> str:
    return f"{_TOML_WORDS.get(type(value), type(value).__name__)} ({value!r:.60})"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _with_defaults(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The database beside the data, and the passwords."""
    database_url = settings.database_url or f"sqlite:///{settings.data_folder / 'node.db'}"
    destinations = []
    for index, destination in enumerate(settings.destinations):
        if destination.password:
            variable = password_variable(destination.name)
            raise SettingsError(f"destinations[{index}].password: never in the file; set {variable}")
        password = environment.get(password_variable(destination.name), "")
        destinations.append(replace(destination, password=password))
    wanted = {password_variable(destination.name) for destination in destinations}
    for variable in sorted(environment):
        if variable.startswith("MAMMOCLIP_DESTINATION_") and variable not in wanted:
            raise SettingsError(f"{variable} in the environment: no destination of that name")
    inference = with_secret(settings.inference, environment)
    return replace(settings, database_url=database_url, destinations=tuple(destinations), inference=inference)


def _check(settings: Settings) -> None:
    """Values that have the right type and still cannot work."""
    for holds, where, problem in _conditions(settings):
        if not holds:
            raise SettingsError(f"{where}: {problem}")
    if settings.candidate is not None:
        _check_candidate(settings, settings.candidate)
    for index, rule in enumerate(settings.rules):
        _check_rule(rule, f"rules[{index}]", {destination.name for destination in settings.destinations})
    for index, destination in enumerate(settings.destinations):
        check_destination(destination, f"destinations[{index}]")
        if _is_itself(destination, settings.listener):
            raise SettingsError(f"destinations[{index}].port: that is this node's own listener")
    names = [destination.name for destination in settings.destinations]
    if len(set(map(password_variable, names))) != len(names):
        raise SettingsError("destinations: two have the same name")


def _check_candidate(settings: Settings, candidate: CandidateSettings) -> None:
    check_candidate(candidate)
    where = candidate_inference(settings)
    if where == settings.inference:
        raise SettingsError("candidate: names the model of [inference] again; give model_folder or triton_model")
    for holds, key, problem in inference_conditions(where, settings.worker.lease_seconds):
        if not holds:
            raise SettingsError(f"{key.replace('inference.', 'candidate.')}: {problem}")


def _is_itself(destination: Destination, listener: ListenerSettings) -> bool:
    own = {"localhost", "127.0.0.1", "::1", socket.gethostname(), listener.host}
    return destination.protocol == "dicom" and destination.host in own and destination.port == listener.port


def _conditions(settings: Settings) -> list[tuple[bool, str, str]]:
    listener, exam, inference, worker = settings.listener, settings.exam, settings.inference, settings.worker
    prevalence = settings.reading.site_prevalence
    return [
        (is_ae_title(listener.ae_title), "listener.ae_title", "must have 1 to 16 characters"),
        (all(map(is_ae_title, listener.calling_ae_titles)), "listener.calling_ae_titles", "1 to 16 characters each"),
        (is_port(listener.port), "listener.port", "must be 1 to 65535"),
        (listener.maximum_pdu_bytes == 0 or listener.maximum_pdu_bytes >= 4096, "listener.maximum_pdu_bytes", "< 4096"),
        (exam.settle_seconds >= 0, "exam.settle_seconds", "must not be negative"),
        (prevalence is None or 0 < prevalence < 1, "reading.site_prevalence", "must lie between 0 and 1"),
        (worker.concurrency >= 1, "worker.concurrency", "must be at least 1"),
        (worker.lease_seconds > 0, "worker.lease_seconds", "must be above 0"),
        (worker.sweep_seconds > 0, "worker.sweep_seconds", "must be above 0"),
        (settings.broker_url.startswith(BROKER_SCHEMES) or not settings.broker_url, "broker_url", "no Redis URL"),
        (bool(settings.rules), "rules", "at least one is needed"),
        *inference_conditions(inference, worker.lease_seconds),
    ]


BROKER_SCHEMES = ("redis://", "rediss://", "redis+socket://")


def _check_rule(rule: Rule, where: str, destinations: set[str]) -> None:
    for index, match in enumerate(rule.match):
        _check_match(match, f"{where}.match[{index}]")
    if not 0 <= rule.priority <= 9:
        raise SettingsError(f"{where}.priority: must be 0 to 9")
    if rule.skip is not None and (rule.thresholds or rule.destinations):
        raise SettingsError(
            f"{where}.skip: a rule skips or reads; thresholds and destinations belong to one that reads"
        )
    if rule.skip is not None and not rule.skip.strip():
        raise SettingsError(f"{where}.skip: says nothing; the status list and those who are told show it as the reason")
    if rule.model != MODEL:
        raise SettingsError(f"{where}.model: no such model; known: {MODEL}")
    for name, threshold in rule.thresholds:
        if not 0 < threshold < 1:
            raise SettingsError(f"{where}.thresholds.{name}: must lie between 0 and 1")
    for name in rule.destinations:
        if name not in destinations:
            raise SettingsError(f"{where}.destinations: no destination is called {name!r}")


def _check_match(match: Match, where: str) -> None:
    if match.keyword not in (*ROUTING_KEYWORDS, OF_THE_SENDER):
        known = ", ".join((*ROUTING_KEYWORDS, OF_THE_SENDER))
        raise SettingsError(f"{where}.keyword: {match.keyword!r} is nothing that a rule can match; known: {known}")
    given = [name for name in ("equals", "one_of", "regex", "present") if getattr(match, name) is not None]
    if len(given) != 1:
        raise SettingsError(f"{where}: needs exactly one of equals, one_of, regex, present")
    if match.regex is not None:
        try:
            re.compile(match.regex)
        except re.error as error:
            raise SettingsError(f"{where}.regex: {error}") from error
