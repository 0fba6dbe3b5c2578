"""A trained network as it will be served: norms folded into convolutions, weights rounded to what the file stores."""

import copy

import torch
from torch import Tensor, nn

from training.efficientnet import EfficientNet, InvertedBottleneck, PaddedConv2d
from training.maps import MapNetwork


def served(network: MapNetwork) -> MapNetwork:
    """A copy with the trunk's norms in its convolutions, rounded: what the exported file computes."""
    copied = copy.deepcopy(network).eval()
    for conv, norm in norm_pairs(copied.trunk):
        _fold(conv, norm)
    round_values(copied)
    return copied


@torch.no_grad()
def round_values(module: nn.Module) -> None:
    """Weights and statistics become values that float16 holds, in place; they stay float32."""
    for value in [*module.parameters(), *module.buffers()]:
        if value.dtype is torch.float32:
            value.copy_(value.to(torch.float16).to(torch.float32))


def norm_pairs(trunk: EfficientNet) -> list[tuple[PaddedConv2d, nn.BatchNorm2d]]:
    """Each convolution of a trunk with the norm behind it."""
    pairs = [(trunk._conv_stem, trunk._bn0)]
    for block in trunk._blocks:
        assert isinstance(block, InvertedBottleneck)
        if block.expands:
            pairs.append((block._expand_conv, block._bn0))
        pairs += [(block._depthwise_conv, block._bn1), (block._project_conv, block._bn2)]
    return pairs


@torch.no_grad()
def _fold(conv: PaddedConv2d, norm: nn.BatchNorm2d) -> None:
    """Puts the norm's scale into the weights; what is left of the norm is its shift."""
    mean, variance = _statistics(norm)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    conv.weight.mul_(scale[:, None, None, None])
    norm.bias.sub_(mean * scale)
    norm.weight.fill_(1.0)
    mean.zero_()
    variance.fill_(1.0 - norm.eps)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
