"""What a reading's objects are kept as, and what a later reading knows of them."""

from dataclasses import replace
from pathlib import Path

from node.database import Database
from node.database.exams import lease_exam, locked_exam
from node.database.readings import StoredResult, store_reading
from node.keeping import destinations_of, keep, predecessor
from node.results.reading import ResultKind
from node.routing import Route, Skip
from node.settings import Destination, Settings, load_settings
from tests.node.database.values import NOW, STUDY, a_reading, a_result
from tests.node.results import exams

SETTINGS = load_settings(Path(__file__).parents[2] / "settings.toml", {})
HERE = Destination("here", "dicom", "h", 104, "A", objects=("SR", "SC"))
THERE = replace(HERE, name="there", objects=("SC",))


def store(database: Database, *results: StoredResult) -> None:
    with database.write() as session:
        locked_exam(session, STUDY, NOW).status = "ready"
    assert lease_exam(database, STUDY, "worker", NOW, 60)
    assert store_reading(database, "worker", a_reading(), results, [], prediction={}, seconds={}, now=NOW)


def test_an_object_for_two_destinations_is_kept_once_and_addressed_twice(database: Database, tmp_path: Path) -> None:
    seconds: dict[str, float] = {}
    kept = keep(database, tmp_path, exams.reading(), exams.sources(), (HERE, THERE), seconds)
    assert sorted(result.kind.value for result in kept.results) == ["SC", "SR"]
    assert sorted(
        (address.destination, uid_kind(kept.results, address.sop_instance_uid)) for address in kept.addresses
    ) == [
        ("here", "SC"),
        ("here", "SR"),
        ("there", "SC"),
    ]
    assert all(Path(result.path).is_file() and result.series_instance_uid for result in kept.results)
    assert set(seconds) == {"encode", "store"}


def uid_kind(results: tuple[StoredResult, ...], uid: str) -> str:
    return next(result.kind.value for result in results if result.sop_instance_uid == uid)


def test_objects_of_version_0001_are_named_with_the_series_of_their_files(database: Database, tmp_path: Path) -> None:
    [made] = exams.encode_all(exams.reading(), exams.sources(), "SR")
    path = tmp_path / "report.dcm"
    path.write_bytes(made.content)
    old = replace(a_result(), path=str(path))
    gone = replace(a_result(ResultKind.SECONDARY_CAPTURE, number=2), path=str(tmp_path / "gone.dcm"))
    store(database, old, gone)
    before = predecessor(database, STUDY)
    assert before is not None
    assert [document.series_instance_uid for document in before.documents] == [made.series_instance_uid]
    assert predecessor(database, "1.2.3") is None


def test_a_rule_names_destinations_and_its_skip_concerns_all() -> None:
    settings: Settings = replace(SETTINGS, destinations=(HERE, THERE))
    assert destinations_of(Route("r", "exam_encoder", (), 5, ("there",)), settings) == (THERE,)
    assert destinations_of(Route("r", "exam_encoder", (), 5, ()), settings) == (HERE, THERE)
    assert destinations_of(Skip("r", "biopsy"), settings) == (HERE, THERE)
