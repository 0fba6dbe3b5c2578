"""Which exams fall to a candidate, and what a person's decision changes of that."""

from datetime import timedelta
from pathlib import Path

import pytest

from node.candidate import CANARY, SHADOW, CandidateSettings, check_candidate, place_of
from node.choosing import choose, reads_exams
from node.database import Database
from node.database.decisions import Decided, Decision, decide, decisions_of, latest_decision
from node.errors import SettingsError
from node.settings import candidate_inference, load_settings
from tests.node.database.values import NOW

SHIPPED = Path(__file__).parents[2] / "settings.toml"
STUDIES = [f"1.2.840.113619.2.401.{number}" for number in range(2000)]
CANDIDATE = CandidateSettings("2.1.0", model_folder=Path("two"), shadow=0.5, canary=0.25)


def decided(decision: Decision, candidate: str = "2.1.0", minutes: int = 0) -> Decided:
    return Decided(candidate, decision, NOW + timedelta(minutes=minutes), "a physicist", "")


def test_places_do_not_depend_on_the_process() -> None:
    assert place_of("1.2.3", "2.1.0", CANARY) == 0.4098081144092327
    assert place_of("1.2.3", "2.1.1", CANARY) != place_of("1.2.3", "2.1.0", CANARY)


def test_a_share_is_that_share_and_a_greater_one_adds_to_it() -> None:
    places = [place_of(study, "2.1.0", CANARY) for study in STUDIES]
    assert all(0 <= place < 1 for place in places)
    for share in (0.05, 0.25, 0.9):
        assert sum(place < share for place in places) / len(places) == pytest.approx(share, abs=0.03)
    shadowed = [place_of(study, "2.1.0", SHADOW) < 0.5 for study in STUDIES]
    both = sum(one and place < 0.5 for one, place in zip(shadowed, places, strict=True))
    assert both / len(places) == pytest.approx(0.25, abs=0.03)  # the two uses do not choose the same exams


def test_an_exam_goes_one_way_and_a_canary_has_no_shadow(database: Database) -> None:
    choices = [choose(database, CANDIDATE, study) for study in STUDIES[:40]]
    assert choices == [choose(database, CANDIDATE, study) for study in STUDIES[:40]]
    assert {(bool(choice.candidate), bool(choice.shadow)) for choice in choices} == {
        (True, False),
        (False, True),
        (False, False),
    }
    assert "share 0.25 (candidate 2.1.0, canary in the settings)" in choices[0].why


def test_shares_of_nothing_and_of_all() -> None:
    assert not any(place_of(study, "x", CANARY) < 0.0 for study in STUDIES)
    assert all(place_of(study, "x", CANARY) < 1.0 for study in STUDIES)


def test_the_latest_decision_of_a_candidate_holds(database: Database) -> None:
    assert latest_decision(database, "2.1.0") is None
    steps = ((Decision.PROMOTE, 5), (Decision.ROLLBACK, 0), (Decision.RESUME, 2), (Decision.ROLLBACK, 0))
    readers = []
    for minutes, (decision, _) in enumerate(steps):
        decide(database, decided(decision, minutes=minutes))
        readers.append(sum(bool(choose(database, CANDIDATE, study).candidate) for study in STUDIES[:5]))
    by_settings = sum(place_of(study, "2.1.0", CANARY) < 0.25 for study in STUDIES[:5])
    assert readers == [5, 0, by_settings, 0]
    assert [each.decision for each in decisions_of(database)] == [decision for decision, _ in steps]
    assert latest_decision(database, "2.1.0") == decided(Decision.ROLLBACK, minutes=3)


def test_a_decision_about_one_candidate_says_nothing_of_another(database: Database) -> None:
    decide(database, decided(Decision.PROMOTE, "2.0.9"))
    decide(database, decided(Decision.ROLLBACK, "2.0.9", 1))
    assert latest_decision(database, "2.1.0") is None
    assert decisions_of(database, "2.1.0") == ()
    assert reads_exams(database, CANDIDATE)
    decide(database, decided(Decision.ROLLBACK))
    assert not reads_exams(database, CANDIDATE)
    assert not reads_exams(database, None)


def test_without_a_candidate_the_first_model_reads(database: Database) -> None:
    choice = choose(database, None, STUDIES[0])
    assert (choice.candidate, choice.shadow) == ("", "")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('name = "a b"\nmodel_folder = "x"', "candidate.name: 1 to 64"),
        ('name = "a"\nmodel_folder = "x"\ncanary = 1.5', "candidate.canary: a share"),
        ('name = "a"\nmodel_folder = "x"\nshadow = -0.1', "candidate.shadow: a share"),
        ('name = "a"\nmodel_folder = "x"\nbackend = "onnx"', "candidate.backend: must be one of"),
        ('name = "a"\nprecision = "f64"', "candidate.precision: must be one of"),
        ('name = "a"\ntriton_version = "two"', "candidate.triton_version: must be a whole number"),
        ('name = "a"\nshadow = 1.0', "candidate: names the model of"),
        ('name = "a"\nmodel_foldr = "x"', "candidate.model_foldr: unknown key"),
        ("shadow = 1.0", "candidate.name: missing key"),
    ],
)
def test_each_mistake_in_the_settings_is_named(tmp_path: Path, lines: str, named: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"{SHIPPED.read_text()}\n[candidate]\n{lines}\n")
    with pytest.raises(SettingsError, match=named):
        load_settings(path, {})


def test_what_a_candidate_leaves_out_is_as_in_inference(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f'{SHIPPED.read_text()}\n[candidate]\nname = "2.1.0"\ntriton_model = "two"\ntriton_version = "3"\n')
    settings = load_settings(path, {})
    where = candidate_inference(settings)
    assert (where.triton_model, where.triton_version) == ("two", "3")
    assert (where.model_folder, where.threads) == (settings.inference.model_folder, settings.inference.threads)
    check_candidate(CANDIDATE)
    with pytest.raises(SettingsError, match="toml has no"):
        candidate_inference(load_settings(SHIPPED, {}))
