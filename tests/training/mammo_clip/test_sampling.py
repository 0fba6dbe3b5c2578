import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.mammo_clip import augmentation
from training.mammo_clip.breasts import Breasts, Numbered, Reported
from training.mammo_clip.images import Decoded
from training.mammo_clip.sampling import (
    MEAN,
    STANDARD_DEVIATION,
    Collate,
    Sampling,
    batches_of,
    draw_item,
    first_item,
    normalised,
)
from training.mammo_clip.texts import Report
from training.mammo_clip.vocabulary import own_tokenizer

STILL = Sampling(augmentation.none())
REPORT = Reported(Report((("a mass in the left breast",), ("birads 4 on the left",))))


def breasts(*views: tuple[int, ...], planes: np.ndarray | None = None, said=REPORT) -> Breasts:
    """One breast; plane n has an edge at column 4 + n, so that its normalised mean tells it."""
    if planes is None:
        planes = np.zeros((8, 12, 16), np.uint8)
        for number in range(8):
            planes[number, :, : 1 + number] = 200
    return Breasts((Numbered("line 2", views, said),), Decoded(planes, {}))


def seen(item) -> tuple[int, int]:
    """Which planes an item shows."""
    bright = (item.images > 0).float().mean((1, 2, 3)) * 16
    return tuple(round(float(value)) - 1 for value in bright)


def many(one: Breasts, settings: Sampling = STILL, count: int = 400):
    return [draw_item(one, 0, settings, epoch) for epoch in range(count)]


def test_two_views_are_drawn_without_replacement_in_any_order_with_a_random_file_each():
    pairs = [seen(item) for item in many(breasts((0,), (1, 2)), count=800)]
    counts = {pair: pairs.count(pair) / len(pairs) for pair in set(pairs)}
    assert set(counts) == {(0, 1), (0, 2), (1, 0), (2, 0)}
    assert all(0.2 < share < 0.3 for share in counts.values())


def test_of_three_views_every_ordered_pair_comes():
    pairs = {seen(item) for item in many(breasts((0,), (1,), (2,)))}
    assert pairs == set(itertools.permutations(range(3), 2))


def test_one_view_gives_two_different_files_or_its_only_one_twice():
    assert {seen(item) for item in many(breasts((0, 1, 2)))} == set(itertools.permutations(range(3), 2))
    assert {seen(item) for item in many(breasts((3,)), count=10)} == {(3, 3)}


def test_the_only_file_is_augmented_twice_each_time_on_its_own():
    moved = replace(STILL, augmentation=replace(augmentation.symmetric(), horizontal_flip=False, probability=1.0))
    item = draw_item(breasts((3,)), 0, moved, 0)
    assert not torch.allclose(item.images[0], item.images[1])


def test_validation_takes_the_first_files_and_draws_nothing():
    item = first_item(breasts((4, 5), (1, 2), (0,)), 0, STILL)
    assert seen(item) == (4, 1)
    assert item.texts == ("a mass in the left breast", "birads 4 on the left")
    assert seen(first_item(breasts((6, 5, 4)), 0, STILL)) == (6, 5)
    assert seen(first_item(breasts((6,)), 0, STILL)) == (6, 6)


def test_swapped_flips_turn_both_images_and_the_sides_of_both_texts():
    flips = Sampling(replace(augmentation.none(), horizontal_flip=True, probability=0.5), "swap")
    still = replace(flips.augmentation, rotation=(0, 0), translation=(0, 0), scale=(1, 1), shear=(0, 0))
    flips = replace(flips, augmentation=replace(still, elastic_alpha=0.0))
    turned = []
    for item in many(breasts((2,), (3,)), flips, 200):
        at_right = [bool(image[0, 0, -1] > 0) for image in item.images]
        assert at_right[0] == at_right[1]
        assert all(("right" in text) == at_right[0] and ("left" in text) != at_right[0] for text in item.texts)
        turned.append(at_right[0])
    assert 0.4 < sum(turned) / len(turned) < 0.6


def test_published_flips_turn_each_image_by_itself_and_leave_the_texts():
    still = replace(augmentation.none(), horizontal_flip=True, probability=0.5, elastic_alpha=0.0)
    still = replace(still, rotation=(0, 0), translation=(0, 0), scale=(1, 1), shear=(0, 0))
    items = many(breasts((2,), (3,)), Sampling(still, "published"), 200)
    assert {tuple(bool(image[0, 0, -1] > 0) for image in item.images) for item in items} == set(
        itertools.product((False, True), repeat=2)
    )
    assert all("right" not in text for item in items for text in item.texts)


def test_normalisation_is_the_published_one():
    values = np.random.default_rng(0).integers(3, 250, (1, 9, 7)).astype(np.float64)
    expected = values - values.min()
    expected = (expected / expected.max() - 0.3089279) / 0.25053555408335154
    got = normalised(torch.tensor(values / 255.0))
    assert np.allclose(got.numpy(), expected, atol=1e-12)


def test_image_of_one_value_gives_zeros_and_a_flag_and_nan_as_published():
    flat = breasts((0,), (1,), planes=np.full((2, 6, 4), 7, np.uint8))
    item = draw_item(flat, 0, STILL, 0)
    assert item.constant
    assert torch.allclose(item.images, torch.full((2, 1, 6, 4), -MEAN / STANDARD_DEVIATION))
    assert draw_item(flat, 0, replace(STILL, constant_images="published"), 0).images.isnan().all()


def test_image_of_one_value_stays_zeros_when_it_is_augmented():
    moved = Sampling(replace(augmentation.symmetric(), probability=1.0))
    item = draw_item(breasts((0,), (1,), planes=np.full((2, 6, 4), 7, np.uint8)), 0, moved, 0)
    assert item.constant
    assert torch.allclose(item.images, torch.full((2, 1, 6, 4), -MEAN / STANDARD_DEVIATION))


def test_items_follow_from_seed_epoch_and_row_alone():
    one, settings = breasts((0,), (1, 2)), Sampling(augmentation.symmetric(), seed=4)
    again = draw_item(one, 0, settings, 3)
    torch.manual_seed(99)
    item = draw_item(one, 0, settings, 3)
    assert torch.equal(item.images, again.images)
    assert item.texts == again.texts
    others = [draw_item(one, 0, replace(settings, seed=5), 3), draw_item(one, 0, settings, 4)]
    assert all(not torch.equal(other.images, item.images) for other in others)


def test_batches_are_whole_and_every_row_comes_once_an_epoch():
    batches = batches_of(10, 4, seed=1, epoch=0)
    assert [len(batch) for batch in batches] == [4, 4]
    assert len({row for batch in batches for row in batch}) == 8
    assert batches != batches_of(10, 4, seed=1, epoch=1)
    assert batches == batches_of(10, 4, seed=1, epoch=0)


def test_batch_holds_padded_tokens_and_names_equal_texts():
    items = [first_item(breasts((0,), (1,)), 0, STILL) for _ in range(2)]
    items[1] = replace(items[1], texts=("no mass", items[0].texts[0]), row="line 3", constant=True)
    batch = Collate(own_tokenizer(), 40)(items)
    assert batch.images.shape == (2, 2, 1, 12, 16)
    assert batch.mask.sum(2).tolist() == [[8, 7], [4, 8]]
    assert bool((batch.token_ids[batch.mask == 0] == 0).all())
    assert (batch.text_keys[0, 0] == batch.text_keys[1, 1]).item()
    assert len(batch.text_keys.unique()) == 3
    assert (batch.rows, batch.constant) == (("line 2", "line 3"), ("line 3",))


@pytest.mark.parametrize("length", [5, 40])
def test_texts_are_cut_to_the_longest_allowed(length):
    batch = Collate(own_tokenizer(), length)([first_item(breasts((0,), (1,)), 0, STILL)])
    assert batch.token_ids.shape[2] == min(length, 8)
