"""The commands of System A."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from training.acceptance import add_acceptance
from training.compile_command import add_compile
from training.int8 import add_int8
from training.mammo_clip.detect_command import add_detect
from training.mammo_clip.factor_command import add_factor
from training.mammo_clip.finetune_command import add_finetune
from training.mammo_clip.probe_command import add_probe
from training.mammo_clip.served_figures_command import add_served_figures
from training.mammo_clip.zero_shot_command import add_zero_shot
from training.multi_view.cases_command import add_cases
from training.multi_view.controlled_command import add_controlled_runs
from training.multi_view.joined_command import add_joined
from training.warm_up import add_warm_up

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: "Commands") -> None:
    """Add them to the parser of `python -m training`."""
    _add_pretrain(commands.add_parser("pretrain", help="train a dual encoder of images and sentences"))
    _add_import(commands.add_parser("import", help="convert a released checkpoint of Mammo-CLIP once"))
    add_detect(commands)
    add_factor(commands)
    add_finetune(commands)
    add_probe(commands)
    add_zero_shot(commands)
    add_served_figures(commands)
    add_cases(commands)
    add_controlled_runs(commands)
    add_joined(commands)
    add_compile(commands)
    add_acceptance(commands)
    add_int8(commands)
    add_warm_up(commands)


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/mammo-clip-*.toml")
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        help="image-text=TABLE.csv,IMAGES, vindr=TABLE.csv,IMAGES, phantoms=CACHE, tiles=CACHE, cbis-crops=FOLDER, "
        "cesm-texts=TABLE.csv: one or more",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")
    parser.add_argument("--cache", type=Path, help="folder of decoded images; OUT/decoded if not given")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw items beside each training process")
    parser.add_argument("--vocabulary", type=Path, help='vocab.txt, where the recipe says "given"')
    parser.add_argument("--image-weights", type=Path, help='state dict of the image encoder, where "given"')
    parser.add_argument("--text-weights", type=Path, help='state dict of BERT, where "given"')
    parser.add_argument("--start", type=Path, help='best-epoch folder of an earlier run, where "run"')
    parser.set_defaults(run=lambda arguments: explained(_pretrain, arguments))


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a released checkpoint, classifier, detector or FActOR file")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.safetensors, model.json and card.md")
    parser.add_argument("--vocabulary", type=Path, help="vocab.txt of its text tower (Bio_ClinicalBERT), for sentences")
    parser.set_defaults(run=lambda arguments: explained(_import, arguments))


def explained(run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Run a command; an error that has words for the user ends it with them alone."""
    from node.errors import NodeError
    from training.mammo_clip.breasts import DataError
    from training.mammo_clip.gradients import NotFiniteError
    from training.mammo_clip.pretraining_recipe import RecipeError
    from training.mammo_clip.released import CheckpointError
    from training.mammo_clip.tables import TableError

    try:
        run(arguments)
    except (DataError, NotFiniteError, RecipeError, CheckpointError, TableError, NodeError) as error:
        raise SystemExit(f"error: {error}") from error
    except OSError as error:  # a folder that is a file, a disk that is full
        raise SystemExit(f"error: {error.filename or 'files'}: {error.strerror or error}") from error


def _pretrain(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.building import Given, vocabulary_of
    from training.mammo_clip.pretrain import Pretraining, Run
    from training.mammo_clip.pretraining_data import load_data, parse_source
    from training.mammo_clip.pretraining_recipe import load_pretraining_recipe
    from training.mammo_clip.processes import joined, this_process
    from training.mammo_clip.run_folder import check_free, check_same, facts_of, start_folder

    recipe = load_pretraining_recipe(arguments.recipe)
    given = Given(arguments.vocabulary, arguments.image_weights, arguments.text_weights, arguments.start)
    vocabulary, process = vocabulary_of(recipe, given), this_process()
    if not arguments.resume and process.leads:
        check_free(arguments.out)
    cache = arguments.cache or arguments.out / "decoded"
    sources = [parse_source(words) for words in arguments.data]
    data = load_data(
        recipe, sources, cache, strict=arguments.strict, threads=max(1, arguments.workers), first=process.first_here
    )
    facts = facts_of(data.facts, vocabulary, process.count, process.device)
    if arguments.resume:
        check_same(arguments.out, arguments.recipe, facts)
    if process.leads:
        list_problems(data.problems)

    def train() -> str:
        """What is trained ends here: it must be gone before the processes part."""
        run = Run(recipe, data, arguments.out, vocabulary, facts, process, arguments.workers)
        training = Pretraining(run, given, resume=arguments.resume)
        if process.leads and not arguments.resume:
            start_folder(arguments.out, arguments.recipe, facts, data.problems)
        progress = training.go()
        return f"{training.books.best_folder}: validation loss {progress.best_loss:.4f}"

    with joined(process):
        best = train()
    if process.leads:
        print(best)


def list_problems(problems: list[str], most: int = 20) -> None:
    """Print what was left out, not more than `most` lines of it."""
    for problem in problems[:most]:
        print(f"left out: {problem}")
    if len(problems) > most:
        print(f"left out: {len(problems) - most} more, see left-out.txt")


def _import(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.importing import RECORD, WEIGHTS, import_checkpoint

    released = import_checkpoint(arguments.file, arguments.out, arguments.vocabulary)
    print(f"licence: {released.record['licence']}")
    print(f"{released.kind}, {released.variant}: {arguments.out / WEIGHTS}, {arguments.out / RECORD}")
