import pytest
import torch
from torch.nn import functional

from training.mammo_clip.zero_shot import balanced_accuracy, class_embeddings, class_probabilities


def unit(*rows):
    return functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_published_scoring_takes_raw_cosines_and_keeps_the_ranks():
    images, classes = unit([1.0, 0.1], [0.2, 1.0], [0.5, 0.4]), unit([1.0, 0.0], [0.0, 1.0])
    raw = class_probabilities(images, classes, None)
    scaled = class_probabilities(images, classes, 14.3)
    assert torch.allclose(raw, functional.softmax(images @ classes.T, dim=1))
    assert (raw[:, 1] - 0.5).abs().max() < 0.25
    assert torch.equal(raw[:, 1].argsort(), scaled[:, 1].argsort())


def test_prompts_of_a_class_are_an_ensemble():
    classes = class_embeddings([unit([1.0, 0.0], [0.0, 1.0]), unit([0.0, -1.0])])
    assert torch.allclose(classes, unit([1.0, 1.0], [0.0, -1.0]))


def test_balanced_accuracy_is_not_fooled_by_the_common_class():
    truth = torch.tensor([2] * 9 + [0])
    assert balanced_accuracy(torch.full((10,), 2), truth, 4) == pytest.approx(0.5)
