"""The transformer block: CLIP's keys and arithmetic, and tokens that are absent."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.multi_view import transcription
from training.multi_view.adapters import Sites
from training.multi_view.blocks import Activation, TransformerBlock, zero_output

WIDTH, HEADS, LENGTH = 16, 4, 7


def tokens(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))


def block(**options) -> TransformerBlock:
    torch.manual_seed(5)
    made = TransformerBlock(WIDTH, HEADS, **options)
    for name, value in made.named_parameters():
        if "adapter" not in name:
            nn.init.normal_(value, 0.3 if name.endswith("ln_1.weight") else 0.0, 0.3)
    return made.eval()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_block_equals_its_transcription_in_float64(activation: Activation, causal: bool):
    made = block(activation=activation, causal=causal).double()
    state = {name: value.numpy() for name, value in made.state_dict().items()}
    given = tokens().double()
    with torch.no_grad():
        out = made(given)
    for exam in range(2):
        expected = transcription.block(given[exam].numpy(), state, "", HEADS, activation, causal)
        np.testing.assert_allclose(out[exam].numpy(), expected, atol=1e-12)


def test_keys_are_those_of_a_resblock_of_clip():
    assert list(block().state_dict()) == [
        *("ln_1.weight", "ln_1.bias"),
        *("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"),
        *("ln_2.weight", "ln_2.bias"),
        *("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"),
    ]


@pytest.mark.parametrize("sites", ["parallel", "serial"])
@pytest.mark.parametrize("content", [0.0, 1e6, math.nan, math.inf])
def test_absent_tokens_never_reach_kept_ones(content: float, sites: Sites):
    made = block(adapter_rank=3, adapter_sites=sites)
    keep = torch.tensor([[1, 1, 0, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    given = tokens()
    other = given.clone()
    other[~keep] = content
    with torch.no_grad():
        one, two = made(given, keep), made(other, keep)
    assert torch.equal(one, two)
    assert torch.equal(one[~keep], torch.zeros_like(one[~keep]))


@pytest.mark.parametrize("causal", [False, True])
def test_kept_tokens_come_out_as_if_the_absent_were_not_there(causal: bool):
    made = block(causal=causal)
    keep = torch.tensor([[True, True, False, True, False, True, True]] * 2)
    given = tokens()
    with torch.no_grad():
        torch.testing.assert_close(made(given, keep)[keep], made(given[:, keep[0]]).flatten(0, 1))


def test_no_gradient_reaches_absent_tokens_even_of_nan():
    made = block()
    keep = torch.tensor([[True] * 4 + [False] * 3] * 2)
    given = tokens()
    given[~keep] = math.nan
    given.requires_grad_()
    made(given, keep)[keep].square().sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad[~keep], torch.zeros(6, WIDTH))
    assert all(value.grad is not None and value.grad.isfinite().all() for value in made.parameters())


def test_a_row_without_any_token_is_zero_and_harms_no_gradient():
    made = block()
    keep = torch.tensor([[True] * LENGTH, [False] * LENGTH])
    out = made(tokens(), keep)
    out.square().sum().backward()
    assert torch.equal(out[1], torch.zeros(LENGTH, WIDTH))
    assert all(value.grad is not None and value.grad.isfinite().all() for value in made.parameters())


def test_a_block_with_zero_output_is_the_identity():
    made = block()
    zero_output(made)
    with torch.no_grad():
        assert torch.equal(made(tokens()), tokens())


@pytest.mark.parametrize(
    ("sites", "names"), [("parallel", ["mlp_adapter"]), ("serial", ["attn_adapter", "mlp_adapter"])]
)
def test_adapters_change_nothing_at_the_start(sites: Sites, names: list[str]):
    plain, adapted = block(), block(adapter_rank=3, adapter_sites=sites)
    adapted.load_state_dict(plain.state_dict(), strict=False)
    added = {name.split(".")[0] for name in adapted.state_dict().keys() - plain.state_dict().keys()}
    assert added == set(names)
    with torch.no_grad():
        assert torch.equal(adapted(tokens()), plain(tokens()))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 16 does not divide into 3 heads"):
        TransformerBlock(WIDTH, 3)
