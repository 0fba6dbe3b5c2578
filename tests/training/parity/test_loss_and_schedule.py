"""The loss and the schedule against plain transcriptions of what is published, in float64."""

import math

import numpy as np
import pytest
import torch

from training.mammo_clip.loss import Embeddings, LossSettings, contrastive_loss
from training.mammo_clip.schedule import rate_factor


def transcription(i, v, t, u, log_scale, texts=None, view_weight=1.0, text_weight=0.5):
    """L = L_IT + L_II + L_TT / 2, written out with loops.

    `texts`: the texts of each row, (first, second); a column with the row's own text is then left out of the sum,
    the target excepted.
    """
    scale = math.exp(log_scale)
    first, second = ([pair[place] for pair in texts] if texts else list(range(len(i))) for place in range(2))

    def ce(x, y, said=None):
        """`said`: the texts of rows and columns."""
        total = 0.0
        for row in range(len(x)):
            logits = [scale * float(np.dot(x[row], y[column])) for column in range(len(y))]
            counted = [
                logit
                for column, logit in enumerate(logits)
                if column == row or texts is None or said is None or said[0][row] != said[1][column]
            ]
            top = max(counted)
            total += top + math.log(sum(math.exp(value - top) for value in counted)) - logits[row]
        return total / len(x)

    pairs = [(a, b, said) for a in (i, v) for b, said in ((t, first), (u, second))]
    to_text = sum(ce(a, b, (said, said)) for a, b, said in pairs) / 4
    to_image = sum(ce(b, a, (said, said)) for a, b, said in pairs) / 4
    views = (ce(i, v) + ce(v, i)) / 2
    sentences = (ce(u, t, (second, first)) + ce(t, u, (first, second))) / 2
    return (to_text + to_image) / 2 + view_weight * views + text_weight * sentences


def rows(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(count, 16, generator=generator, dtype=torch.float64) for _ in range(4)]
    return [vectors / vectors.norm(dim=1, keepdim=True) for vectors in drawn]


@pytest.mark.parametrize(("seed", "count", "log_scale"), [(0, 7, 2.6593), (1, 2, 0.0), (2, 12, 4.6), (3, 1, 2.6593)])
def test_loss_is_the_published_one(seed, count, log_scale):
    drawn = rows(seed, count)
    expected = transcription(*[part.numpy() for part in drawn], log_scale)
    got = contrastive_loss(Embeddings(*drawn), torch.tensor(log_scale, dtype=torch.float64))
    assert got.item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_loss_without_identical_texts_is_the_sum_without_their_columns(seed):
    drawn, chance = rows(seed, 8), np.random.default_rng(seed)
    texts = chance.integers(0, 4, (8, 2))
    expected = transcription(*[part.numpy() for part in drawn], 2.0, texts.tolist())
    got = contrastive_loss(
        Embeddings(*drawn, torch.tensor(texts)),
        torch.tensor(2.0, dtype=torch.float64),
        LossSettings(mask_identical_texts=True),
    )
    assert got.item() == pytest.approx(expected, abs=1e-11)
    assert abs(expected - transcription(*[part.numpy() for part in drawn], 2.0)) > 1e-3


def test_gradient_of_the_loss_is_that_of_small_differences():
    drawn = rows(5, 3)
    leaf = drawn[0].clone().requires_grad_()
    scale = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    contrastive_loss(Embeddings(leaf, *drawn[1:]), scale).backward()
    plain, step = [part.numpy().copy() for part in drawn], 1e-6
    for place in ((0, 0), (1, 7), (2, 15)):
        both = []
        for sign in (1, -1):
            moved = plain[0].copy()
            moved[place] += sign * step
            both.append(transcription(moved, *plain[1:], 1.2))
        assert leaf.grad[place].item() == pytest.approx((both[0] - both[1]) / (2 * step), abs=1e-7)
    by_scale = (transcription(*plain, 1.2 + step) - transcription(*plain, 1.2 - step)) / (2 * step)
    assert scale.grad.item() == pytest.approx(by_scale, abs=1e-7)


def factors(steps: int, warmup: int, total: int) -> list[float]:
    """The published schedule written out: a counter that goes up with each step."""
    found = []
    for count in range(steps):
        if count < warmup:
            found.append(float(count) / float(max(1, warmup)))
        else:
            progress = float(count - warmup) / float(max(1, total - warmup))
            found.append(math.cos(math.pi / 2.0 * progress) ** 2.0)
    return found


@pytest.mark.parametrize(("warmup", "total"), [(10, 100), (1, 15), (0, 7), (1373, 13730)])
def test_schedule_is_the_published_one(warmup, total):
    own = [rate_factor(step, warmup, total) for step in range(total)]
    assert own == pytest.approx(factors(total, warmup, total), abs=1e-15)
    assert rate_factor(total, warmup, total) == pytest.approx(0.0, abs=1e-30)
    assert rate_factor(warmup, warmup, total) == 1.0
