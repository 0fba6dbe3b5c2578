import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _training(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=120
    )


def test_help_names_every_command():
    answer = _training("--help")
    assert answer.returncode == 0
    assert all(command in answer.stdout for command in ("render", "train", "export", "evaluate"))


def test_a_missing_option_is_named():
    answer = _training("train", "--recipe", "x.toml")
    assert answer.returncode == 2
    assert "--cache" in answer.stderr


@pytest.mark.parametrize("command", ["train", "export", "evaluate"])
def test_a_recipe_that_is_not_there_is_an_error(command, tmp_path):
    folders = [f"--{name}={tmp_path}" for name in ("cache", "crops", "out")]
    model = [f"--model={tmp_path}"] if command != "train" else []
    answer = _training(command, f"--recipe={tmp_path}/none.toml", *folders, *model)
    assert answer.returncode == 1
    assert "none.toml" in answer.stderr
