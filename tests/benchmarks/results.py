"""The `general-pacs` set of a full-size exam with four findings, and the same objects by plain highdicom.

`python -m tests.benchmarks.results [--rounds 7]` prints Markdown: seconds of CPU, number and bytes of each kind of
object and of the set, memory, and our seconds over highdicom's. All is measured in one process of its own, ours and
highdicom's in turn; the first round brings imports and is shown apart. highdicom is given what ours makes within the
time: masks, and heat on stored pixels. What it writes is not valid as it stands (no Patient Orientation).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset

from node.mammography.views import View
from node.results import (
    heatmap_segmentation,
    key_objects,
    presentation_state,
    secondary_capture,
    segmentation,
    structured_report,
)
from node.results.gate import problem_of
from node.results.gate.program import problems as of_program
from node.results.reading import EncodedResult, Reading
from tests.benchmarks.full_size import full_size_exam

ROOT = Path(__file__).parents[2]
SET = ("SEG", "HEATMAP", "GSPS", "SC", "SR", "KOS")
"""The kinds of `general-pacs`, in the order in which they are made."""
LIMIT_SECONDS, LIMIT_MB, LIMIT_HEAT_BYTES = 2.0, 500.0, 1_500_000

Sources = Mapping[View, Dataset]


def main() -> None:
    """Parse the command line; measure in a child; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.rounds)))
    else:
        print_tables(measure_apart(arguments.rounds))


def measure_apart(rounds: int) -> dict[str, Any]:
    """What a process of its own measured."""
    command = [sys.executable, "-m", "tests.benchmarks.results", "--measure", "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of CPU by round and kind, ours and highdicom's; bytes of each object; memory before and at most."""
    reading, sources = full_size_exam()
    before_mb = _peak_mb()
    first, made = encode_set(reading, sources)
    peak_mb = _peak_mb()
    checks = _seconds(lambda: [problem_of(result) for results in made.values() for result in results])
    program = _seconds(lambda: [list(of_program(result.content)) for results in made.values() for result in results])
    from tests.benchmarks.highdicom_objects import WRITERS, given

    views = given(reading, sources)
    theirs_bytes = {kind: [len(content) for content in write(views)] for kind, write in WRITERS.items()}
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(encode_set(reading, sources)[0])
        theirs.append({kind: _seconds(lambda write=write: write(views)) for kind, write in WRITERS.items()})
    return {
        "first": sum(first.values()),
        "ours": ours,
        "highdicom": theirs,
        "checks": checks - program,
        "bytes": {kind: [len(result.content) for result in results] for kind, results in made.items()},
        "highdicom bytes": theirs_bytes,
        "findings": len(reading.findings),
        "before_mb": before_mb,
        "peak_mb": peak_mb,
    }


def encode_set(reading: Reading, sources: Sources) -> tuple[dict[str, float], dict[str, tuple[EncodedResult, ...]]]:
    """The set, as rendering.Rendering makes it, with the seconds of CPU of each kind."""
    made: dict[str, tuple[EncodedResult, ...]] = {}

    def all_made() -> list[EncodedResult]:
        return [result for results in made.values() for result in results]

    encoders: dict[str, Callable[[], Sequence[EncodedResult]]] = {
        "SEG": lambda: segmentation.encode(reading, sources),
        "HEATMAP": lambda: heatmap_segmentation.encode(reading, sources),
        "GSPS": lambda: presentation_state.encode(reading, sources),
        "SC": lambda: [secondary_capture.encode(reading, sources)],
        "SR": lambda: [structured_report.encode(reading, sources, [*made["SEG"], *made["HEATMAP"]])],
        "KOS": lambda: [key_objects.encode(reading, sources, all_made())],
    }
    seconds = {}
    for kind in SET:
        began = time.process_time()
        made[kind] = tuple(encoders[kind]())
        seconds[kind] = time.process_time() - began
    return seconds, made


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_tables(found: dict[str, Any]) -> None:
    """A row for each kind and for the set; then memory, the first round, and the node's own checks."""
    print(
        f"general-pacs, 4 x 4096 x 3328, {found['findings']} findings; median of {len(found['ours'])} (least to most)\n"
    )
    print("| objects | bytes | seconds of CPU | highdicom: bytes | seconds of CPU | ours / highdicom |")
    print("|---" * 6 + "|")
    for kind in SET:
        print(f"| {len(found['bytes'][kind])} {kind} | {sum(found['bytes'][kind])} | {_row(found, kind)} |")
    sums = [sum(seconds.values()) for seconds in found["ours"]]
    total = sum(map(sum, found["bytes"].values()))
    print(f"| all {sum(map(len, found['bytes'].values()))} | {total} | {_spread(sums)} | | | |")
    print(f"\nfirst round {found['first']:.2f} s; the node's own checks of all objects {found['checks']:.2f} s")
    print(f"memory {found['before_mb']:.0f} MB before, {found['peak_mb']:.0f} MB at most")


def _row(found: dict[str, Any], kind: str) -> str:
    ours = [seconds[kind] for seconds in found["ours"]]
    if kind not in found["highdicom bytes"]:
        return f"{_spread(ours)} | | |"
    theirs = [seconds[kind] for seconds in found["highdicom"]]
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return f"{_spread(ours)} | {sum(found['highdicom bytes'][kind])} | {_spread(theirs)} | {_spread(ratios, 2)}"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
