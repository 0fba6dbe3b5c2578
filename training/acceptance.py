"""`python -m training acceptance`: the bundle that a GPU host is tried with, see deploy/acceptance/bundle.py."""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands


def add_acceptance(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "acceptance", help="the bundle for deploy/gpu-acceptance: phantoms and answers to them"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of exam_encoder")
    parser.add_argument("--derived", type=Path, required=True, help="the same, derived for tensorrt_plan")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument("--first", type=int, default=1_000_000, help="first seed; validation if not given")
    parser.add_argument("--exams", type=int, default=64, help="exams in the bundle; 64 if not given")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(lambda a: write_bundle(a.model, a.derived, a.cache, (a.first, a.exams), a.out), arguments)
    print(arguments.out)


def write_bundle(model: Path, derived: Path, cache: Path, seeds: tuple[int, int], out: Path, threads: int = 2) -> None:
    """Render what is missing of `seeds` (first, count), answer it in float32, write all. Raises ContractError."""
    from node.inference.agreement import LIMITS
    from node.inference.openvino_graph import onnx_file
    from training.cache import cached_seeds, load_exam, render_seeds
    from training.compared import Runner, answers_of, calibration_of, exam_contract, kinds_of, truth_of, wire_views
    from training.derived import BUILD
    from training.precision import PrecisionError, read_graph

    contract, theirs = exam_contract(onnx_file(model)), exam_contract(onnx_file(derived))
    if contract.weights_hash != theirs.weights_hash or not (derived / BUILD).exists():
        raise PrecisionError(f"{derived}: is not derived from {model}; use scripts/compile compile")
    precision = theirs.variant.partition(" ")[0]
    render_seeds(cache, *seeds, preset_name=contract.preset)
    paths = cached_seeds(cache, *seeds)
    answers, truth = (
        answers_of(Runner(read_graph(onnx_file(model)), threads), paths, contract),
        truth_of(paths, contract),
    )
    (out / "exams").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        (out / f"exams/{number:04d}.views").write_bytes(wire_views(load_exam(path).images, contract).tobytes())
        (out / f"exams/{number:04d}.present").write_bytes(np.ones(4, np.bool_).tobytes())
    given = {"exam_logit": answers.exam, "breast_logits": answers.breasts, "finding_logits": answers.findings}
    known = {f"truth_{name}": value for name, value in asdict(truth).items()}
    arrays = {name: value for name, value in (given | {"heatmaps": answers.heat} | known).items() if value is not None}
    np.savez(out / "reference.npz", allow_pickle=False, **arrays)
    facts = {
        "weights_hash": contract.weights_hash,
        "version": contract.version,
        "variant": theirs.variant,
        "seeds": list(seeds),
        "findings": list(kinds_of(contract)),
        "calibration": {name: asdict(one) for name, one in calibration_of(contract).items()},
        "limits": asdict(LIMITS[precision]),
        "inputs": json.loads((derived / BUILD).read_text(encoding="utf-8"))["inputs"],
    }
    (out / "bundle.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    shutil.copytree(derived, out / "models" / "exam_encoder", dirs_exist_ok=True)
