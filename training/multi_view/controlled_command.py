"""`python -m training controlled-runs`: the paper's questions, one thing changed at a time, as a table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.mammo_clip.commands import Commands


def add_controlled_runs(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser("controlled-runs", help="System B with one thing changed at a time, as a table")
    parser.add_argument("--recipe", type=Path, required=True, help="TOML file, training/recipes/controlled-runs.toml")
    parser.add_argument(
        "--data", required=True, help="phantoms=CACHE (a folder for rendered squares), or cases=TABLE.csv,IMAGES"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of encoder, tokens, arms and table; it goes on")
    parser.add_argument("--only", nargs="+", default=(), metavar="ARM", help="arms to run; all if not given")
    parser.add_argument("--budget-minutes", type=float, default=0.0, help="begin nothing after so many; 0: no limit")
    parser.add_argument("--clip", type=Path, help='weights of CLIP, where encoder.kind is "clip"')
    parser.add_argument("--vocabulary", type=Path, help="CLIP's vocabulary; that of open_clip_torch if not given")
    parser.add_argument("--workers", type=int, default=1, help="processes that render phantoms")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from training.mammo_clip.commands import explained

    explained(_controlled_runs, arguments)


def _controlled_runs(arguments: argparse.Namespace) -> None:
    from training.multi_view.controlled_run import Given, run_all

    given = Given(
        arguments.recipe,
        arguments.data,
        arguments.out,
        tuple(arguments.only),
        arguments.budget_minutes,
        arguments.clip,
        arguments.vocabulary,
        arguments.workers,
    )
    print(run_all(given))
