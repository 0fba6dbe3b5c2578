"""`python -m training finetune`: an image encoder and a linear head learn findings and density."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands
    from training.mammo_clip.finetune_report import Tuned
    from training.mammo_clip.finetuning_data import TuningImages
    from training.mammo_clip.finetuning_recipe import FinetuningRecipe
    from training.mammo_clip.processes import Process


def add_finetune(commands: "Commands") -> None:
    """Add the command."""
    from training.mammo_clip.probe_command import DATA_HELP

    parser = commands.add_parser("finetune", help="train an image encoder with a linear head, and report it")
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/finetune-*.toml")
    parser.add_argument("--data", nargs="+", required=True, help=f"{DATA_HELP}: one or more")
    parser.add_argument("--model", type=Path, help='run, or what `import` wrote, where the recipe says "given"')
    parser.add_argument("--out", type=Path, required=True, help="folder: a run for each fraction, and the report")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")
    parser.add_argument("--cache", type=Path, help="folder of decoded images; OUT/decoded if not given")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw items beside each training process")
    parser.add_argument(
        "--report-on",
        choices=("test", "validation", "none"),
        default="test",
        help="split of the figures; validation for a look, none to train alone",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_finetune, arguments)


def _finetune(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.finetuning_data import load_tuning_images
    from training.mammo_clip.finetuning_recipe import load_finetuning_recipe
    from training.mammo_clip.pretraining_recipe import RecipeError
    from training.mammo_clip.processes import joined, this_process

    recipe, process = load_finetuning_recipe(arguments.recipe), this_process()
    if arguments.resume and not any(arguments.out.glob("fraction-*")):
        raise RecipeError(f"{arguments.out}: no run stands there to go on with; leave --resume out")
    reported = [] if arguments.report_on == "none" else [arguments.report_on]
    images = load_tuning_images(
        recipe,
        arguments.data,
        list(dict.fromkeys(["training", recipe.data.selection_split, *reported])),
        arguments.cache or arguments.out / "decoded",
        strict=arguments.strict,
        threads=max(1, arguments.workers),
        first=process.first_here,
    )
    with joined(process):
        runs = [_train(arguments, recipe, images, share, process) for share in recipe.data.fractions]
    if reported and process.leads:
        _report(arguments, recipe, images, runs, process)


def _train(
    arguments: argparse.Namespace, recipe: "FinetuningRecipe", images: "TuningImages", share: float, process: "Process"
) -> "Tuned":
    """One run, in a folder of its own."""
    from training.mammo_clip.finetune_report import Tuned
    from training.mammo_clip.finetuning import COLUMNS, FineTuning, Run
    from training.mammo_clip.finetuning_data import fraction_of
    from training.mammo_clip.run_folder import RECIPE, check_free, check_same, facts_of, start_folder

    folder = arguments.out / f"fraction-{round(100 * share):03d}"
    training = fraction_of(images.splits["training"], share, recipe.data.fraction_of)
    data = {**images.facts, "fraction": share, "rows of the fraction": len(training)}
    facts = facts_of(data, None, process.count, process.device)
    resume = arguments.resume and (folder / RECIPE).exists()
    if resume:
        check_same(folder, arguments.recipe, facts)
    elif process.leads:
        check_free(folder)
    run = Run(recipe, training, images.splits[recipe.data.selection_split], folder, facts, process, arguments.workers)
    tuning = FineTuning(run, arguments.model, resume=resume)
    if process.leads and not resume:
        start_folder(folder, arguments.recipe, tuning.facts, images.problems, COLUMNS)
    tuning.go()
    return Tuned(share, len(training), tuning.books.best_folder)


def _report(
    arguments: argparse.Namespace,
    recipe: "FinetuningRecipe",
    images: "TuningImages",
    runs: list["Tuned"],
    process: "Process",
) -> None:
    from training.mammo_clip.finetune_report import tuned_figures
    from training.mammo_clip.loading import load_model
    from training.mammo_clip.predictions import write_predictions
    from training.mammo_clip.reporting import begin_report, end_report

    figures = tuned_figures(recipe, runs, images, arguments.report_on, process.device)
    begin_report(arguments.out, arguments.recipe)
    write_predictions(arguments.out / "predictions.csv", figures.predictions)
    facts = {"command": "finetune", "recipe": recipe.name, "figures of": f"{arguments.report_on} rows", **images.facts}
    best = max(runs, key=lambda run: run.share).best
    end_report(arguments.out, f"Fine-tuning: {recipe.name}", load_model(best), facts, figures.sections, images.problems)
