"""The straight line: an exam is taken, assembled, routed, prepared, inferred, interpreted, encoded and stored."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from node.choosing import Choice, choose
from node.database import Database
from node.database.exams import ExamRecord, end_reading, lease_exam
from node.database.readings import next_reading_number, store_reading
from node.errors import (
    MAX_ATTEMPTS,
    ContractError,
    InferenceError,
    InferenceUnavailableError,
    ModelError,
    ModelWaitError,
    NodeError,
    SettingsError,
    UnreadableError,
    retry_after,
)
from node.exam import Exam, ExamStatus, selection_of
from node.inference.model import Model
from node.instance import Instance
from node.intake import exam_of, settle
from node.interpretation import Interpretation, interpret
from node.keeping import destinations_of, keep, predecessor, timed
from node.loading import Images, LoadedView, prepare_images, read_images
from node.mammography.contract import ModelContract, Prediction
from node.mammography.findings import BreastAssessment
from node.mammography.pixels import preset
from node.mammography.views import BREASTS
from node.results.reading import InstanceReference, ModelIdentity, Outcome, Reading, ViewReading
from node.routing import Route, Skip, route
from node.settings import ReadingSettings, Settings
from node.summary import summary_of

logger = logging.getLogger(__name__)

NOT_READY_SECONDS = 60.0
"""How long an exam waits where the node itself is at fault."""
MODEL_ROUNDS = 3
"""How often an exam is prepared for a server whose model is being replaced, before it waits for its next turn."""


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


def no_candidate() -> Model:
    """Where no second model was given. Raises SettingsError."""
    raise SettingsError("this process was given no candidate")


def read_exam(
    bench: Bench,
    leased: ExamRecord,
    model_of: Callable[[], Model],
    candidate_of: Callable[[], Model] = no_candidate,
) -> int | None:
    """Read a leased exam by the first model, or by the candidate where the exam falls to it.

    Returns the reading's id, None where the lease was lost, or the images or the choice of the model changed meanwhile.
    Raises UnreadableError for a skip with its reason, and other NodeErrors: see `give_up`.
    """
    seconds: dict[str, float] = {}
    exam = _assembled(bench, leased.study_instance_uid)
    taken = _routed(exam, bench.settings)
    choice = choose(bench.database, bench.settings.candidate, exam.study_instance_uid)
    with named(choice):
        model = chosen(choice, model_of, candidate_of)
        reading, images = read_with(bench, exam, taken, model, seconds, leased.priority)
    reading_id = _stored(bench, reading, images, taken, seconds, choice)
    by = f"{reading.model.name} {reading.model.version}" + (f", canary {choice.candidate}" if choice.candidate else "")
    logger.info("%s read: number %d by %s, %s", exam.study_instance_uid, reading.number, by, _in_words(seconds))
    return reading_id


def chosen(choice: Choice, model_of: Callable[[], Model], candidate_of: Callable[[], Model]) -> Model:
    """The model that an exam falls to. Raises NotReadyError: another model never reads in its place unasked."""
    if not choice.candidate:
        return loaded(model_of)
    try:
        return loaded(candidate_of)
    except NotReadyError as error:
        raise NotReadyError(f"{error}; `mammoclip-node model rollback` gives its exams to the first model") from error


@contextmanager
def named(choice: Choice) -> Iterator[None]:
    """What goes wrong with a candidate says so: whoever reads the status must not look at the first model."""
    try:
        yield
    except (ModelError, NotReadyError) as error:
        if choice.candidate:
            error.args = (f"candidate {choice.candidate}: {error}",)
        raise


def read_with(
    bench: Bench, exam: Exam, taken: Route, model: Model, seconds: dict[str, float], priority: int
) -> tuple[Reading, Images]:
    """What one model says of an exam; nothing is stored. The reading's identity is that of what really answered.

    A server may be given another model at any time: one with the same preset counts as it answered, for one with
    another preset the images are prepared anew. Raises NotReadyError where that one does not fit this node.
    """
    model.check_turn()
    for _ in range(MODEL_ROUNDS):
        contract = model.contract
        check_thresholds(taken, contract)
        with timed(seconds, "load"):
            files = read_images(exam)
        with timed(seconds, "prepare"):
            images = prepare_images(exam, files, preset(contract.preset), bench.settings.exam.read_incomplete)
        if not images.loaded:
            return _refused(begun(bench, exam, taken, model), images), images
        with timed(seconds, "infer"):
            prediction = _answer(model, contract, images, priority)
        answered, variant = (prediction and prediction.answered_by) or (contract, model.variant)
        if prediction is not None and answered.preset == contract.preset:
            check_thresholds(taken, answered)
            frame = _begun(bench, exam, taken, answered, variant)
            return _read(frame, images, prediction, answered, taken, bench.settings.reading, seconds), images
    raise InferenceUnavailableError(f"the server was given other models {MODEL_ROUNDS} times during this reading")


def _answer(model: Model, contract: ModelContract, images: Images, priority: int) -> Prediction | None:
    """What the model says; None where it wants other pixels by now. Raises NotReadyError where it does not fit."""
    try:
        return model.infer(*images.tensors(), priority)
    except ContractError as error:
        raise NotReadyError(f"the model does not fit: {error}") from error
    except InferenceError:
        if model.contract.preset == contract.preset:
            raise
        return None


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
    elif isinstance(error, ModelWaitError):
        logger.info("%s waits for its turn: %s", uid, error)
        due_at = now + timedelta(seconds=error.seconds)
        tries = max(leased.attempts - 1, 0)
        end_reading(
            bench.database, uid, bench.owner, ExamStatus.READY, now, reason=str(error), due_at=due_at, attempts=tries
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


def loaded(model_of: Callable[[], Model]) -> Model:
    """The model. Raises NotReadyError."""
    try:
        return model_of()
    except (ModelError, SettingsError, OSError) as error:
        raise NotReadyError(f"no model: {error}") from error


def check_thresholds(taken: Route, contract: ModelContract) -> None:
    """A misspelt finding would silently leave the model's own operating point in force."""
    unknown = {name for name, _ in taken.thresholds} - {kind.value for kind in contract.findings}
    if unknown:
        raise NotReadyError(f"rules: thresholds for what the model does not find: {', '.join(sorted(unknown))}")


def begun(bench: Bench, exam: Exam, taken: Route | Skip, model: Model) -> Reading:
    """What is known of a reading before its images are: which exam, by what, after which other reading."""
    return _begun(bench, exam, taken, model.contract, model.variant)


def _begun(bench: Bench, exam: Exam, taken: Route | Skip, contract: ModelContract, variant: str) -> Reading:
    return Reading(
        study_instance_uid=exam.study_instance_uid,
        number=next_reading_number(bench.database, exam.study_instance_uid),
        read_at=datetime.now(UTC),
        model=_identity(contract, variant),
        settings_hash=settings_hash(contract, taken, bench.settings),
        selection=selection_of(exam),
        exam_probability=None,
        breasts=(BreastAssessment(BREASTS[0], None), BreastAssessment(BREASTS[1], None)),
        views=(),
        not_assessed=tuple(f"{view.name}: no image" for view in exam.missing()),
        findings=(),
        allow_probability=bench.settings.reading.allow_probability_from_phantoms,
        predecessor=predecessor(bench.database, exam.study_instance_uid),
    )


def _read(
    frame: Reading,
    images: Images,
    prediction: Prediction,
    contract: ModelContract,
    taken: Route,
    settings: ReadingSettings,
    seconds: dict[str, float],
) -> Reading:
    with timed(seconds, "interpret"):
        interpretation = interpret(
            prediction,
            contract,
            {image.view: image.prepared for image in images.loaded},
            taken.thresholds,
            settings,
            orientations={image.view: image.orientation for image in images.loaded},
            spacings={image.view: image.spacing_mm for image in images.loaded},
        )
    return replace(
        frame,
        exam_probability=interpretation.exam_probability,
        breasts=interpretation.breasts,
        views=tuple(_view_reading(image, interpretation) for image in images.loaded),
        not_assessed=_not_assessed(interpretation.not_assessed, images),
        findings=interpretation.findings,
        unread=images.unread,
        correspondences=interpretation.correspondences,
        density=interpretation.density,
    )


def _not_assessed(words: Sequence[str], images: Images) -> tuple[str, ...]:
    """A view that was there and was not assessed has its own reason, in place of "no image"."""
    reasons = {f"{view.view.name}: no image": f"{view.view.name}: {view.reason}" for view in images.unread}
    reasons |= {f"{words.split(':')[0]}: no image": words for words in images.not_assessed}
    return tuple(reasons.get(said, said) for said in words)


def _refused(frame: Reading, images: Images) -> Reading:
    """No image could be assessed, for reasons of quality."""
    by_reason: dict[str, list[str]] = {}
    for view in images.unread:
        by_reason.setdefault(view.reason, []).append(view.view.name)
    return replace(
        frame,
        outcome=Outcome.REFUSED,
        reason="; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()),
        unread=images.unread,
        not_assessed=(*frame.not_assessed, *images.not_assessed),
    )


def _identity(contract: ModelContract, variant: str) -> ModelIdentity:
    return ModelIdentity(
        name=contract.name,
        version=contract.version,
        weights_hash=contract.weights_hash,
        variant=variant,
        preset=contract.preset,
        calibrated_on_patients=contract.calibrated_on_patients,
        findings=contract.findings,
    )


def _view_reading(image: LoadedView, interpretation: Interpretation) -> ViewReading:
    shown, read_from = image.shown, image.read_from
    return ViewReading(
        view=image.view,
        sop_instance_uid=shown.sop_instance_uid,
        sop_class_uid=shown.sop_class_uid,
        path=shown.path,
        rows=shown.rows,
        columns=shown.columns,
        placement=image.prepared.placement,
        display=image.prepared.pixels,
        heatmap=interpretation.heatmaps[image.view],
        finding_probabilities=interpretation.finding_probabilities[image.view],
        orientation=image.orientation,
        flags=image.flags,
        spacing_mm=image.spacing_mm,
        quality=image.quality,
        read_from=None if read_from is None else _reference(read_from),
    )


def _reference(instance: Instance) -> InstanceReference:
    return InstanceReference(instance.sop_class_uid, instance.sop_instance_uid, instance.series_instance_uid)


def settings_hash(contract: ModelContract, taken: Route | Skip, settings: Settings) -> str:
    """SHA-256, hexadecimal, over the settings that shape a result, beside the model's own identity."""
    shaping = {
        "preset": contract.preset,
        "calibration": {name: asdict(value) for name, value in contract.calibration.items()},
        "operating_points": {kind.value: asdict(value) for kind, value in contract.operating_points.items()},
        "thresholds": sorted(taken.thresholds) if isinstance(taken, Route) else [],
        "reading": asdict(settings.reading),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def _stored(
    bench: Bench, reading: Reading, images: Images, taken: Route, seconds: dict[str, float], choice: Choice
) -> int | None:
    """Make and store the reading's objects; none where the very same reading stands already with its own.

    A refused exam that no destination wants explained is a skip. Raises UnreadableError then.
    """
    destinations = destinations_of(taken, bench.settings)
    if reading.outcome is not Outcome.READ and not any(destination.wants_unread for destination in destinations):
        raise UnreadableError(f"{reading.outcome}: {reading.reason}")
    kept = keep(bench.database, bench.settings.data_folder, reading, images.sources, destinations, seconds)
    return store_reading(
        bench.database,
        bench.owner,
        reading,
        kept.results,
        kept.addresses,
        prediction=summary_of(reading, taken.rule),
        seconds=seconds,
        now=datetime.now(UTC),
        candidate=choice.candidate,
        shadow=choice.shadow,
    )


def _in_words(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())
