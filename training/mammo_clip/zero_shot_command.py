"""`python -m training zero-shot`: classes told by prompts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.mammo_clip.probe_command import add_model_options

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_zero_shot(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser("zero-shot", help="report classes told by prompts alone")
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/zero-shot-*.toml")
    add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_zero_shot, arguments)


def _zero_shot(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.predictions import write_predictions
    from training.mammo_clip.reporting import begin_report, end_report
    from training.mammo_clip.zero_shot import load_zero_shot_recipe, run_zero_shot

    recipe = load_zero_shot_recipe(arguments.recipe)
    model = load_model(arguments.model, arguments.vocabulary)
    begin_report(arguments.out, arguments.recipe)
    cache = arguments.cache or arguments.out / "features"
    result = run_zero_shot(recipe, model, arguments.data, cache, reported=arguments.report_on, strict=arguments.strict)
    write_predictions(arguments.out / "predictions.csv", result.predictions)
    facts = {"command": "zero-shot", "recipe": recipe.name, "figures of": f"{arguments.report_on} rows", **result.facts}
    end_report(arguments.out, f"Prompted classes: {recipe.name}", model, facts, result.sections, result.problems)
