"""The detector of System A: RetinaNet (Lin et al. 2017) on the levels of an image encoder.

State dicts have the keys and shapes of the released detectors: `efficientnet` (here any image encoder), `fpn`,
`regressionModel`, `classificationModel`. Axes: B images, A anchors, K classes.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.efficientnet import freeze_statistics
from training.mammo_clip.detection_anchors import PER_CELL, anchor_grid, decode
from training.mammo_clip.detection_boxes import clipped, suppressed
from training.mammo_clip.detection_levels import PUBLISHED, Maps, levels_of
from training.mammo_clip.model import EfficientNetEncoder
from training.maps import double

_FIRST_LOGIT = -math.log(99.0)
"""What an untrained detector says of each anchor, probability .01: most are background."""


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """`levels`: of LAYOUTS. `width`: channels of the pyramid. `registered`: cells are centred on i * stride + 0.5, for
    encoders with padding "registered"; else on (i + 0.5) * stride, as published.
    """

    levels: str
    width: int
    registered: bool


PUBLISHED_SIZE_PX = 512
"""Height and width of the published detector's images."""
PUBLISHED_NETWORK = NetworkPart(PUBLISHED, 256, registered=False)


class Outputs(NamedTuple):
    """`logits` (B, A, K), `codes` (B, A, 4) of boxes, `anchors` (A, 4) in pixels, float32."""

    logits: Tensor
    codes: Tensor
    anchors: Tensor


class FeaturePyramid(nn.Module):
    """Maps C3, C4, C5 to levels 3 to 7 of one width (Lin et al. 2017, arXiv 1612.03144).

    `doubled`: C3 and C4 are enlarged x2 first, which brings the published levels to strides 8, 16, 32.
    """

    def __init__(self, channels: tuple[int, int, int], width: int, *, doubled: bool, registered: bool) -> None:
        super().__init__()
        self.doubled, self.registered = doubled, registered
        self.P3_1, self.P4_1, self.P5_1 = (nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.P3_2, self.P4_2, self.P5_2 = (nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.P6, self.P7_2 = nn.Conv2d(channels[2], width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)
        _initialise(self)

    def forward(self, maps: Maps) -> list[Tensor]:
        """C3, C4, C5 -> P3 to P7."""
        c3, c4, c5 = maps
        p5: Tensor = self.P5_1(c5)
        p4 = self._lateral(self.P4_1(c4))
        p4 = p4 + self._enlarged(p5, p4)
        p3 = self._lateral(self.P3_1(c3))
        p3 = p3 + self._enlarged(p4, p3)
        return [self.P3_2(p3), self.P4_2(p4), self.P5_2(p5), *self._coarsest(c5)]

    def _coarsest(self, c5: Tensor) -> tuple[Tensor, Tensor]:
        """P6 and P7, on CPUs never in a half type: of an input one cell wide oneDNN's bfloat16 gradient on the weights
        of a stride of 2 reads memory that nobody wrote (torch 2.13).
        """
        with torch.autocast("cpu", enabled=False):
            p6: Tensor = self.P6(c5.to(self.P6.weight.dtype))
            return p6, self.P7_2(functional.relu(p6))

    def _lateral(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="nearest") if self.doubled else x

    def _enlarged(self, x: Tensor, like: Tensor) -> Tensor:
        """x2, cut or filled at the lower and right edge to the size of `like`."""
        height, width = like.shape[2:]
        if self.registered:
            return double(x, height, width)
        y = functional.interpolate(x, scale_factor=2, mode="nearest")
        below, right = max(height - y.shape[2], 0), max(width - y.shape[3], 0)
        if below or right:
            y = functional.pad(y, (0, right, 0, below), mode="replicate")
        return y[:, :, :height, :width]


class Head(nn.Module):
    """Four convolutions and an output of `outputs` numbers for each anchor of a cell, the same on every level.

    Before training every number is `first`.
    """

    def __init__(self, width: int, outputs: int, first: float = 0.0) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv1, self.conv2, self.conv3, self.conv4 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.output = nn.Conv2d(width, PER_CELL * outputs, 3, padding=1)
        _initialise(self)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(_bias(self.output), first)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, h * w * PER_CELL, outputs), cells row by row."""
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = functional.relu(conv(x))
        y: Tensor = self.output(x).permute(0, 2, 3, 1)
        return y.reshape(len(x), -1, self.outputs)


class Detector(nn.Module):
    """An image encoder, a feature pyramid, and two heads: a logit for each class, and the code of a box."""

    def __init__(self, encoder: nn.Module, classes: int, network: NetworkPart, *, frozen: bool = False) -> None:
        super().__init__()
        self.efficientnet = encoder
        self.frozen, self.frozen_statistics, self.registered = frozen, True, network.registered
        self.levels = levels_of(encoder, network.levels)
        self.fpn = FeaturePyramid(
            self.levels.channels, network.width, doubled=network.levels == PUBLISHED, registered=network.registered
        )
        self.regressionModel = Head(network.width, 4)
        self.classificationModel = Head(network.width, classes, _FIRST_LOGIT)
        encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "Detector":
        """As ever, but a frozen encoder stays in eval mode, and where `frozen_statistics` its norms do."""
        super().train(mode)
        if self.frozen:
            self.efficientnet.eval()
        elif self.frozen_statistics:
            freeze_statistics(self.efficientnet)
        return self

    def forward(self, images: Tensor) -> Outputs:
        """Normalised images (B, C, H, W) of any size."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.levels.read(images)
        levels = self.fpn(maps)
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        anchors = anchor_grid(sizes, registered=self.registered, device=images.device)
        logits = torch.cat([self.classificationModel(level) for level in levels], dim=1)
        codes = torch.cat([self.regressionModel(level) for level in levels], dim=1)
        return Outputs(logits, codes, anchors)


def _initialise(part: nn.Module) -> None:
    """He's normal by outputs, biases 0."""
    for conv in part.modules():
        if isinstance(conv, nn.Conv2d):
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels
            nn.init.normal_(conv.weight, std=math.sqrt(2.0 / fan_out))
            nn.init.zeros_(_bias(conv))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a detector's answers counts: `least_probability`, boxes of a class that overlap by more than
    `most_overlap` are one, and at most `most` boxes an image.
    """

    least_probability: float = 0.05
    most_overlap: float = 0.5
    most: int = 100


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of one image, the most probable first: `boxes` (N, 4) in pixels, `probabilities` (N), `classes` int64 (N).

    A probability is the network's own, not calibrated.
    """

    boxes: Tensor
    probabilities: Tensor
    classes: Tensor


def detections(outputs: Outputs, size: tuple[int, int], reading: Reading) -> list[Detections]:
    """Boxes for each image of a batch, clipped to `size` (H, W)."""
    return [
        _of_image(logits, codes, outputs.anchors, size, reading) for logits, codes in zip(*outputs[:2], strict=True)
    ]


def _of_image(logits: Tensor, codes: Tensor, anchors: Tensor, size: tuple[int, int], reading: Reading) -> Detections:
    probabilities = torch.sigmoid(logits.float())
    parts = []
    for number in range(probabilities.shape[1]):
        likely = probabilities[:, number] > reading.least_probability
        boxes, of_class = clipped(decode(codes[likely].float(), anchors[likely]), *size), probabilities[likely, number]
        kept = suppressed(boxes, of_class, reading.most_overlap, reading.most)
        parts.append((boxes[kept], of_class[kept], torch.full_like(kept, number)))
    boxes, of_all, classes = (torch.cat(part) for part in zip(*parts, strict=True))
    best = of_all.argsort(descending=True, stable=True)[: reading.most]
    return Detections(boxes[best], of_all[best], classes[best])


def published_detector(variant: str, classes: int) -> Detector:
    """The detector as released, "b2" or "b5": static padding that takes every layer's input for the nominal size."""
    encoder = EfficientNetEncoder(variant, padding="constant")
    return Detector(encoder, classes, PUBLISHED_NETWORK)


def classes_of(state: dict[str, Tensor]) -> int:
    """How many classes a detector's state tells apart; 0 where its last layer is not there or of no such shape."""
    weight = state.get("classificationModel.output.weight")
    return 0 if weight is None or weight.dim() != 4 or len(weight) % PER_CELL else len(weight) // PER_CELL
