"""Runs of `detect` on two phantom views, also stopped and gone on with; released detectors; words to bad input."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.mammo_clip.tiny_runs import write_recipe as pretraining
from training.__main__ import main
from training.cache import prepare_exam, save_exam
from training.mammo_clip.building import build_model, save_model
from training.mammo_clip.checkpoint import latest_checkpoint
from training.mammo_clip.detection import PUBLISHED_SIZE_PX, classes_of, published_detector
from training.mammo_clip.detection_boxes import overlaps
from training.mammo_clip.detection_data import read_detection_images, wanted_by
from training.mammo_clip.detection_model import load_detector
from training.mammo_clip.detection_recipe import load_detection_recipe
from training.mammo_clip.detection_training import COLUMNS, DetectorTraining, Run
from training.mammo_clip.gradients import NotFiniteError
from training.mammo_clip.importing import import_checkpoint
from training.mammo_clip.loading import load_model
from training.mammo_clip.pretraining_recipe import RecipeError, load_pretraining_recipe
from training.mammo_clip.processes import Process
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.run_folder import start_folder
from training.mammo_clip.vocabulary import VOCABULARY, own_tokenizer
from training.phantoms import TRAIN_SEED, VALIDATION_SEED

ROOT = Path(__file__).parents[3]
SEED_WITH_A_MASS = 1
PROCESS = Process(0, 1, True, torch.device("cpu"))
TINY = {
    "encoder": '"tests.training.mammo_clip.tiny_runs:plain"',
    "weights": '"random"',
    "width": ("16", "228"),
    "classes": '["Mass"]',
    "positive_images_only": "true",
    "phantom_exams": "4",
    "phantom_validation_exams": "1",
    "batch": "4",
    "log_steps": "1",
}
STILL = {"probability": "0.0", "vertical_flip": "false", "precision": '"float32"', "frozen_statistics": "true"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Four training exams and one for validation, all the same: two views with a mass each."""
    folder = tmp_path_factory.mktemp("phantoms")
    exam = prepare_exam(SEED_WITH_A_MASS, pixel_mm=1.0)
    for seed in (*range(TRAIN_SEED, TRAIN_SEED + 4), VALIDATION_SEED):
        save_exam(folder, replace(exam, seed=seed))
    return folder


def write_recipe(folder: Path, **changes: str) -> Path:
    """detect-small.toml with keys replaced; a key that stands twice takes a value for each."""
    text = (ROOT / "training/recipes/detect-small.toml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for key, value in {**TINY, **changes}.items():
        at = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        values = value if isinstance(value, tuple) else (value,)
        assert len(at) == len(values), key
        for number, one in zip(at, values, strict=True):
            lines[number] = f"{key} = {one}"
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def detect(monkeypatch, *given: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", "detect", *map(str, given)])
    main()


def a_run(folder: Path, phantoms: Path, **changes: str) -> Run:
    path = write_recipe(folder, **changes)
    recipe = load_detection_recipe(path)
    images = read_detection_images(
        wanted_by(recipe), [f"phantoms={phantoms}"], ("training", "validation"), phantoms / "decoded"
    )
    facts = {"data": images.facts, "code": "", "torch": "", "device": "cpu", "vocabulary": "", "processes": 1}
    start_folder(folder / "run", path, facts, [], COLUMNS)
    return Run(recipe, images.splits["training"], images.splits["validation"], folder / "run", facts, PROCESS)


def losses(run: Path) -> list[str]:
    rows = csv.DictReader((run / "curves.csv").read_text().splitlines())
    return [row["training_loss"] for row in rows]


def test_two_phantom_images_learnt_by_heart_have_their_boxes_found(tmp_path, phantoms, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, **STILL, learning_rate="3e-3", epochs="30", patience="0", selection_overlap="0.75")
    data = f"phantoms={phantoms}"
    detect(monkeypatch, "--recipe", recipe, "--data", data, "--out", tmp_path / "run", "--cache", phantoms / "decoded")
    said = capsys.readouterr().out
    assert "Mass: average precision at IoU 0.5: 1.000" in said
    detector = load_detector(tmp_path / "run")
    wanted = wanted_by(load_detection_recipe(recipe))
    images = read_detection_images(wanted, [data], ("validation",), phantoms / "decoded").splits["validation"]
    for one, target in zip(detector.find_all(images.planes, 2), images.targets, strict=True):
        assert overlaps(one.boxes[:1], target.boxes).item() > 0.6
        assert one.probabilities[0] > 0.3
    report = json.loads((tmp_path / "run/figures-validation/report.json").read_text())
    assert {row["unit"] for row in report["sections"][0]["figures"]} == {"image"}
    assert {row["patients"] for row in report["sections"][0]["figures"]} == {1}
    assert (tmp_path / "run/card.md").read_text().startswith("# detect-small")
    detect(
        monkeypatch, "--model", tmp_path / "run", "--data", data, "--split", "validation", "--all-images",
        "--out", tmp_path / "figures", "--cache", phantoms / "decoded",
    )  # fmt: skip
    assert "sensitivity at 0.3 false boxes a normal image" in capsys.readouterr().out
    assert (tmp_path / "figures/froc.png").stat().st_size > 1000


def stopped_at(step: int, run: Run, monkeypatch) -> None:
    """Train until the checkpoint of that step is written."""
    begun = DetectorTraining(run)
    save = begun._save

    def stopping() -> None:
        save()
        if begun.books.progress.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(begun, "_save", stopping)
    with pytest.raises(KeyboardInterrupt):
        begun.go()


def test_run_gone_on_with_from_any_checkpoint_ends_with_the_same_weights(tmp_path, phantoms, monkeypatch):
    """Augmentation and dropping of branches on, two steps an epoch, stopped within one, at its end and in the next."""
    changes = {"encoder": '"lite0"', "height": "96", "width": ("8", "64"), "epochs": "2", "checkpoint_steps": "1"}
    DetectorTraining(a_run(tmp_path, phantoms, **changes)).go()
    whole = load_file(latest_checkpoint(tmp_path / "run") / "model.safetensors")
    for stop in (1, 2, 3):
        folder = tmp_path / str(stop)
        folder.mkdir()
        run = a_run(folder, phantoms, **changes)
        stopped_at(stop, run, monkeypatch)
        resumed = DetectorTraining(run, resume=True).go()
        assert (resumed.step, resumed.epoch) == (4, 2)
        other = load_file(latest_checkpoint(folder / "run") / "model.safetensors")
        assert [key for key in whole if not torch.equal(whole[key], other[key])] == []
        assert losses(tmp_path / "run") == losses(folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of pretraining whose encoder is that of TINY."""
    folder = tmp_path_factory.mktemp("run")
    recipe = load_pretraining_recipe(pretraining(folder, encoder='"tests.training.mammo_clip.tiny_runs:plain"'))
    model = build_model(recipe, len(own_tokenizer().ids))
    with torch.no_grad():
        model.image_encoder.layers[0].weight.fill_(0.125)
    save_model(folder, model, recipe, VOCABULARY, {"data": {"sources": "image-text"}})
    return folder


def test_encoder_of_a_run_is_begun_from_and_named_in_the_record(tmp_path, phantoms, run):
    changes = {"weights": '"given"', "normalisation": '"image"', "frozen": "true"}
    training = DetectorTraining(a_run(tmp_path, phantoms, **changes), run)
    assert (training.detector.efficientnet.layers[0].weight == 0.125).all()
    training._save_weights(tmp_path)
    assert load_detector(tmp_path).record["encoder"] == load_model(run).weights_hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalisation": '"fixed"'}, 'was trained with normalisation "image"; set data.normalisation to it'),
        ({"normalisation": '"image"', "encoder": '"lite0"'}, "model.safetensors: does not fit: "),
    ],
)
def test_encoder_that_does_not_fit_the_recipe_is_refused(tmp_path, phantoms, run, changes, words):
    with pytest.raises((RecipeError, CheckpointError), match=words):
        DetectorTraining(a_run(tmp_path, phantoms, weights='"given"', **changes), run)


def test_loss_that_is_no_number_stops_and_names_the_rows(tmp_path, phantoms, monkeypatch):
    training = DetectorTraining(a_run(tmp_path, phantoms, height="96", width=("8", "64"), batch="2"))
    with torch.no_grad():
        training.detector.fpn.P3_1.bias.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match=r"epoch 1, step 1: the loss is nan; batch of phantom \d R(CC|MLO), "):
        training.go()


def released_state(variant: str, classes: int = 1, fill=None) -> dict[str, torch.Tensor]:
    """In the layout of the released detectors: every key behind `module.`, the unused `_fc` too."""
    with torch.device("meta"):
        expected = published_detector(variant, classes).state_dict()
    torch.manual_seed(0)
    made = {key: (fill or torch.rand)(value.shape).to(value.dtype) for key, value in expected.items()}
    head = made["efficientnet._conv_head.weight"].shape[0]
    more = {"efficientnet._fc.weight": torch.zeros(1).expand(1, head), "efficientnet._fc.bias": torch.zeros(1)}
    return {f"module.{key}": value for key, value in {**made, **more}.items()}


def one_number(shape: torch.Size) -> torch.Tensor:
    return torch.tensor(0.5).expand(shape)


def test_released_detector_is_imported_key_by_key_and_finds_boxes(tmp_path, monkeypatch, capsys):
    state = released_state("b2", fill=lambda shape: torch.rand(shape) * 0.01)
    torch.save({"state_dict": state, "MAP": 0.35}, tmp_path / "detector.pth")
    monkeypatch.setattr(
        sys, "argv", ["training", "import", str(tmp_path / "detector.pth"), "--out", str(tmp_path / "d")]
    )
    main()
    assert "CC BY-NC-SA 4.0" in capsys.readouterr().out
    loaded = load_detector(tmp_path / "d", ("Mass",))
    own = loaded.detector.state_dict()
    assert {f"module.{key}" for key in own} == set(state) - {
        "module.efficientnet._fc.weight",
        "module.efficientnet._fc.bias",
    }
    assert all(torch.equal(value, state[f"module.{key}"]) for key, value in own.items())
    assert loaded.record["MAP"] == 0.35
    assert (loaded.input.height, loaded.input.width, loaded.reading.least_probability) == (512, 512, 0.2)
    (found,) = loaded.find(np.random.default_rng(0).integers(0, 255, (1, 64, 64), dtype=np.uint8))
    assert found.boxes.shape == (len(found.classes), 4)


def test_released_b5_detector_of_two_classes_is_recognised_by_shape(tmp_path):
    torch.save({"state_dict": released_state("b5", 2, one_number), "best_MAP": 0.3}, tmp_path / "detector.pth")
    read = import_checkpoint(tmp_path / "detector.pth", tmp_path / "d")
    assert (read.kind, read.variant, classes_of(read.state)) == ("detector", "b5", 2)
    assert read.record["best_MAP"] == 0.3
    card = (tmp_path / "d/card.md").read_text()
    assert f"{PUBLISHED_SIZE_PX} x {PUBLISHED_SIZE_PX}" in card
    with pytest.raises(CheckpointError, match=r"tells 2 classes apart.*--classes"):
        load_detector(tmp_path / "d", ("Mass",))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("fpn.P7_2.bias", "fpn.P7_2.bias is missing"),
        ("classificationModel.output.weight", "classificationModel.output.weight is missing"),
        ("regressionModel.conv5.weight", "regressionModel.conv5.weight is unexpected"),
    ],
)
def test_detector_whose_keys_differ_is_refused_and_nothing_is_written(tmp_path, key, words):
    state = released_state("b2", fill=one_number)
    state.pop(f"module.{key}", None) is not None or state.update({f"module.{key}": torch.zeros(1)})
    torch.save({"state_dict": state, "MAP": 0.3}, tmp_path / "detector.pth")
    with pytest.raises(CheckpointError, match=rf"detector.pth: does not fit: {words}"):
        import_checkpoint(tmp_path / "detector.pth", tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("name", ["detect-paper", "detect-corrected", "detect-small"])
def test_recipes_can_be_read(name):
    recipe = load_detection_recipe(ROOT / f"training/recipes/{name}.toml")
    assert recipe.name == name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels": '"all"'}, "network.levels is 'all'; there are published, strides"),
        ({"classes": '["Mass", "Mass"]'}, r"data.classes is \['Mass', 'Mass'\]"),
        ({"background": "0.6"}, "loss.matching: 0 < background <= positive < 1"),
        ({"height": "16"}, "less than 32 pixels"),
        ({"compile": "true"}, "keeping.compile"),
        ({"epochs": '"ten"'}, "epochs is 'ten', not int"),
    ],
)
def test_recipe_that_cannot_be_used_is_refused_by_its_key(tmp_path, changes, words):
    with pytest.raises(RecipeError, match=words):
        load_detection_recipe(write_recipe(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"classes": '["Lump"]'}, [], "error: data.classes: Lump: no such label; there are Architectural_Distortion,"),
        ({"classes": '["Suspicious_Calcification"]'}, [], "no training image has a box of Suspicious_Calcification"),
        ({"batch": "64"}, [], "error: 8 training images are fewer than a batch, 64"),
        ({"weights": '"given"'}, [], "error: the recipe leaves the encoder's weights to you: --encoder FOLDER"),
        ({"weights": '"imagenet"'}, [], "error: image: an encoder without an EfficientNet has no ImageNet weights"),
        ({}, ["--encoder", "somewhere"], 'error: --encoder somewhere: the recipe takes weights "random"'),
        ({"phantom_exams": "900"}, [], "4 of 900 training exams are rendered"),
    ],
)
def test_bad_input_ends_with_words_alone(tmp_path, phantoms, monkeypatch, changes, more, words):
    recipe = write_recipe(tmp_path, **changes)
    given = ["--recipe", recipe, "--data", f"phantoms={phantoms}", "--out", tmp_path / "run", *more]
    with pytest.raises(SystemExit) as ended:
        detect(monkeypatch, *given, "--cache", phantoms / "decoded")
    assert words in str(ended.value)


def test_folder_that_holds_no_detector_is_refused_by_kind(tmp_path):
    (tmp_path / "model.json").write_text('{"kind": "pretrained"}')
    with pytest.raises(CheckpointError, match=r"holds a model of kind pretrained, not a detector"):
        load_detector(tmp_path)
