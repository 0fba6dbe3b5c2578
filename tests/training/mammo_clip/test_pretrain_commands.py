"""`python -m training pretrain` and `import`: what they say, and how they end."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from tests.training.mammo_clip.tiny_runs import data_of, write_recipe, write_table
from training.__main__ import main
from training.mammo_clip.model import published


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_table(folder, breasts=12)
    return folder


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    main()


def pretrain(monkeypatch, folder: Path, table: Path, *more, out: str = "run") -> None:
    recipe = ["--recipe", folder / "recipe.toml"]
    run(monkeypatch, "pretrain", *recipe, "--data", data_of(table), "--out", folder / out, *more)


def test_a_run_leaves_its_folder_and_says_where_the_best_model_is(monkeypatch, tmp_path, table, capsys):
    write_recipe(tmp_path, epochs="1", checkpoint_steps="0")
    pretrain(monkeypatch, tmp_path, table)
    assert (tmp_path / "run/best-epoch-01/model.safetensors").is_file()
    assert (tmp_path / "run/recipe.toml").read_text() == (tmp_path / "recipe.toml").read_text()
    assert f"{tmp_path / 'run/best-epoch-01'}: validation loss" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"error: .*a run stands there already; go on with it by --resume"):
        pretrain(monkeypatch, tmp_path, table)
    pretrain(monkeypatch, tmp_path, table, "--resume")
    assert "goes on after epoch 1, step 2" in capsys.readouterr().out


def test_going_on_with_another_recipe_or_other_data_is_refused(monkeypatch, tmp_path, table):
    write_recipe(tmp_path, epochs="1")
    pretrain(monkeypatch, tmp_path, table)
    write_recipe(tmp_path, epochs="1", log_steps="5")
    pretrain(monkeypatch, tmp_path, table, "--resume")
    write_recipe(tmp_path, epochs="2")
    with pytest.raises(SystemExit, match=r"error: .*differs in optimisation from the recipe"):
        pretrain(monkeypatch, tmp_path, table, "--resume")
    write_recipe(tmp_path, epochs="1")
    write_table(tmp_path, breasts=14)
    with pytest.raises(SystemExit, match=r"was begun with other data: .*'training rows': 8"):
        pretrain(monkeypatch, tmp_path, tmp_path, "--resume")
    with pytest.raises(SystemExit, match="no run stands there to go on with; leave --resume out"):
        pretrain(monkeypatch, tmp_path, table, "--resume", out="none")


def test_bad_rows_are_listed_with_their_lines_and_strict_stops(monkeypatch, tmp_path, capsys):
    table = write_table(tmp_path, breasts=14)
    with table.open(newline="") as file:
        lines = list(csv.reader(file))
    lines[6][1] = "B"
    lines[8][2] = "['gone.png']"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    write_recipe(tmp_path, epochs="1")
    pretrain(monkeypatch, tmp_path, tmp_path)
    said = capsys.readouterr().out
    assert "left out: " in said
    assert "table.csv:7: laterality is 'B', not R or L" in said
    assert "table.csv:9: no image at" in (tmp_path / "run/left-out.txt").read_text()
    with pytest.raises(SystemExit, match=r"error: .*table\.csv:7: .*--strict"):
        pretrain(monkeypatch, tmp_path, tmp_path, "--strict", out="strict")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": "4\nbacth = 4"}, "optimisation: unknown key bacth"),
        ({"batch": "64"}, "8 training rows are fewer than one step takes, 64"),
        ({"vocabulary": '"given"'}, "--vocabulary FILE is missing"),
        ({"encoder": '"b9"'}, "encoder is 'b9'; there are b0, b2, b5, lite0, lite2, pyramid, and module:function"),
        ({"encoder": '"nowhere:encoder"'}, "'nowhere:encoder' cannot be imported"),
        ({"max_length": "90"}, "max_length is 90, but there are 40 positions"),
        ({"weights": '"given"'}, "--image-weights FILE is missing"),
        ({"validation_fold": "5"}, "fold 5 has 0 rows"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(monkeypatch, tmp_path, table, changes, words):
    write_recipe(tmp_path, **changes)
    with pytest.raises(SystemExit) as caught:
        pretrain(monkeypatch, tmp_path, table)
    assert str(caught.value).startswith("error: ")
    assert words in str(caught.value)
    assert not (tmp_path / "run/recipe.toml").exists()


def test_import_shows_the_licence(monkeypatch, tmp_path, capsys):
    torch.manual_seed(0)
    with torch.device("meta"):
        empty = published("b2").state_dict()
    state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in empty.items()}
    torch.save({"model": state, "epoch": 10}, tmp_path / "b2-model-best-epoch-10.tar")
    run(monkeypatch, "import", tmp_path / "b2-model-best-epoch-10.tar", "--out", tmp_path / "b2")
    said = capsys.readouterr().out
    assert said.startswith("licence: Checkpoints of github.com/batmanlab/Mammo-CLIP: CC BY-NC-SA 4.0")
    assert "pretrained, b2: " in said
    assert (tmp_path / "b2/model.safetensors").is_file()


def test_import_of_what_is_no_checkpoint_is_refused_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "x.tar").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match=r"error: .*x\.tar: "):
        run(monkeypatch, "import", tmp_path / "x.tar", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
