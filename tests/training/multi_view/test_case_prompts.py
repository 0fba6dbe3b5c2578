"""Prompts of whole exams and the score that follows from them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training.mammo_clip.pretraining_recipe import RecipeError
from training.multi_view.case_prompts import (
    DETAILED,
    SIMPLE,
    CasePrompts,
    case_logits,
    case_loss,
    class_features,
    class_weights,
    load_prompts,
    malignancy,
    prompt_ids,
)
from training.multi_view.clip_tokenizer import OWN_VOCABULARY, load_clip_tokenizer

TOKENIZER = load_clip_tokenizer(OWN_VOCABULARY)


def test_prompts_are_a_set_by_name_or_a_file(tmp_path: Path):
    path = tmp_path / "prompts.toml"
    path.write_text('name = "own"\nnegative = ["no cancer"]\npositive = ["cancer", "a malignant mass"]\n')
    assert load_prompts("simple") is SIMPLE
    assert load_prompts("detailed") is DETAILED
    assert load_prompts(path) == CasePrompts("own", ("no cancer",), ("cancer", "a malignant mass"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('name = "x"\nnegative = []\npositive = ["a"]', "prompts x: negative has no sentence"),
        ('name = "x"\nnegative = ["b"]\npositive = [" "]', "prompts x: positive has no sentence, or an empty one"),
        ('name = "x"\nnegative = ["a"]\npositive = ["a"]', "'a' stands on both sides"),
        ('name = "x"\nnegative = ["a"]', "key positive is missing"),
        ('name = "x"\nnegative = "a"\npositive = ["b"]', "negative is 'a', not list"),
        ("negative = [", "cannot be read as prompts"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(tmp_path: Path, content: str, words: str):
    (tmp_path / "prompts.toml").write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_prompts(tmp_path / "prompts.toml")


def test_a_name_that_is_neither_set_nor_file_is_refused():
    with pytest.raises(RecipeError, match="neither a file nor one of the prompt sets simple, detailed"):
        load_prompts("elaborate")


def test_sides_that_are_the_same_once_cut_off_are_refused():
    prompts = CasePrompts("long", ("mammograms of both breasts, benign",), ("mammograms of both breasts, malignant",))
    assert not torch.equal(*prompt_ids(prompts, TOKENIZER, 16))
    with pytest.raises(RecipeError, match="a negative and a positive sentence are the same in 5 tokens"):
        prompt_ids(prompts, TOKENIZER, 5)


def test_classes_are_means_of_unit_vectors_made_unit_again():
    vectors = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    ids = (torch.zeros(2, 4, dtype=torch.int64), torch.ones(3, 4, dtype=torch.int64))
    found = class_features(lambda both: vectors[: len(both)], ids)
    for row, members in enumerate((vectors[:2], vectors[2:])):
        mean = members.numpy().mean(0)
        np.testing.assert_allclose(found[row].numpy(), mean / np.sqrt((mean**2).sum()), atol=1e-6)


def test_the_score_is_the_softmax_of_scaled_cosines():
    exams, classes = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [0.8, 0.6]])
    logits = case_logits(exams, classes, torch.tensor(math.log(10.0)))
    np.testing.assert_allclose(logits.numpy(), [[0.0, 8.0], [8.0, 9.6]], atol=1e-5)
    expected = [1 / (1 + math.exp(-8.0)), 1 / (1 + math.exp(-1.6))]
    np.testing.assert_allclose(malignancy(logits).numpy(), expected, atol=1e-6)
    loss = case_loss(logits, torch.tensor([1, 0]))
    np.testing.assert_allclose(float(loss), -(math.log(expected[0]) + math.log(1 - expected[1])) / 2, rtol=1e-5)


def test_weights_let_both_classes_count_alike():
    labels = torch.tensor([1, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    weights = class_weights(labels)
    np.testing.assert_allclose(weights.numpy(), [10 / 16, 10 / 4])
    logits = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = (each[labels == 0].mean() + each[labels == 1].mean()) / 2
    torch.testing.assert_close(case_loss(logits, labels, weights), expected)


@pytest.mark.parametrize("labels", [[0, 0], [1], [0, 1, 2]])
def test_weights_of_anything_but_two_classes_are_refused(labels: list[int]):
    with pytest.raises(RecipeError, match="wanted are both 0 and 1 alone"):
        class_weights(torch.tensor(labels))
