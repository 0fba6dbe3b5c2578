"""`python -m training probe` and `zero-shot`: from a table and a model's folder to a report."""

import csv
import json
import sys
from pathlib import Path

import pytest

from tests.training.mammo_clip.tiny_runs import write_recipe
from tests.training.mammo_clip.tiny_sets import write_phantoms, write_vindr
from training.__main__ import main
from training.mammo_clip.building import build_model, save_model
from training.mammo_clip.pretraining_recipe import load_pretraining_recipe
from training.mammo_clip.probing import load_probe
from training.mammo_clip.vocabulary import VOCABULARY, own_tokenizer

PROBE = """
name = "tiny-probe"
labels = ["Mass", "density"]
units = ["image", "breast", "exam"]
fractions = [0.5, 1.0]
fraction_seeds = [1]
sampled = "patients"
phantom_first_training_exam = 0
[data]
rows = "image"
validation_share = 0.3
phantom_training_exams = 12
phantom_validation_exams = 8
phantom_calibration_exams = 8
phantom_test_exams = 8
[encoding]
image_size = [0, 0]
batch = 16
precision = "float32"
[fitting]
learning_rate = 0.05
weight_decays = [0, 0.1]
epochs = 150
patience = 20
rows_at_once = 0
schedule = "constant"
positive_weight = "balanced"
seed = 0
"""
ZERO_SHOT = """
name = "tiny-prompts"
labels = ["Mass", "density"]
units = ["image", "exam"]
prompts = ["published", "phrases"]
scorings = ["published", "calibrated"]
""" + PROBE[PROBE.index("[data]") : PROBE.index("[fitting]")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run's checkpoint with weights as they were drawn."""
    folder = tmp_path_factory.mktemp("model")
    recipe = load_pretraining_recipe(write_recipe(folder))
    built = build_model(recipe, len(own_tokenizer().ids))
    save_model(folder, built, recipe, VOCABULARY, {"data": {"sources": "phantoms"}})
    return folder


@pytest.fixture(scope="module")
def vindr(tmp_path_factory):
    return write_vindr(tmp_path_factory.mktemp("vindr"), exams=45)


def command(monkeypatch, name: str, recipe: str, model: Path, source: str, out: Path, *more: object) -> dict:
    """Run it and give its report."""
    out.mkdir(exist_ok=True)
    path = out.parent / f"{out.name}.toml"
    path.write_text(recipe, encoding="utf-8")
    options = ["--recipe", path, "--model", model, "--data", source, "--out", out, *more]
    monkeypatch.setattr(sys, "argv", ["training", name, *map(str, options)])
    main()
    return json.loads((out / "report.json").read_text())


def figures(report: dict, section: int = -1) -> dict:
    """By (what, figure, unit, note)."""
    rows = report["sections"][section]["figures"]
    return {(row["what"], row["figure"], row["unit"]): row for row in rows}


def test_probe_reports_each_fraction_by_unit_on_test_rows(monkeypatch, tmp_path, model, vindr, capsys):
    report = command(monkeypatch, "probe", PROBE, model, vindr, tmp_path / "out")
    assert [section["title"] for section in report["sections"]] == [
        "Linear probe, 50% of the training patients, drawn by seed 1",
        "Linear probe, 100% of the training patients",
    ]
    found = figures(report)
    image, breast, exam = (found["Mass", "AUC", unit] for unit in ("image", "breast", "exam"))
    assert [row["n"] for row in (image, breast, exam)] == [60, 30, 15]
    assert [row["positives"] for row in (image, breast, exam)] == [10, 5, 5]
    assert image["value"] > 0.9
    assert (image["method"], exam["method"]) == ("bootstrap by patient, 2000 draws", "DeLong, one row a patient")
    assert found["density", "macro AUC", "exam"]["value"] > 0.6
    assert "commonest class" in found["density", "accuracy", "image"]["note"]
    assert found["Mass, view CC", "AUC", "image"]["n"] == 30
    assert report["facts"]["calibrated on"] == "validation rows"
    assert "Mass AUC by image" in capsys.readouterr().out
    heads, record = load_probe(tmp_path / "out/probe-100-seed-1")
    assert set(heads) == {"Mass", "density"}
    assert record["encoder"]["kind"] == "own"
    assert record["calibration"]["Mass"]["n"] > 0
    with (tmp_path / "out/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert sum(row["truth"] == "1" for row in rows) == 10


def test_a_change_of_test_labels_changes_no_head(monkeypatch, tmp_path, model):
    heads = []
    for name in ("as-it-is", "turned"):
        source = write_vindr(tmp_path / name, exams=45) if (tmp_path / name).mkdir() is None else ""
        table = tmp_path / name / "vindr.csv"
        if name == "turned":
            lines = table.read_text().splitlines()
            turned = [line.replace(",0,1,0", ",1,0,0") if ",test," in line else line for line in lines]
            assert turned != lines
            table.write_text("\n".join(turned))
        command(monkeypatch, "probe", PROBE, model, source, tmp_path / f"out-{name}", "--cache", tmp_path / "cache")
        heads.append((tmp_path / f"out-{name}/probe-100-seed-1/probe.safetensors").read_bytes())
    assert heads[0] == heads[1]


def test_phantoms_are_calibrated_on_their_own_split(monkeypatch, tmp_path, model):
    source = write_phantoms(tmp_path / "phantoms")
    probe = command(monkeypatch, "probe", PROBE, model, source, tmp_path / "probe", "--cache", tmp_path / "cache")
    assert probe["facts"]["calibrated on"] == "calibration rows"
    assert probe["facts"]["rows read"] == "training 48, validation 32, calibration 32, test 32"
    assert figures(probe)["Mass", "AUC", "image"]["value"] > 0.9


def test_zero_shot_reports_both_scorings_for_each_set_of_prompts(monkeypatch, tmp_path, model, vindr):
    report = command(monkeypatch, "zero-shot", ZERO_SHOT, model, vindr, tmp_path / "out")
    assert [section["title"] for section in report["sections"]] == [
        "Zero-shot, prompts: published",
        "Zero-shot, prompts: phrases",
    ]
    rows = report["sections"][0]["figures"]
    raw, calibrated = (
        [row for row in rows if (row["what"], row["figure"], row["unit"]) == ("Mass", "AUC", "image")][index]
        for index in (0, 1)
    )
    assert (raw["note"], calibrated["note"]) == ("softmax of raw cosines", "")
    assert raw["value"] == pytest.approx(calibrated["value"], abs=1e-3)
    assert {row["figure"] for row in rows if row["what"] == "density"} == {
        "accuracy", "balanced accuracy", "macro F1", "macro AUC",
    }  # fmt: skip
    assert (tmp_path / "out/left-out.txt").read_text() == "density: no prompts in the set phrases\n"
    source = write_phantoms(tmp_path / "phantoms", training=0, others=4)
    few = ZERO_SHOT.replace("_exams = 8", "_exams = 4")
    phantoms = command(monkeypatch, "zero-shot", few, model, source, tmp_path / "second", "--report-on", "validation")
    assert phantoms["sections"][0]["title"] == "Text-prompted, prompts: published"
    assert phantoms["facts"]["figures of"] == "validation rows"


@pytest.mark.parametrize(
    ("name", "recipe", "words"),
    [
        ("probe", PROBE.replace('"Mass"', '"Tumour"'), r"no row tells Tumour; labels there: .*Mass"),
        ("probe", PROBE.replace('"breast"', '"woman"'), r"units is 'woman'; there are row, image, breast, exam"),
        ("probe", PROBE.replace('"breast"', '"row"'), r'"row" is reported where data\.rows is "row"'),
        ("probe", PROBE.replace("[0.5, 1.0]", "[5]"), r"fractions holds 5\.0"),
        ("probe", PROBE.replace("patience", "patiense"), r"unknown key patiense"),
        ("probe", PROBE.replace('"balanced"', '"heavy"'), r"positive_weight is 'heavy'; there are none, balanced"),
        ("zero-shot", ZERO_SHOT.replace('"phrases"', '"mine"'), r"prompts is 'mine'; there are published, grammar"),
        ("zero-shot", ZERO_SHOT.replace('"calibrated"', '"raw"'), r"scorings is 'raw'; there are published, calib"),
    ],
)
def test_a_wrong_recipe_ends_with_words_alone(monkeypatch, tmp_path, model, vindr, name, recipe, words):
    with pytest.raises(SystemExit, match=rf"^error: .*{words}"):
        command(monkeypatch, name, recipe, model, vindr, tmp_path / "out")


def test_a_missing_model_and_a_source_without_test_rows_end_with_words_alone(monkeypatch, tmp_path, model):
    source = write_phantoms(tmp_path / "phantoms", training=12, others=8)
    with pytest.raises(SystemExit, match=r"^error: .*none: no such folder"):
        command(monkeypatch, "probe", PROBE, tmp_path / "none", source, tmp_path / "out")
    untested = PROBE.replace("phantom_test_exams = 8", "phantom_test_exams = 0")
    with pytest.raises(SystemExit, match=r"^error: .*has no rows of the split test"):
        command(monkeypatch, "probe", untested, model, source, tmp_path / "out")
