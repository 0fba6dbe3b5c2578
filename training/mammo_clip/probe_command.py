"""`python -m training probe`: linear probes on a frozen encoder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DATA_HELP = (
    "vindr=TABLE.csv,IMAGES, rsna=TABLE.csv,IMAGES, embed=METADATA.csv,CLINICAL.csv,IMAGES, cbis=FOLDER, "
    "mini-mias=FOLDER or phantoms=CACHE"
)


def add_probe(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser("probe", help="fit linear probes on a frozen encoder and report them")
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/probe-*.toml")
    add_model_options(parser)
    parser.set_defaults(run=_run)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What every command takes that reports a frozen model on labelled images."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a run, or what `import` wrote")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--cache", type=Path, help="folder of encoded images; OUT/features if not given")
    parser.add_argument("--vocabulary", type=Path, help="vocab.txt of an imported checkpoint's text tower")
    parser.add_argument(
        "--report-on",
        choices=("test", "validation"),
        default="test",
        help="split of the figures",
    )
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_probe, arguments)


def _probe(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.predictions import write_predictions
    from training.mammo_clip.probe import load_probe_recipe, run_probe
    from training.mammo_clip.reporting import begin_report, end_report

    recipe = load_probe_recipe(arguments.recipe)
    model = load_model(arguments.model, arguments.vocabulary)
    begin_report(arguments.out, arguments.recipe)
    cache = arguments.cache or arguments.out / "features"
    result = run_probe(
        recipe, model, arguments.data, arguments.out, cache, reported=arguments.report_on, strict=arguments.strict
    )
    write_predictions(arguments.out / "predictions.csv", result.predictions)
    facts = {"command": "probe", "recipe": recipe.name, "figures of": f"{arguments.report_on} rows", **result.facts}
    end_report(arguments.out, f"Linear probe: {recipe.name}", model, facts, result.sections, result.problems)
