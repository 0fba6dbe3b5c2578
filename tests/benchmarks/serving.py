"""exam_encoder through a real Triton on this CPU, against a plain PyTorch loop and against the same model in process.

`python -m tests.benchmarks.serving [--quick] [--exams 16] [--shipped-exams 150]` prints Markdown tables of one run:
seconds of an exam (4 views of 1520 x 912, System A with a B2 trunk and weights from a seed), contenders taking turns;
how far bf16 is from float32, for that model and for the shipped one on phantoms; preparation of a full-size view;
a retrospective run of two workers on one server; peak memory. About eight minutes on a quiet machine of two cores.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import dcmread

from node.inference.openvino_model import OpenVinoModel
from node.inference.triton_model import TritonModel
from node.mammography.contract import ModelContract, Prediction
from node.mammography.pixels import prepare, preset
from node.mammography.views import Laterality
from node.settings import InferenceSettings
from tests.benchmarks.reading import exams_in
from tests.benchmarks.serving_accuracy import Answers, print_accuracy
from tests.benchmarks.serving_model import FULL, QUICK, Size, export_seeded, seeded_model, set_precision, torch_answers
from tests.benchmarks.serving_run import print_retrospective
from tests.integration.triton_server import TritonServer
from training.cache import CachedExam, prepare_exam
from training.phantoms import VALIDATION_SEED

SHIPPED = Path(__file__).parents[2] / "triton_models/exam_encoder"
EVERY = np.ones(4, np.bool_)
TORCH = "plain PyTorch, float32"
PAUSE_SECONDS = 0.05
"""Between two contenders: threads of the one before let go of the cores."""
Ask = Callable[[NDArray[np.float32]], Prediction]
PLAIN, COMPRESSED = "Explicit VR Little Endian", "JPEG Lossless"
PRECISIONS = {"exam_encoder": "bf16", "exam_encoder_f32": "f32"}


@dataclass(frozen=True, slots=True)
class Exam:
    """Prepared views (4, 1, H, W) in [0, 1], and whether the exam is malignant."""

    views: NDArray[np.float32]
    malignant: bool


def rendered(preset_name: str, count: int, first: int = VALIDATION_SEED) -> list[Exam]:
    """Phantom exams, drawn by all cores."""
    jobs = [(seed, preset_name) for seed in range(first, first + count)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [_exam(cached) for cached in pool.map(_render, jobs)]


def _render(job: tuple[int, str]) -> CachedExam:
    seed, preset_name = job
    return prepare_exam(seed, preset_name=preset_name)


def _exam(cached: CachedExam) -> Exam:
    views = cached.images[:, None].astype(np.float32) / np.float32(255)
    return Exam(views, any(cached.malignant_breasts))


def settings_of(folder: Path, url: str, name: str, precision: str, shared_memory: str) -> InferenceSettings:
    """A node's; `url` empty: in this process."""
    backend = "triton" if url else "openvino"
    plain = InferenceSettings(backend, folder / name, precision, 0, url, name, 120.0, 1)
    return replace(plain, shared_memory=shared_memory)


def contenders(folder: Path, url: str, torch_ask: Ask) -> dict[str, Ask]:
    """Everyone who reads the same exams; PyTorch first."""
    found: dict[str, Ask] = {TORCH: torch_ask}
    for name, precision in PRECISIONS.items():
        here = OpenVinoModel(settings_of(folder, "", name, precision, "never"))
        found[f"OpenVINO {precision} in process"] = lambda views, here=here: here.infer(views, EVERY)
        for words, memory in (("shared memory", "always"), ("gRPC", "never")):
            there = TritonModel(settings_of(folder, url, name, precision, memory))
            found[f"Triton, OpenVINO {precision}, {words}"] = lambda views, there=there: there.infer(views, EVERY)
    return found


def measure(asked: Mapping[str, Ask], exams: list[Exam]) -> tuple[dict[str, list[float]], dict[str, list[Prediction]]]:
    """Seconds and answers of each contender for each exam, taking turns; the first exam is asked twice."""
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    answers: dict[str, list[Prediction]] = {name: [] for name in asked}
    for number, exam in enumerate([exams[0], *exams]):
        for name, ask in asked.items():
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            answer = ask(exam.views)
            if number:
                seconds[name].append(time.perf_counter() - began)
                answers[name].append(answer)
    return seconds, answers


def print_seconds(seconds: Mapping[str, list[float]]) -> None:
    """A Markdown row for each contender; ratios are of the same exam, in turn, with their spread."""
    print("| one exam, 4 views | seconds | times faster than plain PyTorch | takes over the same in process |")
    print("|---|---|---|---|")
    for name, took in seconds.items():
        faster = "" if name == TORCH else _ratio(seconds[TORCH], took)
        alone = f"OpenVINO {name.split(',')[1].split()[-1]} in process" if name.startswith("Triton") else ""
        over = _ratio(took, seconds[alone]) if alone else ""
        print(f"| {name} | {_spread(took)} | {faster} | {over} |", flush=True)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _ratio(first: list[float], second: list[float]) -> str:
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def torch_prediction(outputs: Mapping[str, NDArray[np.float32]]) -> Prediction:
    """What the plain loop gives, as the node would have it."""
    one: dict[str, Any] = {name: value[0] for name, value in outputs.items()}
    return Prediction(**{**one, "exam_logit": float(one["exam_logit"]), "density_logits": None})


def print_preparation(exam: Path, names: list[str], rounds: int) -> None:
    """ms of one core for a full-size view, pixel data uncompressed: decoding is a view on the bytes."""
    print("\n| preparation of one view, 4096 x 3328 | ms of CPU, one core (least to most) |\n|---|---|")
    datasets = [dcmread(file) for file in sorted(exam.glob("*.dcm"))]
    for name in names:
        took = []
        for _ in range(rounds + 1):
            for dataset in datasets:
                began = time.process_time()
                prepare(dataset, Laterality(dataset.ImageLaterality), preset(name))
                took.append(1000 * (time.process_time() - began))
        later = took[len(datasets) :]
        print(f"| {name} | {statistics.median(later):.0f} ({min(later):.0f} to {max(later):.0f}) |", flush=True)


def peak_mb(pid: int) -> float:
    """The most memory that a process has had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} tells no peak")


def print_server_memory(server: TritonServer) -> None:
    """The server with each model's process; what they share is counted in both."""
    own = peak_mb(server.pid)
    print("\n| server | peak MB: Triton | process of the model | together |\n|---|---|---|---|")
    for name, precision in PRECISIONS.items():
        model = peak_mb(server.stub(name))
        print(f"| OpenVINO {precision} | {own:.0f} | {model:.0f} | {own + model:.0f} |", flush=True)


def compare_shipped(folder: Path, server: TritonServer, count: int) -> None:
    """The shipped model, whose logits mean something: bf16 and float32 on the same server."""
    names = {"shipped_bf16": "bf16", "shipped_f32": "f32"}
    for name, precision in names.items():
        copy_model(SHIPPED, folder / name)
        set_precision(folder / name, precision)
        server.client.load_model(name)
    asked = {p: TritonModel(settings_of(folder, server.url, name, p, "auto")) for name, p in names.items()}
    contract = asked["f32"].contract
    exams = rendered(contract.preset, count)
    answers = {name: [model.infer(exam.views, EVERY) for exam in exams] for name, model in asked.items()}
    _compare(f"shipped {contract.version}", contract, answers["f32"], {"bf16": answers["bf16"]}, exams)
    for name in names:
        server.client.unload_model(name)


def copy_model(source: Path, target: Path) -> None:
    """A model folder of its own."""
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            copied = target / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(file.read_bytes())


def _compare(
    model: str,
    contract: ModelContract,
    wanted: list[Prediction],
    found: Mapping[str, list[Prediction]],
    exams: list[Exam],
) -> None:
    malignant = np.array([exam.malignant for exam in exams])
    reference = Answers.of(wanted, contract)
    for name, predictions in found.items():
        print_accuracy(f"{model}: {name}", reference, Answers.of(predictions, contract), malignant)


def compare_speed(folder: Path, server: TritonServer, size: Size, count: int) -> None:
    """Tables (seconds) and (how far apart) of the seeded model; the server gets its models here."""
    exams = rendered(size.preset, count)
    model = seeded_model(size, np.stack([exam.views for exam in exams[:4]]))
    contract = export_seeded(model, size, folder, PRECISIONS)
    for name in PRECISIONS:
        server.client.load_model(name)

    def torch_ask(views: NDArray[np.float32]) -> Prediction:
        return torch_prediction(torch_answers(model, {"views": views[None], "present": EVERY[None]}))

    asked = contenders(folder, server.url, torch_ask)
    seconds, answers = measure(asked, exams)
    print_seconds(seconds)
    print("\n| model: compared with float32 | exams | probability: mean, 99 %, largest | AUC | heat correlation |")
    print("|---|---|---|---|---|")
    found = {name: given for name, given in answers.items() if name.endswith("shared memory")}
    _compare(f"{size.trunk}, seeded, against PyTorch", contract, answers[TORCH], found, exams)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small trunk on small views: whether it runs")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--exams", type=int, default=16, help="of the seeded model")
    parser.add_argument("--shipped-exams", type=int, default=150)
    parser.add_argument("--retrospective-exams", type=int, default=24)
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    counts = (2, 2, 4) if arguments.quick else (arguments.exams, arguments.shipped_exams, arguments.retrospective_exams)
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{size.trunk} at {size.preset}, batch of one exam\n")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-")))
        (scratch / "models").mkdir()
        server = stack.enter_context(TritonServer(scratch / "models", scratch / "triton.log"))
        compare_speed(scratch / "models", server, size, counts[0])
        compare_shipped(scratch / "models", server, counts[1])
        print_server_memory(server)
        full_size = exams_in(scratch / "exams")
        print_preparation(full_size[PLAIN], ["mammo-clip", "fit-760x456"], 1 if arguments.quick else 3)
        print_retrospective(full_size.get(COMPRESSED, full_size[PLAIN]), scratch, server, counts[2])
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
