"""The phrase term against plain loops, and what it is fed with."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from node.mammography.wordpiece import load_wordpiece
from training.mammo_clip import augmentation
from training.mammo_clip.breasts import Breasts, Numbered
from training.mammo_clip.grammar import Location
from training.mammo_clip.images import Decoded
from training.mammo_clip.loss import phrase_loss
from training.mammo_clip.phrases import main_phrases, negated_phrases, phrases
from training.mammo_clip.sampling import Collate, Sampling, draw_item, first_item
from training.mammo_clip.seen import Seen, SeenViews
from training.mammo_clip.vocabulary import VOCABULARY
from training.maps import normalise

MASS = Seen("Mass", ("", "spiculated"), Location(), "spiculated mass", "spiculated mass")


def unit(*shape):
    vectors = torch.randn(*shape, dtype=torch.float64)
    return vectors / vectors.norm(dim=-1, keepdim=True)


def plain(images, texts, truth, scale, findings):
    scores = scale * images @ texts.T
    found = []
    for i, k in np.argwhere(truth == 1):
        negatives = [math.exp(scores[j, k]) for j in range(len(images)) if truth[j, k] == 0]
        positive = math.exp(scores[i, k])
        found.append(-math.log(positive / (positive + sum(negatives))))
    stated = []
    for i in range(len(images)):
        for k in range(findings):
            if truth[i, k] >= 0:
                probability = 1.0 / (1.0 + math.exp(scores[i, findings + k] - scores[i, k]))
                stated.append(-math.log(probability if truth[i, k] else 1.0 - probability))
    return np.mean(found) + np.mean(stated)


def test_phrase_loss_is_that_of_plain_loops():
    torch.manual_seed(0)
    images, texts = unit(6, 8), unit(9, 8)
    truth = torch.randint(-1, 2, (6, 9), dtype=torch.int8)
    loss = phrase_loss(images, texts, truth, torch.tensor(7.0, dtype=torch.float64), 2)
    assert loss.item() == pytest.approx(plain(images.numpy(), texts.numpy(), truth.numpy(), 7.0, 2), rel=1e-12)


def test_nothing_known_costs_nothing_and_has_a_gradient():
    images = unit(3, 4).requires_grad_()
    truth = torch.full((3, 5), -1, dtype=torch.int8)
    loss = phrase_loss(images, unit(5, 4), truth, torch.tensor(7.0, dtype=torch.float64), 2)
    loss.backward()
    assert loss.item() == 0.0
    assert images.grad.abs().max() == 0.0


def two_tiles():
    """A breast with a mass in its first view and nothing in its second; 24 x 24 pixels each."""
    planes = np.random.default_rng(0).integers(30, 200, (2, 24, 24), dtype=np.uint8)
    said = SeenViews(((MASS,), ()), ("Mass",), placed=False)
    return Breasts((Numbered("tiles", ((0,), (1,)), said),), Decoded(planes, {}))


SETTINGS = Sampling(replace(augmentation.none(), tone=0.0), normalisation="fixed", crop=16, phrases=20)


def test_validation_sees_the_middle_of_a_tile_by_a_fixed_line_of_grey_values():
    item = first_item(two_tiles(), 0, SETTINGS)
    middle = torch.from_numpy(two_tiles().plane(0)[4:20, 4:20].astype(np.float32) / 255.0)
    torch.testing.assert_close(item.images[0, 0], normalise(middle))


def test_training_sees_a_random_part_of_it():
    items = [draw_item(two_tiles(), 0, SETTINGS, epoch) for epoch in range(6)]
    assert {tuple(item.images.shape) for item in items} == {(2, 1, 16, 16)}
    assert len({item.images.sum().item() for item in items}) > 3


def test_batch_carries_each_phrase_with_its_truth_for_both_images():
    items = [draw_item(two_tiles(), 0, SETTINGS, epoch) for epoch in range(3)]
    said = Collate(load_wordpiece(VOCABULARY, lower_case=True), 40, SETTINGS.phrases)(items).phrases
    assert said.truth.shape == (3, 2, 20)
    for item, truth in zip(items, said.truth, strict=True):
        has_mass = [int("spiculated" in text or "there is a mass" in text) for text in item.texts]
        assert truth[:, 0].tolist() == has_mass
        assert truth[:, len(main_phrases())].tolist() == [1 - has for has in has_mass]
        assert (truth[:, 1] == -1).all()


def test_phrases_of_a_batch_follow_from_its_items():
    items = [draw_item(two_tiles(), 0, SETTINGS, epoch) for epoch in range(3)]
    collate = Collate(load_wordpiece(VOCABULARY, lower_case=True), 40, SETTINGS.phrases)
    assert torch.equal(collate(items).phrases.token_ids, collate(items).phrases.token_ids)


def test_reports_without_images_come_in_pairs_of_the_same_words():
    settings = replace(SETTINGS, phrases=0, sentences=("round mass . benign calcifications", "no finding"))
    items = [draw_item(two_tiles(), 0, settings, epoch) for epoch in range(4)]
    batch = Collate(load_wordpiece(VOCABULARY, lower_case=True), 40)(items)
    assert batch.phrases is None
    first, second = batch.sentences.token_ids[0::2], batch.sentences.token_ids[1::2]
    assert torch.equal(first.sort(1).values, second.sort(1).values)


def test_truth_has_a_column_for_every_phrase():
    item = first_item(two_tiles(), 0, SETTINGS)
    assert item.truth.shape == (2, len(phrases()) + len(negated_phrases()))
