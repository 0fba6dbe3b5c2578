"""`python -m training evaluate --data ...`: the report of a model of System A."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.report import Reporting


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate` that a model of System A takes; --recipe, --model and --out it shares."""
    parser.add_argument(
        "--data",
        nargs="+",
        help="phantoms=CACHE, vindr=TABLE.csv,IMAGES, rsna=..., embed=..., cbis=FOLDER, mini-mias=FOLDER, "
        "exams=FOLDER: one or more; --model is then a run, or what `import` wrote",
    )
    parser.add_argument("--probe", type=Path, help="folder of a fitted probe: RUN/probe-100-seed-1 of `probe`")
    parser.add_argument("--factor", type=Path, help="folder of mappers of `factor`")
    parser.add_argument("--detector", type=Path, help="folder of a detector of `detect`")
    parser.add_argument("--vocabulary", type=Path, help="vocab.txt of an imported checkpoint's text tower")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")


def run_report(arguments: argparse.Namespace) -> None:
    """Make the report; errors that have words for the user end the command with them alone."""
    from training.mammo_clip.commands import explained

    explained(_report, arguments)


def _report(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.report import write_whole_report
    from training.mammo_clip.reporting import begin_report

    run = _reporting(arguments)
    begin_report(arguments.out, arguments.recipe)
    write_whole_report(run, arguments.data)


def _reporting(arguments: argparse.Namespace) -> "Reporting":
    from training.mammo_clip.detection_model import load_detector
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.report import Reporting
    from training.mammo_clip.report_data import size_of
    from training.mammo_clip.report_mappers import load_mappers
    from training.mammo_clip.report_recipe import load_report_recipe

    recipe = load_report_recipe(arguments.recipe)
    model = load_model(arguments.model, arguments.vocabulary)
    if model.licence:
        print(f"licence of the weights: {model.licence}")
    run = Reporting(recipe, model, arguments.out, arguments.probe, strict=arguments.strict)
    if arguments.factor:
        run.mappers = load_mappers(model, arguments.factor, size_of(recipe, model))
    if arguments.detector:
        run.detector = load_detector(arguments.detector)
    return run
