"""Depthwise gradients against torch's own in float64."""

import pytest
import torch
from torch.nn import functional

from training.depthwise import depthwise, gains
from training.efficientnet import PaddedConv2d, static_padding


@pytest.mark.parametrize("size", [(9, 7), (8, 12), (13, 10)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 1, 2), (5, 2, 2), (5, 2, 0)]
)
def test_gradients_are_those_of_torch(size, kernel, stride, padding):
    torch.manual_seed(0)
    given = [torch.randn(2, 6, *size), torch.randn(6, 1, kernel, kernel), torch.randn(6)]
    ours, plain = ([value.double().requires_grad_() for value in given] for _ in range(2))
    made = depthwise(ours[0], ours[1], ours[2], stride, padding)
    expected = functional.conv2d(plain[0], plain[1], plain[2], stride, padding, groups=6)
    assert torch.equal(made, expected)
    seen = torch.randn_like(made)
    made.backward(seen)
    expected.backward(seen)
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_gradients_that_nobody_wants_are_not_made():
    x, weight = torch.randn(1, 4, 8, 8), torch.randn(4, 1, 5, 5, requires_grad=True)
    depthwise(x, weight, None, 2, 2).sum().backward()
    assert x.grad is None
    assert weight.grad.shape == weight.shape


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (5, 2)])
def test_training_in_bfloat16_goes_this_way_and_agrees_with_float32(kernel, stride):
    torch.manual_seed(0)
    conv = PaddedConv2d(8, 8, kernel, static_padding(33, kernel, stride), stride=stride, groups=8)
    x = torch.randn(2, 8, 24, 20)
    gradients = []
    for is_half in (False, True):
        conv.weight.grad, seen = None, x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            assert not is_half or gains(seen, conv.weight, stride)
            made = conv(seen)
        assert made.dtype == (torch.bfloat16 if is_half else torch.float32)
        made.float().square().mean().backward()
        gradients.append((conv.weight.grad, seen.grad))
    for precise, half in zip(*gradients, strict=True):
        assert half.dtype == torch.float32
        assert (half - precise).norm() < 0.02 * precise.norm()


def test_prediction_goes_the_plain_way():
    with torch.no_grad():
        assert not gains(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 5, 5), 1)
