import argparse
import sys

import pytest

from training.__main__ import main


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    main()


def test_help_names_every_command(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        _run(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert all(command in text for command in ("render", "train", "export", "evaluate"))


def test_every_command_and_option_says_what_it_is_for(monkeypatch):
    """Of the parser as it is built, without running anything."""
    built: list[argparse.ArgumentParser] = []
    make = argparse.ArgumentParser.__init__

    def noted(self, *arguments, **options):
        make(self, *arguments, **options)
        built.append(self)

    monkeypatch.setattr(argparse.ArgumentParser, "__init__", noted)
    with pytest.raises(SystemExit, match="0"):
        _run(monkeypatch, "--help")
    (commands,) = [action for action in built[0]._actions if action.choices]
    wanted = {"pretrain", "probe", "finetune", "zero-shot", "detect", "factor", "evaluate", "export", "import"}
    assert wanted <= set(commands.choices)
    assert {choice.dest for choice in commands._choices_actions if choice.help} == set(commands.choices)
    silent = [
        f"{name} {action.dest}"
        for name, command in commands.choices.items()
        for action in command._actions
        if not action.help
    ]
    assert silent == []


def test_a_missing_option_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        _run(monkeypatch, "train", "--recipe", "x.toml")
    assert "--cache" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "export", "evaluate"])
def test_a_recipe_that_is_not_there_is_an_error(monkeypatch, command, tmp_path):
    folders = [f"--{name}={tmp_path}" for name in ("cache", "crops", "out")]
    model = [f"--model={tmp_path}"] if command != "train" else []
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        _run(monkeypatch, command, f"--recipe={tmp_path}/none.toml", *folders, *model)


def test_render_fills_the_cache_once(monkeypatch, capsys, tmp_path):
    for _ in range(2):
        _run(monkeypatch, "render", f"--cache={tmp_path}", "--first=3", "--count=1")
    assert capsys.readouterr().out.splitlines() == ["1 exams rendered", "0 exams rendered"]
    assert len(list(tmp_path.iterdir())) == 1
