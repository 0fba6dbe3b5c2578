"""Receipt of mammograms, side by side in one run: this node, DCMTK's storescp and Orthanc; dcmsend is the sender.

python -m tests.benchmarks.receive [--repeats 5] [--objects 1000]

Each repeat sends every case to every receiver in turn, under new UIDs. A receiver that does not hold every object
afterwards ends the run: dcmsend's exit code alone says nothing.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from pydicom import Dataset
from pydicom.uid import generate_uid

from node.database import open_database
from node.database.instances import arrivals
from node.mammography.views import STANDARD_VIEWS, View
from tests import mammograms
from tests.node.receiving import listener_process
from tests.servers import DCMTK_ENVIRONMENT, orthanc, storescp

PDU_BYTES = "131072"
FULL_SIZE = (3328, 2560)
HALF_MEGABYTE = (512, 512)
UID_LENGTH = 60
"""All UIDs of a file are this long, so that new ones fit into the places of the old."""


@dataclass(frozen=True)
class Case:
    """What is sent in one go: so many associations at once, each with so many objects."""

    name: str
    associations: int
    objects: int
    shape: tuple[int, int]

    @property
    def megabytes(self) -> float:
        return self.associations * self.objects * self.shape[0] * self.shape[1] * 2 / 1e6


CASES = (
    Case("1 exam, 4 x 17 MB", 1, 4, FULL_SIZE),
    Case("4 exams at once", 4, 4, FULL_SIZE),
    Case("200 objects of 0.5 MB", 1, 200, HALF_MEGABYTE),
)


@dataclass(frozen=True)
class Receiver:
    """A server under measure. `count` says how many objects it holds."""

    name: str
    port: int
    ae_title: str
    count: Callable[[], int]


def uid(length: int = UID_LENGTH) -> str:
    """A new UID of exactly that length."""
    digits = str(generate_uid(prefix="2.25.")).ljust(length, "7")[: length - 1]
    return f"{digits}1"


class Files:
    """The files of one case, exams of four images; `renew` gives them new UIDs in place."""

    def __init__(self, folder: Path, case: Case) -> None:
        folder.mkdir()
        self._uids: dict[Path, list[bytes]] = {}
        self.groups = [
            [folder / f"{group}.{number}.dcm" for number in range(case.objects)] for group in range(case.associations)
        ]
        for group in self.groups:
            for number, path in enumerate(group):
                image = an_image(STANDARD_VIEWS[number % 4], case.shape, number)
                image.save_as(path, enforce_file_format=True)
                self._uids[path] = [str(image.StudyInstanceUID).encode(), str(image.SOPInstanceUID).encode()]

    def renew(self) -> None:
        """New UIDs for all: an exam for every four files of an association."""
        for group in self.groups:
            for number, path in enumerate(group):
                if number % 4 == 0:
                    study = uid().encode()
                new = [study, uid().encode()]
                head = path.open("rb").read(4096)
                for before, after in zip(self._uids[path], new, strict=True):
                    head = head.replace(before, after)
                with path.open("r+b") as file:
                    file.write(head)
                self._uids[path] = new


def an_image(view: View, shape: tuple[int, int], seed: int) -> Dataset:
    """A mammogram's header over noise of 12 bits."""
    image = mammograms.mammogram(view, uid())
    image.SOPInstanceUID = uid()
    image.Rows, image.Columns = shape
    image.PixelData = np.random.default_rng(seed).integers(0, 4096, shape, "<u2").tobytes()
    return image


@contextmanager
def receivers(folder: Path) -> Iterator[tuple[list[Receiver], int]]:
    """The three, running; and the process id of ours."""
    with ExitStack() as stack:
        url = f"sqlite:///{folder / 'node.db'}"
        ours = stack.enter_context(listener_process(folder / "data", url))
        database = open_database(url)
        stack.callback(database.close)
        dcmtk = stack.enter_context(storescp("STORESCP", "--fork", "--max-pdu", PDU_BYTES))
        pacs = stack.enter_context(orthanc(environment=DCMTK_ENVIRONMENT))
        client = stack.enter_context(httpx.Client(auth=(pacs.username, pacs.password), base_url=pacs.http_url))
        yield (
            [
                Receiver("mammoclip-node", ours.port, "MAMMOCLIP", lambda: len(arrivals(database, 10**6))),
                Receiver("storescp --fork", dcmtk.port, dcmtk.ae_title, lambda: len(os.listdir(dcmtk.folder))),
                Receiver(
                    "Orthanc", pacs.port, pacs.ae_title, lambda: int(client.get("/statistics").json()["CountInstances"])
                ),
            ],
            ours.process.pid,
        )


def seconds_to_send(receiver: Receiver, groups: Sequence[Sequence[Path]]) -> float:
    """Wall seconds from the start of the senders to the end of the last. Raises RuntimeError where objects lack."""
    before, sent = receiver.count(), sum(map(len, groups))
    command = ["dcmsend", "--max-pdu", PDU_BYTES, "-aet", "DCMSEND", "-aec", receiver.ae_title]
    started = time.perf_counter()
    senders = [
        subprocess.Popen([*command, "127.0.0.1", str(receiver.port), *map(str, group)], env=DCMTK_ENVIRONMENT)
        for group in groups
    ]
    codes = [sender.wait() for sender in senders]
    seconds = time.perf_counter() - started
    if any(codes) or receiver.count() != before + sent:
        raise RuntimeError(f"{receiver.name} holds {receiver.count() - before} of {sent}, dcmsend ended with {codes}")
    return seconds


def rss_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


Timings = dict[tuple[str, str], list[float]]


def measure(running: Sequence[Receiver], folder: Path, repeats: int) -> Timings:
    """Seconds by case and receiver; the receivers take turns in a new order each repeat. The first round warms up."""
    files = {case: Files(folder / f"case{number}", case) for number, case in enumerate(CASES)}
    timings: Timings = {}
    for repeat in range(repeats + 1):
        for case in CASES:
            files[case].renew()
            for turn in range(len(running)):
                receiver = running[(repeat + turn) % len(running)]
                seconds = seconds_to_send(receiver, files[case].groups)
                if repeat:
                    timings.setdefault((case.name, receiver.name), []).append(seconds)
    return timings


def memory_over(receiver: Receiver, pid: int, folder: Path, objects: int) -> list[float]:
    """The listener's resident memory in MB before, and after each tenth of so many objects of 17 MB and 0.5 MB."""
    small, large = (
        Files(folder / "small", Case("", 1, 98, HALF_MEGABYTE)),
        Files(folder / "large", Case("", 1, 2, FULL_SIZE)),
    )
    found = [rss_megabytes(pid)]
    for _ in range(objects // 100):
        for files in (small, large):
            files.renew()
            seconds_to_send(receiver, files.groups)
        found.append(rss_megabytes(pid))
    return found


def table(timings: Timings, names: Sequence[str]) -> str:
    """A table in Markdown: median (least to most), and how ours compares."""
    rows = [
        "| what | " + " | ".join(f"{name}, s" for name in names) + " | MB/s (ours) | ours / Orthanc | ours / DCMTK |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for case in CASES:
        all_seconds = [timings[case.name, name] for name in names]
        medians = [statistics.median(seconds) for seconds in all_seconds]
        cells = [
            f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            for median, seconds in zip(medians, all_seconds, strict=True)
        ]
        ours, dcmtk, pacs = medians
        ratios = f"{case.megabytes / ours:.0f} | {ours / pacs:.2f} | {ours / dcmtk:.2f}"
        rows.append(f"| {case.name} | {' | '.join(cells)} | {ratios} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--objects", type=int, default=1000, help="over which memory is watched")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="receive-") as name, receivers(Path(name)) as (running, pid):
        timings = measure(running, Path(name), options.repeats)
        print(table(timings, [receiver.name for receiver in running]))
        memory = memory_over(running[0], pid, Path(name), options.objects)
        print(f"\nlistener's memory over {options.objects} objects, MB:", " ".join(f"{mb:.0f}" for mb in memory))


if __name__ == "__main__":
    main()
