"""A step of training: the project's code against plainly written PyTorch of the same model, taking turns in one run.

`python -m tests.benchmarks.training_speed [--quick] [--device cuda] [--threads 2]` prints Markdown tables: seconds of a
step from picture files to changed weights (median, least to most), how many times faster than the plain loop that is,
with each of our measures alone; peak memory of one step, each in a process of its own; and what compiling takes.
Seconds of CPU stand beside those of the clock: on a machine that does other things they alone compare.
The plain loop opens its PNG files and cuts its texts into tokens each time, in float32, channels first.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from tests.benchmarks.training_loops import Case, Step, Switches, our_step, plain_step, write_rows

WHOLE = Switches(channels_last=True, bf16=True, gradients=True, decoded=True, tokens=True)
ALONE: dict[str, Switches] = {
    "channels last": Switches(channels_last=True),
    "bf16": Switches(bf16=True),
    "bf16, channels last": Switches(bf16=True, channels_last=True),
    "depthwise gradients": Switches(gradients=True),
    "decoded images": Switches(decoded=True),
    "cached tokens": Switches(tokens=True),
    "all of these": WHOLE,
}
PLAIN, OURS = "plain PyTorch", "the project's training"
SMALL = (Case("pretrain", "lite0", 380, 228, 4), Case("pretrain", "b2", 380, 228, 4))
FULL = (Case("finetune", "b2", 1520, 912, 1), Case("finetune", "b5", 1520, 912, 1))
QUICK = (Case("pretrain", "lite0", 192, 192, 4), Case("pretrain", "b2", 192, 128, 2))


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one step by the clock, and of all threads of this process."""

    clock: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is measured: steps of each loop, whether each measure alone, seconds that one case may take."""

    rounds: int
    alone: bool
    seconds: float


def measure(steps: Mapping[str, Step], device: torch.device, limits: Limits) -> dict[str, list[Took]]:
    """What each loop's steps took, taking turns; each has one step before that is not counted."""
    took: dict[str, list[Took]] = {name: [] for name in steps}
    began = time.perf_counter()
    for number in range(limits.rounds + 1):
        if number > 1 and time.perf_counter() - began > limits.seconds:
            break
        for name, step in steps.items():
            start, cpu = _now(device), time.process_time()
            step()
            if number:
                took[name].append(Took(_now(device) - start, time.process_time() - cpu))
    return took


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def loops(case: Case, folder: Path, device: torch.device, *, alone: bool) -> dict[str, Step]:
    """The plain loop, it with each measure alone and with all, and the project's own."""
    rows = write_rows(folder, case.rows)
    variants = {name: switches for name, switches in ALONE.items() if alone and _matters(case, switches)}
    plain = {
        name: plain_step(case, rows, switches, device) for name, switches in {PLAIN: Switches(), **variants}.items()
    }
    return {**plain, OURS: our_step(case, rows, device)}


def _matters(case: Case, switches: Switches) -> bool:
    """Fine-tuning has no texts; depthwise gradients are for CPUs alone."""
    return not (case.task == "finetune" and switches == Switches(tokens=True))


def print_case(case: Case, took: Mapping[str, list[Took]]) -> None:
    """A Markdown table of one case; ratios are of medians, their spread by the extremes of both."""
    unit = "rows of two views" if case.task == "pretrain" else "images"
    print(f"\n{case.task}, {case.encoder}, {case.rows} {unit}, {case.height} x {case.width}\n")
    print("| loop | seconds a step | times faster than plain | seconds of CPU | times fewer | steps |")
    print("|---|---|---|---|---|---|")
    for name, steps in took.items():
        cells = [
            _compared([getattr(one, clock) for one in took[PLAIN]], [getattr(one, clock) for one in steps])
            for clock in ("clock", "cpu")
        ]
        print(f"| {name} | {' | '.join(cells)} | {len(steps)} |", flush=True)


def _compared(plain: list[float], seconds: list[float]) -> str:
    """Two cells: median (least to most), and the ratio to the plain loop's with its spread."""
    middle = statistics.median(seconds)
    ratio = statistics.median(plain) / middle
    least, most = min(plain) / max(seconds), max(plain) / min(seconds)
    return f"{middle:.3f} ({min(seconds):.3f} to {max(seconds):.3f}) | {ratio:.2f} ({least:.2f} to {most:.2f})"


@dataclass(frozen=True, slots=True)
class Peak:
    """One step's peak memory in MiB, of the process on a CPU, of torch's allocator on a GPU; `seconds` of the step."""

    mib: float
    seconds: float


def peak_of(case: Case, device: torch.device, precision: str, *, checkpointed: bool) -> Peak:
    """Two steps of fine-tuning in this process: the optimiser's state is there in the second."""
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), case.rows)
        step = our_step(case, rows, device, precision, checkpointed=checkpointed)
        step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = _now(device)
        step()
        seconds = _now(device) - began
    if device.type == "cuda":
        return Peak(torch.cuda.max_memory_allocated(device) / 2**20, seconds)
    return Peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


def print_peaks(case: Case, device: torch.device, threads: int, precisions: tuple[str, ...]) -> None:
    """A Markdown table; each figure from a process of its own."""
    print(f"\nPeak memory, fine-tuning {case.encoder}, {case.rows} images, {case.height} x {case.width}\n")
    print("| precision | blocks computed again | peak MiB | seconds a step |\n|---|---|---|---|")
    for precision in precisions:
        for checkpointed in (False, True):
            found = _in_process(["peak", json.dumps(asdict(case)), precision, str(int(checkpointed))], device, threads)
            told = f"{found[0]:.0f} | {found[1]:.1f}" if len(found) == 2 else "does not fit | "
            print(f"| {precision} | {'yes' if checkpointed else 'no'} | {told} |", flush=True)


def print_compiled(case: Case, device: torch.device, threads: int, seconds: float) -> None:
    """What the first step takes where the encoder is compiled, and one after; in a process that can be ended."""
    limit = time.perf_counter() + seconds
    found = _in_process(["compiled", json.dumps(asdict(case))], device, threads, seconds)
    named = f"\nCompiled (torch.compile, {case.encoder}, {case.height} x {case.width}): "
    if len(found) != 3:
        print(f"{named}no step within {seconds:.0f} s" if time.perf_counter() >= limit else f"{named}failed")
        return
    print(
        f"{named}first step {found[0]:.1f} s; then {found[1]:.3f} s a step, not compiled {found[2]:.3f} s", flush=True
    )


def _in_process(words: list[str], device: torch.device, threads: int, seconds: float | None = None) -> list[float]:
    """What a process of this module printed last; nothing where it ended otherwise."""
    command = [sys.executable, "-m", "tests.benchmarks.training_speed", "--device", device.type]
    command += ["--threads", str(threads), "--only", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired:
        return []
    return [float(value) for value in done.stdout.splitlines()[-1].split()] if done.returncode == 0 else []


def _only(words: list[str], device: torch.device) -> None:
    case = Case(**json.loads(words[1]))
    if words[0] == "peak":
        found = peak_of(case, device, words[2], checkpointed=words[3] == "1")
        print(found.mib, found.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), case.rows)
        compiled, eager = (
            plain_step(case, rows, replace(WHOLE, compile=wanted, gradients=not wanted), device)
            for wanted in (True, False)
        )
        began = _now(device)
        compiled()
        first = _now(device) - began
        seconds = measure({"compiled": compiled, "eager": eager}, device, Limits(5, False, 60.0))
    print(first, *(statistics.median(one.clock for one in seconds[name]) for name in ("compiled", "eager")))


def run(device: torch.device, threads: int, compile_seconds: float, *, quick: bool) -> None:
    """Measure and print."""
    limits = Limits(2, True, 25.0) if quick else Limits(7, True, 75.0)
    for case in QUICK if quick else (*SMALL, *FULL):
        full = case in FULL
        with tempfile.TemporaryDirectory() as folder:
            steps = loops(case, Path(folder), device, alone=not full)
            print_case(case, measure(steps, device, replace(limits, rounds=2) if full else limits))
    if quick:
        print_peaks(Case("finetune", "b2", 760, 456, 1), device, threads, ("float32",))
        return
    print_peaks(FULL[1], device, threads, ("float32", "bfloat16"))
    if device.type == "cuda":
        print_peaks(replace(FULL[1], rows=8), device, threads, ("float32", "bfloat16"))
    print_compiled(Case("pretrain", "lite0", 192, 192, 4), device, threads, compile_seconds)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes alone, about two minutes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile-seconds", type=float, default=100.0, help="after which compiling is given up")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device, 0) if arguments.device == "cuda" else torch.device("cpu")
    if arguments.only:
        _only(arguments.only, device)
        return
    print(f"torch {torch.__version__}, {device.type}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}")
    run(device, arguments.threads, arguments.compile_seconds, quick=arguments.quick)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
