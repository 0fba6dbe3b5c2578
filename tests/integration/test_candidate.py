"""A second model in shadow and as canary: real models, files, database and a destination that counts what it gets."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from node import explaining, pipeline, shadow_report, shadowing
from node.database.canaries import read_by
from node.database.decisions import Decided, Decision, decide
from node.database.deliveries import deliveries_of
from node.database.exams import advance
from node.database.readings import readings_of, stored_reading
from node.database.shadows import due_shadows, shadow_pairs
from node.deciding import carry_out, explain, show
from node.errors import ContractError, ModelWaitError
from node.exam import ExamStatus
from node.inference.load import load_model
from node.inference.model import Model
from node.mammography.contract import ModelContract, Prediction
from node.mammography.views import LCC, LMLO, RMLO
from node.results.reading import ResultKind
from node.settings import CandidateSettings, Destination, Settings
from node.status import as_details, as_json, as_table
from tests import mammograms
from tests.integration.desk import Desk, make_desk
from tests.models import FOUR_KINDS, make_tiny_model
from tests.running_node import Pacs
from tests.servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

NAME = "four-kinds"
SHIPPED = Path(__file__).parents[2] / "triton_models/exam_encoder"


@pytest.fixture(scope="module")
def candidate(model_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Another network, other weights, another version, another preset."""
    folder = make_tiny_model(
        tmp_path_factory.mktemp("candidate"), height=320, width=192, contract={"version": "2"}, kinds=FOUR_KINDS
    )
    return load_model(replace(model_settings.inference, model_folder=folder))


@pytest.fixture
def desk(model_settings: Settings, model: Model, tmp_path: Path) -> Iterator[Desk]:
    made = make_desk(model_settings, model, tmp_path)
    made.set(Destination("pacs", "dicom", "127.0.0.1", free_port(), "PACS", timeout_seconds=5, objects=("SR",)))
    yield made
    made.database.close()


def with_shares(desk: Desk, *, shadow: float = 0.0, canary: float = 0.0) -> None:
    desk.set(candidate=CandidateSettings(NAME, model_folder=Path("unused"), shadow=shadow, canary=canary))


def read(desk: Desk, study: str, candidate: Model) -> int:
    leased = desk.lease(study)
    assert leased is not None
    reading_id = pipeline.read_exam(desk.bench, leased, lambda: desk.model, lambda: candidate)
    assert reading_id is not None
    return reading_id


def decided(decision: Decision) -> Decided:
    return Decided(NAME, decision, datetime.now(UTC), "a physicist", "too many marks")


def everything_sent(desk: Desk, study: str, pacs: Pacs) -> list[str]:
    """Until nothing of a study is due, a day later too; the UIDs that arrived."""
    for days in (0, 1):
        for reading in readings_of(desk.database, study):
            desk.deliver(reading.id, "pacs", datetime.now(UTC) + timedelta(days=days))
    return pacs.uids()


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*.dcm"))}


def test_shadow_is_read_after_delivery_compared_and_seen_by_no_destination(desk: Desk, candidate: Model) -> None:
    with_shares(desk, shadow=1.0)
    pacs = Pacs(desk.bench.settings.destinations[0].port)
    study = desk.receive(mammograms.exam(bright=[LCC, LMLO]))
    reading_id = read(desk, study, candidate)
    now = datetime.now(UTC)
    assert due_shadows(desk.database, NAME, now) == []  # its results have not been delivered
    with pacs.running():
        sent = everything_sent(desk, study, pacs)
        before, files, exam = stored_reading(desk.database, reading_id), _files(desk.folder), desk.exam(study)
        deliveries = deliveries_of(desk.database, study)
        [due] = due_shadows(desk.database, NAME, now)
        leased = shadowing.lease(desk.bench, due, now)
        assert leased is not None
        assert shadowing.lease(desk.bench, due, now) is None
        shadowing.read_shadow(desk.bench, leased, lambda: candidate)
        assert everything_sent(desk, study, pacs) == sent
    assert len(sent) == 1
    assert deliveries_of(desk.database, study) == deliveries
    assert stored_reading(desk.database, reading_id) == before
    assert _files(desk.folder) == files
    assert desk.exam(study) == exam
    [pair] = shadow_pairs(desk.database, NAME)
    assert pair.first.model[1:] == ("0.0.1-tiny", "openvino f32", desk.model.contract.weights_hash)
    assert pair.candidate.model[1:] == ("2", "openvino f32", candidate.contract.weights_hash)
    assert {finding["view"] for finding in pair.candidate.prediction["findings"]} >= {"LCC", "LMLO"}
    report = shadow_report.report_of(desk.database, None)
    [compared] = report.compared
    assert (compared.comparison.exams, compared.comparison.marked.both) == (1, 1)
    assert compared.comparison.by_kind["mass"].both == 2
    words = shadow_report.as_words(report)
    assert study in words
    assert "1 read" in words
    assert shadow_report.as_json(report)["compared"][0]["candidate"]["version"] == "2"


def test_a_shadow_that_fails_leaves_the_exam_as_it_stands_and_says_why(desk: Desk, candidate: Model) -> None:
    with_shares(desk, shadow=1.0)
    desk.set(replace(desk.bench.settings.destinations[0], objects=()))
    study = desk.receive(mammograms.exam())
    read(desk, study, candidate)
    exam = desk.exam(study)
    now = datetime.now(UTC)
    [due] = due_shadows(desk.database, NAME, now)

    def unfit() -> Model:
        raise ContractError("contract.views: are LCC, RCC")

    def no_network() -> Model:
        raise RuntimeError("a defect")

    for model_of in (unfit, no_network):
        leased = shadowing.lease(desk.bench, due, now)
        assert leased is not None
        with pytest.raises((pipeline.NotReadyError, RuntimeError)) as caught:
            shadowing.read_shadow(desk.bench, leased, model_of)
        shadowing.give_up(desk.bench, leased, caught.value, now)
        assert due_shadows(desk.database, NAME, now) == []
        now += timedelta(hours=1)
    assert due_shadows(desk.database, NAME, now + timedelta(days=1)) == []
    assert desk.exam(study) == exam
    assert "1 x failed: RuntimeError: a defect" in shadow_report.as_words(shadow_report.report_of(desk.database, NAME))


def test_the_shadow_of_an_exam_that_got_other_images_is_dropped(desk: Desk, candidate: Model) -> None:
    with_shares(desk, shadow=1.0)
    desk.set(replace(desk.bench.settings.destinations[0], objects=()))
    study = desk.receive(mammograms.exam())
    read(desk, study, candidate)
    late = mammograms.mammogram(LCC, study)
    late.AcquisitionTime = "111500"
    desk.receive([late])
    now = datetime.now(UTC)
    [due] = due_shadows(desk.database, NAME, now)
    leased = shadowing.lease(desk.bench, due, now)
    assert leased is not None
    shadowing.read_shadow(desk.bench, leased, lambda: candidate)
    report = shadow_report.report_of(desk.database, NAME)
    assert (report.compared, report.troubles) == ((), ())
    assert "1 dropped" in shadow_report.as_words(report)


def test_canary_is_sent_under_its_own_name_and_rolled_back_by_one_command(desk: Desk, candidate: Model) -> None:
    with_shares(desk, canary=1.0, shadow=1.0)
    study = desk.receive(mammograms.exam(bright=[LCC]))
    first = read(desk, study, candidate)
    [reading] = readings_of(desk.database, study)
    assert (reading.candidate, reading.model_version) == (NAME, "2")
    assert reading.model_weights_hash == candidate.contract.weights_hash
    [report] = [dcmread(r.path) for r in reading.results if r.kind is ResultKind.STRUCTURED_REPORT]
    equipment = report.ContributingEquipmentSequence[0]
    assert (equipment.SoftwareVersions[0], equipment.DeviceSerialNumber) == ("2", candidate.contract.weights_hash)
    assert due_shadows(desk.database, NAME, datetime.now(UTC) + timedelta(days=1)) == []
    state = desk.state(study)
    assert "2 canary" in as_table([state])
    assert f"canary {NAME}" in as_details(state)
    assert as_json([state])["exams"][0]["reading"]["model"]["candidate"] == NAME
    assert [each.study_instance_uid for each in read_by(desk.database, NAME)] == [study]

    words, _ = carry_out(desk.database, decided(Decision.ROLLBACK), reread=True)
    assert "1 exams are read again" in words
    assert desk.exam(study).status is ExamStatus.READY
    second = read(desk, study, candidate)
    one, two = readings_of(desk.database, study)
    assert (one.id, two.id, two.supersedes_id, two.candidate) == (first, second, first, "")
    assert (two.model_version, two.prediction["replaces"]) == ("0.0.1-tiny", 1)
    assert read_by(desk.database, NAME) == ()
    assert "a physicist: too many marks" in show(desk.bench.settings, desk.database)[0]
    assert "rollback of" in explain(desk.bench.settings, desk.database, study)[0]


def test_a_model_that_says_again_what_was_replaced_makes_a_reading_of_its_own(desk: Desk, candidate: Model) -> None:
    with_shares(desk)
    study = desk.receive(mammograms.exam())
    read(desk, study, candidate)
    carry_out(desk.database, decided(Decision.PROMOTE))
    advance(desk.database, study, ExamStatus.READ, ExamStatus.READY, datetime.now(UTC))
    read(desk, study, candidate)
    carry_out(desk.database, decided(Decision.ROLLBACK), reread=True)
    third = read(desk, study, candidate)
    advance(desk.database, study, ExamStatus.READ, ExamStatus.READY, datetime.now(UTC))
    assert read(desk, study, candidate) == third  # nothing was said since: it is not stored twice
    readings = readings_of(desk.database, study)
    assert [(reading.number, reading.candidate) for reading in readings] == [(1, ""), (2, NAME), (3, "")]
    assert readings[0].selection == readings[2].selection
    assert {r.sop_instance_uid for r in readings[0].results}.isdisjoint(r.sop_instance_uid for r in readings[2].results)


def test_rollback_during_a_canary_reading_stores_nothing_of_it(desk: Desk, candidate: Model) -> None:
    with_shares(desk, canary=1.0)
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None

    def rolled_back_meanwhile() -> Model:
        decide(desk.database, decided(Decision.ROLLBACK))
        return candidate

    assert pipeline.read_exam(desk.bench, leased, lambda: desk.model, rolled_back_meanwhile) is None
    assert readings_of(desk.database, study) == ()
    assert desk.exam(study).status is ExamStatus.READY
    read(desk, study, candidate)
    assert [reading.candidate for reading in readings_of(desk.database, study)] == [""]


def test_exams_of_a_candidate_that_does_not_fit_wait_in_words_until_it_is_rolled_back(
    desk: Desk, candidate: Model
) -> None:
    with_shares(desk, canary=1.0)
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None

    def unfit() -> Model:
        raise ContractError("contract.input_shape: is (1, 1)")

    with pytest.raises(pipeline.NotReadyError) as caught:
        pipeline.read_exam(desk.bench, leased, lambda: desk.model, unfit)
    pipeline.give_up(desk.bench, leased, caught.value, datetime.now(UTC))
    assert (desk.exam(study).status, desk.exam(study).attempts) == (ExamStatus.READY, 0)
    assert desk.lease(study) is None
    for words in (f"candidate {NAME}: ", "contract.input_shape", "mammoclip-node model rollback"):
        assert words in desk.exam(study).reason
    assert "1 exams that waited" in carry_out(desk.database, decided(Decision.ROLLBACK))[0]
    read(desk, study, candidate)
    assert desk.exam(study).status is ExamStatus.READ


def test_an_exam_that_was_not_read_is_explained_by_the_model_that_it_falls_to(desk: Desk, candidate: Model) -> None:
    with_shares(desk, canary=1.0)
    desk.set(replace(desk.bench.settings.destinations[0], explain_unread=True), exam={"settle_seconds": 0.0})
    study = desk.receive(mammograms.exam([RMLO]))
    pipeline.lease(desk.bench, study, datetime.now(UTC))
    leased = explaining.lease(desk.bench, study, datetime.now(UTC))
    assert leased is not None
    assert explaining.explain(desk.bench, leased, lambda: desk.model, lambda: candidate) is not None
    [reading] = readings_of(desk.database, study)
    assert (reading.model_version, reading.candidate) == ("2", NAME)


@dataclass
class Served:
    """What a server does that is given another model: from some inference on the second network answers."""

    first: Model
    second: Model
    answers_by_first: int
    asked: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    problem: Exception | None = None

    @property
    def _now(self) -> Model:
        return self.first if self.asked <= self.answers_by_first else self.second

    @property
    def contract(self) -> ModelContract:
        return self._now.contract

    @property
    def variant(self) -> str:
        return self._now.variant

    def infer(self, views: NDArray[np.float32], present: NDArray[np.bool_], priority: int = 5) -> Prediction:
        self.asked += 1
        self.shapes.append(views.shape)
        if self.problem is not None:
            raise self.problem
        answering = self._now
        return replace(answering.infer(views, present), answered_by=(answering.contract, answering.variant))

    def check_turn(self) -> None:
        """Always."""

    def check_health(self) -> None:
        """Well."""


@pytest.mark.parametrize("preset_stays", [True, False])
def test_a_reading_carries_the_identity_of_the_version_that_answered(
    desk: Desk, candidate: Model, model_settings: Settings, tmp_path: Path, preset_stays: bool
) -> None:
    second = candidate
    if preset_stays:
        folder = make_tiny_model(tmp_path / "two", height=380, width=228, contract={"version": "2"}, kinds=FOUR_KINDS)
        second = load_model(replace(model_settings.inference, model_folder=folder))
    served = Served(desk.model, second, answers_by_first=0)
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None
    assert pipeline.read_exam(desk.bench, leased, lambda: served) is not None
    [reading] = readings_of(desk.database, study)
    assert (reading.model_version, reading.model_weights_hash) == ("2", second.contract.weights_hash)
    assert served.shapes == [(4, 1, 380, 228)] * 1 + ([] if preset_stays else [(4, 1, 320, 192)])
    kinds = {kind for view in reading.prediction["views"].values() for kind in view["probabilities"]}
    assert kinds == set(FOUR_KINDS)


def test_a_model_that_stops_fitting_makes_the_exam_wait(desk: Desk) -> None:
    served = Served(desk.model, desk.model, 9, problem=ContractError("contract.version: another server"))
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None
    with pytest.raises(pipeline.NotReadyError, match="does not fit: contract") as caught:
        pipeline.read_exam(desk.bench, leased, lambda: served)
    pipeline.give_up(desk.bench, leased, caught.value, datetime.now(UTC))
    assert desk.exam(study).status is ExamStatus.READY
    assert "another server" in as_table([desk.state(study)])


def test_an_exam_that_has_no_turn_waits_without_a_try(desk: Desk) -> None:
    served = Served(desk.model, desk.model, 9, problem=ModelWaitError("the server is full", 7.0))
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None
    now = datetime.now(UTC)
    with pytest.raises(ModelWaitError) as caught:
        pipeline.read_exam(desk.bench, leased, lambda: served)
    pipeline.give_up(desk.bench, leased, caught.value, now)
    exam = desk.exam(study)
    assert (exam.status, exam.attempts, exam.reason) == (ExamStatus.READY, 0, "the server is full")
    assert exam.due_at is not None
    assert exam.due_at - now == timedelta(seconds=7)


def test_the_shipped_model_shadows_a_tiny_one(desk: Desk, model_settings: Settings, candidate: Model) -> None:
    shipped = load_model(replace(model_settings.inference, model_folder=SHIPPED))
    with_shares(desk, shadow=1.0)
    desk.set(replace(desk.bench.settings.destinations[0], objects=()))
    study = desk.receive(mammograms.exam(bright=[LCC]))
    read(desk, study, candidate)
    now = datetime.now(UTC)
    [due] = due_shadows(desk.database, NAME, now)
    leased = shadowing.lease(desk.bench, due, now)
    assert leased is not None
    shadowing.read_shadow(desk.bench, leased, lambda: shipped)
    [compared] = shadow_report.report_of(desk.database, NAME).compared
    assert compared.candidate[3] == shipped.contract.weights_hash
    assert compared.comparison.exams == 1
    assert compared.comparison.spread.limits is None
    assert compared.comparison.spread.largest_absolute is not None
