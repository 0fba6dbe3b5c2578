"""The image encoders against the published tables, written down a second time: padding, sizes, pooled features.

The transcription knows no module of the project: it reads weights by the released names and convolves, in float64.
"""

from functools import cache

import pytest
import torch
from torch.nn import functional

from training.mammo_clip.model import EfficientNetEncoder

KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
# fmt: off
REPEATS = {"b5": (3, 5, 5, 7, 7, 9, 3), "b2": (2, 3, 3, 4, 4, 5, 2)}
CHANNELS = {"b5": (24, 40, 64, 128, 176, 304, 512), "b2": (16, 24, 48, 88, 120, 208, 352)}
HEAD = {"b5": 2048, "b2": 1408}
STEM_PADS = (0, 1, 0, 1)
"""left, right, top, bottom, as ZeroPad2d takes them."""
STRIDED_PADS = {
    "b5": {3: (0, 1, 0, 1), 8: (1, 2, 1, 2), 13: (1, 1, 1, 1), 27: (2, 2, 2, 2)},
    "b2": {2: (0, 1, 0, 1), 5: (2, 2, 2, 2), 8: (1, 1, 1, 1), 16: (2, 2, 2, 2)},
}
"""By the number of the block, of those with stride 2; all others have 1 or 2 zeros on each side."""
# fmt: on
SIZES = ((1520, 912), (456, 456), (260, 260), (1521, 907), (97, 61))


def blocks(name: str) -> list[tuple[int, int, tuple[int, int, int, int], int]]:
    """Kernel, stride, pads and stage of each block."""
    rows = []
    for stage, repeats in enumerate(REPEATS[name]):
        for repeat in range(repeats):
            stride = STRIDES[stage] if repeat == 0 else 1
            half = KERNELS[stage] // 2
            pads = (half,) * 4 if stride == 1 else STRIDED_PADS[name][len(rows)]
            rows.append((KERNELS[stage], stride, pads, stage))
    return rows


def sizes(name: str, height: int, width: int) -> list[tuple[int, int]]:
    """Height and width after each stage."""

    def smaller(size: int, kernel: int, stride: int, before: int, after: int) -> int:
        return (size + before + after - kernel) // stride + 1

    left, right, top, bottom = STEM_PADS
    height, width = smaller(height, 3, 2, top, bottom), smaller(width, 3, 2, left, right)
    after = {}
    for kernel, stride, (left, right, top, bottom), stage in blocks(name):
        height, width = smaller(height, kernel, stride, top, bottom), smaller(width, kernel, stride, left, right)
        after[stage] = (height, width)
    return list(after.values())


def pooled(name: str, weights: dict[str, torch.Tensor], images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the last map, and the map: stem, blocks, head, each with its batch norm's running statistics."""

    def norm(x, at):
        mean, variance = weights[f"{at}.running_mean"], weights[f"{at}.running_var"]
        scaled = (x - mean[:, None, None]) / torch.sqrt(variance + 1e-3)[:, None, None]
        return scaled * weights[f"{at}.weight"][:, None, None] + weights[f"{at}.bias"][:, None, None]

    def swish(x):
        return x / (1.0 + torch.exp(-x))

    x = functional.conv2d(functional.pad(images, STEM_PADS), weights["_conv_stem.weight"], stride=2)
    x = swish(norm(x, "_bn0"))
    for number, (_, stride, pads, stage) in enumerate(blocks(name)):
        at, inside = f"_blocks.{number}", x
        if stage > 0:
            inside = swish(norm(functional.conv2d(inside, weights[f"{at}._expand_conv.weight"]), f"{at}._bn0"))
        kernel = weights[f"{at}._depthwise_conv.weight"]
        inside = functional.conv2d(functional.pad(inside, pads), kernel, stride=stride, groups=len(kernel))
        inside = swish(norm(inside, f"{at}._bn1"))
        squeezed = inside.mean((2, 3), keepdim=True)
        for part in ("_se_reduce", "_se_expand"):
            squeezed = functional.conv2d(squeezed, weights[f"{at}.{part}.weight"], weights[f"{at}.{part}.bias"])
            squeezed = swish(squeezed) if part == "_se_reduce" else 1.0 / (1.0 + torch.exp(-squeezed))
        inside = norm(functional.conv2d(inside * squeezed, weights[f"{at}._project_conv.weight"]), f"{at}._bn2")
        x = x + inside if stride == 1 and x.shape[1] == inside.shape[1] else inside
    x = swish(norm(functional.conv2d(x, weights["_conv_head.weight"]), "_bn1"))
    return x.mean((2, 3)), x


@cache
def drawn(name: str) -> EfficientNetEncoder:
    """An encoder with drawn weights in float64; its statistics are those of noise, so that images make a difference."""
    torch.manual_seed(7)
    encoder = EfficientNetEncoder(name, dropout=0.4).double().train()
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.2)
    with torch.no_grad():
        encoder(torch.randn(4, 3, 48, 40, dtype=torch.float64))
    return encoder.eval()


@cache
def shapes_only(name: str) -> EfficientNetEncoder:
    with torch.device("meta"):
        return EfficientNetEncoder(name).eval()


@pytest.mark.parametrize("name", ["b5", "b2"])
def test_every_convolution_pads_as_the_table_says(name):
    encoder = shapes_only(name)

    def pads(conv):
        rows, columns = conv.padding
        return conv.uneven or (columns, columns, rows, rows)

    assert pads(encoder._conv_stem) == STEM_PADS
    own = [pads(block._depthwise_conv) for block in encoder._blocks]
    assert own == [row[2] for row in blocks(name)]
    assert len(own) == sum(REPEATS[name])


@pytest.mark.parametrize("name", ["b5", "b2"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_maps_of_every_level_have_the_published_sizes_and_channels(name, height, width):
    maps = shapes_only(name).stage_maps(torch.empty(1, 3, height, width, device="meta"))
    expected = sizes(name, height, width)
    assert [tuple(level.shape) for level in maps] == [
        (1, channels, *size) for channels, size in zip(CHANNELS[name], expected, strict=True)
    ]
    if (height, width) == (1520, 912):
        assert expected == [(760, 456), (380, 228), (190, 114), (95, 57), (95, 57), (48, 29), (48, 29)]


@pytest.mark.parametrize(("name", "height", "width"), [("b2", 64, 48), ("b2", 75, 46), ("b5", 50, 33)])
def test_pooled_features_are_those_of_the_transcription(name, height, width):
    encoder = drawn(name)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert not encoder.training
    with torch.no_grad():
        own = encoder.features(images)
        expected, expected_map = pooled(name, encoder.state_dict(), images)
    assert own.feature_map.shape == expected_map.shape
    assert (own.feature_map - expected_map).abs().max() < 1e-10 * expected_map.abs().max()
    assert (own.pooled - expected).abs().max() < 1e-10 * expected.abs().max()
    assert (own.pooled[0] - own.pooled[1]).norm() > 0.05 * own.pooled.norm()
    assert own.feature_map.shape[1] == HEAD[name]


def test_another_padding_gives_other_features():
    """The trap: padding computed for the image, as other libraries do, changes what the released weights give."""
    encoder, other = drawn("b2"), EfficientNetEncoder("b2", padding="centred").double().eval()
    other.load_state_dict(encoder.state_dict())
    images = torch.randn(1, 3, 75, 46, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        own, centred = encoder.features(images).pooled, other.features(images).pooled
    assert (own - centred).norm() > 0.1 * own.norm()
