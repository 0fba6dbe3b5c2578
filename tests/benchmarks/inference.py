"""One exam through the served model: ONNX Runtime, OpenVINO and torch, taking turns in one run.

`python -m tests.benchmarks.inference [MODEL_FOLDER] [--threads 2] [--rounds 9]` prints a Markdown table: the median
and the range of the seconds of one exam, its ratio to the node's own choice, and the largest difference of each output
from ONNX Runtime in float32. torch runs the training's network with weights from a seed: time only, no outputs.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from node.inference.openvino_graph import onnx_file
from node.inference.openvino_model import OpenVinoModel
from node.inference.tensors import wire_inputs
from node.mammography.contract import ModelContract
from node.mammography.pixels import prepare_display, preset
from node.mammography.views import STANDARD_VIEWS
from node.settings import InferenceSettings
from training.exam_encoder import ExamEncoder, ExamHeads
from training.maps import MapNetwork
from training.phantoms import TEST_SEED, make_exam, render_view

SHIPPED = Path(__file__).parents[2] / "triton_models/exam_encoder"
REFERENCE = "ONNX Runtime f32"
RENDER_MM = 0.28
Tensors = dict[str, NDArray[Any]]
Run = Callable[[Tensors], Mapping[str, NDArray[Any]]]


def phantom(seed: int, contract: ModelContract) -> Tensors:
    """One exam as it goes on the wire."""
    exam = make_exam(seed)
    prepared = [
        prepare_display(render_view(exam, view, RENDER_MM).pixels, view.laterality, preset(contract.preset))
        for view in STANDARD_VIEWS
    ]
    return wire_inputs(np.stack([view.pixels[None] for view in prepared]), np.ones(4, np.bool_), contract)


def openvino_engines(folder: Path, threads: int) -> tuple[ModelContract, dict[str, Run]]:
    """The node's own backend: its choice of precision first, then float32."""
    found: dict[str, Run] = {}
    for precision in ("auto", "f32"):
        model = OpenVinoModel(InferenceSettings("openvino", folder, precision, threads, "", "", 60.0, 1))
        found.setdefault(model.variant.replace("openvino", "OpenVINO"), model._run)
    return model.contract, found


def add_peers(engines: dict[str, Run], folder: Path, threads: int) -> None:
    """What the node's backend is compared with."""
    engines[REFERENCE] = onnxruntime_engine(folder, threads)
    engines["torch bf16"] = torch_engine(threads, bf16=True)
    engines["torch f32"] = torch_engine(threads, bf16=False)


def onnxruntime_engine(folder: Path, threads: int) -> Run:
    """Its defaults, in float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx_file(folder), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def torch_engine(threads: int, *, bf16: bool) -> Run:
    """The training's network, eager, channels last; no outputs, for its weights are not the served ones."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = ExamEncoder(MapNetwork(), ExamHeads(MapNetwork().width)).eval()
    network.map_network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(inputs: Tensors) -> dict[str, NDArray[Any]]:
        context = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
        with torch.inference_mode(), context:
            network(torch.from_numpy(inputs["views"]), torch.from_numpy(inputs["present"]))
        return {}

    return run


def measure(engines: Mapping[str, Run], exams: list[Tensors], rounds: int) -> dict[str, list[float]]:
    """Seconds of each engine for one exam, taking turns; each has one run before that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for index in range(rounds + 1):
        for name, run in engines.items():
            began = time.perf_counter()
            run(exams[index % len(exams)])
            if index:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def largest_differences(engines: Mapping[str, Run], exams: list[Tensors]) -> dict[str, dict[str, float]]:
    """Engine to output to the largest absolute difference from the reference over all exams."""
    found: dict[str, dict[str, float]] = {name: {} for name in engines}
    for exam in exams:
        reference = engines[REFERENCE](exam)
        for name, run in engines.items():
            for output, value in run(exam).items():
                difference = float(np.abs(np.asarray(value) - reference[output]).max())
                found[name][output] = max(found[name].get(output, 0.0), difference)
    return found


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--exams", type=int, default=4)
    arguments = parser.parse_args()
    contract, engines = openvino_engines(arguments.folder, arguments.threads)
    chosen = next(iter(engines))
    add_peers(engines, arguments.folder, arguments.threads)
    exams = [phantom(TEST_SEED + index, contract) for index in range(arguments.exams)]
    differences = largest_differences(engines, exams)
    seconds = measure(engines, exams, arguments.rounds)
    print(f"{contract.name} {contract.version}, {arguments.threads} threads, {arguments.rounds} rounds, batch 1\n")
    print_table(contract.outputs, seconds, differences, chosen)


def print_table(
    outputs: tuple[str, ...], seconds: dict[str, list[float]], differences: dict[str, dict[str, float]], chosen: str
) -> None:
    """A Markdown row for each engine."""
    print(f"| engine | median s | range s | times {chosen} | {' | '.join(outputs)} |")
    print("|---|---|---|---|" + "---|" * len(outputs))
    base = statistics.median(seconds[chosen])
    for name, values in seconds.items():
        found = differences[name]
        cells = " | ".join(f"{found[output]:.1e}" if output in found else "" for output in outputs)
        middle, spread = statistics.median(values), f"{min(values):.3f} to {max(values):.3f}"
        print(f"| {name} | {middle:.3f} | {spread} | {middle / base:.2f} | {cells} |")


if __name__ == "__main__":
    main()
