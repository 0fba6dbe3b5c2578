"""Commands of training: `python -m training COMMAND --help` lists the options of one."""

import argparse
from pathlib import Path

import torch

from training.cache import render_seeds
from training.mammo_clip.commands import add_commands
from training.mammo_clip.evaluate_command import add_report_options, run_report
from training.mammo_clip.export_command import add_export_options, export_run
from training.recipe import load_recipe
from training.run import EVALUATED_PARTS, Evaluated, evaluate, export, train


def main() -> None:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; more than one needs idle cores")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_render(commands.add_parser("render", help="render phantom exams into a cache"))
    _add_train(commands.add_parser("train", help="train a recipe's phases that are not done yet"))
    _add_export(commands.add_parser("export", help="calibrate, choose operating points, write the served model"))
    _add_evaluate(commands.add_parser("evaluate", help="figures of an exported model on the test sets"))
    add_commands(commands)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.run(arguments)


def _add_render(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument("--first", type=int, required=True, help="first seed")
    parser.add_argument("--count", type=int, required=True, help="number of exams")
    parser.set_defaults(run=lambda a: print(render_seeds(a.cache, a.first, a.count), "exams rendered"))


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--until", choices=("crops", "maps", "heads"), default="heads", help="last phase to run")
    parser.set_defaults(run=lambda a: train(load_recipe(a.recipe), a.cache, a.crops, a.out, a.until))


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, crops=False)
    parser.add_argument("--crops", type=Path, help="first model: folder of the CBIS-DDSM crops")
    parser.add_argument("--model", type=Path, help="first model: folder to write, triton_models/exam_encoder")
    add_export_options(parser)
    parser.set_defaults(run=lambda arguments: _export(parser, arguments))


def _export(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.model_run is not None:
        export_run(arguments)
    elif arguments.model is None or arguments.crops is None:
        parser.error("give --run, --mapper and --models for System A, or --crops and --model for the first model")
    else:
        print(export(load_recipe(arguments.recipe), arguments.cache, arguments.out, arguments.model))


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, see training/recipes")
    parser.add_argument("--model", type=Path, required=True, help="folder of the served model; with --data, of a run")
    parser.add_argument("--out", type=Path, required=True, help="folder of figures")
    add_report_options(parser)
    parser.add_argument("--cache", type=Path, help="served model: folder of rendered exams")
    parser.add_argument("--crops", type=Path, help="served model: folder of the CBIS-DDSM crops")
    parser.add_argument("--exams", type=int, help="phantom test exams, the recipe's number if not given")
    parser.add_argument("--dicom-exams", type=int, default=100, help="test exams to send through full-size DICOM")
    parser.add_argument("--mias", type=Path, default=Path("../shared/data/mini-mias"), help="folder of mini-MIAS")
    parser.add_argument("--parts", nargs="+", choices=EVALUATED_PARTS, default=EVALUATED_PARTS, help="all if not given")
    parser.set_defaults(run=lambda arguments: _evaluate(parser, arguments))


def _evaluate(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.data:
        run_report(arguments)
    elif arguments.cache is None or arguments.crops is None:
        parser.error("give --data for a model of System A, or --cache and --crops for a served one")
    else:
        _evaluate_served(arguments)


def _evaluate_served(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe)
    options = Evaluated(
        tuple(arguments.parts), arguments.exams or recipe.splits.test, arguments.dicom_exams, arguments.mias
    )
    model = arguments.model / "1" / "model.onnx"
    evaluate(recipe, arguments.cache, arguments.crops, arguments.out, model, options)


def _add_common(parser: argparse.ArgumentParser, *, crops: bool = True) -> None:
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, see training/recipes")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    if crops:
        parser.add_argument("--crops", type=Path, required=True, help="folder of the CBIS-DDSM crops")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and figures")


if __name__ == "__main__":
    main()
