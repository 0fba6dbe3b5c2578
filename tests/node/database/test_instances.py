"""What was received, and which content counts."""

import dataclasses

from sqlalchemy import select

from node.database import Database
from node.database.exams import lease_exam, locked_exam
from node.database.instances import Recorded, arrivals, instances_of, is_our_result, record_instance
from node.database.readings import store_reading
from node.database.schema import InstanceRow
from tests.node.database.values import NOW, STUDY, a_reading, a_result, an_instance


def test_an_instance_comes_back_as_it_went_in(database: Database) -> None:
    instance = an_instance()
    assert record_instance(database, instance, False) == Recorded.NEW
    assert instances_of(database, STUDY) == (instance,)


def test_an_instance_without_view_and_times_comes_back(database: Database) -> None:
    instance = dataclasses.replace(an_instance(view=None), acquired_at=None, header=())
    record_instance(database, instance, False)
    assert instances_of(database, STUDY) == (instance,)


def test_what_tells_a_displayed_twin_comes_back(database: Database) -> None:
    instance = dataclasses.replace(
        an_instance(),
        source_instance_uids=("1.2.840.113619.2.401.7",),
        exposed_at=NOW.replace(tzinfo=None),
        spacing_mm=(0.07, 0.1),
        orientation=("A", "FR"),
    )
    record_instance(database, instance, False)
    assert instances_of(database, STUDY) == (instance,)
    assert hash(instances_of(database, STUDY)[0]) == hash(instance)


def test_a_row_of_an_earlier_version_comes_back(database: Database) -> None:
    """It holds none of the facts that tell a displayed twin."""
    instance = an_instance()
    record_instance(database, instance, False)
    with database.write() as session:
        row = session.scalars(select(InstanceRow)).one()
        later = {"source_instance_uids", "exposed_at", "spacing_mm", "orientation"}
        row.header_json = {name: value for name, value in row.header_json.items() if name not in later}
    assert instances_of(database, STUDY) == (instance,)


def test_equal_again_changes_nothing_and_the_later_content_counts(database: Database) -> None:
    first, second = an_instance(), an_instance(content="b")
    answers = [record_instance(database, instance, False) for instance in (first, first, second, first)]
    assert answers == [Recorded.NEW, Recorded.EQUAL, Recorded.CHANGED, Recorded.EQUAL]
    assert instances_of(database, STUDY) == (second,)
    assert len(arrivals(database)) == 2


def test_other_studies_and_our_own_objects_are_no_part_of_it(database: Database) -> None:
    record_instance(database, an_instance(1), False)
    record_instance(database, an_instance(2, study="1.2.3"), False)
    record_instance(database, an_instance(3), True)
    assert [instance.path for instance in instances_of(database, STUDY)] == ["instances/1.dcm"]
    assert [arrival.is_ours for arrival in arrivals(database)] == [True, False, False]


def test_our_results_are_known_by_their_uid(database: Database) -> None:
    with database.write() as session:
        locked_exam(session, STUDY, NOW).status = "ready"
    lease_exam(database, STUDY, "worker", NOW, 60)
    result = a_result()
    store_reading(database, "worker", a_reading(), [result], [], prediction={}, seconds={}, now=NOW)
    assert is_our_result(database, result.sop_instance_uid)
    assert not is_our_result(database, "2.25.1")
