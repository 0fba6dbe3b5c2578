"""What is drawn in training is drawn as often as published: views, texts, augmentation (sections 3A.3 and 3A.5).

Every draw follows from its seed, so these counts never change; the bounds are those of a chi-square test at .1 %.
"""

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from training.mammo_clip import augmentation
from training.mammo_clip.augmentation import Augmentation, augment
from training.mammo_clip.breasts import Breasts, Numbered, Reported
from training.mammo_clip.images import Decoded
from training.mammo_clip.sampling import Sampling, draw_item
from training.mammo_clip.texts import Report, draw_texts

LEAST = 0.001


def uniform_over(counts: Counter, outcomes: int) -> bool:
    """All outcomes occur, and as often as each other."""
    return len(counts) == outcomes and stats.chisquare(list(counts.values())).pvalue > LEAST


def one_breast(*views: tuple[int, ...]) -> Breasts:
    """A breast of pictures whose grey step tells their number."""
    planes = np.zeros((6, 4, 16), np.uint8)
    for number in range(6):
        planes[number, :, : 1 + number] = 200
    report = Reported(Report((("first section here",), ("second section here",))))
    return Breasts((Numbered("line 2", views, report),), Decoded(planes, {}))


def pairs(*views: tuple[int, ...], draws: int = 500) -> Counter:
    breasts, settings = one_breast(*views), Sampling(augmentation.none())
    found: Counter = Counter()
    for epoch in range(draws):
        bright = (draw_item(breasts, 0, settings, epoch).images > 0).float().mean((1, 2, 3)) * 16
        found[tuple(round(float(value)) - 1 for value in bright)] += 1
    return found


@pytest.mark.parametrize(
    ("views", "outcomes"),
    [
        (((0,), (1,)), 2),
        (((0, 1), (2, 3)), 8),
        (((0,), (1,), (2,)), 6),
        (((0, 1, 2),), 6),
        (((0, 1),), 2),
    ],
)
def test_pairs_of_pictures_come_equally_often(views, outcomes):
    """Two views without replacement in any order and a random file of each; of one view two files in any order."""
    assert uniform_over(pairs(*views), outcomes)


def test_a_file_of_a_view_is_drawn_after_the_view():
    """Of one and three files the one comes each time its view does, each of the three a third as often."""
    counts = pairs((0,), (1, 2, 3))
    assert uniform_over(Counter({pair: count for pair, count in counts.items() if pair[0] == 0}), 3)
    assert all(0 in pair for pair in counts)


def test_sections_and_translations_come_equally_often():
    """Two of two sections with replacement, each translated with probability .5: sixteen pairs."""
    report = Report((("one",), ("two",)), (("uno",), ("due",)))
    drawn = Counter(draw_texts(report, random.Random(seed)) for seed in range(3200))
    assert uniform_over(drawn, 16)


def test_orders_of_sentences_come_equally_often():
    report = Report((("a", "b", "c"),))
    assert uniform_over(Counter(draw_texts(report, random.Random(seed))[0] for seed in range(1200)), 6)


def drawn_maps(settings: Augmentation, draws: int = 400) -> list[dict[str, float]]:
    """Rotation, shear (degrees), scales and translations (shares) of affine views, from where their pixels lie."""
    found, rows, columns = [], 12, 8
    settings = replace(settings, probability=1.0, elastic_alpha=0.0, horizontal_flip=False, vertical_flip=False)
    ys, xs = np.mgrid[0:rows, 0:columns] + 0.5
    target = np.stack([xs.ravel() - columns / 2, ys.ravel() - rows / 2, np.ones(xs.size)], axis=1)
    for seed in range(draws):
        view = augment(torch.ones(1, rows, columns), settings, torch.Generator().manual_seed(seed))
        source = view.sources().reshape(-1, 2).double().numpy() - [columns / 2, rows / 2]
        inverse = np.linalg.lstsq(target, source, rcond=None)[0].T
        forward = np.linalg.inv(inverse[:, :2])
        moved = -forward @ inverse[:, 2] / [columns, rows]
        angle = math.atan2(forward[1, 0], forward[0, 0])
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        stretch = turn @ forward
        found.append(
            {
                "rotation": math.degrees(angle),
                "shear": math.degrees(math.atan2(stretch[0, 1], stretch[0, 0])),
                "scale x": stretch[0, 0],
                "scale y": stretch[1, 1],
                "translation x": moved[0],
                "translation y": moved[1],
            }
        )
    return found


def test_symmetric_ranges_are_drawn_evenly_from_end_to_end():
    maps = drawn_maps(augmentation.symmetric())
    ranges = {"rotation": 20.0, "shear": 20.0, "translation x": 0.1, "translation y": 0.1}
    for name in maps[0]:
        low, high = (0.8, 1.2) if name.startswith("scale") else (-ranges[name], ranges[name])
        shares = (np.array([one[name] for one in maps]) - low) / (high - low)
        assert -1e-3 < shares.min() < 0.02, name
        assert 0.98 < shares.max() < 1.001, name
        assert uniform_over(Counter(np.clip((shares * 8).astype(int), 0, 7).tolist()), 8), name
    table = np.array([list(one.values()) for one in maps])
    assert np.abs(np.corrcoef(table.T) - np.eye(6)).max() < 0.2  # each by itself, both scales too


def test_published_ranges_are_single_values_but_for_the_scales():
    maps = drawn_maps(augmentation.as_published(), 100)
    for name, value in (("rotation", 20.0), ("shear", 20.0), ("translation x", 0.1), ("translation y", 0.1)):
        assert [one[name] for one in maps] == pytest.approx([value] * 100, abs=1e-3), name
    assert max(one["scale x"] for one in maps) - min(one["scale x"] for one in maps) > 0.3


def test_each_step_is_taken_half_of_the_time_by_itself():
    """Two flips, the affine map, elastic deformation: sixteen combinations."""
    found: Counter = Counter()
    turned = replace(augmentation.symmetric(), rotation=(20, 20), elastic_alpha=10.0)
    ys, xs = np.mgrid[0:16, 0:16]
    plane = np.stack([xs.ravel(), ys.ravel(), np.ones(256)], axis=1)
    for seed in range(900):
        view = augment(torch.ones(1, 16, 16), turned, torch.Generator().manual_seed(seed))
        source = view.sources().reshape(-1, 2).double().numpy()
        fitted, residual, _, _ = np.linalg.lstsq(plane, source, rcond=None)
        bent = bool(residual.max() > 1e-6)
        found[view.flipped, view.flipped_rows, abs(fitted[1, 0]) > 0.1, bent] += 1
    assert uniform_over(found, 16)


@pytest.mark.parametrize(("alpha", "sigma"), [(10.0, 15.0), (10.0, 5.0)])
def test_elastic_displacements_are_as_strong_as_filtered_noise(alpha, sigma):
    """Noise in -1 to 1 at each pixel, a Gaussian over it mirrored at the borders, times alpha: by scipy."""
    rows, columns, images = 96, 72, 12
    settings = replace(augmentation.none(), probability=1.0, elastic_alpha=alpha, elastic_sigma=sigma)
    still = replace(settings, rotation=(0, 0), translation=(0, 0), scale=(1, 1), shear=(0, 0))
    own, expected, rng = [], [], np.random.default_rng(0)
    ys, xs = np.mgrid[0:rows, 0:columns] + 0.5
    for seed in range(images):
        view = augment(torch.ones(1, rows, columns), still, torch.Generator().manual_seed(seed))
        own.append(view.sources().double().numpy() - np.stack([xs, ys], axis=2))
        noise = rng.uniform(-1, 1, (2, rows, columns))
        expected.append([ndimage.gaussian_filter(part, sigma, mode="mirror") * alpha for part in noise])
    assert np.std(own) == pytest.approx(np.std(expected), rel=0.25)
    steps = np.std(np.diff(np.array(own), axis=1))  # neighbours move together
    assert steps == pytest.approx(np.std(np.diff(np.array(expected), axis=2)), rel=0.4)
