"""The whole node with a candidate: shadow by its own process, decisions that running workers follow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.cli import main
from node.database import open_database
from node.database.shadows import shadow_pairs
from node.doctor import Check, examine
from node.inference.model import Model
from node.mammography.views import LCC
from node.settings import CandidateSettings, Settings
from tests import mammograms
from tests.models import FOUR_KINDS, make_tiny_model
from tests.running_node import Pacs, RunningNode, pacs_destination, running_node
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning")

PATIENCE = 300.0
"""Seconds: the shadow's worker computes when nobody else does."""
CANDIDATE = """
[candidate]
name = "four-kinds"
model_folder = "candidate"
shadow = 1.0
"""


def ask(capsys: pytest.CaptureFixture[str], node: RunningNode, *arguments: str) -> dict[str, Any]:
    """A command in this process, beside the node's."""
    capsys.readouterr()
    assert main([*arguments, "--json", "--settings", str(node.folder / "settings.toml")]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def read_by(node: RunningNode, study: str) -> tuple[int, str, str]:
    reading = node.wait_for(study, "read", PATIENCE)["reading"]
    return reading["number"], reading["model"]["candidate"], reading["model"]["version"]


@pytest.mark.timeout(600)
def test_shadow_promotion_and_rollback_of_a_running_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny_model(tmp_path / "candidate", height=320, width=192, contract={"version": "2"}, kinds=FOUR_KINDS)
    pacs = Pacs(free_port())
    with pacs.running(), running_node(tmp_path, pacs_destination(pacs) + CANDIDATE) as node:
        first, second = mammograms.exam(bright=[LCC]), mammograms.exam(bright=[LCC])
        one, two = str(first[0].StudyInstanceUID), str(second[0].StudyInstanceUID)
        assert mammograms.send(first, node.port) == [0x0000] * 4
        assert read_by(node, one) == (1, "", "0.0.1-tiny")
        sent = pacs.uids()
        database = open_database(f"sqlite:///{tmp_path / 'data' / 'node.db'}")
        wait_until(lambda: bool(shadow_pairs(database, "four-kinds")), PATIENCE, "nothing is read in shadow")
        database.close()
        assert ask(capsys, node, "shadow")["compared"][0]["exams"] == 1
        ask(capsys, node, "model", "promote", "--by", "a physicist")
        assert mammograms.send(second, node.port) == [0x0000] * 4
        assert read_by(node, two) == (1, "four-kinds", "2")
        assert {str(each.StudyInstanceUID) for each in pacs.received if str(each.SOPInstanceUID) in sent} == {one}
        assert sum(str(each.StudyInstanceUID) == one for each in pacs.received) == len(sent)  # of the shadow: nothing
        assert ask(capsys, node, "model", "rollback", "--reread", "--by", "a physicist")["read_again"] == 1
        wait_until(lambda: node.status()[two]["reading"]["number"] == 2, PATIENCE, "it is not read again")
        assert read_by(node, two) == (2, "", "0.0.1-tiny")
        decisions = ask(capsys, node, "model", "show")["decisions"]
        assert [(each["decision"], each["by"]) for each in decisions] == [
            ("promote", "a physicist"),
            ("rollback", "a physicist"),
        ]
        assert "Anna" not in node.log()
        assert node.stop() == [0]


def checked(settings: Settings, folder: Path) -> Check:
    settings = replace(settings, candidate=CandidateSettings("2.1.0", model_folder=folder, shadow=1.0))
    return next(check for check in examine(settings) if check.name == "candidate 2.1.0")


def test_doctor_tries_the_candidate_and_knows_the_first_model_again(
    model_settings: Settings, model: Model, tmp_path: Path
) -> None:
    settings = replace(
        model_settings, data_folder=tmp_path / "data", database_url=f"sqlite:///{tmp_path / 'data/node.db'}"
    )
    fits = make_tiny_model(tmp_path / "fits", height=128, width=96)
    unfit = make_tiny_model(
        tmp_path / "unfit", height=128, width=96, contract={"views": ["LCC", "RCC", "RMLO", "LMLO"]}
    )
    works = checked(settings, fits)
    assert works.works, works
    assert "shadow 1, canary 0 of the exams" in works.seen
    refused = checked(settings, unfit)
    assert "views" in refused.seen
    assert "candidate.model_folder" in refused.fix
    same = checked(settings, model_settings.inference.model_folder)
    assert "the first model again" in same.seen
    assert model.contract.weights_hash[:12] in same.seen
