"""Runs of pretraining on a tiny model: killed and gone on with, on two processes, on one batch until it is learnt."""

import csv
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.training.mammo_clip.tiny_runs import data_of, write_recipe, write_table
from training.__main__ import main
from training.mammo_clip.building import Given, build_model, load_own, load_starting_weights
from training.mammo_clip.checkpoint import Progress, latest_checkpoint, load_state
from training.mammo_clip.gradients import NotFiniteError
from training.mammo_clip.pretrain import Pretraining, Run, bound_logit_scale, optimiser_of, set_rate, steps_an_epoch
from training.mammo_clip.pretraining_data import load_data, parse_source
from training.mammo_clip.pretraining_recipe import load_pretraining_recipe
from training.mammo_clip.processes import Process, this_process
from training.mammo_clip.run_folder import Curves, facts_of, start_folder
from training.mammo_clip.sampling import TrainingItems, ValidationItems
from training.mammo_clip.vocabulary import VOCABULARY

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
PROJECTION = "image_projection.projection.weight"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with a table of 20 breasts, 4 of them for validation."""
    folder = tmp_path_factory.mktemp("table")
    write_table(folder)
    return folder


def arguments(folder: Path, table: Path, out: str, *more: str) -> list[str]:
    given = ["--recipe", str(folder / "recipe.toml"), "--data", data_of(table), "--cache", str(table / "decoded")]
    return ["pretrain", *given, "--out", str(folder / out), *more]


def command(monkeypatch, *given: str) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *given])
    main()


def a_run(folder: Path, table: Path, **changes: str) -> Run:
    recipe = load_pretraining_recipe(write_recipe(folder, **changes))
    data = load_data(recipe, [parse_source(data_of(table))], table / "decoded")
    facts = facts_of(data.facts, VOCABULARY, 1, CPU)
    start_folder(folder / "run", folder / "recipe.toml", facts, data.problems)
    return Run(recipe, data, folder / "run", VOCABULARY, facts, Process(0, 1, True, CPU))


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = latest_checkpoint(run)
    assert found is not None
    return load_file(found / "model.safetensors")


def curves(run: Path) -> list[dict[str, str]]:
    with (run / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def curve_values(run: Path) -> list[dict[str, str]]:
    return [{**row, "rows_per_second": ""} for row in curves(run)]


def killed_at(step: int, given: list[str]) -> None:
    """Start a run in a process of its own and kill it by its id once it has printed a line for that step."""
    process = subprocess.Popen([sys.executable, "-m", "training", *given], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = 0
    for line in process.stdout:
        lines += " loss " in line and line.startswith("epoch") and "validation" not in line
        if lines == step:
            break
    process.kill()
    process.wait(30)
    process.stdout.close()
    assert lines == step
    assert process.returncode == -9


def test_run_killed_at_a_random_step_and_gone_on_with_gives_the_same_weights(tmp_path, table, monkeypatch, capsys):
    """16 rows, batches of 4, 8 epochs, dropout and augmentation on: 32 steps. Killed at once it begins anew."""
    write_recipe(tmp_path, epochs="8", cached_chunk="2")
    command(monkeypatch, *arguments(tmp_path, table, "whole"))
    step = random.Random().randint(1, 12)
    killed_at(step, arguments(tmp_path, table, "killed"))
    left = latest_checkpoint(tmp_path / "killed")
    assert left is None or load_state(left).progress.step < 32
    command(monkeypatch, *arguments(tmp_path, table, "killed", "--resume"))
    assert "goes on after" in capsys.readouterr().out
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert curve_values(tmp_path / "whole") == curve_values(tmp_path / "killed")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_every_checkpoint_leads_to_the_same_weights(tmp_path, table, stop, monkeypatch):
    """Within an epoch, at its last step before validation, after the first step of the next."""
    whole = Pretraining(a_run(tmp_path, table, precision='"bfloat16"'))
    whole.go()
    (tmp_path / "b").mkdir()
    run = a_run(tmp_path / "b", table, precision='"bfloat16"')
    begun = Pretraining(run)
    save = begun._save

    def stopping() -> None:
        save()
        if begun.progress.step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(begun, "_save", stopping)
    with pytest.raises(KeyboardInterrupt):
        begun.go()
    Pretraining(run, resume=True).go()
    one, other = weights(tmp_path / "run"), weights(tmp_path / "b/run")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_run_that_kept_nothing_yet_begins_anew(tmp_path, table):
    run = a_run(tmp_path, table, epochs="1")
    begun = Pretraining(run)
    begun.books.curves.add(replace(begun.progress, step=1), training_loss=1.0)
    again = Pretraining(run, resume=True)
    assert again.progress == Progress()
    assert curves(run.folder) == []
    assert again.go().finished


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path, table, monkeypatch):
    """Over gloo by torchrun; batch norm in eval mode, no dropout; 4 steps, then 3 with cached gradients."""
    changes = {"encoder": '"tests.training.mammo_clip.tiny_runs:plain"', "dropout": "0.0", "epochs": "1"}
    changes |= {"frozen_statistics": "true", "precision": '"float64"', "cached_chunk": "1", "warmup_epochs": "0.25"}
    write_recipe(tmp_path, **changes)
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    both += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "training"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*both, *arguments(tmp_path, table, "two")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    write_recipe(tmp_path, **(changes | {"cached_chunk": "0"}))
    command(monkeypatch, *arguments(tmp_path, table, "one"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], rtol=1e-9, atol=1e-10) for name in one)
    begun = build_model(
        load_pretraining_recipe(tmp_path / "recipe.toml"),
        one["text_encoder.text_encoder.embeddings.word_embeddings.weight"].shape[0],
    )
    moved = (
        begun.state_dict()["image_projection.projection.weight"] - one["image_projection.projection.weight"]
    ).norm()
    assert moved > 1e-3
    losses = [
        [row["training_loss"] or row["validation_loss"] for row in curves(tmp_path / name)] for name in ("one", "two")
    ]
    assert losses[0] == losses[1]
    assert json.loads((tmp_path / "two/run.json").read_text())["processes"] == 2


def test_the_first_batch_is_learnt_by_heart(tmp_path, table):
    changes = {"encoder": '"tests.training.mammo_clip.tiny_runs:plain"', "dropout": "0.0", "probability": "0.0"}
    training = Pretraining(a_run(tmp_path, table, learning_rate="5e-3", **changes))
    rows = [[0, 1, 2, 3]]
    (batch,) = training._loader(ValidationItems(training.run.data.training, training.recipe.sampling), rows)
    training._train_mode()
    losses = []
    for _ in range(80):
        training.optimiser.zero_grad()
        losses.append(training.learner.learn(batch))
        training.optimiser.step()
    assert losses[0] > 3.0
    assert losses[-1] < 0.1


def test_run_folder_has_all_of_a_run_and_its_best_model_loads(tmp_path, table, capsys):
    run = a_run(tmp_path, table)
    progress = Pretraining(run).go()
    assert (progress.epoch, progress.step, progress.finished) == (2, 8, True)
    names = {path.name for path in run.folder.iterdir()}
    best = f"best-epoch-{progress.best_epoch:02d}"
    assert names == {"recipe.toml", "run.json", "curves.csv", "card.md", "left-out.txt", "checkpoints", best}
    model, tokenizer, recipe = load_own(run.folder / best)
    assert recipe == run.recipe
    ids, mask = tokenizer.batch(["no mass"], recipe.text.max_length)
    assert model.encode_text(torch.tensor(ids), torch.tensor(mask)).norm().item() == pytest.approx(1.0)
    record = json.loads((run.folder / best / "model.json").read_text())
    assert "commit" in record["code"]
    card = (run.folder / "card.md").read_text()
    assert all(words in card for words in ("no medical device", "training rows: 16", "CC BY 4.0"))
    rows = curves(run.folder)
    assert [row["step"] for row in rows if row["validation_loss"]] == ["4", "8"]
    assert float(rows[0]["learning_rate"]) == 0.0
    assert "epoch 2/2 step 4/4 loss" in capsys.readouterr().out


def test_training_stops_where_validation_gets_no_better(tmp_path, table, monkeypatch):
    training = Pretraining(a_run(tmp_path, table, epochs="9", patience="2"))
    losses = iter([3.0, 2.0, 2.5, 2.1, 1.0])
    monkeypatch.setattr(training, "validate", lambda: next(losses))
    progress = training.go()
    assert (progress.epoch, progress.best_epoch, progress.best_loss) == (4, 2, 2.0)
    assert [path.name for path in (tmp_path / "run").glob("best-epoch-*")] == ["best-epoch-02"]


def test_image_of_one_value_stops_the_published_recipe_and_names_the_row(tmp_path, capsys):
    write_table(tmp_path)
    for view in ("cc", "mlo", "mlo2"):
        Image.new("L", (48, 64), 9).save(tmp_path / f"images/p4/L-{view}.png")
    words = r"epoch 1, step 1: the loss is nan; no finite image of line 11; of one value throughout: line 11$"
    with pytest.raises(NotFiniteError, match=words) as told:
        Pretraining(a_run(tmp_path, tmp_path, constant_images='"published"', batch="16", probability="0.0")).go()
    assert "p4" not in str(told.value)
    (tmp_path / "guarded").mkdir()
    capsys.readouterr()
    assert Pretraining(a_run(tmp_path / "guarded", tmp_path, batch="16")).go().finished
    assert capsys.readouterr().out.count("line 11: an image has one value throughout") == 1


def test_accumulated_batches_make_one_step(tmp_path, table):
    training = Pretraining(a_run(tmp_path, table, accumulate="2", epochs="1"))
    assert training.go().step == 2


@pytest.mark.parametrize(("counts", "scheduled"), [("true", 4), ("false", 2)])
def test_schedule_goes_on_where_the_loss_scale_skips_a_step_as_published(tmp_path, table, counts, scheduled):
    training = Pretraining(a_run(tmp_path, table, precision='"float16"', skipped_steps_count=counts))
    training.learner = replace(training.learner, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**40))
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.progress.scheduled = 1
    items = TrainingItems(training.run.data.training, training.recipe.sampling, 0)
    loader = list(training._loader(items, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]))
    training._train_mode()
    for batch in loader[:2]:
        training._step([batch])
    skipped = {n: v for n, v in training.model.state_dict().items() if "running" not in n and "tracked" not in n}
    assert all(torch.equal(value, before[name]) for name, value in skipped.items())
    training.learner.scaler.update(1.0)
    training._step([loader[2]])
    assert (training.progress.step, training.progress.scheduled) == (3, scheduled)


def test_rate_follows_the_schedule_over_steps_of_all_epochs(tmp_path):
    recipe = load_pretraining_recipe(write_recipe(tmp_path, epochs="4", learning_rate="2.0"))
    optimiser = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    rates = []
    for step in range(12):
        set_rate(optimiser, recipe.optimisation, step, 3)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:4] == pytest.approx([0.0, 2 / 3, 4 / 3, 2.0])
    assert rates[-1] == pytest.approx(2.0 * torch.cos(torch.tensor(torch.pi / 2 * 8 / 9)).item() ** 2)


def test_weight_decay_is_on_every_parameter_or_on_matrices(tmp_path):
    recipe = load_pretraining_recipe(write_recipe(tmp_path))
    model = build_model(recipe, 100)
    learnt = [p for name, p in model.named_parameters() if ".pooler." not in name]
    (group,) = optimiser_of(model, recipe.optimisation).param_groups
    assert (len(group["params"]), group["weight_decay"]) == (len(learnt), 1e-4)
    matrices, others = optimiser_of(model, replace(recipe.optimisation, decay="matrices")).param_groups
    assert len(matrices["params"]) + len(others["params"]) == len(learnt)
    assert others["weight_decay"] == 0.0
    assert any(p is model.logit_scale for p in others["params"])


def test_logit_scale_is_kept_at_its_bound(tmp_path):
    model = build_model(load_pretraining_recipe(write_recipe(tmp_path)), 100)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    bound_logit_scale(model, None)
    assert model.logit_scale.item() == 9.0
    bound_logit_scale(model, 100.0)
    assert model.logit_scale.exp().item() == pytest.approx(100.0, rel=1e-5)


def test_curves_are_rewound_to_a_checkpoint(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("step,epoch,training_loss,validation_loss,learning_rate,logit_scale,rows_per_second\n")
    rows = Curves(path)
    rows.add(Progress(epoch=0, step=1), training_loss=1.0)
    rows.add(Progress(epoch=0, step=2), training_loss=0.5)
    rows.add(Progress(epoch=1, step=2), validation_loss=0.4)
    with path.open("a") as file:
        file.write("3,1,0.2")
    rows.rewind(Progress(epoch=0, step=2))
    assert [line.split(",")[:2] for line in path.read_text().splitlines()[1:]] == [["1", "0"], ["2", "0"]]


def test_process_takes_its_part_of_a_batch(monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    process = this_process()
    assert (process.rank, process.count, process.first_here, process.leads) == (1, 2, False, False)
    assert process.part([5, 6, 7, 8]) == [7, 8]


def test_batch_that_does_not_fit_is_explained(tmp_path):
    optimisation = load_pretraining_recipe(write_recipe(tmp_path)).optimisation
    assert steps_an_epoch(16, optimisation, 2) == 4
    with pytest.raises(Exception, match="3 training rows are fewer than one step takes, 4"):
        steps_an_epoch(3, optimisation, 1)
    with pytest.raises(Exception, match="batch of 4 rows does not part into 3 processes"):
        steps_an_epoch(16, optimisation, 3)


def test_given_weights_fill_the_encoders_or_name_what_does_not_fit(tmp_path, table):
    recipe = load_pretraining_recipe(write_recipe(tmp_path, weights='"given"', vocabulary='"own"'))
    donor, model = build_model(replace(recipe, seed=9), 50), build_model(recipe, 50)
    torch.save(donor.image_encoder.state_dict(), tmp_path / "image.pth")
    tower = donor.text_encoder.text_encoder.state_dict()
    named = {f"bert.{key}".replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in tower.items()}
    torch.save(named | {"cls.predictions.bias": torch.ones(50)}, tmp_path / "text.pth")
    load_starting_weights(model, recipe, Given(None, tmp_path / "image.pth", tmp_path / "text.pth"))
    loaded = model.state_dict()
    expected = donor.state_dict()
    towers = [key for key in loaded if key.startswith(("image_encoder.", "text_encoder."))]
    assert towers
    assert all(torch.equal(loaded[key], expected[key]) for key in towers)
    with pytest.raises(Exception, match=r"image\.pth: does not fit: .* is missing"):
        load_starting_weights(model, recipe, Given(None, tmp_path / "image.pth", tmp_path / "image.pth"))
    with pytest.raises(Exception, match="--image-weights FILE is missing"):
        load_starting_weights(model, recipe, Given())
