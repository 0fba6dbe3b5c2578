"""One view's heat against its truth: where it points, its boxes, what chance, a filter and a perfect map would do."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node.mammography.regions import HeatGrid
from training.localisation import Box, FloatImage
from training.mammo_clip import localising
from training.mammo_clip.factor_views import Truth, labelled_views, truth_of
from training.mammo_clip.images import Picture, of_size
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.localising import BoolImage, HeatBox

Heats = Mapping[str, NDArray[np.float16]]
"""By mapper: (N, K, h, w)."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is asked of N images: `labels` (K) in the order of the heat's K axis, `chosen` among the mappers, where the
    cells lie, and the planes' `size` (H, W).

    `baselines`: of the first so many images filter and true mask are told too. `round_truth`: a box stands for the
    ellipse in it (mini-MIAS's circles). `all_boxes`: boxes of views without the finding too, for marks and FROC.
    """

    images: Sequence[LabelledImage]
    heats: Heats
    chosen: str
    labels: tuple[str, ...]
    grid: HeatGrid
    size: tuple[int, int]
    baselines: int = 0
    round_truth: bool = False
    all_boxes: bool = True


@dataclass(frozen=True, slots=True)
class Baseline:
    """Pointing and box hit (IoU .25) of something beside the model."""

    points: bool
    box: bool


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One view and one label. `boxes` down to half of the greatest heat, `published` above the 95th percentile.

    `truth` is empty where the view does not show the label; then only boxes are told. `points` by mapper.
    """

    row: int
    label: str
    boxes: tuple[HeatBox, ...]
    published: tuple[HeatBox, ...]
    truth: tuple[Box, ...] = ()
    points: Mapping[str, bool] | None = None
    chance: float = float("nan")
    lesion_heat: float = float("nan")
    """The greatest heat on the lesions."""
    log_filter: Baseline | None = None
    true_mask: Baseline | None = None


def found_in_views(asked: Asked, threads: int) -> list[Found]:
    """Every image and label, in the order of the images."""
    with ThreadPoolExecutor(threads) as pool:
        return [one for found in pool.map(lambda row: found_in(asked, row), range(len(asked.images))) for one in found]


def found_in(asked: Asked, row: int) -> list[Found]:
    """Every label of one image. The truth is where the labels' boxes or masks lie; a label without any is not shown."""
    image = asked.images[row]
    truth = _truth(asked, image)
    wanted = [label for label in asked.labels if asked.all_boxes or truth.boxes.get(label)]
    if not wanted:
        return []
    plane = plane_of(image.picture, asked.size)
    inside = localising.breast_of(plane)
    return [_found(asked, row, label, plane, inside, truth) for label in wanted]


def plane_of(picture: Picture, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture as the model sees it."""
    return of_size(picture.read(), size)


def _truth(asked: Asked, image: LabelledImage) -> Truth:
    (view,) = labelled_views([image])
    truth = truth_of(view, asked.size)
    if not asked.round_truth:
        return truth
    return Truth({label: ellipses(boxes, asked.size) for label, boxes in truth.boxes.items()}, truth.boxes)


def ellipses(boxes: Sequence[Box], size: tuple[int, int]) -> BoolImage:
    """The pixels (H, W) of the ellipses that touch the boxes' sides."""
    mask = np.zeros(size, np.bool_)
    down, across = np.mgrid[: size[0], : size[1]] + 0.5
    for left, top, right, bottom in boxes:
        width, height = max(right - left, 1.0) / 2, max(bottom - top, 1.0) / 2
        mask |= ((across - (left + right) / 2) / width) ** 2 + ((down - (top + bottom) / 2) / height) ** 2 <= 1.0
    return mask


def _found(asked: Asked, row: int, label: str, plane: NDArray[np.uint8], inside: BoolImage, truth: Truth) -> Found:
    at = asked.labels.index(label)
    heat = _registered(asked, asked.heats[asked.chosen][row, at], inside)
    boxes, published = localising.half_maximum_boxes(heat, inside), localising.percentile_boxes(heat, inside)
    if not truth.boxes.get(label):
        return Found(row, label, boxes, published)
    mask, lesions = truth.masks[label], tuple(truth.boxes[label])
    points = {
        name: localising.points_at(
            heat if name == asked.chosen else _registered(asked, heats[row, at], inside), inside, mask
        )
        for name, heats in asked.heats.items()
    }
    on_lesion = float(heat[mask].max()) if mask.any() else float("nan")
    found = Found(row, label, boxes, published, lesions, points, localising.area_chance(inside, mask), on_lesion)
    if row >= asked.baselines:
        return found
    cells = (asked.heats[asked.chosen].shape[2], asked.heats[asked.chosen].shape[3])
    perfect = _registered(asked, localising.mask_heat(mask, asked.grid, cells), inside)
    log_heat = np.where(inside, localising.log_heat(plane, label), np.float32(0.0))
    return replace(
        found,
        log_filter=_baseline(log_heat, inside, mask, lesions),
        true_mask=_baseline(perfect, inside, mask, lesions),
    )


def _registered(asked: Asked, heat: NDArray[np.floating], inside: BoolImage) -> FloatImage:
    return localising.registered(heat.astype(np.float32), asked.grid, inside)


def _baseline(heat: FloatImage, inside: BoolImage, mask: BoolImage, lesions: Sequence[Box]) -> Baseline:
    boxes = localising.half_maximum_boxes(heat, inside)
    return Baseline(localising.points_at(heat, inside, mask), localising.hits(boxes, lesions, localising.OVERLAPS[0]))
