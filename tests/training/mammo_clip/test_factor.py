"""FActOR against plain transcriptions, and on maps where the right answer is known."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from training.mammo_clip.factor import (
    STATISTICS,
    FactorLoss,
    HeatSettings,
    PaperMapper,
    SharedMapper,
    channel_weights,
    factor_loss,
    fixed_weights,
    heatmaps,
    image_scores,
    phrase_embedding,
)
from training.mammo_clip.factor_start import GREATEST_EFFECT, RIDGE, channel_directions, channel_effects
from training.mammo_clip.multiple_instance import pooled, train_pooling


def transcription(cosines, present, temperature, ones):
    """The loss with loops, in float64."""
    images, _, phrases = cosines.shape
    scores = [[max(cosines[i, :, k]) / temperature for k in range(phrases)] for i in range(images)]
    terms = []
    for i in range(images):
        for k in range(phrases):
            if present[i, k]:
                total = math.exp(scores[i][k])
                for j in range(images):
                    if not present[j, k]:
                        total += math.exp(scores[j][k])
                    elif ones:
                        total += 1.0
                terms.append(-math.log(math.exp(scores[i][k]) / total))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("ones", [False, True])
def test_loss_is_the_published_one(ones):
    generator = np.random.default_rng(3)
    cosines = generator.uniform(-1, 1, (6, 9, 2))
    present = generator.random((6, 2)) < 0.5
    expected = transcription(cosines, present, 0.07, ones)
    got = factor_loss(torch.tensor(cosines), torch.tensor(present), FactorLoss(0.07, ones))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_paper_s_temperature_does_not_overflow():
    cosines = torch.ones(2, 3, 1, requires_grad=True)
    loss = factor_loss(cosines, torch.tensor([[True], [False]]), FactorLoss(0.007))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2.0), abs=1e-5)
    assert torch.isfinite(cosines.grad).all()


def test_batch_without_positives_has_no_loss_and_a_gradient():
    cosines = torch.rand(2, 3, 1, requires_grad=True)
    loss = factor_loss(cosines, torch.zeros(2, 1, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(cosines.grad, torch.zeros_like(cosines))


def test_heads_are_stacked_and_each_phrase_sees_its_own():
    torch.manual_seed(0)
    mapper = PaperMapper(12, 8, 2)
    maps, phrases = torch.rand(3, 5, 3, 4), functional.normalize(torch.randn(2, 8), dim=1)
    got = mapper(maps, phrases)
    for phrase, head in enumerate(mapper.pool):
        vectors = functional.normalize(head(maps.flatten(2)), dim=-1)
        assert torch.allclose(got[:, :, phrase], vectors @ phrases[phrase], atol=1e-6)
    mixed = PaperMapper(12, 8, 2, heads_mixed=True)
    mixed.load_state_dict(mapper.state_dict())
    assert not torch.allclose(mixed(maps, phrases), got, atol=1e-3)


def test_paper_s_mapper_has_the_published_size_and_refuses_another_map():
    with torch.device("meta"):
        mapper = PaperMapper(1392, 512, 2)
    assert sum(parameter.numel() for parameter in mapper.pool[0].parameters()) == 2_652_272
    with pytest.raises(ValueError, match="tied to 12 cells and 1 phrases, not 20 and 1"):
        PaperMapper(12, 8, 1)(torch.rand(1, 2, 4, 5), torch.rand(1, 8))


@pytest.mark.parametrize("size", [(48, 29), (24, 15), (3, 2)])
def test_shared_mapper_takes_any_size_and_any_number_of_phrases(size):
    torch.manual_seed(0)
    mapper = SharedMapper(7, 8, hidden=16)
    cosines = mapper(torch.rand(2, 7, *size), functional.normalize(torch.randn(11, 8), dim=1))
    assert cosines.shape == (2, 7, 11)
    assert cosines.abs().max() <= 1.0 + 1e-5


def test_shared_mapper_does_not_care_where_the_cells_lie():
    torch.manual_seed(0)
    mapper = SharedMapper(4, 8, hidden=16)
    maps = torch.rand(1, 4, 6, 6)
    moved = maps.roll((2, 3), (2, 3))
    phrases = functional.normalize(torch.randn(2, 8), dim=1)
    assert torch.allclose(mapper(maps, phrases), mapper(moved, phrases), atol=1e-6)


def test_the_strongest_channels_stay():
    cosines = torch.tensor([[0.5, -0.2], [0.1, 0.3], [0.9, 0.2]])
    assert channel_weights(cosines).tolist() == [[0.5, 0.0], pytest.approx([0.1, 0.3]), pytest.approx([0.9, 0.2])]
    assert (channel_weights(cosines, 1) > 0).tolist() == [[False, False], [False, True], [True, False]]


def test_heat_lies_where_the_chosen_channel_fires():
    maps = torch.zeros(1, 3, 4, 5)
    maps[0, 1, 2, 3] = 2.0
    maps[0, 0, 0, 0] = 5.0
    heat = heatmaps(maps, torch.tensor([[0.0], [0.5], [0.0]]))
    assert heat.shape == (1, 1, 4, 5)
    assert heat[0, 0, 2, 3] == 1.0
    assert heat.sum() == 1.0


def test_prompts_are_averaged_and_then_normalised():
    prompts = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(phrase_embedding(prompts), torch.tensor([2.0, 1.0]) / 5**0.5)


def test_fixed_weights_are_the_difference_of_means():
    cosines = torch.tensor([[[0.8], [0.1]], [[0.2], [0.3]]])
    present = torch.tensor([[True], [False]])
    assert torch.allclose(fixed_weights(cosines, present), torch.tensor([[0.6], [0.0]]))
    with pytest.raises(ValueError, match="needs an image"):
        fixed_weights(cosines, torch.ones(2, 1, dtype=torch.bool))


def test_training_finds_the_channel_that_carries_the_phrase():
    """Eight channels; one of them fires where and when the finding is there, the others are the same everywhere."""
    torch.manual_seed(1)
    present = torch.arange(32) % 2 == 0
    maps = (torch.rand(1, 8, 6, 6) * 0.3).repeat(32, 1, 1, 1)
    maps[present, 5, 2, 4] += 3.0
    phrase = functional.normalize(torch.randn(1, 16), dim=1)
    mapper = SharedMapper(8, 16, hidden=32)
    optimizer = torch.optim.AdamW(mapper.parameters(), 1e-2)
    for _ in range(150):
        loss = factor_loss(mapper(maps, phrase), present[:, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = fixed_weights(mapper(maps, phrase).detach(), present[:, None])
    assert int(weights[:, 0].argmax()) == 5
    heat = heatmaps(maps[:1], weights)[0, 0]
    assert divmod(int(heat.argmax()), 6) == (2, 4)


def test_a_silent_mapper_s_vectors_are_shorter_than_1_and_keep_their_direction():
    torch.manual_seed(0)
    unit, silent = SharedMapper(4, 8, hidden=16), SharedMapper(4, 8, hidden=16, silent=True)
    silent.load_state_dict(unit.state_dict())
    maps = torch.rand(2, 4, 5, 5)
    long, short = unit.channel_vectors(maps), silent.channel_vectors(maps)
    assert torch.allclose(long.norm(dim=-1), torch.ones(2, 4), atol=1e-5)
    assert short.norm(dim=-1).max() < 1.0
    assert torch.allclose(functional.normalize(short, dim=-1), long, atol=1e-5)


def test_a_mapper_begins_with_what_its_channels_say_whatever_the_image():
    torch.manual_seed(0)
    directions = torch.randn(9, 3) @ torch.randn(3, 12)
    mapper = SharedMapper(9, 12, hidden=32, silent=True)
    mapper.start(directions)
    expected = directions / (1.0 + directions.square().sum(-1, keepdim=True)).sqrt()
    for maps in (torch.rand(2, 9, 4, 4), torch.zeros(2, 9, 4, 4)):
        assert torch.allclose(mapper.channel_vectors(maps), expected.expand(2, -1, -1), atol=1e-4)
    mapper.channel_vectors(torch.rand(1, 9, 4, 4))[0, 0].sum().backward()
    assert mapper.layers[0].weight.grad[:, :STATISTICS].abs().max() > 0.0


def test_effects_are_differences_of_means_over_spreads():
    generator = np.random.default_rng(0)
    statistics, present = generator.normal(size=(12, 2, STATISTICS)), generator.random((12, 1)) < 0.5
    absent = ~present
    absent[0] = False
    answers = statistics[..., :8].mean(2)
    for channel in range(2):
        having, others = answers[present[:, 0], channel], answers[absent[:, 0], channel]
        expected = (having.mean() - others.mean()) / (having.std() + others.std())
        got = channel_effects(torch.tensor(statistics), torch.tensor(present), torch.tensor(absent))
        assert got[channel, 0].item() == pytest.approx(expected, rel=1e-4)
    apart = torch.tensor(present, dtype=torch.float64)[:, :, None].expand(12, 1, STATISTICS)
    assert channel_effects(apart, torch.tensor(present), torch.tensor(~present)).item() == GREATEST_EFFECT


def test_directions_give_the_effects_back_and_answer_for_a_phrase_between():
    """Channel 0 rises with phrase 0, channel 1 with phrase 1, channel 2 with neither; nobody shows phrase 2."""
    torch.manual_seed(0)
    present = torch.zeros(60, 3, dtype=torch.bool)
    present[:20, 0], present[20:40, 1] = True, True
    statistics = torch.randn(60, 3, STATISTICS) * 0.1
    statistics[:20, 0] += 2.0
    statistics[20:40, 1] += 2.0
    phrases = torch.eye(8)[:3]
    directions = channel_directions(statistics, present, ~present, phrases[:, None])
    effects = channel_effects(statistics, present[:, :2], ~present[:, :2])
    assert torch.allclose(directions @ phrases[:2].T, effects / (1.0 + RIDGE), atol=1e-3)
    assert (directions @ phrases[:2].T).argmax(0).tolist() == [0, 1]
    assert directions[2].norm() < 0.3 * directions[:2].norm(dim=1).min()
    between = functional.normalize(phrases[0] + 0.5 * phrases[1], dim=0)
    assert (directions @ between).argmax() == 0
    assert not (directions @ phrases[2]).any()
    nobody = torch.zeros_like(present)
    assert not channel_directions(statistics, nobody, ~nobody, phrases[:, None]).any()
    worded = torch.stack([phrases, torch.eye(8)[3:6]], dim=1)
    both = channel_directions(statistics, present, ~present, worded)
    assert torch.allclose(both @ phrases[:2].T, both @ worded[:2, 1].T, atol=1e-4)


def test_the_score_is_the_mean_of_the_cosines_that_make_the_heat():
    cosines = torch.tensor([[[0.9], [0.5], [-0.2]]])
    assert image_scores(cosines, HeatSettings(2, 0.0)).item() == pytest.approx(0.7)
    assert image_scores(cosines, HeatSettings(9, 0.0)).item() == pytest.approx(0.4)
    assert image_scores(cosines, HeatSettings(0, 0.0)).item() == pytest.approx(0.9)
    assert image_scores(cosines, HeatSettings(2, 0.2)).item() == pytest.approx(0.9)


def test_pooling_is_the_mean_of_the_largest_cells_of_the_breast():
    inside = torch.zeros(2, 4, 5, dtype=torch.bool)
    inside[0, :, :4] = True
    inside[1, 0, :3] = True
    logits = torch.arange(20.0).reshape(1, 1, 4, 5).repeat(2, 1, 1, 1)
    expected = [np.mean(sorted(logits[view, 0][inside[view]].tolist())[-8:]) for view in range(2)]
    assert pooled(logits, inside)[:, 0].tolist() == pytest.approx(expected)
    logits[0, 0, :, 4] = 1e4
    assert pooled(logits, inside)[:, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_pooling_points_where_a_channel_fires_that_only_labels_told_of(seed):
    """Two findings in a breast of 40 cells, each by one channel of six; a third channel fires in every view."""
    torch.manual_seed(7)
    present = torch.rand(48, 2) < 0.4
    inside = torch.zeros(48, 8, 8, dtype=torch.bool)
    inside[:, :, :5] = True
    maps = torch.rand(48, 6, 8, 8) * inside[:, None] + 4.0 * ~inside[:, None]
    places = torch.stack([torch.randint(8, (48,)), torch.randint(5, (48,))], dim=1)
    for view, (row, column) in enumerate(places.tolist()):
        maps[view, 2, row, (column + 2) % 5] += 3.0
        for finding in torch.nonzero(present[view])[:, 0].tolist():
            maps[view, 4 + finding, (row + 3 * finding) % 8, column] += 2.0
    weights = train_pooling(lambda rows: maps[list(rows)], inside, present, 30, seed)
    heat = torch.einsum("bchw,ck->bkhw", maps, weights).masked_fill(~inside[:, None], float("-inf")).flatten(2)
    for finding in range(2):
        at = heat[present[:, finding], finding].argmax(1)
        row, column = places[present[:, finding]].T
        assert (at == (row + 3 * finding) % 8 * 8 + column).float().mean() >= 0.9
