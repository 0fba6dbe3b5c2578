"""`detect`: train a detector on an image encoder's levels, or measure one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from training.mammo_clip.commands import Commands
    from training.mammo_clip.detection_data import DetectionImages
    from training.mammo_clip.detection_figures import ClassFigures


def add_detect(commands: "Commands") -> None:
    """Add it to the parser of `python -m training`."""
    parser = commands.add_parser("detect", help="train a RetinaNet on an image encoder's levels, or measure one")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe", type=Path, help="train by this TOML file, training/recipes/detect-*.toml")
    what.add_argument("--model", type=Path, help="measure the detector of this run, or of an imported file")
    parser.add_argument(
        "--data", nargs="+", required=True, help="vindr=TABLE.csv,IMAGES, phantoms=CACHE, mini-mias=FOLDER: one or more"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, or of the figures")
    parser.add_argument("--encoder", type=Path, help='run or imported checkpoint, where the recipe says "given"')
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--split", default="test", choices=("validation", "test"), help="what --model is measured on")
    parser.add_argument("--exams", type=int, help="phantom exams of that split; all that are rendered if not given")
    parser.add_argument(
        "--all-images",
        action="store_true",
        help="measure on images without a box, too",
    )
    parser.add_argument("--classes", nargs="+", default=[], help="labels of an imported detector's classes, in order")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")
    parser.add_argument("--cache", type=Path, help="folder of decoded images; OUT/decoded if not given")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw items beside the training process")
    parser.set_defaults(run=_run)


_BATCH = 8
"""Images measured at a time."""


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_train if arguments.recipe else _measure, arguments)


def _train(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import list_problems
    from training.mammo_clip.detection_data import read_detection_images, wanted_by
    from training.mammo_clip.detection_figures import write_figures
    from training.mammo_clip.detection_model import load_detector
    from training.mammo_clip.detection_recipe import load_detection_recipe
    from training.mammo_clip.detection_training import COLUMNS, DetectorTraining, Run
    from training.mammo_clip.pretraining_recipe import RecipeError
    from training.mammo_clip.processes import this_process
    from training.mammo_clip.run_folder import check_free, check_same, start_folder

    recipe, process = load_detection_recipe(arguments.recipe), this_process()
    if process.count > 1:
        raise RecipeError("detect trains in one process; start it without torchrun")
    if not arguments.resume:
        check_free(arguments.out)
    chosen_by = recipe.data.selection_split
    images = read_detection_images(
        wanted_by(recipe),
        arguments.data,
        ("training", chosen_by),
        arguments.cache or arguments.out / "decoded",
        strict=arguments.strict,
        threads=max(1, arguments.workers),
    )
    facts = _facts(images, process.device)
    if arguments.resume:
        check_same(arguments.out, arguments.recipe, facts)
    list_problems(images.problems)
    run = Run(
        recipe,
        images.splits["training"],
        images.splits[chosen_by],
        arguments.out,
        facts,
        process,
        arguments.workers,
    )
    training = DetectorTraining(run, arguments.encoder, resume=arguments.resume)
    if not arguments.resume:
        start_folder(arguments.out, arguments.recipe, facts, images.problems, COLUMNS)
    training.go()
    best = training.books.best_folder
    chosen = images.splits[chosen_by]
    found = load_detector(best).to(process.device).find_all(chosen.planes, recipe.optimisation.batch)
    figures = arguments.out / f"figures-{chosen_by}"
    _tell(write_figures(figures, found, chosen, recipe.data.classes, images.facts, chosen_by))
    print(best)


def _measure(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import list_problems
    from training.mammo_clip.detection_data import Wanted, read_detection_images
    from training.mammo_clip.detection_figures import write_figures
    from training.mammo_clip.detection_model import load_detector
    from training.mammo_clip.processes import this_process

    detector, split = load_detector(arguments.model, tuple(arguments.classes)), arguments.split
    wanted = Wanted(
        detector.classes,
        (detector.input.height, detector.input.width),
        detector.positive_images_only and not arguments.all_images,
        {} if arguments.exams is None else {split: arguments.exams},
    )
    images = read_detection_images(
        wanted,
        arguments.data,
        (split,),
        arguments.cache or arguments.out / "decoded",
        strict=arguments.strict,
        threads=max(1, arguments.workers),
    )
    list_problems(images.problems)
    found = detector.to(this_process().device).find_all(images.splits[split].planes, _BATCH)
    facts = {"detector": str(detector.record.get("kind")), **images.facts}
    if licence := detector.record.get("licence"):
        facts["licence"] = licence
    _tell(write_figures(arguments.out, found, images.splits[split], detector.classes, facts, split))
    print(arguments.out / "report.md")


def _facts(images: "DetectionImages", device: "torch.device") -> dict[str, Any]:
    """Code, libraries, device and data of a run; there is no vocabulary."""
    from training.mammo_clip.run_folder import facts_of

    return facts_of(images.facts, None, 1, device)


def _tell(figures: "list[ClassFigures]") -> None:
    for one in figures:
        for least, interval in one.precision.items():
            print(f"{one.name}: average precision at IoU {least:g}: {interval}")
        for rate, interval in one.curve.at if one.curve else ():
            print(f"{one.name}: sensitivity at {rate:g} false boxes a normal image: {interval}")
