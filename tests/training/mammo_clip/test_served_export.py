"""Heads, finishing and export of a tiny System A, and the figures of what was exported."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from node.inference.openvino_model import OpenVinoModel
from node.inference.query_contract import query_contract_from_json, text_contract_from_json
from node.mammography.findings import FINDING_KINDS
from node.settings import InferenceSettings
from tests.training.mammo_clip import tiny_served
from training.__main__ import main
from training.mammo_clip import served_export
from training.mammo_clip.breasts import DataError
from training.mammo_clip.factor import HeatSettings
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.served_export import MODELS, Source, export_models, parts_of
from training.mammo_clip.served_figures import Truth, differences, model_figures
from training.mammo_clip.served_recipe import load_served_recipe
from training.mammo_clip.served_rows import answered, rows_of
from training.mammo_clip.served_summaries import EvidenceGraph, summarise
from training.mammo_clip.served_training import fit_probes, target_truth, train_seeds
from training.phantoms import CALIBRATION_SEED, TEST_SEED, TRAIN_SEED, VALIDATION_SEED
from training.served_model import read_contract

RECIPE = Path(__file__).parents[3] / "training/recipes/served-second.toml"
NAMES = [kind.value for kind in FINDING_KINDS]


def tiny_recipe():
    recipe = load_served_recipe(RECIPE)
    heads = replace(recipe.heads, first_exam=0, exams=24, folds=2, penalties=(1.0, 10.0), steps=20, batch=8)
    return replace(recipe, seeds=2, heads=heads, splits=replace(recipe.splits, validation=12, calibration=12))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    for first, count in ((TRAIN_SEED, 24), (VALIDATION_SEED, 12), (CALIBRATION_SEED, 12), (TEST_SEED, 6)):
        tiny_served.fill(folder, first, count)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    model = tiny_served.loaded(tmp_path_factory.mktemp("run"))
    phrases = model.folder / "phrases.json"
    phrases.write_text("{}", encoding="utf-8")
    return Source(
        model, tiny_served.mapper(24), HeatSettings(), model.folder / "vocabulary.txt", phrases, torch.rand(24, 4)
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory, source, cache):
    """The folder of the three models, and what validation said."""
    folder = tmp_path_factory.mktemp("triton_models")
    return folder, export_models(source, tiny_recipe(), cache, folder / "work", folder)


def written(folder, name):
    return read_contract(folder / name / "1" / "model.onnx")


def test_the_node_takes_all_three(exported):
    folder, record = exported
    settings = InferenceSettings("openvino", folder / "exam_encoder", "f32", 1, "", "", 1.0, 1)
    model = OpenVinoModel(settings)
    assert [kind.value for kind in model.contract.findings] == NAMES
    assert model.contract.weights_hash == record["weights_hash"]["exam_encoder"]
    query = query_contract_from_json(json.dumps(written(folder, "exam_query")))
    words = text_contract_from_json(json.dumps(written(folder, "text_encoder")))
    assert model.contract.text_space == query.text_space == words.text_space
    assert query.embed_dim == words.embed_dim == tiny_served.EMBED_DIM
    vocabulary = (folder / "text_encoder/vocabulary.txt").read_bytes()
    assert words.vocabulary_hash == hashlib.sha256(vocabulary).hexdigest()


def test_the_folders_are_whole(exported):
    folder, _ = exported
    for name in MODELS:
        assert (folder / name / "config.pbtxt").is_file()
    assert (folder / "exam_encoder/labels.txt").read_text().split() == NAMES
    assert (folder / "text_encoder/phrases.json").is_file()


def test_what_validation_said_is_kept(exported):
    folder, record = exported
    kept = json.loads((folder / "work/validation.json").read_text())
    assert kept == json.loads(json.dumps(record))
    assert set(kept["heads"]) == {"1", "2"}
    assert str(kept["chosen_seed"]) in kept["heads"]
    assert set(kept["operating_points"]) == set(NAMES)
    contract = written(folder, "exam_encoder")
    assert contract["calibration"] == kept["calibration"]
    for name, point in contract["operating_points"].items():
        assert point == {key: kept["operating_points"][name][key] for key in ("probability", "heat")}


def test_a_split_without_a_finding_is_refused(source, cache, tmp_path):
    recipe = tiny_recipe()
    few = replace(recipe, heads=replace(recipe.heads, exams=1))
    with pytest.raises(DataError, match=r"heads: of 1 exams none shows mass, suspicious_calcification, .*malignancy"):
        export_models(source, few, cache, tmp_path / "work", tmp_path)


def test_exams_of_another_size_are_named(source, cache, tmp_path):
    sees = replace(source.model.input, preset="fit-64x48", height=64, width=48)
    views = tiny_served.views_of(source.model.dual, sees)
    with pytest.raises(DataError, match=r"phantom-.*npz: is 96 x 64 pixels, this model sees 64 x 48"):
        summarise(EvidenceGraph(views, 1), cache, tmp_path, (TRAIN_SEED, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory, source, cache):
    graph = EvidenceGraph(tiny_served.views_of(source.model.dual), 1)
    return summarise(graph, cache, tmp_path_factory.mktemp("work"), (TRAIN_SEED, 24))


def test_probes_judge_their_own_exams_by_probes_of_other_exams(data):
    probes = fit_probes(data, data, replace(tiny_recipe().heads, penalties=(1e-3,)))
    truth = target_truth(data)
    learnt = data.pooled @ probes.weight.T + probes.bias
    gap = [float(part[truth].mean() - part[~truth].mean()) for part in (learnt, probes.own)]
    assert probes.own.shape == truth.shape
    assert gap[0] > gap[1]


def test_heads_follow_their_seed_alone(data):
    recipe = tiny_recipe()
    probes, scale = fit_probes(data, data, recipe.heads), torch.ones(4)
    (first, second) = (train_seeds(data, data, probes, scale, recipe) for _ in range(2))
    assert [one.seed for one in first] == [one.seed for one in second]
    weights = {one.seed: one.heads.finding[0].weight for one in first}
    assert torch.equal(weights[1], {one.seed: one.heads.finding[0].weight for one in second}[1])
    assert not torch.equal(weights[1], weights[2])


def test_figures_count_what_was_exported(exported, cache):
    folder, _ = exported
    paths = tiny_served.fill(cache, TEST_SEED, 6)
    said = answered(folder / "exam_encoder", paths, folder / "work", 1)
    rows = rows_of(said, paths, bounds=True, threads=1)
    truth = Truth(paths)
    table = model_figures(said, truth, rows)
    assert table["exams"] == 6
    assert set(table["auc"]) == {"exam, malignant", "breast, malignant", *(f"view, {name}" for name in NAMES)}
    for kind, name in enumerate(NAMES):
        shown = sum(bool(tiny_served.exam(TEST_SEED + row).findings(4)[:, kind].sum()) for row in range(6))
        found = table["findings"][name]
        assert found["views that show it"] == int(truth.findings[..., kind].sum()) >= shown
        assert found["true mask in these cells, pointing"]["value"] == 1.0
        assert 0.0 < found["area chance of pointing"]["value"] < 0.2
    same = differences((said, rows), (said, rows), truth)
    assert all(figure["value"] in (0.0, None) for figure in same.values())
    json.dumps(table)


def test_answers_are_asked_for_once(exported, cache):
    folder, _ = exported
    paths = tiny_served.fill(cache, TEST_SEED, 6)
    first = answered(folder / "exam_encoder", paths, folder / "work", 1)
    (kept,) = (folder / "work").glob("answers-*.npz")
    before = kept.stat().st_mtime_ns
    again = answered(folder / "exam_encoder", paths, folder / "work", 1)
    assert kept.stat().st_mtime_ns == before
    assert np.array_equal(first.heat, again.heat)


def test_fixed_heat_wants_the_weights_of_the_mappers_folder(source):
    with pytest.raises(CheckpointError, match="has no fixed weights"):
        parts_of(replace(source, fixed=None), replace(tiny_recipe(), heat="fixed"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folds = 5", "folds = 1", "folds are 2 at least"),
        ('heat = "fixed"', 'heat = "sum"', "heat is 'sum'; there are mapper, fixed"),
        ("seeds = 3", "seeds = 0", "seeds: at least 1"),
        ("steps = 600", "pace = 600", "unknown key pace"),
        ("penalties = [10, 30, 100, 300, 1000, 3000]", "penalties = []", "penalties one at least"),
        ("positive = [", "positive = [] #", "malignancy: needs a positive"),
    ],
)
def test_a_recipe_that_cannot_be_used_names_the_key(tmp_path, old, new, message):
    text = RECIPE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "recipe.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        load_served_recipe(tmp_path / "recipe.toml")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    main()


def test_the_command_ends_with_words(monkeypatch, tmp_path):
    common = ("export", "--recipe", RECIPE, "--cache", tmp_path, "--out", tmp_path, "--run", tmp_path / "none")
    with pytest.raises(SystemExit, match="needs --mapper and --models"):
        run(monkeypatch, *common)
    with pytest.raises(SystemExit, match="no such folder"):
        run(monkeypatch, *common, "--mapper", tmp_path, "--models", tmp_path)


def test_the_common_hash_is_of_the_rounded_weights(exported, source):
    folder, _ = exported
    rounded = served_export.served_module(source.model.dual)
    vocabulary = source.vocabulary.read_bytes()
    assert written(folder, "exam_encoder")["text_space"] == served_export.text_space_of(rounded, vocabulary)
    assert not torch.equal(
        rounded.image_projection.projection.weight, source.model.dual.image_projection.projection.weight
    )
