"""A trained network as it will be served: norms folded into convolutions, weights rounded to what the file stores."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.efficientnet import EfficientNet, InvertedBottleneck, PaddedConv2d
from training.maps import MapNetwork

Module = TypeVar("Module", bound=nn.Module)


def served(network: MapNetwork) -> MapNetwork:
    """A copy with the trunk's norms in its convolutions, rounded: what the exported file computes."""
    copied = copy.deepcopy(network).eval()
    for conv, norm in norm_pairs(copied.trunk):
        _fold(conv, norm)
    round_values(copied)
    return copied


def served_module(module: Module) -> Module:
    """The same for any module: norms of each EfficientNet in it, and those behind a convolution in a Sequential."""
    copied = copy.deepcopy(module).eval()
    for part in copied.modules():
        if isinstance(part, EfficientNet):
            for conv, norm in norm_pairs(part):
                _fold(conv, norm)
        elif isinstance(part, nn.Sequential):
            _fuse(part)
    round_values(copied)
    return copied


def _fuse(layers: nn.Sequential) -> None:
    """Convolutions of a Sequential take in the norms behind them."""
    for at, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[at], layers[at + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


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
    if trunk.with_head:
        pairs.append((trunk._conv_head, trunk._bn1))
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
    variance.fill_(1.0)
    norm.eps = 0.0  # what is left of the norm divides by exactly 1, also once it is rounded


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var
