"""`python -m training cases-cross-validate` and `cases-test`: System B on tables of cases."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands
    from training.multi_view.cases import CaseReading
    from training.multi_view.cases_recipe import CasesRecipe
    from training.multi_view.cases_run import Given

DATA_HELP = "cases=TABLE.csv,IMAGES or phantoms=CACHE: one or more"


def add_cases(commands: "Commands") -> None:
    """Add both commands."""
    cross = commands.add_parser("cases-cross-validate", help="System B: folds by patient, AUC mean and sd, few shots")
    cross.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/cases-*.toml")
    _add_common(cross)
    cross.set_defaults(run=_run_cross)
    test = commands.add_parser("cases-test", help="System B: the models of a cross-validation on an external test set")
    test.add_argument("--run", dest="folds", type=Path, required=True, help="what cases-cross-validate wrote")
    test.add_argument("--shots", type=int, default=0, help="the models of so many shots; of all cases if not given")
    test.add_argument(
        "--prevalence",
        type=float,
        help="share of malignant cases where the test set comes from, known beforehand: probabilities are moved to it",
    )
    test.add_argument("--split", default="test", help="of a source phantoms=CACHE")
    test.add_argument("--exams", type=int, default=0, help="of a source phantoms=CACHE; the recipe's number if 0")
    _add_common(test)
    test.set_defaults(run=_run_test)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", required=True, help=DATA_HELP)
    parser.add_argument("--clip", type=Path, required=True, help="weights: OpenAI's or open_clip's file, or our folder")
    parser.add_argument("--vocabulary", type=Path, help="CLIP's vocabulary; that of open_clip_torch if not given")
    parser.add_argument("--out", type=Path, required=True, help="folder of the folds and the report; folds go on")
    parser.add_argument("--cache", type=Path, help="folder of decoded images; OUT/decoded if not given")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row or image instead of leaving it out")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw items beside the training")


def _run_cross(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_cross_validate, arguments)


def _run_test(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_test, arguments)


def _cross_validate(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import list_problems
    from training.multi_view.cases import CaseReading
    from training.multi_view.cases_recipe import load_cases_recipe
    from training.multi_view.cases_run import cross_validate, read_images

    recipe = load_cases_recipe(arguments.recipe)
    given = _given(arguments, recipe, arguments.recipe)
    reading = CaseReading(recipe.model.size, "training", recipe.data.phantom_exams, arguments.strict)
    images, problems = read_images(arguments.data, reading, _cache(arguments), max(1, arguments.workers))
    list_problems(problems)
    print(cross_validate(given, images, problems))


def _test(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import list_problems
    from training.mammo_clip.pretraining_recipe import RecipeError
    from training.mammo_clip.run_folder import RECIPE
    from training.multi_view.cases_recipe import load_cases_recipe
    from training.multi_view.cases_run import external_test, fold_folder, read_images

    file = fold_folder(arguments.folds, arguments.shots, 0, 0) / RECIPE
    if not file.is_file():
        raise RecipeError(f"{arguments.folds}: no cross-validation of {arguments.shots or 'all'} cases stands there")
    recipe = load_cases_recipe(file)
    given = _given(arguments, recipe, file)
    reading = _test_reading(arguments, recipe)
    images, problems = read_images(arguments.data, reading, _cache(arguments), max(1, arguments.workers))
    list_problems(problems)
    for line in external_test(given, arguments.folds, arguments.shots, images, arguments.prevalence):
        print(line)


def _test_reading(arguments: argparse.Namespace, recipe: "CasesRecipe") -> "CaseReading":
    from training.multi_view.cases import CaseReading

    exams = arguments.exams or recipe.data.phantom_exams
    return CaseReading(recipe.model.size, arguments.split, exams, arguments.strict)


def _given(arguments: argparse.Namespace, recipe: "CasesRecipe", file: Path) -> "Given":
    from training.mammo_clip.processes import this_process
    from training.multi_view.cases_run import Given, read_backbone

    backbone, vocabulary = read_backbone(arguments.clip, arguments.vocabulary)
    arguments.out.mkdir(parents=True, exist_ok=True)
    return Given(recipe, file, backbone, vocabulary, arguments.out, this_process().device, arguments.workers)


def _cache(arguments: argparse.Namespace) -> Path:
    cache: Path = arguments.cache or arguments.out / "decoded"
    return cache
