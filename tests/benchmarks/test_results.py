"""The general-pacs set of a full-size exam: its seconds to read, its size and memory within their limits."""

import pytest

from node.results.rendering import Rendering
from tests.benchmarks.full_size import full_size_exam
from tests.benchmarks.results import LIMIT_HEAT_BYTES, LIMIT_MB, SET, encode_set, measure_apart, print_tables
from tests.node.results import exams

pytestmark = pytest.mark.benchmark


@pytest.mark.timeout(600)
def test_a_full_size_set_within_its_size_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_apart(5)
    with capsys.disabled():
        print_tables(found)
    assert found["findings"] == 4
    assert max(found["bytes"]["HEATMAP"]) < LIMIT_HEAT_BYTES
    assert found["peak_mb"] - found["before_mb"] < LIMIT_MB


def test_what_is_measured_is_what_a_destination_gets() -> None:
    reading, sources = full_size_exam()
    where = exams.destination(preset="general-pacs")
    shipped = Rendering(reading, sources, lambda result: "").shipments(where)
    _, made = encode_set(reading, sources)
    measured = [result for kind in SET for result in made[kind]]
    assert {item.result.sop_instance_uid for item in shipped} == {result.sop_instance_uid for result in measured}
    assert {item.result.content for item in shipped} == {result.content for result in measured}
