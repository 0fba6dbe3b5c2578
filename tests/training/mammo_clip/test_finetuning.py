"""Fine-tuning on a tiny encoder and drawn pictures in VinDr-Mammo's table: gone on with, its loss, its units."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from training.__main__ import main
from training.mammo_clip.checkpoint import latest_checkpoint
from training.mammo_clip.finetuned import build_classifier, load_classifier, load_start, save_classifier
from training.mammo_clip.finetuning import COLUMNS, FineTuning, Run, TargetLoss, selection_figure
from training.mammo_clip.finetuning_data import PlainItems, fraction_of, load_tuning_images, targets_of
from training.mammo_clip.finetuning_recipe import load_finetuning_recipe
from training.mammo_clip.gradients import NotFiniteError
from training.mammo_clip.importing import import_checkpoint
from training.mammo_clip.loading import load_model
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.processes import Process
from training.mammo_clip.readers import VINDR_FINDINGS
from training.mammo_clip.run_folder import facts_of, start_folder

RECIPES = Path(__file__).parents[3] / "training/recipes"
CPU = torch.device("cpu")
HEIGHT, WIDTH = 48, 32
ENCODER = '"tests.training.mammo_clip.tiny_runs:with_dropout"'
CHANGES = {
    "encoder": ENCODER,
    "channels": "1",
    "height": str(HEIGHT),
    "width": str(WIDTH),
    "weights": '"random"',
    "targets": '["Mass", "density"]',
    "epochs": "2",
    "batch": "4",
    "fractions": "[1.0]",
    "log_steps": "1",
    "checkpoint_steps": "1",
    "validation_share": "0.35",
    "learning_rate": "3e-3",
    "precision": '"float32"',
    "units": '["image", "exam"]',
}


def write_recipe(folder: Path, base: str = "corrected", **changes: str) -> Path:
    """A committed recipe with keys replaced, as TOML writes the values."""
    lines = (RECIPES / f"finetune-{base}.toml").read_text().splitlines()
    for key, value in (CHANGES | changes).items():
        (at,) = (number for number, line in enumerate(lines) if line.startswith(f"{key} = "))
        lines[at] = f"{key} = {value}"
    (folder / "recipe.toml").write_text("\n".join(lines))
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A VinDr table of 40 images of 20 patients, the last 3 for testing. A bright square is a mass; grey tells density.

    The first image has two rows that contradict each other.
    """
    folder = tmp_path_factory.mktemp("vindr")
    rng, rows = np.random.default_rng(0), []
    for number in range(40):
        patient, view = f"p{number // 2:02d}", ("CC", "MLO")[number % 2]
        has_mass, density = (number // 2) % 2 == 0, (number // 2) % 3
        plane = rng.integers(0, 40, (HEIGHT, WIDTH), dtype=np.uint8) + np.uint8(30 * density)
        if has_mass:
            plane[12:28, 8:24] = 220
        (folder / patient).mkdir(exist_ok=True)
        Image.fromarray(plane).save(folder / patient / f"{view}.png")
        found = [False, True] if number == 0 else [has_mass]
        rows += [_row(patient, view, mass, density, number >= 34) for mass in found]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _row(patient: str, view: str, mass: bool, density: int, tests: bool) -> dict[str, object]:
    named = {name: int((name == "Mass") == mass and name in ("Mass", "No_Finding")) for name in VINDR_FINDINGS}
    place = {f"resized_{edge}": "" for edge in ("xmin", "ymin", "xmax", "ymax")}
    told = {"breast_density": density, "split": "test" if tests else "training", "fold": 0}
    return {"patient_id": patient, "image_id": f"{view}.png", "laterality": "L", "view": view, **told, **place, **named}


def data_of(table: Path) -> str:
    return f"vindr={table / 'table.csv'},{table}"


def images_of(recipe, table, splits=("training", "validation")):
    return load_tuning_images(recipe, [data_of(table)], splits, table / "decoded")


def a_run(folder: Path, table: Path, **changes: str) -> Run:
    recipe = load_finetuning_recipe(write_recipe(folder, **changes))
    images = images_of(recipe, table)
    facts = facts_of(images.facts, None, 1, CPU)
    out = folder / "run"
    start_folder(out, folder / "recipe.toml", facts, images.problems, COLUMNS)
    process = Process(0, 1, True, CPU)
    return Run(recipe, images.splits["training"], images.splits["validation"], out, facts, process)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = latest_checkpoint(run)
    assert found is not None
    return load_file(found / "model.safetensors")


@pytest.mark.parametrize("stop", [3, 7, 8])
def test_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, table, stop, monkeypatch):
    """Within an epoch, at its end, in the next; dropout, augmentation and bfloat16 on."""
    whole = FineTuning(a_run(tmp_path, table, precision='"bfloat16"'))
    whole.go()
    (tmp_path / "b").mkdir()
    run = a_run(tmp_path / "b", table, precision='"bfloat16"')
    begun = FineTuning(run)
    save = begun._save

    def stopping() -> None:
        save()
        if begun.books.progress.step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(begun, "_save", stopping)
    with pytest.raises(KeyboardInterrupt):
        begun.go()
    FineTuning(run, resume=True).go()
    one, other = weights(tmp_path / "run"), weights(tmp_path / "b/run")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    lines = [(folder / "run/curves.csv").read_text().splitlines() for folder in (tmp_path, tmp_path / "b")]
    assert [line.rpartition(",")[0] for line in lines[0]] == [line.rpartition(",")[0] for line in lines[1]]


def test_command_trains_a_run_for_each_fraction_and_reports_each_figure_with_its_unit(
    tmp_path, table, monkeypatch, capsys
):
    recipe = write_recipe(tmp_path, fractions="[0.5, 1.0]", epochs="12", learning_rate="2e-2", batch="2")
    given = ["finetune", "--recipe", str(recipe), "--data", data_of(table), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["training", *given, "--cache", str(table / "decoded")])
    main()
    assert "Mass AUC by exam" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/report.json").read_text())
    half, whole = report["sections"]
    assert "50% of the training patients" in half["title"]
    told = {(row["what"], row["figure"], row["unit"]): row for row in whole["figures"]}
    assert told["Mass", "AUC", "image"]["n"] == 6
    assert told["Mass", "AUC", "exam"]["n"] == 3
    assert told["Mass", "AUC", "image"]["value"] == 1.0
    assert told["density", "balanced accuracy", "image"]["n"] == 6
    card = (tmp_path / "out/fraction-100/card.md").read_text()
    assert "no medical device" in card
    assert "mean AUC and balanced accuracy by image on validation" in card
    loaded = load_model(tmp_path / "out/fraction-100")
    assert loaded.kind == "fine-tuned"
    plane = np.asarray(Image.open(table / "p09/CC.png"))
    (mass, *_), (none, *_) = (
        loaded.classify(p[None])[0].tolist() for p in (np.asarray(Image.open(table / "p10/CC.png")), plane)
    )
    assert mass > none


def test_first_batch_is_learnt_by_heart(tmp_path, table):
    tuning = FineTuning(
        a_run(tmp_path, table, encoder='"tests.training.mammo_clip.tiny_runs:plain"', learning_rate="2e-2")
    )
    (batch,) = tuning._loader(PlainItems(tuning.run.training, tuning.recipe.input), [[0, 2, 4, 6]])
    tuning.model.set_mode(tuning.recipe)
    losses = []
    for _ in range(60):
        tuning.optimiser.zero_grad()
        losses.append(tuning._learn(batch, 1, last=True))
        tuning.optimiser.step()
    assert losses[0] > 1.0
    assert losses[-1] < 0.1


def test_loss_is_weighted_cross_entropy_of_what_is_known(tmp_path, table):
    """Against a plain transcription in float64; a target that is not known counts nothing."""
    run = a_run(tmp_path, table, targets='["density", "Mass"]')
    loss = TargetLoss(run.recipe, run.training)
    positives = int((run.training.targets[:, 1] == 1).sum())
    logits = torch.randn(3, 5, dtype=torch.float64)
    targets = torch.tensor([[2, 1], [-1, 0], [0, -1]])
    weight = max(1.0, (len(run.training) - positives) / positives)
    mass = -(weight * functional.logsigmoid(logits[0, 0]) + functional.logsigmoid(-logits[1, 0])) / 3
    density = -(logits[0, 1:].log_softmax(0)[2] + logits[2, 1:].log_softmax(0)[0]) / 3
    assert loss(logits, targets).item() == pytest.approx((mass + density).item(), rel=1e-6)


def test_accumulated_batches_give_the_gradient_of_the_whole(tmp_path, table):
    frozen = {"encoder": '"tests.training.mammo_clip.tiny_runs:plain"', "frozen_statistics": "true"}
    gradients = []
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        tuning = FineTuning(a_run(tmp_path / str(count), table, **frozen))
        tuning.model.set_mode(tuning.recipe)
        rows = [[0, 1, 2, 3]] if count == 1 else [[0, 1], [2, 3]]
        for batch in tuning._loader(PlainItems(tuning.run.training, tuning.recipe.input), rows):
            tuning._learn(batch, count, last=True)
        gradients.append([parameter.grad for parameter in tuning.model.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(("mode", "counted"), [("eval", 0), ("train", 7)])
def test_frozen_encoder_keeps_its_weights_and_in_eval_mode_its_statistics(tmp_path, table, mode, counted):
    tuning = FineTuning(a_run(tmp_path, table, frozen="true", frozen_mode=f'"{mode}"', epochs="1"))
    before = {name: value.clone() for name, value in tuning.model.state_dict().items()}
    assert tuning.go().step == 7
    after = tuning.model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    learnt = {"classifier.classification_head.weight", "classifier.classification_head.bias"}
    assert learnt <= changed
    assert {name for name in changed - learnt if "running" not in name and "tracked" not in name} == set()
    assert after["image_encoder.layers.1.num_batches_tracked"] == counted


def test_published_recipe_selects_on_the_rows_it_reports_and_keeps_rows_as_they_are(tmp_path, table):
    recipe = load_finetuning_recipe(RECIPES / "finetune-paper.toml")
    assert (recipe.data.selection_split, recipe.data.rows, recipe.image.frozen_mode) == ("test", "row", "train")
    tiny = write_recipe(tmp_path, "paper", targets='["Mass"]', units='["row"]', validation_share="0.0")
    rows = images_of(load_finetuning_recipe(tiny), table, ("training", "test")).splits
    assert (len(rows["training"]), len(rows["test"])) == (35, 6)
    assert TargetLoss(load_finetuning_recipe(tiny), rows["training"]).weights.tolist() == pytest.approx([15.573])
    joined = images_of(load_finetuning_recipe(write_recipe(tmp_path)), table).splits
    assert len(joined["training"]) + len(joined["validation"]) == 34
    patients = [{image.patient for image in joined[split].images} for split in ("training", "validation")]
    assert not patients[0] & patients[1]


@pytest.mark.parametrize("name", ["paper", "corrected", "small"])
def test_committed_recipes_are_read(name):
    recipe = load_finetuning_recipe(RECIPES / f"finetune-{name}.toml")
    assert recipe.outputs == {"paper": 1, "corrected": 2, "small": 7}[name]


def test_fraction_of_patients_parts_no_patient_and_of_rows_is_that_of_pandas(tmp_path, table):
    training = images_of(load_finetuning_recipe(write_recipe(tmp_path)), table).splits["training"]
    half = fraction_of(training, 0.5, "patients")
    patients = {image.patient for image in half.images}
    assert len(half) == sum(image.patient in patients for image in training.images)
    assert 0 < len(half) < len(training)
    drawn = np.random.RandomState(1).permutation(len(training))[: round(0.25 * len(training))]
    rows = fraction_of(training, 0.25, "rows")
    assert [image.row for image in rows.images] == [training.images[row].row for row in sorted(drawn)]


def test_selection_is_by_unit(tmp_path, table):
    recipe = load_finetuning_recipe(write_recipe(tmp_path, targets='["Mass"]', selection_unit='"exam"'))
    images = images_of(recipe, table).splits["validation"]
    values = np.array(
        [[float(targets_of(image, ["Mass"])[0]) + (image.position.value == "CC")] for image in images.images]
    )
    assert selection_figure(values, images, recipe) == 1.0
    by_image = load_finetuning_recipe(write_recipe(tmp_path, targets='["Mass"]', selection_unit='"image"'))
    assert selection_figure(values, images, by_image) < 1.0


def test_classifier_is_the_start_with_its_head_where_that_fits(tmp_path, table):
    recipe = load_finetuning_recipe(write_recipe(tmp_path, weights='"given"', targets='["Mass"]'))
    donor, model = build_classifier(recipe), build_classifier(recipe)
    torch.nn.init.normal_(donor.head.weight)
    (tmp_path / "donor").mkdir()
    save_classifier(tmp_path / "donor", donor, recipe, {"licence": "CC BY-NC-SA 4.0"})
    facts = load_start(model, recipe, tmp_path / "donor")
    assert (facts["licence"], facts["start_has_head"]) == ("CC BY-NC-SA 4.0", True)
    assert torch.equal(model.head.weight, donor.head.weight)
    other = load_finetuning_recipe(write_recipe(tmp_path, weights='"given"', targets='["Mass", "density"]'))
    assert load_start(build_classifier(other), other, tmp_path / "donor")["start_has_head"] is False
    with pytest.raises(RecipeError, match='weights "given": --model goes with "given"'):
        load_start(model, recipe, None)
    again, _ = load_classifier(tmp_path / "donor")
    assert not again.training


def test_released_classifier_is_the_start(tmp_path):
    recipe = load_finetuning_recipe(
        write_recipe(tmp_path, encoder='"b2"', channels="3", weights='"given"', targets='["Mass"]')
    )
    donor = build_classifier(recipe)
    torch.nn.init.normal_(donor.head.weight)
    torch.save({"model": donor.state_dict(), "epoch": 3, "auroc": 0.8}, tmp_path / "released.pth")
    import_checkpoint(tmp_path / "released.pth", tmp_path / "imported")
    model = build_classifier(replace(recipe, seed=2))
    facts = load_start(model, recipe, tmp_path / "imported")
    assert "CC BY-NC-SA 4.0" in facts["licence"]
    assert [
        name for name, value in donor.state_dict().items() if not torch.equal(value, model.state_dict()[name])
    ] == []


def test_loss_that_is_no_number_stops_and_names_the_rows(tmp_path, table):
    tuning = FineTuning(a_run(tmp_path, table))
    torch.nn.init.constant_(tuning.model.head.weight, float("nan"))
    with pytest.raises(NotFiniteError, match=r"epoch 1, step 1: the loss is nan; batch of line \d+, line \d+"):
        tuning.go()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": "[]"}, "data.targets is"),
        ({"fractions": "[0.0]"}, "data.fractions is"),
        ({"cached_chunk": "4"}, "cached_chunk must be 0"),
        ({"units": '["row"]'}, 'units: name one at least; "row" is for'),
        ({"frozen_mode": '"half"'}, "image.frozen_mode is 'half'; there are eval, train"),
        ({"positive_weight": '"published"', "targets": '["Asymmetry"]'}, "is not known for Asymmetry"),
    ],
)
def test_recipe_that_does_not_hold_is_refused(tmp_path, changes, words):
    with pytest.raises(RecipeError, match=rf"recipe\.toml: .*{words}"):
        load_finetuning_recipe(write_recipe(tmp_path, **changes))


def test_target_that_no_row_tells_is_an_error_with_its_cure(tmp_path, table):
    recipe = load_finetuning_recipe(write_recipe(tmp_path, targets='["Skin_Retraction"]'))
    with pytest.raises(Exception, match="tell 1 classes of Skin_Retraction; it takes two"):
        images_of(recipe, table)
