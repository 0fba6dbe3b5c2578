"""`mammoclip-node model` and `shadow` as a shell runs them, and what starts a candidate's worker."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.cli import main
from node.database import Database, open_database, upgrade
from node.database.exams import exam_record, lease_exam, locked_exam
from node.database.readings import store_reading
from node.database.schema import ShadowRow
from node.exam import ExamStatus
from node.serving import queues_of, shadow_of, worker_command
from node.settings import load_settings
from tests.node.database.values import NOW, STUDY, a_reading
from tests.running_node import settings_text

CANDIDATE = """
[candidate]
name = "2.1.0"
model_folder = "two"
shadow = 1.0
canary = 0.1
"""


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(settings_text(11112, CANDIDATE))
    return path


@pytest.fixture
def node_database(settings_file: Path) -> Database:
    settings = load_settings(settings_file, {})
    settings.data_folder.mkdir()
    database = open_database(settings.database_url)
    upgrade(database)
    with database.write() as session:
        locked_exam(session, STUDY, NOW).status = ExamStatus.READY.value
    lease_exam(database, STUDY, "reader", NOW, 60)
    reading = replace(a_reading(), read_at=datetime.now(UTC))
    said = {"exam_probability": 0.3, "findings": [], "views": {}, "breasts": {}, "not_assessed": []}
    store_reading(
        database, "reader", reading, [], [], prediction=said, seconds={"infer": 1.5}, now=NOW, candidate="2.1.0"
    )
    return database


def test_rollback_says_who_and_what_it_leaves_and_can_read_again(
    settings_file: Path, node_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--settings", str(settings_file)]
    assert main(["model", "rollback", *where, "--by", "a physicist", "--because", "too many marks"]) == 0
    said = capsys.readouterr().out
    assert "rollback of candidate 2.1.0 by a physicist: the first model reads every exam" in said
    assert "1 exams keep its readings" in said
    assert main(["model", "exams", *where]) == 0
    assert f"{STUDY}  reading 1" in capsys.readouterr().out
    assert main(["model", "rollback", *where, "--reread", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["decision"], document["read_again"]) == ("rollback", 1)
    assert document["by"]
    record = exam_record(node_database, STUDY)
    assert record is not None
    assert record.status is ExamStatus.READY
    node_database.close()


def test_show_and_explain_tell_who_reads_and_why(
    settings_file: Path, node_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--settings", str(settings_file)]
    main(["model", "show", *where])
    before = capsys.readouterr().out
    assert "canary       reads 0.1 of the exams (candidate 2.1.0, canary in the settings)" in before
    assert "exams        1 read by candidate 2.1.0" in before
    main(["model", "promote", *where, "--by", "a physicist"])
    main(["model", "explain", STUDY, *where])
    said = capsys.readouterr().out
    assert "reader       candidate 2.1.0: its place" in said
    assert "promote of" in said
    assert "by candidate 2.1.0: exam_encoder 1 (openvino f32), weights wwwwwwwwwwww" in said
    main(["model", "show", *where, "--json"])
    assert json.loads(capsys.readouterr().out)["candidate"]["share"] == 1.0
    node_database.close()


def test_shadow_prints_both_forms(
    settings_file: Path, node_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with node_database.write() as session:
        session.add(
            ShadowRow(
                reading_id=1,
                candidate="2.1.0",
                status="read",
                due_at=NOW,
                prediction_json={"exam_probability": 0.5, "findings": []},
                seconds_json={"infer": 2.5},
            )
        )
    where = ["--settings", str(settings_file)]
    assert main(["shadow", *where]) == 0
    said = capsys.readouterr().out
    assert "+0.200 on average" in said
    assert "no 95th percentile below 20 exams" in said
    assert "1.50 s, candidate 2.50 s" in said
    assert main(["shadow", *where, "--json"]) == 0
    [compared] = json.loads(capsys.readouterr().out)["compared"]
    assert compared["difference"]["mean"] == pytest.approx(0.2)
    assert compared["furthest_apart"][0]["study_instance_uid"] == STUDY
    node_database.close()


def test_without_a_candidate_the_commands_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(settings_text(11112, ""))
    assert main(["model", "rollback", "--settings", str(path)]) == 2
    assert "settings.toml has no [candidate]" in capsys.readouterr().err
    assert main(["shadow", "--settings", str(path)]) == 2
    assert "nothing is or was to be read in shadow" in capsys.readouterr().err
    assert main(["model", "show", "--settings", str(path)]) == 0
    assert "candidate    none" in capsys.readouterr().out


def test_a_candidate_in_shadow_has_a_worker_of_its_own(settings_file: Path) -> None:
    settings = load_settings(settings_file, {})
    assert settings.candidate is not None
    assert queues_of(settings) == ("read", "deliver", "shadow")
    assert shadow_of(settings) == "2.1.0"
    canary_alone = replace(settings, candidate=replace(settings.candidate, shadow=0.0))
    assert queues_of(canary_alone) == queues_of(replace(settings, candidate=None)) == ("read", "deliver")
    command = worker_command("shadow", 4)
    assert command[command.index("--concurrency") + 1] == "1"
