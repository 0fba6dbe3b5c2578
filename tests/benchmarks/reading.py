"""One reading of a full-size exam (4 views of 4096 x 3328, 12 of 16 bits), by the worker's own code, stage by stage.

`python -m tests.benchmarks.reading [MODEL_FOLDER] [--exam FOLDER] [--readings 4]` prints a Markdown table: seconds of
CPU and of the clock for each stage, for each transfer syntax, and the process's memory. A phantom exam is rendered
into the folder first, if it is not there. Each transfer syntax is measured in a process of its own; its first reading
brings imports and is shown apart.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import generate_uid

from node import keeping, pipeline
from node.database import open_database, upgrade
from node.database.readings import stored_reading
from node.inference.load import load_model
from node.instance import instance_of
from node.intake import receive
from node.settings import load_settings

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "triton_models/exam_encoder"
SEED = 3_000_003
COMPRESSED = {"JPEG Lossless": ["dcmcjpeg", "+e1"], "JPEG-LS": ["dcmcjpls"], "RLE": ["dcmcrle"]}
STAGES = ("load", "prepare", "infer", "interpret", "encode", "store")


def main() -> None:
    """Parse the command line; measure each transfer syntax in a child; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--exam", type=Path, help="folder of the exam; kept")
    parser.add_argument("--readings", type=int, default=4)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.folder, arguments.readings)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        print_table(measure_all(arguments.folder, arguments.exam or Path(scratch), arguments.readings))


def measure_all(model_folder: Path, exams: Path, readings: int) -> dict[str, dict[str, Any]]:
    """Transfer syntax to what a process of its own measured."""
    found = {}
    for name, exam in exams_in(exams).items():
        command = [sys.executable, "-m", "tests.benchmarks.reading", str(model_folder)]
        command += ["--measure", str(exam), "--readings", str(readings)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout)
    return found


def exams_in(folder: Path) -> dict[str, Path]:
    """Transfer syntax to a folder of four files, rendered and compressed where they are not there yet."""
    plain = folder / "explicit"
    if not plain.exists():
        from training.phantoms import make_exam, write_dicom

        write_dicom(make_exam(SEED), plain)
    exams = {"Explicit VR Little Endian": plain}
    for name, command in COMPRESSED.items():
        if shutil.which(command[0]) is None:
            continue
        exams[name] = target = folder / command[0]
        if not target.exists():
            target.mkdir()
            for file in plain.glob("*.dcm"):
                subprocess.run([*command, file, target / file.name], check=True)
    return exams


def measure(exam: Path, model_folder: Path, readings: int) -> dict[str, Any]:
    """Read the exam as often as said, each time as another study, in this process."""
    keeping.timed = pipeline.timed = _timed_on_cpu
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(ROOT / "settings.toml", os.environ | {"MAMMOCLIP_DATA_FOLDER": scratch})
        database = open_database(settings.database_url)
        upgrade(database)
        bench = pipeline.Bench(database, settings, "benchmark")
        model = load_model(replace(settings.inference, model_folder=model_folder))
        resident = [_resident_mb()]
        stages = []
        for index in range(readings):
            study = receive_again(exam, Path(scratch) / str(index), bench)
            leased = pipeline.lease(bench, study, datetime.now(UTC))
            assert leased is not None
            began = time.process_time()
            number = pipeline.read_exam(bench, leased, lambda: model)
            total = time.process_time() - began
            assert number is not None
            stored = stored_reading(database, number)
            assert stored is not None
            stages.append({**stored.seconds, "total cpu": total})
            resident.append(_resident_mb())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"variant": model.variant, "stages": stages, "resident_mb": resident, "peak_mb": peak}


def receive_again(exam: Path, folder: Path, bench: pipeline.Bench) -> str:
    """The exam's files as another study, recorded as the listener does."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    now = datetime.now(UTC)
    for source in sorted(exam.glob("*.dcm")):
        dataset = dcmread(source)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / source.name
        dataset.save_as(path)
        instance = instance_of(
            dataset,
            content_hash=dataset.SOPInstanceUID,
            path=str(path),
            received_at=now,
            from_patient_orientation=False,
        )
        receive(bench.database, instance, bench.settings.exam, bench.settings.rules, now)
    return str(study)


@contextmanager
def _timed_on_cpu(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """In place of the pipeline's clock: seconds of CPU of all threads too."""
    clock, processor = time.monotonic(), time.process_time()
    yield
    seconds[stage] = round(time.monotonic() - clock, 3)
    seconds[f"{stage} cpu"] = round(time.process_time() - processor, 3)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def print_table(found: dict[str, dict[str, Any]]) -> None:
    """A Markdown row for each transfer syntax: CPU seconds (clock seconds) of each stage, median after the first."""
    print(f"{next(iter(found.values()))['variant']}; seconds of CPU (of the clock), median after the first reading\n")
    print(f"| transfer syntax | {' | '.join(STAGES)} | all but infer | the same, first reading | peak memory |")
    print("|---" * (len(STAGES) + 4) + "|")
    for name, result in found.items():
        later = result["stages"][1:] or result["stages"]
        cells = [f"{_median(later, f'{stage} cpu'):.2f} ({_median(later, stage):.2f})" for stage in STAGES]
        sums = [one["total cpu"] - one["infer cpu"] for one in result["stages"]]
        rest = f"{statistics.median(sums[1:] or sums):.2f} | {sums[0]:.2f} | {result['peak_mb']:.0f} MB"
        print(f"| {name} | {' | '.join(cells)} | {rest} |")


def _median(readings: list[dict[str, float]], key: str) -> float:
    return statistics.median(reading[key] for reading in readings)


if __name__ == "__main__":
    main()
