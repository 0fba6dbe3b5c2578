"""One view to finding maps: a trunk, a registered feature pyramid at stride 8, a map per target.

Cell (r, c) of every map is centred on model pixel (8 r, 8 c): on (8 r + 0.5, 8 c + 0.5) in continuous pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.efficientnet import EfficientNet, load_imagenet

STRIDE = 8
"""Model pixels between neighbouring cells."""

OFFSET = 0.5
"""Continuous model pixels from the image's edge to the centre of the first cell."""

TARGETS = ("mass", "suspicious_calcification", "malignant", "architectural_distortion", "asymmetry")
"""The map axis: what each map shows. The first two are the model's findings, the others help to learn."""

GREY_MEAN, GREY_DEVIATION = 0.20, 0.22
"""Normalisation inside the graph: the same for every image, so a constant view stays finite."""

BACKGROUND_LOGIT = -4.0
"""What a map says at first: lesions are rare."""


def normalise(views: Tensor) -> Tensor:
    """Grey values in [0, 1] as the trunk takes them."""
    return (views - GREY_MEAN) / GREY_DEVIATION


def double(x: Tensor, height: int, width: int) -> Tensor:
    """Registered upsampling: cell i goes to cell 2 i, the cells between are means. (B, C, h, w) -> (B, C, H, W)."""
    rows, columns = 2 * x.shape[2] - 1, 2 * x.shape[3] - 1
    y = functional.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=True)
    below, right = max(height - rows, 0), max(width - columns, 0)
    if below or right:
        y = functional.pad(y, (0, right, 0, below), mode="replicate")
    return y[:, :, :height, :width]


class MapNetwork(nn.Module):
    """lite0 with its strides 8, 16 and 32 joined at stride 8."""

    def __init__(self, width: int = 64, padding: str = "registered") -> None:
        super().__init__()
        self.width = width
        self.trunk = EfficientNet("lite0", channels=1, padding=padding, with_head=False)
        stages = self.trunk.variant.stages
        self.lateral_8 = nn.Conv2d(stages[2].channels, width, 1)
        self.lateral_16 = nn.Conv2d(stages[4].channels, width, 1)
        self.lateral_32 = nn.Conv2d(stages[6].channels, width, 1)
        self.smooth_16 = _smooth(width)
        self.smooth_8 = nn.Sequential(_smooth(width), _smooth(width))
        self.maps = nn.Conv2d(width, len(TARGETS), 1)
        nn.init.normal_(self.maps.weight, std=0.01)
        self.maps.bias = nn.Parameter(torch.full((len(TARGETS),), BACKGROUND_LOGIT))

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Views (B, 1, H, W) in [0, 1] -> features (B, width, h, w), map logits (B, len(TARGETS), h, w)."""
        stages = self.trunk.stage_maps(normalise(views))
        at_8, at_16, at_32 = stages[2], stages[4], stages[6]
        deep = self.lateral_32(at_32)
        middle = self.smooth_16(self.lateral_16(at_16) + double(deep, at_16.shape[2], at_16.shape[3]))
        features = self.smooth_8(self.lateral_8(at_8) + double(middle, at_8.shape[2], at_8.shape[3]))
        return features, self.maps(features)


def _smooth(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, momentum=0.02), nn.ReLU()
    )


def pretrained_maps(width: int = 64, padding: str = "registered") -> MapNetwork:
    """A map network whose trunk knows ImageNet."""
    network = MapNetwork(width, padding)
    load_imagenet(network.trunk)
    return network


def coverage(masks: Tensor) -> Tensor:
    """Masks (B, C, H, W) in [0, 1] -> the covered part of each cell's 8 x 8 pixels, (B, C, h, w), registered."""
    half = STRIDE // 2
    padded = functional.pad(masks, (half, half, half, half))
    cells = functional.avg_pool2d(padded, STRIDE)
    height, width = -(-masks.shape[2] // STRIDE), -(-masks.shape[3] // STRIDE)
    return cells[:, :, :height, :width]
