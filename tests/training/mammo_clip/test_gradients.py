"""Cached gradients against the gradients of the whole batch."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training.mammo_clip.tiny_runs import ConvEncoder
from training.mammo_clip.gradients import Learner, NotFiniteError, Towers, random_state, set_random_state
from training.mammo_clip.loss import Embeddings, LossSettings, contrastive_loss
from training.mammo_clip.model import MammoClip, TextConfig
from training.mammo_clip.sampling import Batch

ROWS, CPU = 7, torch.device("cpu")


def towers(dropout: float, seed: int = 0) -> Towers:
    torch.manual_seed(seed)
    config = TextConfig(vocabulary=30, hidden=16, layers=2, heads=2, intermediate=32, positions=12)
    model = MammoClip(ConvEncoder(dropout), config, embed_dim=8)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = dropout
    return Towers(model.double(), channels=1)


def batch(rows: int = ROWS, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(rows, 2, 9, dtype=torch.int64)
    mask[::2, :, 6:] = 0
    return Batch(
        torch.randn(rows, 2, 1, 32, 24, generator=generator, dtype=dtype),
        torch.randint(5, 30, (rows, 2, 9), generator=generator),
        mask,
        torch.arange(2 * rows).view(rows, 2),
        tuple(f"line {number + 2}" for number in range(rows)),
        (),
    )


def learner(of: Towers, chunk: int = 0, precision: str = "float64") -> Learner:
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=precision == "float16")
    return Learner(of, of, LossSettings(), scaler, precision, chunk)


def norms_in_eval(of: Towers) -> Towers:
    of.train()
    for part in of.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    return of


def gradients(of: Towers) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-12) for name in one)


@pytest.mark.parametrize("chunk", [2, 3, 6])
def test_cached_gradients_are_those_of_the_whole_batch(chunk):
    """Batch norm in eval mode, no dropout: nothing but the chunks differs."""
    whole, cached = norms_in_eval(towers(0.0)), norms_in_eval(towers(0.0))
    losses = learner(whole).learn(batch()), learner(cached, chunk).learn(batch())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    assert_equal(gradients(whole), gradients(cached))
    assert gradients(cached)["model.logit_scale"].abs() > 0


def test_cached_gradients_see_the_same_dropout_in_both_passes():
    """Against the same chunks under one graph, which holds all of them in memory."""
    cached, together = norms_in_eval(towers(0.3)), norms_in_eval(towers(0.3))
    torch.manual_seed(5)
    loss = learner(cached, 3).learn(batch())
    after = torch.get_rng_state()
    torch.manual_seed(5)
    whole = batch()
    parts = [
        together(whole.images[at : at + 3], whole.token_ids[at : at + 3], whole.mask[at : at + 3])
        for at in range(0, ROWS, 3)
    ]
    rows = [torch.cat([part[which] for part in parts]) for which in range(4)]
    expected = contrastive_loss(Embeddings(*rows), parts[0][4])
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-12)
    assert_equal(gradients(cached), gradients(together))
    assert torch.equal(after, torch.get_rng_state())


def test_dropout_does_matter_in_that_test():
    one, other = norms_in_eval(towers(0.3)), norms_in_eval(towers(0.3))
    torch.manual_seed(5)
    first = learner(one, 3).learn(batch())
    torch.manual_seed(6)
    assert learner(other, 3).learn(batch()) != pytest.approx(first, abs=1e-6)


def test_statistics_are_updated_once():
    """By the same chunks once forward in training mode."""
    cached, once = towers(0.0).train(), towers(0.0).train()
    learner(cached, 3).learn(batch())
    with torch.no_grad():
        for at in range(0, ROWS, 3):
            once(batch().images[at : at + 3], batch().token_ids[at : at + 3], batch().mask[at : at + 3])
    own, expected = dict(cached.named_buffers()), dict(once.named_buffers())
    assert any("running_mean" in name for name in own)
    assert all(torch.equal(own[name], expected[name]) for name in own)
    assert {part.momentum for part in cached.modules() if isinstance(part, nn.BatchNorm2d)} == {0.1}


def test_shares_of_two_batches_add_up():
    both, one, other = (norms_in_eval(towers(0.0)) for _ in range(3))
    small, large = batch(4), batch(6)
    learner(both).learn(small, share=0.5, last=False)
    learner(both).learn(large, share=0.5)
    learner(one).learn(small)
    learner(other).learn(large)
    halves = {name: (gradients(one)[name] + gradients(other)[name]) / 2 for name in gradients(one)}
    assert all(torch.allclose(gradients(both)[name], halves[name], rtol=1e-9, atol=1e-12) for name in halves)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("chunk", [0, 3])
def test_halves_give_nearly_the_gradients_of_float32(precision, chunk):
    exact, half = (norms_in_eval(towers(0.0)).float() for _ in range(2))
    data = batch(6, torch.float32)
    learner(exact, 0, "float32").learn(data)
    of = learner(half, chunk, precision)
    of.learn(data)
    scale = of.scaler.get_scale() if precision == "float16" else 1.0
    for name, gradient in gradients(exact).items():
        error = (gradients(half)[name] / scale - gradient).norm() / (gradient.norm() + 1e-3)
        assert error < 0.12, name


@pytest.mark.parametrize("chunk", [0, 3])
def test_row_whose_image_is_no_number_is_named(chunk):
    images = batch().images.clone()
    images[4] = float("nan")
    bad = replace(batch(), images=images, constant=("line 6",))
    of = norms_in_eval(towers(0.0))
    with pytest.raises(NotFiniteError, match=r"the loss is nan; no finite image of line 6; of one value .* line 6"):
        learner(of, chunk).learn(bad)


def test_row_whose_embedding_is_no_number_is_named():
    of = norms_in_eval(towers(0.0))
    with torch.no_grad():
        of.model.text_encoder.text_encoder.embeddings.word_embeddings.weight[29] = float("nan")
    ids = batch().token_ids.clamp(max=28)
    ids[2, 1, 0] = 29
    with pytest.raises(NotFiniteError, match=r"the loss is nan; no finite embedding of line 4$"):
        learner(of).learn(replace(batch(), token_ids=ids))


def test_loss_that_is_no_number_by_its_scale_names_the_batch():
    of = norms_in_eval(towers(0.0))
    with torch.no_grad():
        of.model.logit_scale.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="batch of line 2, line 3, line 4"):
        learner(of).learn(batch(3))


def test_measuring_leaves_no_gradient_and_no_statistics():
    of = towers(0.3).eval()
    before = {name: value.clone() for name, value in of.named_buffers()}
    assert learner(of, 3).measure(batch()) == pytest.approx(learner(of).measure(batch()), abs=1e-12)
    assert gradients(of) == {}
    assert all(torch.equal(value, before[name]) for name, value in of.named_buffers())


def test_random_state_comes_back():
    state = random_state(CPU)
    drawn = torch.rand(3)
    set_random_state(state, CPU)
    assert torch.equal(torch.rand(3), drawn)
