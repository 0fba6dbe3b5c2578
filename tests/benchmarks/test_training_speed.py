"""The loops that the benchmark of training compares train the same model; blocks computed again take less memory."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.training_loops import Case, Switches, our_step, plain_step, write_rows
from tests.benchmarks.training_speed import Limits, loops, measure, print_case, print_peaks

pytestmark = pytest.mark.benchmark
CPU = torch.device("cpu")


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_both_loops_have_one_loss(task: str, tmp_path: Path) -> None:
    case = Case(task, "lite0", 96, 64, 2)
    rows = write_rows(tmp_path, 2)
    losses = []
    for step in (plain_step(case, rows, Switches(), CPU), our_step(case, rows, CPU, "float32")):
        torch.manual_seed(0)
        losses.append(step())
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_tables_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("finetune", "lite0", 96, 64, 2)
    print_case(case, measure(loops(case, tmp_path, CPU, alone=True), CPU, Limits(2, True, 60.0)))
    print_peaks(Case("finetune", "b2", 380, 228, 1), CPU, 1, ("float32",))
    printed = capsys.readouterr().out
    assert "| the project's training |" in printed
    peaks = [float(line.split("|")[3]) for line in printed.splitlines() if line.startswith("| float32")]
    assert peaks[1] < peaks[0]
    with capsys.disabled():
        print(printed)
