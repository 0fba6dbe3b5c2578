"""`python -m training evaluate --data ...`: one pass, parts that are kept, figures of where on planted lesions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.mammo_clip import planted
from training.__main__ import main
from training.mammo_clip import one_pass
from training.mammo_clip.factor import HeatSettings, SharedMapper
from training.mammo_clip.factor_folder import save_baselines, save_mapper
from training.mammo_clip.film_exams import load_exams
from training.mammo_clip.images import PhantomView
from training.mammo_clip.labelled_images import LabelledImage, Reading
from training.mammo_clip.loading import load_model
from training.mammo_clip.location_figures import lowest_point, shows_nothing
from training.mammo_clip.location_views import ellipses
from training.mammo_clip.one_pass import Pass, pass_over

FINDINGS = {name: [] for name in ("Mass", "Suspicious_Calcification", "Architectural_Distortion", "Focal_Asymmetry")}
RECIPE = """
name = "tiny-report"
parts = ["prompts", "location", "page"]
labels = ["Mass", "Suspicious_Calcification", "Architectural_Distortion", "Focal_Asymmetry", "cancer", "density"]
units = ["image", "exam"]
prompts = ["phrases", "grammar"]
[data]
rows = "image"
validation_share = 0.1
phantom_validation_exams = 32
phantom_calibration_exams = 6
phantom_test_exams = 8
[images]
image_size = [0, 0]
crop_px = 64
preset = ""
batch = 8
precision = "float32"
[location]
baseline_exams = 2
[page]
views_a_label = 1
normal_views = 1
seed = 0
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model with a channel for each finding, exams, and two seeds of an untrained mapper beside perfect weights."""
    folder = tmp_path_factory.mktemp("world")
    for first, count in ((1_000_000, 32), (2_000_000, 6), (3_000_000, 8)):
        planted.write_exams(folder / "cache", first, count)
    model = load_model(planted.write_model(folder / "model"))
    for seed in (0, 1):
        torch.manual_seed(seed)
        record = {"findings": FINDINGS, "model_weights": model.weights_hash, "seed": seed}
        mapper = SharedMapper(8, 16, 8)
        save_mapper(folder / "factor" / "seeds" / f"seed-{seed}", mapper, HeatSettings(), record)
        if seed == 0:
            save_mapper(folder / "factor", mapper, HeatSettings(), record)
    save_baselines(folder / "factor", {"fixed": torch.eye(8)[:, :4]})
    (folder / "report.toml").write_text(RECIPE)
    return folder


def run(monkeypatch, world, out, *more):
    words = ["--recipe", world / "report.toml", "--model", world / "model", "--data", f"phantoms={world / 'cache'}"]
    words += ["--factor", world / "factor", "--out", out, *more]
    monkeypatch.setattr(sys, "argv", ["training", "evaluate", *map(str, words)])
    main()
    return json.loads((out / "report.json").read_text())


def rows_of(report, figure):
    return [row for section in report["sections"] for row in section["figures"] if row["figure"] == figure]


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        return out, run(patch, world, out)


def test_every_figure_stands_with_unit_number_and_method(made):
    _, report = made
    rows = [row for section in report["sections"] for row in section["figures"]]
    assert len(rows) > 40
    assert all(row["unit"] and row["n"] > 0 and row["method"] for row in rows)
    assert {row["unit"] for row in rows_of(report, "AUC")} == {"image", "exam"}


def test_phantoms_are_never_called_zero_shot(made):
    out, _ = made
    text = (out / "report.md").read_text()
    assert "text-prompted" in text
    assert "zero-shot" not in text.lower()


def test_weights_that_know_the_lesions_point_at_them_and_all_seeds_are_shown(made):
    _, report = made
    pointing = {row["what"]: row for row in rows_of(report, "pointing")}
    assert pointing["Mass, fixed weights of channels"]["value"] == 1.0
    assert {"Mass, FActOR seed 0", "Mass, FActOR seed 1"} <= set(pointing)
    assert "the one chosen" in pointing["Mass, FActOR seed 0"]["note"]
    assert pointing["Mass, true mask in the same cells"]["value"] == 1.0
    assert 0 < pointing["Mass, FActOR seed 0"]["chance"] < 0.2


def test_marks_on_normal_views_are_counted_where_an_operating_point_could_be_chosen(made):
    _, report = made
    marks = rows_of(report, "marks per normal view")
    assert {row["what"].split(",")[0] for row in marks} == {*FINDINGS, "all findings"}
    assert "validation" in marks[0]["note"]


def test_plots_and_page_are_there_and_named_in_the_report(made):
    out, report = made
    names = [name for section in report["sections"] for name, _ in (*section["pictures"], *section["links"])]
    assert {"phantoms-prompts-roc.png", "phantoms-froc.png", "phantoms-heat/heatmaps.html"} <= set(names)
    for name in names:
        assert (out / name).stat().st_size > 1000
        assert name in (out / "report.md").read_text()


def test_a_second_run_makes_nothing_again(made, world, monkeypatch, capsys):
    out, before = made
    monkeypatch.setattr(one_pass, "_encode", lambda *_: pytest.fail("an image was encoded again"))
    assert run(monkeypatch, world, out)["sections"] == before["sections"]
    assert capsys.readouterr().out.count("kept from before") == 3


def test_a_mapper_of_another_model_is_refused_in_words(world, tmp_path, monkeypatch):
    record = {"findings": FINDINGS, "model_weights": "0" * 64, "seed": 0}
    save_mapper(tmp_path / "other", SharedMapper(8, 16, 8), HeatSettings(), record)
    with pytest.raises(SystemExit, match="trained on other weights"):
        run(monkeypatch, world, tmp_path / "out", "--factor", tmp_path / "other")


def test_a_served_model_without_its_folders_is_an_error_of_the_command(world, monkeypatch, capsys):
    words = ["evaluate", "--recipe", str(world / "report.toml"), "--model", "m", "--out", "o"]
    monkeypatch.setattr(sys, "argv", ["training", *words])
    with pytest.raises(SystemExit):
        main()
    assert "give --data" in capsys.readouterr().err


def test_a_pass_that_was_stopped_goes_on_and_ends_with_the_same_numbers(world, tmp_path, monkeypatch):
    model = load_model(world / "model")
    files = sorted((world / "cache").glob("*-300000*.npz"))[:4]
    pictures = [PhantomView(path, view) for path in files for view in range(4)]
    settings = Pass(model, (planted.HEIGHT, planted.WIDTH), {"all": lambda maps: maps[:, :2]}, "", batch=4)
    whole = pass_over(settings, pictures, tmp_path / "whole")
    monkeypatch.setattr(one_pass, "_SAVE_EVERY", 1)
    encode, count = one_pass._encode, []

    def stops(*arguments):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        encode(*arguments)

    monkeypatch.setattr(one_pass, "_encode", stops)
    with pytest.raises(KeyboardInterrupt):
        pass_over(settings, pictures, tmp_path / "broken")
    again = pass_over(settings, pictures, tmp_path / "broken")
    assert len(count) == 5
    assert np.array_equal(again.pooled, whole.pooled)
    assert np.array_equal(again.heat["all"], whole.heat["all"])


def test_the_operating_point_is_the_lowest_that_keeps_to_the_marks():
    rng = np.random.default_rng(0)
    logits, marks = np.round(rng.standard_normal(60), 1), rng.integers(0, 3, 60).astype(float)
    found = lowest_point(logits, marks, 0.3)
    made = {value: marks[logits >= value].sum() / 60 for value in logits}
    assert made[found] <= 0.3
    assert all(share > 0.3 for value, share in made.items() if value < found)
    assert lowest_point(np.zeros(10), np.ones(10), 0.3) > 0.0


def test_a_circle_in_its_box_covers_what_a_circle_covers():
    mask = ellipses([(10.0, 20.0, 50.0, 60.0)], (80, 70))
    assert mask.sum() == pytest.approx(np.pi * 20**2, rel=0.01)
    assert (mask[40, 10], mask[20, 10]) == (True, False)


def test_normal_exams_have_none_of_the_labels_and_the_others_tell_nothing(tmp_path):
    (tmp_path / "exams").mkdir()
    views = {}
    for name in ("RCC", "LCC", "RMLO", "LMLO"):
        Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "exams" / f"{name}.png")
        views[name] = f"exams/{name}.png"
    entries = [
        {"exam": "a", "kind": "film", "views": views, "labels": {"outcome": "normal"}},
        {"exam": "b", "kind": "RIGHT VIEWS MIRRORED", "views": views, "labels": {}},
    ]
    (tmp_path / "exams" / "exams.json").write_text(json.dumps(entries))
    images = load_exams(tmp_path / "exams", Reading(preset="fit-76x48")).images
    assert [image.labels["Mass"] for image in images] == [False] * 4 + [None] * 4
    assert [image.picture.laterality for image in images[4:]] == [None] * 4


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"Mass": False, "No_Finding": True}, True),
        ({"Mass": False, "cancer": True}, True),
        ({"Mass": False, "Asymmetry": True}, False),
        ({"Mass": None, "cancer": False}, False),
    ],
)
def test_a_view_is_normal_where_something_is_told_and_nothing_is_there(labels, wanted):
    image = LabelledImage(PhantomView(Path("a"), 0), "row", "patient", "exam", None, None, labels)
    assert shows_nothing(image) is wanted
