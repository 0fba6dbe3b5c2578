"""`python -m training int8`: exam_encoder in 8-bit integers by NNCF, beside the model in float32; an experiment.

Post-training quantisation of the trunk; the same parts stay float32 as in half precision. What comes out is compared
and timed on this CPU, and not served: nothing else here reads it.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands


FULL = ("MatMul", "Einsum", "TopK", "ReduceMean", "ReduceSum", "Softmax", "Divide")
"""Kinds of layers that stay float32, by OpenVINO's names: pooling, projection, norms, cosines, heads."""


def add_int8(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser("int8", help="experiment: exam_encoder in 8-bit integers by NNCF, compared and timed")
    parser.add_argument("--model", type=Path, required=True, help="folder of exam_encoder")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument("--samples", type=int, default=24, help="exams to measure ranges on, from seed 0 (training)")
    parser.add_argument(
        "--first", type=int, default=1_000_000, help="first seed to compare on; validation if not given"
    )
    parser.add_argument("--exams", type=int, default=50, help="exams to compare on; 50 if not given")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_experiment, arguments)


def _experiment(arguments: argparse.Namespace) -> None:
    import torch

    from node.inference.agreement import LIMITS, agreement, verdicts
    from node.inference.openvino_graph import onnx_file
    from training.cache import cached_seeds, render_seeds
    from training.compared import calibration_of, exam_contract, kinds_of, truth_of, write_table

    file = onnx_file(arguments.model)
    contract, threads = exam_contract(file), torch.get_num_threads()
    for first, count in ((0, arguments.samples), (arguments.first, arguments.exams)):
        render_seeds(arguments.cache, first, count, preset_name=contract.preset)
    paths = cached_seeds(arguments.cache, arguments.first, arguments.exams)
    samples = [_inputs(path) for path in cached_seeds(arguments.cache, 0, arguments.samples)]
    graphs = {"f32": _read(file), "int8": _quantise(_read(file), samples)}
    answers, seconds = {}, {}
    for name, graph in graphs.items():
        answers[name], seconds[name] = _answers(graph, paths, threads)
    truth = truth_of(paths, contract)
    found = agreement(answers["f32"], answers["int8"], calibration_of(contract), kinds_of(contract), truth)
    lines = verdicts(found, LIMITS["int8"])
    table = {"weights_hash": contract.weights_hash, "samples": len(samples), "seconds_per_exam": seconds}
    write_table(arguments.out, table | found.as_table() | {"verdicts": [str(line) for line in lines]})
    print(*lines, sep="\n")
    print(*(f"{name}: {value:.3f} s an exam, median" for name, value in seconds.items()), sep="\n")


def _inputs(path: Path) -> dict[str, NDArray[Any]]:
    from training.cache import load_exam

    views = (load_exam(path).images[None, :, None] / np.float32(255)).astype(np.float32)
    return {"views": views, "present": np.ones((1, 4), np.bool_)}


def _read(file: Path) -> Any:
    import openvino

    return openvino.Core().read_model(file)


def _quantise(graph: Any, samples: list[dict[str, NDArray[Any]]]) -> Any:
    """Convolutions alone: what is behind the trunk has other kinds of layers, and stays as it is."""
    from training.precision import PrecisionError

    try:
        import nncf
    except ImportError as error:
        raise PrecisionError(
            f"nncf cannot be imported ({error}); install it apart: pip install --target build/int8 nncf==3.4.0, "
            "and run this with PYTHONPATH=build/int8"
        ) from error
    ignored = nncf.IgnoredScope(types=list(FULL), validate=False)
    return nncf.quantize(graph, nncf.Dataset(samples), subset_size=len(samples), ignored_scope=ignored)


def _answers(graph: Any, paths: tuple[Path, ...], threads: int) -> tuple[Any, float]:
    """Outputs, and the median seconds of an exam."""
    import openvino

    from node.inference.agreement import ExamOutputs
    from training.compared import NAMES

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled, rows, took = openvino.Core().compile_model(graph, "CPU", options), [], []
    for path in paths:
        inputs, began = _inputs(path), time.perf_counter()
        rows.append(compiled(inputs))
        took.append(time.perf_counter() - began)
    joined = {name: np.concatenate([np.array(row[name]) for row in rows]) for name in NAMES}
    return ExamOutputs(joined["exam_logit"], *(joined[name] for name in NAMES[1:])), float(np.median(took))
