"""`python -m training joined` and `joined-figures`: the joined exam encoder, and its comparison with both parents."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands


def add_joined(commands: "Commands") -> None:
    """Add both commands."""
    _add_joined(commands.add_parser("joined", help="System A corrected by System B's blocks across the views"))
    _add_figures(commands.add_parser("joined-figures", help="the joined encoder less each parent on the same exams"))


def _add_joined(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/joined.toml")
    parser.add_argument("--run", dest="model_run", type=Path, required=True, help="System A: a run or its epoch")
    parser.add_argument("--mapper", type=Path, required=True, help="System A: what `factor` wrote")
    parser.add_argument("--vocabulary", type=Path, help="vocab.txt of a checkpoint that was imported without")
    parser.add_argument("--preset", help="how views are prepared, where the run learnt on parts of them")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for joined, parent-a, parent-b, each as triton_models has them"
    )
    parser.set_defaults(run=_run_joined)


def _add_figures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--joined", type=Path, required=True, help="what `joined` wrote")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="test: once for each release")
    parser.add_argument("--exams", type=int, default=2000, help="exams of the test set's rule, 2000 for the decision")
    parser.add_argument("--benign-share", type=float, help="in place of the rule that A chose: see the recipe")
    parser.add_argument("--min-conspicuity", type=float, help="in place of the rule that A chose: see the recipe")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; answers are kept beside it")
    parser.set_defaults(run=_run_figures)


def _run_joined(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_joined, arguments)


def _run_figures(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_figures, arguments)


def _joined(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.export_command import source_of
    from training.multi_view.joined_export import JOINED, PARENT_A, PARENT_B, join
    from training.multi_view.joined_recipe import load_joined_recipe

    recipes = load_joined_recipe(arguments.recipe)
    source = source_of(arguments.model_run, arguments.mapper, arguments.vocabulary, arguments.preset)
    if source.model.licence:
        print(f"licence: {source.model.licence}")
    record = join(source, recipes, arguments.cache, arguments.out)
    print(f"A: {record[PARENT_A]}")
    for name in (JOINED, PARENT_B):
        chosen = record[name]["seeds"][str(record[name]["chosen_seed"])]
        print(f"{name}: seed {record[name]['chosen_seed']}, {chosen['validation']}")
    files = [arguments.out / JOINED / name / "1" / "model.onnx" for name in record[JOINED]["weights_hash"]]
    print(f"{arguments.out / JOINED}: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    rule = record["test_set"][-1]
    print(
        f"test set: {rule['rule']}, A's exam AUC {rule['auc']} over {rule['exams']} exams that it has not learnt from"
    )
    print(f"validation would ship {record['ship']}")


def _figures(arguments: argparse.Namespace) -> None:
    import json

    import torch

    from training.multi_view.joined_figures import compared, rule_of, said_in_words

    rule = rule_of(arguments.joined, arguments.min_conspicuity, arguments.benign_share)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table = compared(
        arguments.joined,
        arguments.cache,
        (arguments.split, arguments.exams),
        rule,
        arguments.out.parent,
        torch.get_num_threads(),
    )
    arguments.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for line in said_in_words(table):
        print(line)
