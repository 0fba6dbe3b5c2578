"""The image encoder of our own models: EfficientNet-lite0, its strides 8, 16 and 32 joined at stride 8.

Unlike the published encoders it pools each channel's largest cells and not all of them: a lesion of a few cells is lost
in a mean over thousands, and a channel that is judged by its strongest cells learns to lie on the lesion, which is what
FActOR reads. Cell (r, c) is centred on (8 r + 0.5, 8 c + 0.5) in continuous model pixels.
"""

from torch import Tensor, nn

from training.efficientnet import EfficientNet
from training.mammo_clip.model import ImageFeatures
from training.maps import OFFSET, STRIDE, double

LARGEST_CELLS = 8
"""Cells of a channel whose mean is its pooled feature."""
STAGES = (2, 4, 6)
"""Of the trunk's seven: strides 8, 16, 32."""


class PyramidEncoder(nn.Module):
    """Grey images to `channels` non-negative maps at stride 8 and a pooled feature of each.

    `stride` and `offset` in model pixels say where cells lie.
    """

    stride = float(STRIDE)
    offset = OFFSET

    def __init__(self, width: int = 64, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.trunk = EfficientNet("lite0", channels=1, padding="registered", with_head=False)
        self.out_channels = channels
        stages = self.trunk.variant.stages
        self.lateral = nn.ModuleList(nn.Conv2d(stages[stage].channels, width, 1) for stage in STAGES)
        self.smooth_16 = _smooth(width, width)
        self.smooth_8 = _smooth(width, width)
        self.head = _smooth(width, channels)
        self.dropout = nn.Dropout(dropout)
        self.level_channels = (channels, stages[STAGES[1]].channels, stages[STAGES[2]].channels)

    def features(self, images: Tensor) -> ImageFeatures:
        """(B, 1, H, W), normalised -> (B, C) and (B, C, ceil(H / 8), ceil(W / 8)), both >= 0."""
        maps, _, _ = self.levels(images)
        return ImageFeatures(self.dropout(pooled(maps)), maps)

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, H, W), normalised -> the feature map at stride 8, the trunk's maps at 16 and 32: `level_channels`."""
        stages = self.trunk.stage_maps(images)
        at_8, at_16, at_32 = (lateral(stages[stage]) for lateral, stage in zip(self.lateral, STAGES, strict=True))
        middle = self.smooth_16(at_16 + double(at_32, at_16.shape[2], at_16.shape[3]))
        maps: Tensor = self.head(self.smooth_8(at_8 + double(middle, at_8.shape[2], at_8.shape[3])))
        return maps, stages[STAGES[1]], stages[STAGES[2]]


def pooled(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C), float32: the mean of each channel's largest cells."""
    cells = maps.float().flatten(2)
    largest: Tensor = cells.topk(min(LARGEST_CELLS, cells.shape[2]), dim=2).values
    return largest.mean(2)


def _smooth(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs, momentum=0.02), nn.ReLU()
    )
