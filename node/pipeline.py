"""The straight line: an exam is taken, assembled, routed, prepared, inferred, interpreted, encoded and stored."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from node.database import Database
from node.database.exams import ExamRecord, end_reading, lease_exam
from node.database.readings import StoredResult, next_reading_number, store_reading, stored_identity
from node.errors import MAX_ATTEMPTS, ModelError, NodeError, PixelError, SettingsError, UnreadableError, retry_after
from node.exam import Exam, ExamStatus, Instance, selection_of
from node.inference.model import Model
from node.intake import exam_of, settle
from node.interpretation import Interpretation, interpret
from node.mammography.contract import ModelContract
from node.mammography.pixels import PreparedView, Preset, prepare, preset
from node.mammography.views import STANDARD_VIEWS, View
from node.result_files import keep_result
from node.results.orientation import patient_orientation
from node.results.reading import EncodedResult, ModelIdentity, Reading, ResultKind, ViewReading
from node.routing import Route, Skip, route
from node.settings import Settings

logger = logging.getLogger(__name__)

DECODERS = 2
"""Views prepared at once: the decoders work outside Python's lock, and each view takes about 200 MB meanwhile."""
NOT_READY_SECONDS = 60.0
"""How long an exam waits where the node itself is at fault."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a worker process works with."""

    database: Database
    settings: Settings
    owner: str


class NotReadyError(NodeError):
    """The node cannot read any exam: no model, or settings that do not fit it. No fault of the exam, which waits."""


def lease(bench: Bench, study_instance_uid: str, now: datetime) -> ExamRecord | None:
    """Take an exam that is due, None where there is nothing to do. After too many tries it is FAILED instead."""
    settle(bench.database, study_instance_uid, bench.settings.exam, now)
    seconds = bench.settings.worker.lease_seconds
    leased = lease_exam(bench.database, study_instance_uid, bench.owner, now, seconds)
    if leased is not None and leased.attempts > MAX_ATTEMPTS:
        reason = leased.reason or "the worker died while reading it"
        _end(bench, leased, ExamStatus.FAILED, f"given up after {MAX_ATTEMPTS} tries: {reason}", now)
        return None
    return leased


def read_exam(bench: Bench, leased: ExamRecord, model_of: Callable[[], Model]) -> int | None:
    """Read a leased exam. Returns the reading's id, None where the lease was lost or the images changed meanwhile.

    Raises UnreadableError for a skip with its reason, and other NodeErrors: see `give_up`.
    """
    seconds: dict[str, float] = {}
    exam = _assembled(bench, leased.study_instance_uid)
    taken = _routed(exam, bench.settings)
    model = _loaded(model_of)
    _check_thresholds(taken, model.contract)
    with _timed(seconds, "load"):
        sources = {view: _read_file(instance) for view, instance in exam.chosen}
    with _timed(seconds, "prepare"):
        prepared = _prepared(sources, preset(model.contract.preset))
    with _timed(seconds, "infer"):
        prediction = model.infer(*_tensors(prepared))
    with _timed(seconds, "interpret"):
        interpretation = interpret(prediction, model.contract, prepared, taken.thresholds, bench.settings.reading)
    number = next_reading_number(bench.database, exam.study_instance_uid)
    reading = _reading(exam, number, model, taken, bench.settings, sources, prepared, interpretation)
    results = _results(bench, reading, sources, seconds)
    reading_id = store_reading(
        bench.database,
        bench.owner,
        reading,
        results,
        _kinds_by_destination(taken, bench.settings),
        prediction=_summary(reading, taken),
        seconds=seconds,
        now=datetime.now(UTC),
    )
    logger.info("%s read: number %d, %s", exam.study_instance_uid, number, _in_words(seconds))
    return reading_id


def give_up(bench: Bench, leased: ExamRecord, error: Exception, now: datetime) -> None:
    """End a reading that raised: skipped with its reason, put back for later, or failed and a person must look."""
    uid = leased.study_instance_uid
    delay = retry_after(error, leased.attempts)
    if isinstance(error, UnreadableError):
        logger.info("%s skipped: %s", uid, error)
        _end(bench, leased, ExamStatus.SKIPPED, str(error), now)
    elif isinstance(error, NotReadyError):
        logger.error("ALARM the node cannot read, %s waits: %s", uid, error)
        due_at = now + timedelta(seconds=NOT_READY_SECONDS)
        end_reading(
            bench.database, uid, bench.owner, ExamStatus.READY, now, reason=str(error), due_at=due_at, attempts=0
        )
    elif delay is not None:
        logger.warning("%s is tried again in %.0f s: %s", uid, delay, error)
        due_at = now + timedelta(seconds=delay)
        end_reading(bench.database, uid, bench.owner, ExamStatus.READY, now, reason=str(error), due_at=due_at)
    else:
        logger.error("ALARM %s failed", uid, exc_info=error)
        _end(bench, leased, ExamStatus.FAILED, f"{type(error).__name__}: {error}", now)


def _end(bench: Bench, leased: ExamRecord, status: ExamStatus, reason: str, now: datetime) -> None:
    end_reading(
        bench.database, leased.study_instance_uid, bench.owner, status, now, reason=reason, waiting_for="", due_at=None
    )


def _assembled(bench: Bench, study_instance_uid: str) -> Exam:
    exam = exam_of(bench.database, study_instance_uid, bench.settings.exam)
    if exam.problem is not None or not exam.chosen:
        raise UnreadableError(exam.problem or "no image of a standard view")
    return exam


def _routed(exam: Exam, settings: Settings) -> Route:
    taken = route(exam, settings.rules)
    if isinstance(taken, Skip):
        raise UnreadableError(taken.reason)
    return taken


def _loaded(model_of: Callable[[], Model]) -> Model:
    try:
        return model_of()
    except (ModelError, SettingsError, OSError) as error:
        raise NotReadyError(f"no model: {error}") from error


def _check_thresholds(taken: Route, contract: ModelContract) -> None:
    """A misspelt finding would silently leave the model's own operating point in force."""
    unknown = {name for name, _ in taken.thresholds} - {kind.value for kind in contract.findings}
    if unknown:
        raise NotReadyError(f"rules: thresholds for what the model does not find: {', '.join(sorted(unknown))}")


def _read_file(instance: Instance) -> Dataset:
    try:
        return dcmread(instance.path)
    except (InvalidDicomError, EOFError, OSError) as error:
        raise PixelError(f"{instance.sop_instance_uid}: its file cannot be read: {type(error).__name__}") from error


def _prepared(sources: Mapping[View, Dataset], model_preset: Preset) -> dict[View, PreparedView]:
    """Model inputs; pixel data leaves the sources as soon as it was used."""

    def of_view(view: View) -> PreparedView:
        dataset = sources[view]
        try:
            return prepare(dataset, view.laterality, model_preset)
        except PixelError as error:
            raise PixelError(f"{view}: {error}") from error
        finally:
            del dataset.PixelData

    with ThreadPoolExecutor(DECODERS) as decoders:
        return dict(zip(sources, decoders.map(of_view, sources), strict=True))


def _tensors(prepared: Mapping[View, PreparedView]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`views` (4, 1, H, W) and `present` (4,)."""
    shape = next(iter(prepared.values())).pixels.shape
    views = np.zeros((len(STANDARD_VIEWS), 1, *shape), np.float32)
    present = np.zeros(len(STANDARD_VIEWS), np.bool_)
    for index, view in enumerate(STANDARD_VIEWS):
        if view in prepared:
            views[index, 0], present[index] = prepared[view].pixels, True
    return views, present


def _reading(
    exam: Exam,
    number: int,
    model: Model,
    taken: Route,
    settings: Settings,
    sources: Mapping[View, Dataset],
    prepared: Mapping[View, PreparedView],
    interpretation: Interpretation,
) -> Reading:
    return Reading(
        study_instance_uid=exam.study_instance_uid,
        number=number,
        read_at=datetime.now(UTC),
        model=_identity(model),
        settings_hash=settings_hash(model.contract, taken, settings),
        selection=selection_of(exam),
        exam_probability=interpretation.exam_probability,
        breasts=interpretation.breasts,
        views=tuple(
            _view_reading(view, instance, sources[view], prepared[view], interpretation)
            for view, instance in exam.chosen
        ),
        not_assessed=interpretation.not_assessed,
        findings=interpretation.findings,
        allow_probability=settings.reading.allow_probability_from_phantoms,
    )


def _identity(model: Model) -> ModelIdentity:
    contract = model.contract
    return ModelIdentity(
        name=contract.name,
        version=contract.version,
        weights_hash=contract.weights_hash,
        variant=model.variant,
        preset=contract.preset,
        calibrated_on_patients=contract.calibrated_on_patients,
    )


def _view_reading(
    view: View, instance: Instance, source: Dataset, prepared: PreparedView, interpretation: Interpretation
) -> ViewReading:
    return ViewReading(
        view=view,
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        path=instance.path,
        rows=instance.rows,
        columns=instance.columns,
        placement=prepared.placement,
        display=prepared.pixels,
        heatmap=interpretation.heatmaps[view],
        finding_probabilities=interpretation.finding_probabilities[view],
        orientation=patient_orientation(source, view, prepared.chest_wall),
        flags=prepared.flags,
    )


def settings_hash(contract: ModelContract, taken: Route, settings: Settings) -> str:
    """SHA-256, hexadecimal, over the settings that shape a result, beside the model's own identity."""
    shaping = {
        "preset": contract.preset,
        "calibration": {name: asdict(value) for name, value in contract.calibration.items()},
        "operating_points": {kind.value: asdict(value) for kind, value in contract.operating_points.items()},
        "thresholds": sorted(taken.thresholds),
        "reading": asdict(settings.reading),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def _results(
    bench: Bench, reading: Reading, sources: Mapping[View, Dataset], seconds: dict[str, float]
) -> list[StoredResult]:
    """The reading's objects, on disk; none where the very same reading stands already with its own."""
    if stored_identity(bench.database, reading) is not None:
        return []
    # Here and not above: the tables of highdicom take 22 MB, and only a worker that reads has a use for them.
    from node.results.rendering import Rendering

    rendering = Rendering(reading, sources, lambda result: "")
    with _timed(seconds, "encode"):
        for destination in bench.settings.destinations:
            rendering.shipments(destination)
    with _timed(seconds, "store"):
        return [_kept(bench.settings.data_folder, result) for result in rendering.results()]


def _kept(data_folder: Path, result: EncodedResult) -> StoredResult:
    path = keep_result(data_folder, result.sop_instance_uid, result.content)
    return StoredResult(
        kind=result.kind,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        path=str(path),
        content_hash=hashlib.sha256(result.content).hexdigest(),
    )


def _kinds_by_destination(taken: Route, settings: Settings) -> dict[str, tuple[ResultKind, ...]]:
    return {
        destination.name: tuple(ResultKind(kind) for kind in destination.kinds)
        for destination in settings.destinations
        if not taken.destinations or destination.name in taken.destinations
    }


def _summary(reading: Reading, taken: Route) -> dict[str, Any]:
    """What the status list and reports show of a reading."""
    return {
        "exam_probability": reading.exam_probability,
        "breasts": {breast.laterality.value: breast.probability for breast in reading.breasts},
        "views": {
            view.view.name: {
                "sop_instance_uid": view.sop_instance_uid,
                "probabilities": {kind.value: probability for kind, probability in view.finding_probabilities},
                "flags": list(view.flags),
            }
            for view in reading.views
        },
        "findings": [
            {
                "view": finding.view.name,
                "kind": finding.kind.value,
                "probability": finding.probability,
                "peak_heat": finding.peak_heat,
                "centre": list(finding.centre),
                "box": [finding.box.left, finding.box.top, finding.box.right, finding.box.bottom],
                "contour": [list(point) for point in finding.contour],
            }
            for finding in reading.findings
        ],
        "not_assessed": list(reading.not_assessed),
        "calibrated_on_patients": reading.model.calibrated_on_patients,
        "rule": taken.rule,
    }


def _in_words(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - began, 3)
