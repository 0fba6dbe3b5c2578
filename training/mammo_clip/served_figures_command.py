"""`python -m training served-figures`: figures of a served model on test phantoms, beside another on the same exams."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands


def add_served_figures(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "served-figures", help="figures of a served model on test phantoms, paired with another"
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of exam_encoder")
    parser.add_argument("--against", type=Path, help="folder of another exam_encoder, on the same exams")
    parser.add_argument("--cache", type=Path, required=True, help="folder of rendered exams")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="test: once for each release")
    parser.add_argument("--exams", type=int, default=1000, help="exams from the split's first seed")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; answers are kept beside it")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_figures, arguments)


def _figures(arguments: argparse.Namespace) -> None:
    import json

    from training.cache import cached_seeds, render_seeds
    from training.phantoms import GENERATOR_VERSION, TEST_SEED, VALIDATION_SEED

    first = TEST_SEED if arguments.split == "test" else VALIDATION_SEED
    render_seeds(arguments.cache, first, arguments.exams)
    paths = cached_seeds(arguments.cache, first, arguments.exams)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table = {"split": arguments.split, "generator": GENERATOR_VERSION, **_table(arguments, paths)}
    arguments.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    _say(table)


def _table(arguments: argparse.Namespace, paths: tuple[Path, ...]) -> dict[str, Any]:
    import torch

    from training.mammo_clip.served_figures import Truth, differences, model_figures
    from training.mammo_clip.served_rows import answered, rows_of

    threads, truth, found, table = torch.get_num_threads(), Truth(paths), [], {}
    for name, folder in (("model", arguments.model), ("against", arguments.against)):
        if folder is not None:
            said = answered(folder, paths, arguments.out.parent, threads)
            rows = rows_of(said, paths, bounds=name == "model", threads=threads)
            found.append((said, rows))
            table[name] = model_figures(said, truth, rows)
    if len(found) == 2:
        table["model less against"] = differences(found[0], found[1], truth)
    return table


def _say(table: dict[str, Any]) -> None:
    for name in ("model", "against"):
        for unit, figure in table.get(name, {}).get("auc", {}).items():
            print(f"{name}: {unit}: AUC {figure['value']} ({figure['low']} to {figure['high']})")
    for what, figure in table.get("model less against", {}).items():
        print(f"model less against: {what}: {figure['value']} ({figure['low']} to {figure['high']})")
