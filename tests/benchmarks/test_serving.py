"""The benchmark of serving runs on a small model; float32 on Triton says what PyTorch says in float32."""

import re
from pathlib import Path

import pytest

from tests.benchmarks.serving import compare_speed
from tests.benchmarks.serving_model import QUICK
from tests.integration.triton_server import TritonServer, install_triton

pytestmark = pytest.mark.benchmark


@pytest.mark.timeout(600)
def test_float32_on_triton_agrees_with_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_triton()
    (tmp_path / "models").mkdir()
    with TritonServer(tmp_path / "models", tmp_path / "log") as server:
        compare_speed(tmp_path / "models", server, QUICK, 4)
    printed = capsys.readouterr().out
    [row] = re.findall(r"Triton, OpenVINO f32, shared memory \| 4 \| ([^|]+) \|", printed)
    assert float(row.split(",")[-1]) < 0.001
    assert "| plain PyTorch, float32 |" in printed
    with capsys.disabled():
        print(printed)
