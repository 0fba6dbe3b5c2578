"""Folds by patient, few shots, an exact resume, calibration moved to another prevalence, the two commands."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.multi_view.tiny_cases import RECIPE, write_cases, write_clip
from training.__main__ import main
from training.mammo_clip.breasts import DataError
from training.mammo_clip.pretraining_recipe import Keeping, RecipeError
from training.multi_view.case_items import CaseImages
from training.multi_view.case_testing import Line, external_figures, fit_line, log_odds
from training.multi_view.case_training import CaseOptimisation, CaseRun, CaseTraining
from training.multi_view.cases import Case
from training.multi_view.cases_recipe import load_cases_recipe
from training.multi_view.controlled_tokens import TokenSource
from training.multi_view.crossval import (
    Judged,
    cross_validation_figures,
    few_shots,
    fold_aucs,
    folds_of,
    judged_of,
    parts_of,
    read_judged,
    write_judged,
)
from training.statistics import auc


def some_cases(count=60, visits=2):
    """Every third patient malignant, `visits` exams each."""
    cases = tuple(
        Case(f"line {n}", f"s{n}", f"p{n // visits}", n // visits % 3 == 0, (None,) * 4) for n in range(count)
    )
    return CaseImages(cases, np.zeros((1, 4, 4), np.uint8), np.zeros((count, 4), np.int64))


def test_each_case_is_tested_once_and_no_patient_stands_in_two_parts():
    images = some_cases()
    folds = folds_of(images, 5, seed=3)
    assert sorted(row for rows in folds for row in rows) == list(range(60))
    for fold in range(5):
        parts = parts_of(images, folds, fold, 0.2, seed=3)
        names = [{images.cases[row].patient for row in rows} for rows in (parts.training, parts.validation, parts.test)]
        assert not names[0] & names[1]
        assert not names[0] & names[2]
        assert not names[1] & names[2]
        assert sum(map(len, (parts.training, parts.validation, parts.test))) == 60
        assert len({images.cases[row].malignant for row in parts.validation}) == 2


def test_folds_have_equal_shares_of_both_classes():
    images = some_cases(120, visits=1)
    positives = [sum(images.cases[row].malignant for row in rows) for rows in folds_of(images, 5, seed=0)]
    assert positives == [8] * 5


def test_few_shots_are_so_many_of_each_class_and_differ_by_seed():
    images = some_cases()
    chosen = few_shots(images, list(range(60)), 8, seed=0)
    assert len(chosen) == 16
    assert sum(images.cases[row].malignant for row in chosen) == 8
    assert chosen != few_shots(images, list(range(60)), 8, seed=1)
    with pytest.raises(DataError, match="32 shots are wanted; a fold trains on 20 malignant cases alone"):
        few_shots(images, list(range(60)), 32, seed=0)


def judged(logits, malignant, fold=0, patients=None):
    rows = tuple(f"line {n}" for n in range(len(logits)))
    names = np.arange(len(logits)) if patients is None else patients
    return Judged(rows, names, np.asarray(malignant, bool), np.full(len(rows), fold), np.asarray(logits, float))


def test_the_mean_of_folds_does_not_rank_cases_of_two_models_against_each_other():
    rng = np.random.default_rng(0)
    malignant = np.tile([False, True], 40)
    fold = np.repeat([0, 1], 40)
    logits = rng.normal(size=80) + malignant + 100.0 * fold
    both = Judged(tuple(map(str, range(80))), np.arange(80), malignant, fold, logits)
    figures = cross_validation_figures(both, "all cases")
    expected = np.mean([auc(logits[fold == k], malignant[fold == k]) for k in (0, 1)])
    assert figures[0]["value"] == pytest.approx(expected, abs=1e-4)
    assert figures[1]["value"] < expected
    assert fold_aucs(both) == pytest.approx([auc(logits[fold == k], malignant[fold == k]) for k in (0, 1)])
    assert figures[3]["method"] == "DeLong, one row a patient"


def test_a_patient_with_two_exams_gets_a_bootstrap_and_no_delong():
    rng = np.random.default_rng(1)
    malignant = np.tile([False, True], 20)
    one = judged(rng.normal(size=40) + malignant, malignant, patients=np.repeat(np.arange(20), 2))
    methods = {row["method"] for row in external_figures([one], fit_line(one), None)}
    assert not any("DeLong" in method for method in methods)


def test_a_line_moved_to_another_prevalence_adds_the_difference_of_log_odds():
    moved = Line(1.5, 0.2, 0.5).moved(0.17)
    assert moved.b == pytest.approx(0.2 + math.log(0.17 / 0.83))
    assert log_odds(0.5) == 0.0
    with pytest.raises(DataError, match="give a share between 0 and 1"):
        Line(1.0, 0.0, 0.5).moved(1.0)


def test_moving_the_line_mends_probabilities_where_prevalence_alone_differs():
    rng = np.random.default_rng(2)

    def drawn(count, share):
        malignant = rng.random(count) < share
        return judged(rng.normal(size=count) + 2.0 * malignant, malignant)

    line, outside = fit_line(drawn(4000, 0.5)), drawn(800, 0.17)
    figures = external_figures([outside], line, 0.17)
    errors = [row["value"] for row in figures if row["figure"] == "calibration error"]
    assert errors[1] < 0.06 < 0.1 < errors[0]


def test_logits_are_read_back_as_they_were_written(tmp_path):
    images = some_cases(10)
    before = judged_of(images, np.linspace(-1, 1, 10), fold=3)
    write_judged(tmp_path / "logits.csv", before)
    after = read_judged(tmp_path / "logits.csv")
    assert after.rows == before.rows
    assert after.logits.tolist() == before.logits.tolist()
    assert len(set(after.patients.tolist())) == 5
    (tmp_path / "logits.csv").write_text("row\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match="delete it, and that fold is run again"):
        read_judged(tmp_path / "logits.csv")


class Linear(nn.Module):
    """The mean token of the views that are there against one direction, with dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.head = nn.Linear(6, 1)

    def forward(self, inputs, present):
        mean = inputs.mean(2).sum(1) / present.sum(1, keepdim=True)
        return self.head(nn.functional.dropout(mean, 0.2, self.training))[:, 0]


def a_run(folder):
    rng = np.random.default_rng(5)
    tokens, positive = rng.normal(size=(24, 4, 3, 6)).astype(np.float16), np.tile([True, False], 12)
    source = TokenSource(tokens, np.ones((24, 4), bool), positive)
    optimisation = CaseOptimisation(1e-2, 0.01, 3, 0.1, 4, "float32", 0, "balanced", 0.3)
    folder.mkdir()
    (folder / "curves.csv").write_text(
        "step,epoch,training_loss,validation_loss,validation_auc,learning_rate,rows_per_second\n", encoding="utf-8"
    )
    return CaseRun(folder, source, source, optimisation, Keeping(1, 1, 0.0, False), 9, torch.device("cpu"))


def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(tmp_path):
    whole = CaseTraining(a_run(tmp_path / "whole"), Linear())
    whole.go()
    run, cut = a_run(tmp_path / "cut"), Linear()
    training = CaseTraining(run, cut)
    step = training._step

    def stop_after_eight(batch):
        if training.books.progress.step == 8:
            raise KeyboardInterrupt
        step(batch)

    training._step = stop_after_eight
    with pytest.raises(KeyboardInterrupt):
        training.go()
    again = Linear()
    CaseTraining(run, again, resume=True).go()
    assert torch.equal(again.head.weight, whole.model.head.weight)
    assert (tmp_path / "cut" / "curves.csv").read_text().count("\n") == 22


def run_command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["python -m training", *map(str, words)])
    main()


def test_both_commands_from_a_table_to_their_reports_and_done_folds_stay(tmp_path, monkeypatch, capsys):
    data, clip, recipe = write_cases(tmp_path, 20), write_clip(tmp_path / "clip"), tmp_path / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    words = ("cases-cross-validate", "--recipe", recipe, "--data", data, "--clip", clip, "--out", tmp_path / "cross")
    run_command(monkeypatch, *words)
    report = json.loads((tmp_path / "cross" / "report.json").read_text())
    figures = report["sections"][0]["figures"]
    assert [row["figure"] for row in figures] == ["mean AUC of the folds", "AUC", "average precision", "AUC", "AUC"]
    logits = tmp_path / "cross" / "all" / "draw-0" / "fold-1" / "logits.csv"
    written = logits.stat().st_mtime_ns
    run_command(monkeypatch, *words)
    assert logits.stat().st_mtime_ns == written
    capsys.readouterr()
    test = ("cases-test", "--run", tmp_path / "cross", "--data", data, "--clip", clip, "--out", tmp_path / "test")
    run_command(monkeypatch, *test, "--prevalence", "0.17")
    told = capsys.readouterr().out
    assert "mean logit of 2 models: AUC" in told
    assert "the line moved to a prevalence of 0.17: Brier score" in told
    with pytest.raises(SystemExit, match=r"^error: .*no cross-validation of 16 cases stands there"):
        run_command(monkeypatch, *test, "--shots", "16")


def test_the_shipped_recipe_loads_and_a_vertical_flip_is_refused(tmp_path):
    shipped = Path(__file__).parents[3] / "training/recipes/cases-clip.toml"
    assert load_cases_recipe(shipped).model.rank == 48
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.replace("vertical_flip = false", "vertical_flip = true"), encoding="utf-8")
    with pytest.raises(RecipeError, match="vertical_flip must be off"):
        load_cases_recipe(wrong)
