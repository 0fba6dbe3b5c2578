"""A reading of a full-size exam: what is not inference within 1.5 s of CPU, the worker within 1.5 GB."""

from pathlib import Path

import pytest

from tests.benchmarks.reading import SHIPPED, measure_all, print_table

pytestmark = pytest.mark.benchmark


@pytest.mark.timeout(900)
def test_a_full_size_exam_within_its_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_all(SHIPPED, tmp_path, 3)
    with capsys.disabled():
        print_table(found)
    for result in found.values():
        for stages in result["stages"][1:]:
            assert stages["total cpu"] - stages["infer cpu"] < 1.5
        assert result["peak_mb"] < 1536
