"""From recorded images to results and deliveries, in this process: real files, database, model and destinations."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, SecondaryCaptureImageStorage

from node import pipeline
from node.database.deliveries import DeliveryStatus, deliveries_of, retry_failed
from node.database.readings import readings_of
from node.errors import MAX_ATTEMPTS, SettingsError
from node.exam import ExamStatus
from node.inference.model import Model
from node.mammography.views import LCC, LMLO, RCC
from node.results.reading import ResultKind
from node.routing import Route
from node.settings import Destination, Match, Rule, Settings
from node.status import as_details, as_table, exam_states
from tests import mammograms
from tests.integration.desk import Desk, make_desk
from tests.running_node import Pacs
from tests.servers import free_port, postgresql

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")


def test_late_view_makes_a_second_reading_that_supersedes(desk: Desk) -> None:
    images = mammograms.exam(bright=[LCC])
    study = desk.receive(images)
    first = desk.read(study)
    again = mammograms.mammogram(LCC, study)
    again.AcquisitionTime = "111500"
    desk.receive([again])
    assert desk.exam(study).status is ExamStatus.READY
    second = desk.read(study)
    one, two = readings_of(desk.database, study)
    assert (one.id, two.id, two.supersedes_id) == (first, second, first)
    assert (one.number, two.number) == (1, 2)
    assert not {result.sop_instance_uid for result in one.results} & {result.sop_instance_uid for result in two.results}
    assert again.SOPInstanceUID in dict(two.selection)
    assert set(two.seconds) == {"load", "prepare", "infer", "interpret", "encode", "store"}


def test_image_that_comes_while_reading_is_in_the_reading_that_is_stored(desk: Desk) -> None:
    images = mammograms.exam()
    study = desk.receive(images)
    late = mammograms.mammogram(LCC, study)
    late.AcquisitionTime = "111500"
    leased = desk.lease(study)
    assert leased is not None

    def model_while_an_image_comes() -> Model:
        desk.receive([late])
        return desk.model

    assert pipeline.read_exam(desk.bench, leased, model_while_an_image_comes) is None
    assert readings_of(desk.database, study) == ()
    assert desk.exam(study).status is ExamStatus.READY
    assert desk.read(study) is not None
    [reading] = readings_of(desk.database, study)
    assert late.SOPInstanceUID in dict(reading.selection)


def test_same_reading_is_not_stored_twice(desk: Desk) -> None:
    images = mammograms.exam()
    study = desk.receive(images)
    first = desk.read(study)
    other = mammograms.mammogram(LCC, study)
    other.AcquisitionTime = "111500"
    desk.receive([other])
    leased = desk.lease(study)
    assert leased is not None
    other.AcquisitionTime = "091500"  # the same instance, corrected: the first choice holds again
    desk.receive([other])
    assert pipeline.read_exam(desk.bench, leased, lambda: desk.model) is None
    assert desk.read(study) == first
    assert len(readings_of(desk.database, study)) == 1


def test_second_worker_gets_nothing(desk: Desk) -> None:
    study = desk.receive(mammograms.exam())
    assert desk.lease(study) is not None
    assert desk.lease(study) is None


def test_reading_of_a_lost_lease_is_not_stored(desk: Desk) -> None:
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None
    later = datetime.now(UTC) + timedelta(days=1)
    other = replace(desk.bench, owner="elsewhere/1/2/3")
    assert pipeline.lease(other, study, later) is not None
    assert pipeline.read_exam(desk.bench, leased, lambda: desk.model) is None
    assert readings_of(desk.database, study) == ()


def test_pixels_that_cannot_be_decoded_are_a_skip_that_names_the_view(desk: Desk) -> None:
    images = mammograms.exam()
    images[3].file_meta.TransferSyntaxUID = JPEGLSLossless
    images[
        3
    ].PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd\xfe\xff\xdd\xe0\0\0\0\0"
    images[3]["PixelData"].is_undefined_length = True
    study = desk.receive(images)
    assert desk.read(study) is None
    exam = desk.exam(study)
    assert exam.status is ExamStatus.SKIPPED
    assert exam.reason.startswith("LMLO: ")


def test_rule_skips_with_its_reason_and_is_shown(desk: Desk) -> None:
    desk.bench = replace(
        desk.bench,
        settings=replace(
            desk.bench.settings,
            rules=(Rule("no biopsies", (Match("StudyDescription", regex="(?i)biopsy"),), skip="biopsy"),),
        ),
    )
    images = mammograms.exam()
    for image in images:
        image.StudyDescription = "Stereotactic Biopsy"
    study = desk.receive(images)
    assert desk.read(study) is None
    assert (desk.exam(study).status, desk.exam(study).reason) == (ExamStatus.SKIPPED, "biopsy")
    assert "biopsy" in as_table(exam_states(desk.database))


def test_incomplete_exam_waits_in_words_and_is_skipped_when_its_time_is_up(desk: Desk) -> None:
    study = desk.receive(mammograms.exam([RCC, LCC]))
    assert "waiting for RMLO, LMLO" in as_table(exam_states(desk.database))
    assert desk.lease(study) is None
    assert pipeline.lease(desk.bench, study, datetime.now(UTC) + timedelta(hours=1)) is None
    assert desk.exam(study).reason == "views missing: RMLO, LMLO"


def test_node_without_a_model_keeps_its_exams(desk: Desk) -> None:
    study = desk.receive(mammograms.exam())
    leased = desk.lease(study)
    assert leased is not None

    def no_model() -> Model:
        raise SettingsError("inference.model_folder: nothing there")

    with pytest.raises(pipeline.NotReadyError) as caught:
        pipeline.read_exam(desk.bench, leased, no_model)
    pipeline.give_up(desk.bench, leased, caught.value, datetime.now(UTC))
    exam = desk.exam(study)
    assert (exam.status, exam.attempts) == (ExamStatus.READY, 0)
    assert "nothing there" in exam.reason
    assert exam.due_at is not None
    assert pipeline.lease(desk.bench, study, exam.due_at) is not None


def test_exam_that_kills_its_workers_is_given_up(desk: Desk) -> None:
    study = desk.receive(mammograms.exam())
    now = datetime.now(UTC)
    for _ in range(MAX_ATTEMPTS):
        assert pipeline.lease(desk.bench, study, now) is not None
        now += timedelta(hours=1)  # nobody ends the reading: its worker died
    assert pipeline.lease(desk.bench, study, now) is None
    exam = desk.exam(study)
    assert exam.status is ExamStatus.FAILED
    assert "the worker died" in exam.reason
    assert exam_states(desk.database)[0].needs_a_person


def test_delivery_waits_for_a_destination_that_is_down_and_others_do_not(desk: Desk) -> None:
    here, later = Pacs(free_port()), Pacs(free_port())
    destinations = tuple(
        Destination(name, "dicom", "127.0.0.1", pacs.port, "PACS", timeout_seconds=3, objects=("SR", "SEG", "SC"))
        for name, pacs in (("here", here), ("later", later))
    )
    desk.bench = replace(desk.bench, settings=replace(desk.bench.settings, destinations=destinations))
    study = desk.receive(mammograms.exam(bright=[LMLO]))
    reading_id = desk.read(study)
    assert reading_id is not None
    now = datetime.now(UTC)
    with here.running():
        assert desk.deliver(reading_id, "here") == (3, 0)
        assert desk.deliver(reading_id, "later") == (0, 3)
    waiting = [delivery for delivery in deliveries_of(desk.database, study) if delivery.destination == "later"]
    assert {delivery.status for delivery in waiting} == {DeliveryStatus.PENDING}
    assert all(delivery.due_at > now + timedelta(seconds=4) and delivery.reason for delivery in waiting)
    assert "again at" in as_details(exam_states(desk.database)[0])
    with later.running():
        assert desk.deliver(reading_id, "later") == (0, 0)  # not yet
        assert desk.deliver(reading_id, "later", now + timedelta(minutes=1)) == (3, 0)
        assert desk.deliver(reading_id, "later", now + timedelta(minutes=2)) == (0, 0)
    assert sorted(later.uids()) == sorted(here.uids())
    for dataset in later.received:
        kept = next(
            r for r in readings_of(desk.database, study)[0].results if r.sop_instance_uid == dataset.SOPInstanceUID
        )
        assert dcmread(kept.path).SOPClassUID == dataset.SOPClassUID


def test_refused_object_is_given_up_and_said_while_the_others_are_sent(desk: Desk) -> None:
    pacs = Pacs(free_port(), statuses={SecondaryCaptureImageStorage: 0x0124})
    destination = Destination("pacs", "dicom", "127.0.0.1", pacs.port, "PACS", timeout_seconds=3, objects=("SR", "SC"))
    desk.bench = replace(desk.bench, settings=replace(desk.bench.settings, destinations=(destination,)))
    study = desk.receive(mammograms.exam())
    reading_id = desk.read(study)
    assert reading_id is not None
    with pacs.running():
        assert desk.deliver(reading_id, "pacs") == (1, 1)
    state = exam_states(desk.database)[0]
    statuses = {delivery.kind.value: delivery.status for delivery in state.deliveries}
    assert statuses == {"SR": DeliveryStatus.SENT, "SC": DeliveryStatus.FAILED}
    assert state.needs_a_person
    assert "0x0124 (not authorised)" in as_table([state])


def test_object_whose_file_is_gone_is_given_up_while_the_others_are_sent(desk: Desk) -> None:
    pacs = Pacs(free_port())
    destination = Destination("pacs", "dicom", "127.0.0.1", pacs.port, "PACS", timeout_seconds=3, objects=("SR", "SC"))
    desk.set(destination)
    study = desk.receive(mammograms.exam())
    reading_id = desk.read(study)
    assert reading_id is not None
    [picture] = [r for r in readings_of(desk.database, study)[0].results if r.kind is ResultKind.SECONDARY_CAPTURE]
    Path(picture.path).unlink()
    with pacs.running():
        assert desk.deliver(reading_id, "pacs") == (1, 1)
    assert "its file is gone" in as_details(desk.state(study))
    desk.set(Destination("pacs", "hl7", "127.0.0.1", pacs.port))
    retry_failed(desk.database, datetime.now(UTC))
    assert desk.deliver(reading_id, "pacs") == (0, 1)


def test_destination_gets_only_the_kinds_and_exams_that_the_site_wants(desk: Desk) -> None:
    destinations = (
        Destination("reports", "dicom", "127.0.0.1", 104, "A", objects=("SR",)),
        Destination("nothing", "dicom", "127.0.0.1", 104, "B"),
    )
    rules = (Rule("screening", (), destinations=("reports",)),)
    settings = replace(desk.bench.settings, destinations=destinations, rules=rules)
    desk.bench = replace(desk.bench, settings=settings)
    study = desk.receive(mammograms.exam(bright=[LCC]))
    desk.read(study)
    assert [(d.destination, d.kind.value) for d in deliveries_of(desk.database, study)] == [("reports", "SR")]


def test_reading_on_postgresql(model_settings: Settings, model: Model, tmp_path: Path) -> None:
    with postgresql() as url:
        desk = make_desk(model_settings, model, tmp_path, url)
        study = desk.receive(mammograms.exam())
        assert desk.read(study) is not None
        [state] = exam_states(desk.database)
        assert (state.exam.status, len(state.deliveries)) == (ExamStatus.READ, 2)
        desk.database.close()


def test_settings_that_shape_the_result_change_its_hash(desk: Desk) -> None:
    contract = desk.model.contract
    taken = Route("r", "exam_encoder", (), 5, ())
    settings = desk.bench.settings
    at_one_percent = replace(settings, reading=replace(settings.reading, site_prevalence=0.01))
    hashes = {
        pipeline.settings_hash(contract, taken, settings),
        pipeline.settings_hash(contract, replace(taken, thresholds=(("mass", 0.4),)), settings),
        pipeline.settings_hash(contract, taken, at_one_percent),
        pipeline.settings_hash(replace(contract, preset="fit-380x229"), taken, settings),
    }
    assert len(hashes) == 4
    assert pipeline.settings_hash(contract, replace(taken, priority=1), settings) in hashes
