"""A database of version 0001 with rows is read by this version, and can be brought back."""

import json
from collections.abc import Callable, Iterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from node.database import Database, upgrade
from node.database.deliveries import DeliveryStatus, deliveries_of, lease_deliveries
from node.database.engine import MIGRATIONS
from node.database.exams import exam_record
from node.database.explanations import due_explanations
from node.database.readings import identity_hash, predecessor_of, readings_of, stored_identity
from node.exam import ExamStatus
from node.results.reading import Outcome
from tests.node.database.values import NOW, STUDY, a_reading

SOP_INSTANCE_UID = "2.25.329741658924716398521637401"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
ROWS = (
    (
        "exams",
        {
            "study_instance_uid": STUDY,
            "status": "skipped",
            "reason": "views missing: LMLO",
            "waiting_for": "",
            "attempts": 1,
            "priority": 5,
            "alarm": False,
            "selection_hash": "s" * 64,
        },
        ("last_image_at", "updated_at"),
    ),
    (
        "readings",
        {
            "id": 7,
            "study_instance_uid": STUDY,
            "number": 1,
            "identity_hash": identity_hash(a_reading()),
            "selection_json": json.dumps([list(pair) for pair in a_reading().selection]),
            "model_name": "exam_encoder",
            "model_version": "1",
            "model_variant": "openvino f32",
            "model_weights_hash": "w" * 64,
            "settings_hash": "5" * 64,
            "prediction_json": "{}",
            "seconds_json": "{}",
        },
        ("read_at",),
    ),
    (
        "results",
        {
            "id": 3,
            "reading_id": 7,
            "kind": "SR",
            "sop_class_uid": SR,
            "sop_instance_uid": SOP_INSTANCE_UID,
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "path": "results/1.dcm",
            "content_hash": "c" * 64,
        },
        (),
    ),
    (
        "deliveries",
        {
            "id": 5,
            "result_id": 3,
            "reading_id": 7,
            "destination": "pacs",
            "status": "pending",
            "attempts": 2,
            "reason": "no connection",
        },
        ("due_at",),
    ),
)


def migrate(database: Database, step: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        step(config, revision)


def insert_rows(database: Database) -> None:
    at = NOW.replace(tzinfo=None)
    with database.write() as session:
        for table, values, times in ROWS:
            everything = {**values, **dict.fromkeys(times, str(at))}
            names = ", ".join(everything)
            session.execute(
                text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in everything)})"),
                everything,
            )


@pytest.fixture
def old_database(empty_database: Database) -> Iterator[Database]:
    """Left as others find it: the PostgreSQL of a session is one for all."""
    migrate(empty_database, command.upgrade, "0001")
    insert_rows(empty_database)
    yield empty_database
    upgrade(empty_database)


def test_rows_of_version_0001_stay_readable(old_database: Database) -> None:
    upgrade(old_database)
    record = exam_record(old_database, STUDY)
    assert record is not None
    assert (record.status, record.explain_due_at) == (ExamStatus.SKIPPED, None)
    assert due_explanations(old_database, NOW) == []
    [reading] = readings_of(old_database, STUDY)
    assert (reading.outcome, reading.reason, reading.read_at) == (Outcome.READ, "", NOW)
    [result] = reading.results
    assert (result.form, result.problem, result.series_instance_uid) == ("", "", "")
    [delivery] = deliveries_of(old_database, STUDY)
    assert (delivery.status, delivery.only_if_taken, delivery.only_if_refused) == (DeliveryStatus.PENDING, "", "")


def test_work_of_version_0001_goes_on(old_database: Database) -> None:
    upgrade(old_database)
    same = stored_identity(old_database, a_reading())
    assert same is not None
    assert same.id == 7
    [delivery] = lease_deliveries(old_database, 7, "pacs", "worker", NOW, 60)
    assert (delivery.sop_instance_uid, delivery.attempts) == (SOP_INSTANCE_UID, 3)
    found = predecessor_of(old_database, STUDY)
    assert found is not None
    before, _ = found
    assert (before.number, [document.destinations for document in before.documents]) == (1, [("pacs",)])


def test_the_way_back_keeps_the_rows(old_database: Database) -> None:
    upgrade(old_database)
    migrate(old_database, command.downgrade, "0001")
    with old_database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM deliveries")) == 1
        assert session.scalar(text("SELECT reason FROM exams")) == "views missing: LMLO"
    columns = inspect(old_database.engine).get_columns("exams")
    assert "explain_due_at" not in {column["name"] for column in columns}
