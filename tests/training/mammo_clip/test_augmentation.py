from dataclasses import replace

import pytest
import torch

from training.mammo_clip import augmentation
from training.mammo_clip.augmentation import augment

ALWAYS = replace(
    augmentation.symmetric(), probability=1.0, horizontal_flip=False, vertical_flip=False, elastic_alpha=0.0
)
STILL = replace(ALWAYS, rotation=(0, 0), translation=(0, 0), scale=(1, 1), shear=(0, 0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dot(x: int, y: int, rows: int = 96, columns: int = 64) -> torch.Tensor:
    """A soft dot, its middle at continuous pixel (x, y)."""
    across, down = torch.arange(columns) + 0.5, torch.arange(rows) + 0.5
    return torch.exp(-((across[None] - x) ** 2 + (down[:, None] - y) ** 2) / 8.0)[None]


def middle(image: torch.Tensor) -> tuple[float, float]:
    weights = image[0] / image[0].sum()
    across, down = torch.arange(image.shape[2]) + 0.5, torch.arange(image.shape[1]) + 0.5
    return float((weights.sum(0) * across).sum()), float((weights.sum(1) * down).sum())


def test_nothing_happens_where_nothing_is_asked():
    image = dot(20, 30)
    assert torch.equal(augment(image, augmentation.none(), generator()).image, image)
    assert torch.allclose(augment(image, STILL, generator()).image, image, atol=1e-5)


def test_the_same_generator_gives_the_same_view_and_another_another():
    image = dot(20, 30)
    views = [augment(image, replace(ALWAYS, elastic_alpha=10.0), generator(seed)).image for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1])
    assert not torch.allclose(views[0], views[2])


def test_flip_says_so():
    settings = replace(augmentation.none(), probability=1.0, horizontal_flip=True, elastic_alpha=0.0)
    settings = replace(settings, rotation=(0, 0), translation=(0, 0), scale=(1, 1), shear=(0, 0))
    drawn = augment(dot(20, 30), settings, generator())
    assert drawn.flipped
    assert middle(drawn.image) == pytest.approx((44, 30), abs=0.05)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"translation": (0.1, 0.1)}, (26.4 + 0.0, 39.6)),
        ({"rotation": (90.0, 90.0)}, (50.0, 36.0)),
        ({"scale": (1.2, 1.2)}, (17.6, 26.4)),
    ],
)
def test_the_map_moves_a_point_as_it_says(change, expected):
    """From (20, 30), the middle at (32, 48): shift by a tenth of the sides; a quarter turn; a fifth larger."""
    assert middle(augment(dot(20, 30), replace(STILL, **change), generator()).image) == pytest.approx(expected, abs=0.1)


def test_symmetric_settings_turn_both_ways_and_the_published_ones_one_way():
    def heights(settings):
        settings = replace(settings, probability=1.0, horizontal_flip=False, vertical_flip=False, elastic_alpha=0.0)
        settings = replace(settings, translation=(0, 0), scale=(1, 1), shear=(0, 0))
        return {round(middle(augment(dot(52, 48), settings, generator(seed)).image)[1]) for seed in range(12)}

    assert min(heights(augmentation.symmetric())) < 47
    assert max(heights(augmentation.symmetric())) > 49
    assert len(heights(augmentation.as_published())) == 1


def test_elastic_moves_little_and_smoothly():
    image = dot(32, 48)
    settings = replace(STILL, elastic_alpha=10.0)
    moved = [middle(augment(image, settings, generator(seed)).image) for seed in range(10)]
    distances = [((x - 32) ** 2 + (y - 48) ** 2) ** 0.5 for x, y in moved]
    assert 0.0 < max(distances) < 3.0
