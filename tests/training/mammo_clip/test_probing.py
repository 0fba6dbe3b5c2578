"""Heads on frozen features: what chooses them, and what they are afterwards."""

import json
from dataclasses import replace

import pytest
import torch

from training.mammo_clip.pretraining_recipe import RecipeError
from training.mammo_clip.probing import (
    Fitting,
    Rows,
    fit_head,
    load_probe,
    sampled_patients,
    save_probe,
    weight_of_positives,
)
from training.mammo_clip.released import CheckpointError
from training.statistics import auc

FITTING = Fitting(0.05, (0.0, 0.1), 200, 20, 0, "constant", "none", 0)


def rows(count, seed, *, noise=1.0, features=6):
    """The label stands in feature 0; feature 1 is a hundred times as large and tells nothing."""
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(count, features, generator=chance)
    targets = (values[:, 0] + noise * torch.randn(count, generator=chance) > 0.5).long()
    values[:, 1] *= 100
    return Rows(values + 3.0, targets)


def test_a_head_finds_what_separates_the_rows_whatever_the_features_scales():
    head = fit_head(rows(400, 0), rows(200, 1), 1, FITTING, "Mass")
    test = rows(400, 2)
    logits = head.logits(test.features)[:, 0]
    assert auc(logits.numpy(), test.targets.bool().numpy()) > 0.75
    assert head.weight[0].abs().argmax() == 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        head.logits(rows(200, 1).features)[:, 0], rows(200, 1).targets.float()
    )
    assert head.validation_loss == pytest.approx(float(expected), abs=1e-5)


def test_weight_decay_and_epoch_are_chosen_on_validation_rows_alone():
    few = rows(20, 0, noise=3.0, features=40)
    settings = replace(FITTING, weight_decays=(0.0, 3.0), epochs=300, patience=0)
    alike = fit_head(few, few, 1, settings, "Mass")
    other = fit_head(few, rows(300, 1, noise=3.0, features=40), 1, settings, "Mass")
    assert (alike.weight_decay, alike.epoch) == (0.0, 300)
    assert (other.weight_decay == 3.0) or (other.epoch < 100)
    assert other.weight.norm() < alike.weight.norm()


def test_patience_ends_fitting():
    settings = replace(FITTING, patience=3, epochs=100_000)
    assert fit_head(rows(60, 0), rows(60, 1), 1, settings, "Mass").epoch < 1000


def test_density_is_fitted_by_cross_entropy_over_four_classes():
    chance = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 4, (400,), generator=chance)
    features = torch.nn.functional.one_hot(targets, 4).float() + 0.3 * torch.randn(400, 4, generator=chance)
    head = fit_head(Rows(features[:300], targets[:300]), Rows(features[300:], targets[300:]), 4, FITTING, "density")
    assert head.weight.shape == (4, 4)
    assert float((head.logits(features[300:]).argmax(1) == targets[300:]).float().mean()) > 0.9


def test_batches_and_the_published_schedule_fit_too():
    settings = replace(FITTING, rows_at_once=8, schedule="cosine", epochs=6, learning_rate=0.02)
    head = fit_head(rows(200, 0), rows(100, 1), 1, settings, "Mass")
    test = rows(300, 2)
    assert auc(head.logits(test.features)[:, 0].numpy(), test.targets.bool().numpy()) > 0.7


def test_positive_rows_weigh_as_the_recipe_says():
    targets = torch.tensor([1, 0, 0, 0])
    assert weight_of_positives("none", targets, "Mass") == 1.0
    assert weight_of_positives("balanced", targets, "Mass") == 3.0
    assert weight_of_positives("published", targets, "Mass") == 15.573
    with pytest.raises(RecipeError, match=r'"published" is known for Mass, .*, not for Asymmetry'):
        weight_of_positives("published", targets, "Asymmetry")
    plain, balanced = (
        fit_head(rows(300, 0), rows(300, 1), 1, replace(FITTING, positive_weight=how), "Mass")
        for how in ("none", "balanced")
    )
    assert balanced.logits(rows(300, 2).features).mean() > plain.logits(rows(300, 2).features).mean()


def test_a_fraction_takes_whole_patients_by_seed():
    patients = [f"p{number // 4}" for number in range(400)]
    drawn = sampled_patients(patients, 0.1, 1)
    assert len(drawn) == 10
    assert drawn == sampled_patients(list(reversed(patients)), 0.1, 1) != sampled_patients(patients, 0.1, 2)
    assert len(sampled_patients(["p"], 0.1, 1)) == 1


def test_a_probe_is_kept_and_read_back(tmp_path):
    head = fit_head(rows(100, 0), rows(100, 1), 1, FITTING, "Mass")
    save_probe(tmp_path, {"Mass": head}, {"calibration": {"Mass": {"a": 1.0, "b": 0.0}}})
    heads, record = load_probe(tmp_path)
    assert torch.equal(heads["Mass"].logits(rows(5, 2).features), head.logits(rows(5, 2).features))
    assert (heads["Mass"].weight_decay, heads["Mass"].epoch) == (head.weight_decay, head.epoch)
    assert record["calibration"]["Mass"]["a"] == 1.0
    (tmp_path / "probe.json").write_text(json.dumps({"heads": {"Other": {}}}))
    with pytest.raises(CheckpointError, match="holds no probe"):
        load_probe(tmp_path)
