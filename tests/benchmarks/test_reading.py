"""A reading of a full-size exam: its stages to read, the worker within 1.5 GB."""

from pathlib import Path

import pytest

from tests.benchmarks.reading import SHIPPED, measure_all, print_table

pytestmark = pytest.mark.benchmark


@pytest.mark.timeout(900)
def test_a_full_size_exam_within_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_all(SHIPPED, tmp_path, 3)
    with capsys.disabled():
        print_table(found)
    for result in found.values():
        assert result["peak_mb"] < 1536
