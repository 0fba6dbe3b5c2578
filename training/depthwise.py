"""Depthwise convolutions on CPUs with gradients in the forms for which oneDNN has fast kernels.

The forward pass is torch's own. Two gradients oneDNN 3.12 computes by plain loops, which in bfloat16 take most of a
training step of an EfficientNet: that of kernels 5 wide, and that of the input at stride 2. The first is made here of
kernels 3 and 2 wide, the second as a convolution of stride 1 over the gradient with zeros between its rows and columns:
the same sums in another order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_HALVES = (torch.bfloat16, torch.float16)
_WIDEST = 3


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`functional.conv2d` with a group for each channel: (B, C, H, W), (C, 1, k, k), k odd -> (B, C, H', W').

    Both are of one type. Gradients of gradients are not to be had.
    """
    convolved: Tensor = _Depthwise.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return convolved


def gains(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether training on this device, at this kernel and stride, is faster by `depthwise` than by torch."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    is_wide, is_half = weight.shape[3] > _WIDEST, x.dtype in _HALVES or torch.is_autocast_enabled("cpu")
    return (is_wide or stride == 2) if is_half else (is_wide and stride == 1)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        dense = gradient.contiguous(memory_format=torch.channels_last)
        of_x = _of_input(dense, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        of_weight = _of_weight(dense, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        of_bias = dense.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None


def _of_input(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the input, (B, C, H, W)."""
    if stride == 1:
        return _backward(gradient, x, weight, stride, padding, 0)
    channels, kernel = weight.shape[0], weight.shape[3]
    rows, columns = x.shape[2], x.shape[3]
    shape = (len(x), channels, rows + 2 * padding - kernel + 1, columns + 2 * padding - kernel + 1)
    spread = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last).zero_()
    spread[:, :, ::stride, ::stride] = gradient
    return functional.conv2d(spread, weight.flip(2, 3), None, 1, kernel - 1 - padding, groups=channels)


def _of_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the kernel, (C, 1, k, k), of parts that are at most three columns wide."""
    kernel = weight.shape[3]
    if kernel <= _WIDEST:
        return _backward(gradient, x, weight, stride, padding, 1)
    parts = []
    for first in range(0, kernel, _WIDEST):
        last = min(first + _WIDEST, kernel)
        seen = functional.pad(x, (padding - first, padding + last - kernel, padding, padding))
        seen = seen.contiguous(memory_format=torch.channels_last)
        parts.append(_backward(gradient, seen, weight[..., first:last].contiguous(), stride, 0, 1))
    return torch.cat(parts, 3)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, which: int) -> Tensor:
    """torch's own gradient, of the input (0) or of the kernel (1)."""
    wanted = [which == 0, which == 1, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), wanted
    )[which]
    return found
