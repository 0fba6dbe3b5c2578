"""Three maps of an image encoder, C3 to C5, from which a detector builds its pyramid: whichever encoder it is.

"published": of an EfficientNet the end of stage 5, the next to last block and the head, strides 16, 32 and 32 (for B5
blocks 26 and 37, for B2 blocks 15 and 21). "strides": strides 8, 16 and 32.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from training.efficientnet import EfficientNet
from training.mammo_clip.model import ImageFeatures
from training.mammo_clip.pretraining_recipe import RecipeError

PUBLISHED, STRIDES = "published", "strides"
LAYOUTS = (PUBLISHED, STRIDES)
_STRIDES = (8, 16, 32)
Maps = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """`channels` of C3, C4, C5, and `read`: normalised images (B, C, H, W) -> these maps."""

    channels: tuple[int, int, int]
    read: Callable[[Tensor], Maps]


def levels_of(encoder: nn.Module, layout: str) -> Levels:
    """How a detector reads an encoder: an EfficientNet by its blocks, one with `levels` and `level_channels` by these,
    any other by its feature map, resampled. Raises RecipeError.
    """
    if isinstance(encoder, EfficientNet):
        return _of_blocks(encoder, layout)
    if layout == PUBLISHED:
        raise RecipeError('network: levels "published" are those of an EfficientNet; take "strides"')
    if hasattr(encoder, "levels"):
        return Levels(tuple(encoder.level_channels), encoder.levels)  # type: ignore[arg-type]
    return _of_feature_map(encoder)


def _of_blocks(encoder: EfficientNet, layout: str) -> Levels:
    ends = encoder.stage_ends
    blocks = (ends[4], ends[6] - 1, ends[6]) if layout == PUBLISHED else (ends[2], ends[4], ends[6])
    first, second, third = (_stage_channels(encoder, block) for block in blocks)
    deepest = encoder.variant.head if encoder.with_head else third

    def read(images: Tensor) -> Maps:
        at_first, at_second, at_third = encoder.block_maps(images, blocks)
        return at_first, at_second, encoder.head_map(at_third)

    return Levels((first, second, deepest), read)


def _stage_channels(encoder: EfficientNet, block: int) -> int:
    stage = next(number for number, end in enumerate(encoder.stage_ends) if block <= end)
    return encoder.variant.stages[stage].channels


def _of_feature_map(encoder: nn.Module) -> Levels:
    """One map three times: made larger by linear interpolation, smaller by the mean of its cells."""

    def read(images: Tensor) -> Maps:
        features: ImageFeatures = encoder.features(images)  # type: ignore[operator]
        height, width = images.shape[2:]
        sizes = [(-(-height // stride), -(-width // stride)) for stride in _STRIDES]
        first, second, third = (_resampled(features.feature_map, size) for size in sizes)
        return first, second, third

    count = int(encoder.out_channels)  # type: ignore[arg-type]
    return Levels((count, count, count), read)


def _resampled(feature_map: Tensor, size: tuple[int, int]) -> Tensor:
    if feature_map.shape[2] >= size[0]:
        return functional.adaptive_avg_pool2d(feature_map, size)
    return functional.interpolate(feature_map, size, mode="bilinear", align_corners=False)
