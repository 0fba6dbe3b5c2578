"""`python -m training compile` and `agreement`: the served models for another target, and how far they are off."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands

PRECISIONS = ("f32", "f16")


def add_compile(commands: "Commands") -> None:
    """Add both commands."""
    parser = commands.add_parser("compile", help="the served models as a repository for another target and precision")
    parser.add_argument("--models", type=Path, required=True, help="triton_models: exam_encoder and those beside it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the derived repository")
    parser.add_argument("--target", default="tensorrt_plan", help="a row of node/inference/triton_targets.py")
    parser.add_argument("--precision", choices=PRECISIONS, default="f16", help="what the trunk computes in")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models; all if not given")
    parser.set_defaults(run=lambda arguments: _explained(_compile, arguments))
    _add_check(commands)
    parser = commands.add_parser("agreement", help="a derived model beside the one that it was derived from")
    parser.add_argument("--model", type=Path, required=True, help="folder of exam_encoder")
    parser.add_argument("--derived", type=Path, required=True, help="folder of the derived exam_encoder")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument("--first", type=int, default=1_000_000, help="first seed; validation if not given")
    parser.add_argument("--exams", type=int, default=50, help="exams to compare on; 50 if not given")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; a table in Markdown is written beside it")
    parser.set_defaults(run=lambda arguments: _explained(_agreement, arguments))


def _add_check(commands: "Commands") -> None:
    parser = commands.add_parser("compile-check", help="do float16 graphs of the served models compile for TensorRT?")
    parser.add_argument("--models", type=Path, required=True, help="triton_models: exam_encoder and those beside it")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models; all if not given")
    parser.add_argument("--capabilities", nargs="+", metavar="SM", help="SM75 SM80 SM86 SM89 SM120 if not given")
    parser.set_defaults(run=lambda arguments: _explained(_check, arguments))


def _explained(run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(run, arguments)


def _compile(arguments: argparse.Namespace) -> None:
    from node.inference.triton_targets import target_of
    from training.derived import derive
    from training.precision import PrecisionError

    target = target_of(arguments.target)
    names = _names(arguments)
    if target.backend == "python" and arguments.precision != "f32":
        raise PrecisionError("the target python takes f32; its server chooses bf16 by the parameter precision")
    for name in names:
        made = derive(arguments.models / name, arguments.out / name, target, arguments.precision)
        print(f"{made.folder}: {made.variant}, weights {made.weights_hash}")


def _names(arguments: argparse.Namespace) -> list[str]:
    from training.precision import PrecisionError

    found = sorted(file.parent.name for file in arguments.models.glob("*/config.pbtxt"))
    if not found:
        raise PrecisionError(f"{arguments.models}: holds no model, that is no folder with a config.pbtxt")
    if missing := sorted(set(arguments.only or ()) - set(found)):
        raise PrecisionError(f"{arguments.models}: holds no {', '.join(missing)}; it has {', '.join(found)}")
    return list(arguments.only or found)


def _check(arguments: argparse.Namespace) -> None:
    import json
    import tempfile

    from node.inference.triton_targets import TARGETS
    from training.compile_check import CAPABILITIES, check_graph, report
    from training.derived import BUILD, derive
    from training.precision import read_graph

    failed = False
    for name in _names(arguments):
        with tempfile.TemporaryDirectory() as folder:
            made = derive(arguments.models / name, Path(folder) / name, TARGETS["tensorrt_plan"], "f16")
            shapes = json.loads((made.folder / BUILD).read_text(encoding="utf-8"))["inputs"]
            graph = read_graph(made.folder / "1" / "model.onnx")
        found = check_graph(graph, shapes, arguments.capabilities or CAPABILITIES)
        failed |= any(one.problems for one in found)
        print(*report(name, found), sep="\n", flush=True)
    if failed:
        raise SystemExit(1)


def _agreement(arguments: argparse.Namespace) -> None:
    from training.compared import compare, markdown, write_table

    table, lines = compare(arguments.model, arguments.derived, arguments.cache, (arguments.first, arguments.exams))
    write_table(arguments.out, table)
    arguments.out.with_suffix(".md").write_text(markdown(table), encoding="utf-8")
    print(*lines, sep="\n")
    if not all(line.passed for line in lines):
        raise SystemExit(1)
