"""Controlled runs: exams and their seeds, tokens, the recipe, differences, and a table from start to end."""

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.multi_view.tiny_cases import write_cases, write_clip
from training.__main__ import main
from training.mammo_clip.pretraining_recipe import RecipeError
from training.multi_view import controlled_exams
from training.multi_view.clip import Clip
from training.multi_view.clip_tokenizer import OWN_VOCABULARY, load_clip_tokenizer
from training.multi_view.controlled_exams import (
    ORDINARY,
    TWO_BREASTS,
    TWO_VIEWS,
    ExamRecord,
    ExamStore,
    Mark,
    Wanted,
    exam_of,
    record_of,
    render_store,
    shrunk,
)
from training.multi_view.controlled_recipe import load_controlled_recipe
from training.multi_view.controlled_table import NO_DIFFERENCE, SMALL, bootstrapped, groups_of
from training.multi_view.controlled_tokens import left_out, seen_views
from training.multi_view.own_vit import frozen_tokens, own_config, pooled_to
from training.multi_view.own_vit_training import Views, known_phrases
from training.phantoms.lesions import DistractorKind

SHIPPED = Path(__file__).parents[3] / "training/recipes/controlled-runs.toml"
_EDITS = (
    ("seeds = 3", "seeds = 2"),
    ("draws = 2000", "draws = 50"),
    ("patch = 16", "patch = 8"),
    ("width = 192", "width = 32"),
    ("layers = 12", "layers = 4"),
    ("heads = 3", "heads = 2"),
    ("text_layers = 3", "text_layers = 1"),
    ("text_width = 128", "text_width = 16"),
    ("embed_dim = 128", "embed_dim = 16"),
    ("cached_blocks = 6", "cached_blocks = 2"),
    ("size = 448", "size = 32"),
    ("\ntraining = 600", "\ntraining = 16"),
    ("validation = 150", "validation = 12"),
    ("test = 2000", "test = 16"),
    ("pretraining = 1600", "pretraining = 12"),
    ("epochs = 8", "epochs = 1"),
    ("epochs = 6", "epochs = 1"),
    ("batch = 32", "batch = 8"),
    ("batch = 16", "batch = 8"),
    ("global_blocks = 6", "global_blocks = 2"),
    ("size = 224", "size = 32"),
)
ARMS = """
[arms.four-views]
missing = true
[arms.CC]
views = "CC"
[arms.early]
global_blocks = 4
[arms.none]
adapters = "none"
[contrasts."four views against CC"]
first = "four-views"
second = "CC"
groups = ["all", "needs two views"]
[contrasts."early against late"]
first = "early"
second = "four-views"
groups = ["all"]
"""


def tiny_recipe(path, *edits):
    text = SHIPPED.read_text(encoding="utf-8")
    text = text[: text.index("[arms.four-views]")] + ARMS
    for old, new in (*_EDITS, *edits):
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_recipe_loads_and_its_seeds_are_its_own():
    recipe = load_controlled_recipe(SHIPPED)
    exams = recipe.exams
    ranges = [
        range(first, first + count)
        for first, count in (
            (exams.training_seed, exams.training),
            (exams.validation_seed, exams.validation),
            (exams.test_seed, exams.test),
            (exams.pretraining_seed, exams.pretraining),
        )
    ]
    pairs = [range(4 * one.start, 4 * one.stop) for one in ranges]
    every = sorted([*ranges, *pairs], key=lambda one: one.start)
    assert every[0].start >= 4_000_000
    assert all(one.stop <= other.start for one, other in pairwise(every))
    assert recipe.is_joint(recipe.arms["global-12"])
    assert recipe.sizes == (224, 448)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('views = "CC"', 'views = "LCC"', r"arms\.CC\.views is 'LCC'; there are all, CC, MLO"),
        ("global_blocks = 4", "global_blocks = 3", r"arms\.early\.global_blocks is 3; 0 to 2"),
        ("global_blocks = 4", "global_blocks = 4\nmissing = true", "have seen all views"),
        ('second = "CC"', 'second = "MLO"', "there is no arm 'MLO'"),
        ('adapters = "none"', 'adapter = "none"', "unknown key adapter"),
        ("pair_share = 0.5", "pair_share = 1.5", "pair_share from 0 to below 1"),
    ],
)
def test_a_recipe_that_does_not_hold_is_refused_by_its_key(tmp_path, old, new, words):
    with pytest.raises(RecipeError, match=words):
        load_controlled_recipe(tiny_recipe(tmp_path / "recipe.toml", (old, new)))


def test_half_of_the_exams_are_pairs_whose_positive_member_alone_has_the_lesion():
    groups = {ORDINARY: [], TWO_VIEWS: [], TWO_BREASTS: []}
    for number in range(24):
        group, exam = exam_of(4_000_000, number, 0.5)
        groups[group].append(exam)
    assert [len(found) for found in groups.values()] == [12, 6, 6]
    for group in (TWO_VIEWS, TWO_BREASTS):
        told = [record_of(0, group, exam, ()).positive for exam in groups[group]]
        assert told == [True, False] * 3
    shadows = [d for d in groups[TWO_VIEWS][1].distractors if d.kind is DistractorKind.SUMMATION_SHADOW]
    assert len(shadows) == 2
    assert {len(shadow.positions) for shadow in shadows} == {1}
    assert all(shadow.like.malignant for shadow in shadows)


def test_an_exam_without_pairs_is_the_ordinary_one_of_its_seed():
    assert exam_of(4_600_000, 5, 0.0)[1].seed == 4_600_005


def test_rendering_that_was_cut_off_goes_on_with_the_same_exams(tmp_path, monkeypatch):
    calls = []

    def drawn(seed, number, share, size):
        calls.append(number)
        planes = np.full((4, size, size), number, np.uint8)
        return planes, ExamRecord(seed + number, ORDINARY, False, 0.0, ("",) * 4, (), str(number))

    monkeypatch.setattr(controlled_exams, "render_exam", drawn)
    wanted = Wanted("test", 5, 4, 0.0)
    assert render_store(tmp_path, wanted, 4, lambda: len(calls) < 2) is None
    with next(tmp_path.glob("*.jsonl")).open("a") as file:
        file.write('{"seed": 7, "cut')
    store = render_store(tmp_path, wanted, 4, lambda: True)
    assert calls == [0, 1, 2, 3]
    assert store.planes[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert [record.seed for record in store.records] == [5, 6, 7, 8]


def test_a_rendered_exam_has_its_lesions_in_every_view_that_shows_them():
    planes, record = controlled_exams.render_exam(4_000_000, 1, 0.5, 64)
    assert record.group == TWO_VIEWS
    assert record.positive
    assert planes.shape == (4, 64, 64)
    assert len(record.marks) == 2
    for mark in record.marks:
        left, top, right, bottom = mark.box
        assert planes[mark.view, top:bottom, left:right].mean() > 20
        assert mark.phrase in known_phrases()
        assert "breast" in mark.sentence
    assert record.impressions.count("suspicious for malignancy") == 2


def test_the_half_size_is_the_mean_of_two_by_two():
    planes = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    assert shrunk(planes, 2).tolist() == [[[2, 4], [10, 12]]]


def view_store(count=8):
    marks = (Mark(0, "focal asymmetry", "a sentence", (4, 8, 12, 16)),)
    records = tuple(
        ExamRecord(n, ORDINARY, n % 2 == 0, 0.0, ("suspicious for malignancy", *["no suspicious finding"] * 3), marks)
        if n % 2 == 0
        else ExamRecord(n, ORDINARY, False, 0.0, ("no suspicious finding",) * 4, ())
        for n in range(count)
    )
    rng = np.random.default_rng(0)
    return ExamStore(rng.integers(0, 255, (count, 4, 32, 32), dtype=np.uint8), records)


def test_sentences_and_cells_of_a_batch_tell_the_truth(tmp_path):
    recipe = load_controlled_recipe(tiny_recipe(tmp_path / "recipe.toml"))
    views = Views(view_store(), recipe.pretraining, 32, 8, 0)
    batch = views.batch(np.array([0, 1]), None)
    said = [[s for s, true in zip(batch.sentences, row, strict=True) if true] for row in batch.truth.tolist()]
    assert "focal asymmetry" in said[0]
    assert "suspicious for malignancy" in said[0]
    assert said[1] == ["no suspicious finding"]
    cells = batch.cells[0, :, known_phrases().index("focal asymmetry")].view(4, 4)
    assert cells.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not batch.cells[1].any()


def test_half_of_a_training_batch_shows_a_lesion(tmp_path):
    recipe = load_controlled_recipe(tiny_recipe(tmp_path / "recipe.toml"))
    views = Views(view_store(), recipe.pretraining, 32, 8, 0)
    rows = views.rows_of(0)[0]
    assert sum(int(row) in views.with_lesion for row in rows) == 4
    assert not set(rows.tolist()) & set(views.validation.tolist())


def tiny_clip(tmp_path):
    recipe = load_controlled_recipe(tiny_recipe(tmp_path / "recipe.toml"))
    torch.manual_seed(0)
    return Clip(own_config(recipe.encoder, 32, load_clip_tokenizer(OWN_VOCABULARY).size)).eval()


def test_local_tokens_see_their_own_view_and_joint_ones_all(tmp_path):
    clip = tiny_clip(tmp_path)
    views = torch.rand(1, 4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    other, present = views.clone(), torch.ones(1, 4, dtype=torch.bool)
    other[:, 3] = 0.0
    for joint in (False, True):
        first, second = (frozen_tokens(clip, v, present, 2, 2, joint=joint) for v in (views, other))
        assert first.shape == (1, 4, 5, 32)
        assert torch.equal(first[:, :3], second[:, :3]) is not joint


def test_an_absent_views_pixels_reach_no_token(tmp_path):
    clip = tiny_clip(tmp_path)
    views = torch.rand(1, 4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    noisy, present = views.clone(), torch.tensor([[True, True, False, True]])
    noisy[:, 2] = float("nan")
    for joint in (False, True):
        first, second = (frozen_tokens(clip, v, present, 2, 2, joint=joint) for v in (views, noisy))
        assert torch.equal(first, second)
        assert not first[:, 2].any()


def test_pooling_keeps_the_class_token_and_takes_means_of_squares():
    tokens = torch.cat([torch.full((1, 1, 1), 9.0), torch.arange(16.0).view(1, 16, 1)], 1)
    assert pooled_to(tokens, 2).flatten().tolist() == [9.0, 2.5, 4.5, 10.5, 12.5]
    with pytest.raises(ValueError, match="does not pool to 3 x 3"):
        pooled_to(tokens, 3)


def test_views_that_a_test_leaves_out():
    present = np.ones((50, 4), bool)
    assert left_out(present, "one view").sum(1).tolist() == [3] * 50
    assert left_out(present, "CC").tolist() == [[False, False, True, True]] * 50
    assert seen_views(present, "CC").tolist() == [[True, True, False, False]] * 50
    breasts = left_out(present, "one breast")
    assert {tuple(row) for row in breasts.tolist()} == {(True, False, True, False), (False, True, False, True)}
    alone = np.array([[True, False, False, False]])
    assert left_out(alone, "CC").tolist() == alone.tolist()


def test_a_difference_of_equal_systems_is_no_difference_and_of_unequal_ones_is_seen():
    rng = np.random.default_rng(0)
    positive = np.tile([True, False], 150)
    weak = [rng.normal(size=300) + 0.5 * positive for _ in range(3)]
    strong = [one + 2.0 * positive for one in weak]
    patients = np.arange(300)
    same = bootstrapped(weak, [one * 3.0 for one in weak], positive, patients, 200)
    assert same.words == NO_DIFFERENCE
    assert same.value == 0.0
    seen = bootstrapped(strong, weak, positive, patients, 200)
    assert seen.words == "higher"
    assert 0.0 < seen.low < seen.value < seen.high
    assert bootstrapped(weak, strong, positive, patients, 200).words == "lower"


def test_the_seeds_widen_the_interval_where_they_disagree():
    rng = np.random.default_rng(0)
    positive = np.tile([True, False], 500)
    good, bad = rng.normal(size=1000) + 3.0 * positive, rng.normal(size=1000)
    mixed = bootstrapped([good, bad, bad], None, positive, np.arange(1000), 300)
    alone = bootstrapped([bad, bad, bad], None, positive, np.arange(1000), 300)
    assert mixed.high - mixed.low > 3 * (alone.high - alone.low)


def test_small_calcifications_are_tested_against_ordinary_negatives():
    told = [(ORDINARY, True, 9.0), (ORDINARY, True, 20.0), (ORDINARY, False, 0.0), (ORDINARY, True, 0.0)]
    told += [(TWO_VIEWS, True, 0.0), (TWO_VIEWS, False, 0.0)]
    records = tuple(ExamRecord(n, g, p, s, ("",) * 4, (), str(n)) for n, (g, p, s) in enumerate(told))
    groups = groups_of(ExamStore(np.zeros((6, 4, 1, 1), np.uint8), records), 14.0)
    assert groups[SMALL].tolist() == [0, 2]
    assert TWO_BREASTS not in groups


def write_rendered(cache, recipe):
    """Squares of noise where the command looks for rendered exams; positive ones are brighter in one view."""
    rng, exams = np.random.default_rng(3), recipe.exams
    cache.mkdir()
    for split, seed, count, share in (
        ("pretraining", exams.pretraining_seed, exams.pretraining, 0.0),
        ("training", exams.training_seed, exams.training, exams.pair_share),
        ("validation", exams.validation_seed, exams.validation, exams.pair_share),
        ("test", exams.test_seed, exams.test, exams.pair_share),
    ):
        name = f"{split}-{controlled_exams.GENERATOR_VERSION}-{seed}-{count}-{share:g}-{exams.size}"
        rng.integers(0, 200, (count, 4, exams.size, exams.size), dtype=np.uint8).tofile(cache / f"{name}.u8")
        records = view_store(count).records
        lines = []
        for number, record in enumerate(records):
            group = TWO_VIEWS if share and number % 4 > 1 else ORDINARY
            lines.append(json.dumps(asdict(record) | {"group": group, "patient": str(number)}) + "\n")
        (cache / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def run_command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["python -m training", "controlled-runs", *map(str, words)])
    main()


def test_a_table_from_start_to_end_in_two_evenings(tmp_path, monkeypatch, capsys):
    recipe, out = tiny_recipe(tmp_path / "recipe.toml"), tmp_path / "out"
    write_rendered(tmp_path / "cache", load_controlled_recipe(recipe))
    words = ("--recipe", recipe, "--data", f"phantoms={tmp_path / 'cache'}", "--out", out)
    run_command(monkeypatch, *words, "--only", "four-views")
    page = (out / "table.md").read_text()
    assert "Not run yet, or not with every seed: CC, early, none." in page
    assert "| four views against CC | four-views | CC | all | not run yet |  |" in page
    first = (out / "arms/four-views/seed-0/logits.npz").stat().st_mtime_ns
    run_command(monkeypatch, *words)
    assert (out / "arms/four-views/seed-0/logits.npz").stat().st_mtime_ns == first
    table = json.loads((out / "table.json").read_text())
    assert table["not run"] == []
    assert set(table["arms"]) == {"four-views", "CC", "early", "none"}
    assert [(q["question"], q["on"]) for q in table["questions"]] == [
        ("four views against CC", "all"),
        ("four views against CC", "needs two views"),
        ("early against late", "all"),
    ]
    assert {q["words"] for q in table["questions"]} <= {NO_DIFFERENCE, "higher", "lower"}
    assert set(table["missing"]["four-views"]) == {"one view", "CC", "MLO", "one breast"}
    assert table["arms"]["none"]["runs"][0]["learnt parameters"] == 0
    tiny_recipe(recipe, ("rank = 16", "rank = 8"))
    with pytest.raises(SystemExit, match=r"^error: .*differs in adapters"):
        run_command(monkeypatch, *words)


def test_a_budget_that_is_spent_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    recipe = tiny_recipe(tmp_path / "recipe.toml")
    write_rendered(tmp_path / "cache", load_controlled_recipe(recipe))
    words = ("--recipe", recipe, "--data", f"phantoms={tmp_path / 'cache'}", "--out", tmp_path / "out")
    run_command(monkeypatch, *words, "--budget-minutes", "0.000001")
    assert "start the same command again to go on" in capsys.readouterr().out


def test_the_same_recipe_runs_on_given_weights_and_a_table_of_cases(tmp_path, monkeypatch):
    edits = (
        ('kind = "own"', 'kind = "clip"'),
        ("layers = 4", "layers = 2"),
        ("cached_blocks = 2", "cached_blocks = 1"),
        ("global_blocks = 2", "global_blocks = 1"),
        ("global_blocks = 4", "global_blocks = 2"),
        ("pooled = 2", "pooled = 1"),
        ('"needs two views"', '"cases"'),
    )
    recipe, out = tiny_recipe(tmp_path / "recipe.toml", *edits), tmp_path / "out"
    data, clip = write_cases(tmp_path / "set", 40), write_clip(tmp_path / "clip")
    words = ("--recipe", recipe, "--data", data, "--out", out, "--clip", clip)
    words += ("--vocabulary", OWN_VOCABULARY, "--only", "four-views", "early")
    run_command(monkeypatch, *words)
    table = json.loads((out / "table.json").read_text())
    assert table["groups"] == {"all": {"exams": 8, "positive": 4}}
    assert set(table["arms"]) == {"four-views", "early"}
