"""A retrospective run: two workers read a backlog of full-size exams from one Triton; how busy the cores are."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node import pipeline
from node.database import open_database, upgrade
from node.database.exams import exam_records
from node.exam import ExamStatus
from node.settings import load_settings
from tests.benchmarks.reading import ROOT, receive_again
from tests.integration.triton_server import TritonServer
from tests.servers import storescp

SAMPLE_SECONDS = 0.5
LONGEST_RUN_SECONDS = 400.0
TICKS = os.sysconf("SC_CLK_TCK")


READS = "read@"
"""In the command of the worker that reads, and of the processes that it forks."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine: seconds of CPU with those of its ended children, the most memory it ever had."""

    parent: int
    command: str
    cpu: float
    peak_mb: float


def processes() -> dict[int, Process]:
    """All that can be seen now."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
            status = (folder / "status").read_text().splitlines()
            peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
            found[int(folder.name)] = Process(int(fields[1]), command, sum(map(int, fields[11:15])) / TICKS, peak)
    return found


def family(pid: int) -> dict[int, Process]:
    """A process and all that it started, directly or not."""
    everyone = processes()
    wanted, before = {pid}, 0
    while len(wanted) > before:
        before = len(wanted)
        wanted |= {child for child, process in everyone.items() if process.parent in wanted}
    return {each: everyone[each] for each in wanted if each in everyone}


def is_reader(process: Process, everyone: Mapping[int, Process]) -> bool:
    """Whether it reads exams: forked by the worker of the queue of readings."""
    parent = everyone.get(process.parent)
    return parent is not None and READS in process.command and READS in parent.command


@dataclass(frozen=True, slots=True)
class Sample:
    """At a moment: exams read, and seconds of CPU of the server, of the node and of the receiving PACS until then."""

    at: float
    read: int
    cpu: float


def print_retrospective(exam: Path, scratch: Path, server: TritonServer, exams: int) -> None:
    """A Markdown table. `exam`: folder of four DICOM files; the server has `exam_encoder` loaded."""
    print("\n| retrospective run | exams a minute | cores busy | peak MB of a reader (each) | waiting exams lost |")
    print("|---|---|---|---|---|", flush=True)
    with _pacs() as port:
        folder = scratch / "node"
        settings = write_settings(folder, server.url, port)
        prepare_backlog(settings, exam, folder, exams)
        samples, peaks, unread = run_node(settings, server, exams)
    steady = [one for one in samples if 0 < one.read < exams]
    cores = len(os.sched_getaffinity(0))
    if len(steady) < 2:
        print(f"| too short to say | | | {_listed(peaks)} | {unread} |")
        return
    first, last = steady[0], steady[-1]
    seconds = last.at - first.at
    busy = (last.cpu - first.cpu) / (seconds * cores)
    rate = 60 * (last.read - first.read) / seconds
    print(f"| 2 workers, 1 server, {exams} exams | {rate:.0f} | {busy:.0%} of {cores} | {_listed(peaks)} | {unread} |")


def _listed(peaks: list[float]) -> str:
    return ", ".join(f"{peak:.0f}" for peak in peaks)


@contextlib.contextmanager
def _pacs() -> Iterator[int]:
    """dcmtk's receiver, which throws away what it gets."""
    if shutil.which("storescp") is None:
        print("| (no storescp here: results stay in the data folder) | | | | |")
        yield 0
        return
    with storescp("PACS", "--ignore", "--fork") as running:
        yield running.port


def write_settings(folder: Path, url: str, pacs_port: int) -> Path:
    """The shipped settings with Triton, two workers, and the PACS at that port; 0: none."""
    text = (ROOT / "settings.toml").read_text(encoding="utf-8")
    changes = {
        r"^backend = .*": 'backend = "triton"',
        r"^triton_url = .*": f'triton_url = "{url}"',
        r"^concurrency = .*": "concurrency = 2",
        r"^priority = .*": "priority = 9",
        r"^port = 4242.*": f"port = {pacs_port}",
        r"^model_folder = .*": f'model_folder = "{ROOT / "triton_models/exam_encoder"}"',
    }
    for line, wanted in changes.items():
        text, changed = re.subn(line, wanted, text, flags=re.MULTILINE)
        assert changed == 1, line
    if not pacs_port:
        text = re.sub(r'^\[\[destinations\]\]\nname = "pacs"(?s:.)*?(?=^#)', "", text, flags=re.MULTILINE)
    folder.mkdir()
    (folder / "settings.toml").write_text(text, encoding="utf-8")
    return folder / "settings.toml"


def prepare_backlog(settings_file: Path, exam: Path, folder: Path, exams: int) -> None:
    """The same images as so many studies, received and due."""
    settings = load_settings(settings_file, os.environ)
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    database = open_database(settings.database_url)
    upgrade(database)
    bench = pipeline.Bench(database, settings, "benchmark")
    for number in range(exams):
        receive_again(exam, folder / f"study{number}", bench)
    database.close()


def run_node(settings_file: Path, server: TritonServer, exams: int) -> tuple[list[Sample], list[float], int]:
    """Samples until all is read, peak memory of the readers, and how many exams are not read at the end."""
    database = open_database(load_settings(settings_file, os.environ).database_url)
    command = [sys.executable, "-m", "node.cli", "work", "--settings", str(settings_file)]
    with (settings_file.parent / "node.log").open("wb") as log:
        node = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    samples: list[Sample] = []
    peaks: dict[int, float] = {}
    began = time.monotonic()
    try:
        while time.monotonic() < began + LONGEST_RUN_SECONDS and node.poll() is None:
            read = sum(record.status is ExamStatus.READ for record in exam_records(database, exams))
            everyone = {**family(node.pid), **family(server.pid)}
            samples.append(Sample(time.monotonic(), read, sum(each.cpu for each in everyone.values())))
            peaks |= {pid: each.peak_mb for pid, each in everyone.items() if is_reader(each, everyone)}
            if read == exams:
                break
            time.sleep(SAMPLE_SECONDS)
    finally:
        node.terminate()
        node.wait(60)
        database.close()
    return samples, sorted(peaks.values(), reverse=True)[:2], exams - samples[-1].read
