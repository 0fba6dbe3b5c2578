"""How many exams a plan reads in a second, and how long one waits: trtexec's own clocks."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.acceptance.answers import plan_command, run
from deploy.acceptance.bundle import Bundle
from deploy.tensorrt.plan import PlanError

THROUGHPUT = re.compile(r"Throughput: ([0-9.]+) qps")
BATCHES = (1, 4, 8)


@dataclass(frozen=True)
class Speed:
    """Of one batch size; latencies of a whole batch, copies included."""

    batch: int
    exams_per_second: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return (
            f"batch {self.batch}: {self.exams_per_second:.1f} exams a second, "
            f"a batch takes {self.p50_ms:.2f} ms (p50), {self.p99_ms:.2f} ms (p99)"
        )


def measure(bundle: Bundle, trtexec: str, seconds: int) -> list[Speed]:
    """Each batch size that the plan takes. Raises PlanError."""
    most = next(iter(bundle.inputs.values()))["max"][0]
    found = []
    for batch in [size for size in BATCHES if size <= most]:
        with tempfile.TemporaryDirectory() as folder:
            times = Path(folder) / "times.json"
            command = [*plan_command(bundle, trtexec, batch), f"--duration={seconds}", "--useCudaGraph"]
            printed = run([*command, f"--exportTimes={times}"])
            found.append(speed_of(batch, printed, times.read_text(encoding="utf-8")))
    return found


def speed_of(batch: int, printed: str, times: str) -> Speed:
    """From what trtexec printed and its --exportTimes. Raises PlanError."""
    throughput = THROUGHPUT.search(printed)
    try:
        latencies = np.array([float(one["latencyMs"]) for one in json.loads(times)])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"trtexec's times cannot be understood: {error}") from error
    if throughput is None or not len(latencies):
        raise PlanError("trtexec measured nothing: it printed no throughput or no times")
    p50, p99 = np.percentile(latencies, (50, 99))
    return Speed(batch, batch * float(throughput.group(1)), float(p50), float(p99))
