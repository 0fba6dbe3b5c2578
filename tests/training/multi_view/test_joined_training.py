"""Training of the blocks across the views, the joined export with both parents, and the comparison of the three."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from node.inference.openvino_model import OpenVinoModel
from node.settings import InferenceSettings
from tests.training.mammo_clip import tiny_served
from training.mammo_clip.factor import HeatSettings
from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.served_export import MODELS, Source
from training.mammo_clip.served_heads import HeadInputs, ServedHeads
from training.mammo_clip.served_summaries import ClipSummaries, pieces
from training.mammo_clip.served_training import aucs_of
from training.multi_view.joined_exams import ExamRule, ExamsPart, chosen_seeds, conspicuity, try_rules
from training.multi_view.joined_export import JOINED, PARENT_A, PARENT_B, join
from training.multi_view.joined_figures import compared, decision, rule_of, said_in_words
from training.multi_view.joined_model import JoinedInputs
from training.multi_view.joined_recipe import load_joined_recipe
from training.multi_view.joined_training import Rows, judged, train_network, validation_loss
from training.phantoms import CALIBRATION_SEED, TRAIN_SEED, VALIDATION_SEED, make_exam
from training.served_model import read_contract

RECIPE = Path(__file__).parents[3] / "training/recipes/joined.toml"
CHANNELS, TOKENS, FINDINGS = 6, 12, 4


def tiny_recipes():
    joined, served = load_joined_recipe(RECIPE)
    learning = replace(joined.learning, first_exam=0, exams=30, epochs=2, batch=10, precision="float32")
    network = replace(joined.network, width=16, heads=2, mlp_width=32, global_blocks=1, parent_local_blocks=1)
    tokens = replace(joined.tokens, rows=4, columns=3)
    heads = replace(served.heads, first_exam=0, exams=24, folds=2, penalties=(1.0, 10.0), steps=20, batch=8)
    splits = replace(served.splits, validation=12, calibration=12)
    return (
        replace(joined, seeds=1, learning=learning, network=network, tokens=tokens),
        replace(served, seeds=1, heads=heads, splits=splits),
    )


def planted(count, seed):
    """Exams with a bright token in both views of the right breast (malignant) or in one of each (not)."""
    made = torch.Generator().manual_seed(seed)
    tokens = 0.1 * torch.rand(count, 4, TOKENS, CHANNELS, generator=made)
    place = torch.randint(TOKENS, (count,), generator=made)
    malignant, rows = torch.rand(count, generator=made) < 0.5, torch.arange(count)
    tokens[rows, 0, place, 2] = 1.0
    tokens[rows, torch.where(malignant, 2, 3), place, 2] = 1.0
    findings = torch.zeros(count, 4, FINDINGS, dtype=torch.bool)
    findings[:, 0, 0] = True
    breasts = torch.stack([malignant, torch.zeros_like(malignant)], dim=1)
    blank = torch.zeros(count, 4, FINDINGS + 1)
    rings = torch.zeros(count, 4, FINDINGS, 20)
    half = tokens.half()
    data = ClipSummaries(
        rows, blank, blank, blank, blank[..., 1:, None, None], blank[..., 1:], rings, findings, breasts, rows % 4, half
    )
    return Rows(data, JoinedInputs(blank, blank, blank[..., 1:], rings, half))


def learning_recipe(**changes):
    recipe = tiny_recipes()[0]
    settings = {"epochs": 45, "patience": 45, "batch": 32, "learning_rate": 3e-3, "view_dropout": 0.0}
    learning = replace(recipe.learning, **({**settings, "token_dropout": 0.0, "average_decay": 0.9} | changes))
    return replace(recipe, learning=learning, network=replace(recipe.network, dropout=0.0))


def test_blocks_learn_what_no_view_shows_alone():
    trained = train_network(planted(160, 1), planted(80, 2), None, learning_recipe(), 1)
    assert trained.validation["exam"] > 0.95
    assert trained.loss < trained.losses[0]


def test_what_only_gets_worse_stays_system_a():
    heads = ServedHeads(CHANNELS, FINDINGS, hidden=4).eval()
    validation = planted(20, 2)
    recipe = learning_recipe(learning_rate=30.0, epochs=2, average_decay=0.0)
    trained = train_network(planted(40, 1), validation, heads, recipe, 1)
    assert trained.epoch == 0
    own = heads(_head_inputs(validation), torch.ones(20, 4, dtype=torch.bool))
    for mine, theirs in zip(judged(trained.heads, validation), own, strict=True):
        assert torch.equal(mine, theirs)


def _head_inputs(rows):
    return HeadInputs(*rows.inputs[:-1])


def test_training_follows_its_seed_and_stops_when_validation_does_not_get_better():
    rows, recipe = planted(40, 1), learning_recipe(epochs=8, patience=2, batch=10)
    first, second, other = (train_network(rows, planted(20, 2), None, recipe, seed) for seed in (1, 1, 2))
    assert first.losses == second.losses
    assert first.losses != other.losses
    assert len(first.losses) <= first.epoch + 3


def test_bfloat16_trains_the_same_network():
    rows, recipe = planted(32, 1), learning_recipe(epochs=2, precision="bfloat16")
    trained = train_network(rows, rows, None, recipe, 1)
    assert {value.dtype for value in trained.heads.parameters()} == {torch.float32}
    assert np.isfinite(trained.loss)


def test_pieces_are_cut_at_hundreds_so_that_splits_share_them():
    assert pieces(2450, 250) == [(2450, 50), (2500, 100), (2600, 100)]
    assert pieces(1_000_000, 150) == [(1_000_000, 100), (1_000_100, 50)]
    assert pieces(10, 5) == [(10, 5)]


def test_a_rule_reads_what_the_generator_put_there():
    exams = [make_exam(seed) for seed in range(60)]
    benign = [one for one in exams if one.lesions and not one.malignant]
    assert all(ExamRule(0.0, 0.0).takes(one) for one in exams if one not in benign)
    assert not any(ExamRule(0.0, 0.0).takes(one) for one in benign)
    few, more = ([one.seed for one in exams if ExamRule(0.0, share).takes(one)] for share in (0.3, 0.7))
    assert set(few) < set(more)
    faint = min((one for one in exams if one.malignant), key=conspicuity)
    assert not ExamRule(conspicuity(faint) + 0.01, 1.0).takes(faint)
    assert chosen_seeds(ExamRule(0.0, 1.0), 7, 3) == [7, 8, 9]


def test_a_chooses_the_first_rule_that_lets_it_reach_the_least_auc():
    part, seeds = ExamsPart(0.0, (1.0, 0.0), 0.9), range(60)
    exams = [make_exam(seed) for seed in seeds]
    malignant = np.array([one.malignant for one in exams])
    lesions = np.array([bool(one.lesions) for one in exams], np.float32)
    assert [one.rule.benign_share for one in try_rules(part, seeds, malignant.astype(np.float32), malignant)] == [1.0]
    tried = try_rules(part, seeds, lesions, malignant)
    assert [one.rule.benign_share for one in tried] == [1.0, 0.0]
    assert tried[1].auc == 1.0
    assert tried[1].malignant == tried[0].malignant == malignant.sum()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("heads = 8", "heads = 7", "width 256 does not divide into 7 heads"),
        ("global_blocks = 2", "global_blocks = 0", "network.global_blocks: at least 1"),
        ('precision = "bfloat16"', 'precision = "half"', "learning.precision is 'half'"),
        ("dropout = 0.2", "dropuot = 0.2", "unknown key dropuot"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(tmp_path, old, new, words):
    text = RECIPE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "joined.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        load_joined_recipe(tmp_path / "joined.toml")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    for first, count in ((TRAIN_SEED, 30), (VALIDATION_SEED, 12), (CALIBRATION_SEED, 12)):
        tiny_served.fill(folder, first, count)
    return folder


@pytest.fixture(scope="module")
def joined(tmp_path_factory, cache):
    """The folder of the joined model and its parents, and what validation said."""
    model, out = tiny_served.loaded(tmp_path_factory.mktemp("run")), tmp_path_factory.mktemp("out")
    mapper, vocabulary = tiny_served.mapper(24), model.folder / "vocabulary.txt"
    source = Source(model, mapper, HeatSettings(), vocabulary, None, torch.rand(24, 4))
    return out, join(source, tiny_recipes(), cache, out)


def contract(folder, name="exam_encoder"):
    return read_contract(folder / name / "1" / "model.onnx")


def test_the_joined_model_is_whole_and_the_node_takes_it(joined):
    out, record = joined
    for name in MODELS:
        assert (out / JOINED / name / "config.pbtxt").is_file()
        assert (out / PARENT_A / name / "config.pbtxt").is_file()
    model = OpenVinoModel(InferenceSettings("openvino", out / JOINED / "exam_encoder", "f32", 1, "", "", 1.0, 1))
    assert model.contract.weights_hash == record[JOINED]["weights_hash"]["exam_encoder"]
    assert model.contract.version == record["recipe"]["version"]
    assert contract(out / PARENT_B)["calibration"] == record[PARENT_B]["calibration"]


def test_the_three_share_text_space_and_cells(joined):
    out, _ = joined
    mine = contract(out / JOINED)
    for other in (contract(out / PARENT_A), contract(out / PARENT_B), contract(out / JOINED, "exam_query")):
        for key in ("text_space", "heatmap_stride", "heatmap_offset", "input_shape", "views"):
            assert other[key] == mine[key]


def test_what_validation_said_is_kept(joined):
    out, record = joined
    kept = json.loads((out / "validation.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(record))
    assert kept["ship"] in (JOINED, PARENT_A)
    assert set(kept[JOINED]["seeds"]) == {"1"}
    assert kept["test_set"][-1]["exams"] <= 30 - 24 + 12
    assert set(kept[PARENT_A]) == set(kept[JOINED]["seeds"]["1"]["validation"])


@pytest.fixture(scope="module")
def table(joined, cache, tmp_path_factory):
    work = tmp_path_factory.mktemp("figures")
    return compared(joined[0], cache, ("validation", 9), ExamRule(0.0, 1.0), work, 1)


def test_figures_compare_the_served_files_with_both_parents(table, joined):
    out, _ = joined
    assert table["exams"] == 9
    assert table[PARENT_A]["weights_hash"] == contract(out / PARENT_A)["weights_hash"]
    for parent in (PARENT_A, PARENT_B):
        assert {"auc: exam, malignant", "auc: breast, malignant", "auc: view, findings"} <= set(
            table[f"{JOINED} less {parent}"]
        )
    located = {name: one for name, one in table[f"{JOINED} less {PARENT_A}"].items() if "pointing" in name}
    assert len(located) == 4
    assert all(one["value"] in (0.0, None) for one in located.values())


def test_few_exams_ship_system_a_and_the_words_say_why(table):
    assert table["decision"]["ship"] == PARENT_A
    lines = said_in_words(table)
    assert "no: 2000 exams at least" in lines
    assert lines[-1] == "System A ships, the joined encoder does not"


def test_the_joined_encoder_ships_where_all_conditions_hold():
    figure = {"value": 0.03, "low": 0.01, "high": 0.05}
    less = {"auc: exam, malignant": figure, "mass: pointing": {"value": 0.0, "low": -0.01, "high": 0.01}}
    table = {
        "exams": 2000,
        PARENT_A: {"auc": {"exam, malignant": {"value": 0.85}}},
        f"{JOINED} less {PARENT_A}": less,
        f"{JOINED} less {PARENT_B}": less,
    }
    assert decision(table)["ship"] == JOINED
    for changed in (
        table | {"exams": 1999},
        table | {PARENT_A: {"auc": {"exam, malignant": {"value": 0.79}}}},
        table | {f"{JOINED} less {PARENT_B}": {"auc: exam, malignant": figure | {"low": 0.0}}},
        table | {f"{JOINED} less {PARENT_A}": less | {"mass: pointing": {"low": -0.03}}},
    ):
        assert decision(changed)["ship"] == PARENT_A


def test_the_rule_is_that_of_the_record_unless_another_is_asked(joined, tmp_path):
    out, record = joined
    assert rule_of(out, None, None) == ExamRule(**record["test_set"][-1]["rule"])
    assert rule_of(out, 0.5, 0.2) == ExamRule(0.5, 0.2)
    with pytest.raises(CheckpointError, match="no joined model"):
        rule_of(tmp_path, None, None)


def test_aucs_of_the_record_are_those_of_the_rows():
    rows = planted(20, 2)
    trained = train_network(planted(40, 1), rows, None, learning_recipe(epochs=3, batch=10), 1)
    np.testing.assert_equal(trained.validation, aucs_of(judged(trained.heads, rows), rows.data))
    assert trained.loss == pytest.approx(validation_loss(trained.heads, rows), abs=2e-3)
