"""Stored values to model input, and regions back again. The one preprocessing path of training and node."""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import SettingsError
from node.mammography import luts, mammo_clip
from node.mammography.breast import Breast, find_breast
from node.mammography.codecs import check_pixel_header, decode
from node.mammography.resize import resize, resize_as_opencv
from node.mammography.views import Laterality

__all__ = [
    "CONSTANT_IMAGE",
    "FLAGS",
    "Placement",
    "PreparedView",
    "Preset",
    "check_pixel_header",
    "display_values",
    "prepare",
    "prepare_display",
    "preset",
]

CONSTANT_IMAGE = "constant image"
BREAST_NOT_FOUND = "breast not found"
STORED_MIRRORED = "stored mirrored"
CLIPPED = "clipped"
FOR_PROCESSING_IMAGE = "For Processing image"
CROP_TIED = "crop tied"

FLAGS: dict[str, str] = {
    CONSTANT_IMAGE: "every pixel has one value; the model sees zeros",
    BREAST_NOT_FOUND: "nothing stands out of the background; the whole image is taken",
    STORED_MIRRORED: "the chest wall lies on the other edge than the side in the header says; the pixels are followed",
    CLIPPED: "more than a tenth of the breast is at the greatest display value; detail is lost there",
    FOR_PROCESSING_IMAGE: "raw detector values, windowed here: not what a radiologist saw",
    CROP_TIED: "preset mammo-clip: several column runs are equally long; the first is taken",
}
"""The words of `PreparedView.flags` and what each means to a reader."""

CLIPPED_SHARE = 0.1
LONGEST_SIDE_PX = 8192


@dataclass(frozen=True, slots=True)
class Preset:
    """A named preprocessing, part of a model's weights.

    `fit-HxW`: aspect kept, right breasts mirrored, chest wall on the left edge of the model image, zero padding.
    `mammo-clip`: 1520 x 912, 8-bit, no mirror, no lookup table, aspect ignored.
    """

    name: str
    height: int
    width: int
    keep_aspect: bool
    mirror: bool
    eight_bit: bool
    apply_luts: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the model image lies in the stored image: crop, scale, shift, mirror; and both ways between the two.

    Both frames are continuous, (x, y) = (column, row), pixel i spans [i, i + 1).
    Stored x maps to u = (x - crop_left) * scale_x + shift_x in model pixels; where `mirrored`, x is first reflected
    inside the crop: crop_left + crop_right - x.
    """

    stored_rows: int
    stored_columns: int
    crop_left: int
    crop_top: int
    crop_right: int
    crop_bottom: int
    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    mirrored: bool
    model_rows: int
    model_columns: int

    def to_model(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) of (x, y) in stored pixels to model pixels."""
        x, y = points[:, 0], points[:, 1]
        inside = (self.crop_left + self.crop_right - x) if self.mirrored else x
        u = (inside - self.crop_left) * self.scale_x + self.shift_x
        v = (y - self.crop_top) * self.scale_y + self.shift_y
        return np.stack([u, v], axis=1)

    def to_stored(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (N, 2) of (x, y) in model pixels to stored pixels: the inverse of `to_model`."""
        inside = (points[:, 0] - self.shift_x) / self.scale_x + self.crop_left
        x = (self.crop_left + self.crop_right - inside) if self.mirrored else inside
        y = (points[:, 1] - self.shift_y) / self.scale_y + self.crop_top
        return np.stack([x, y], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedView:
    """Model input of one view: `pixels` float32 (H, W) in [0, 1], its `placement`, and what a reader should know."""

    pixels: NDArray[np.float32]
    placement: Placement
    chest_wall: Laterality
    """Image side of the chest wall as found from the pixels: LEFT = left edge of the stored image."""
    flags: tuple[str, ...]


def preset(name: str) -> Preset:
    """The preset of that name: `mammo-clip`, or `fit-HxW` with H and W in model pixels. Raises SettingsError."""
    if name == mammo_clip.NAME:
        return Preset(name, mammo_clip.ROWS, mammo_clip.COLUMNS, False, False, True, False)
    match = re.fullmatch(r"fit-([1-9]\d{0,3})x([1-9]\d{0,3})", name)
    if match is None or max(map(int, match.groups())) > LONGEST_SIDE_PX:
        raise SettingsError(f"preset {name!r} is unknown; there are mammo-clip and fit-HxW, for example fit-760x456")
    return Preset(name, int(match[1]), int(match[2]), True, True, False, True)


def prepare(dataset: Dataset, laterality: Laterality, preset: Preset) -> PreparedView:
    """Model input of one image. `laterality` is the side its header says. Raises PixelError."""
    if preset.name == mammo_clip.NAME:
        stored = decode(dataset)
        trimmed_px = mammo_clip.trimmed_px(stored.shape)
        grey = mammo_clip.eight_bit(stored, inverted=luts.is_monochrome1(dataset))
        prepared = _prepare_eight_bit(grey, trimmed_px, laterality, preset)
    else:
        prepared = prepare_display(display_values(dataset, apply_luts=preset.apply_luts), laterality, preset)
    if luts.is_for_processing(dataset):
        return replace(prepared, flags=(*prepared.flags, FOR_PROCESSING_IMAGE))
    return prepared


def prepare_display(display: NDArray[np.float32], laterality: Laterality, preset: Preset) -> PreparedView:
    """Model input of display values, (rows, cols) in [0, 1], bright = dense: what `prepare` does after the tables.

    Presets `fit-HxW`: the breast is found in the pixels, cropped, scaled until it fits, mirrored if its chest wall
    is on the right, put on the left edge at half height. What lies outside the breast and a narrow margin is 0.
    Preset `mammo-clip`: see mammo_clip.py.
    """
    if preset.name == mammo_clip.NAME:
        grey = mammo_clip.eight_bit_of_display(display)
        return _prepare_eight_bit(grey, mammo_clip.trimmed_px(display.shape), laterality, preset)
    breast = find_breast(display)
    if breast is None:
        constant = float(display.min()) == float(display.max())
        flags: tuple[str, ...] = (CONSTANT_IMAGE,) if constant else (BREAST_NOT_FOUND,)
        whole = _whole_image(display.shape, laterality)
        prepared = _fitted(np.zeros_like(display) if constant else display, whole, preset)
        return replace(prepared, flags=flags)
    expected = expected_chest_wall(laterality)
    if not breast.chest_wall_certain:
        breast = replace(breast, chest_wall=expected)
    prepared = _fitted(display, breast, preset)
    inside = prepared.pixels[prepared.pixels > 0]
    flags = _mirror_flag(breast.chest_wall, expected)
    if inside.size and float((inside >= 0.999).mean()) > CLIPPED_SHARE:
        flags = (*flags, CLIPPED)
    return replace(prepared, flags=flags)


def expected_chest_wall(laterality: Laterality) -> Laterality:
    """Image side of the chest wall as mammograms are stored and hung: right breasts on the right edge."""
    return laterality


def display_values(dataset: Dataset, *, apply_luts: bool = True) -> NDArray[np.float32]:
    """Display values, float32 (rows, cols) in [0, 1], bright = dense; see luts.py. Raises PixelError.

    Without LUTs: from least to greatest stored value, MONOCHROME1 inverted.
    """
    stored = decode(dataset)
    return luts.to_display(stored, dataset) if apply_luts else luts.to_display_without_luts(stored, dataset)


def _whole_image(shape: tuple[int, ...], laterality: Laterality) -> Breast:
    rows, columns = shape
    return Breast(0, 0, columns, rows, np.ones((1, 1), bool), expected_chest_wall(laterality), False)


def _fitted(display: NDArray[np.float32], breast: Breast, preset: Preset) -> PreparedView:
    """The breast's crop in the model image. The scale is rounded per axis so that the crop ends on whole pixels."""
    crop = display[breast.top : breast.bottom, breast.left : breast.right]
    scale = min(preset.height / crop.shape[0], preset.width / crop.shape[1])
    rows = min(preset.height, max(1, round(crop.shape[0] * scale)))
    columns = min(preset.width, max(1, round(crop.shape[1] * scale)))
    mirrored = preset.mirror and breast.chest_wall is Laterality.RIGHT
    picture = resize(crop, rows, columns) * resize(breast.mask, rows, columns)
    top = (preset.height - rows) // 2
    pixels = np.zeros((preset.height, preset.width), np.float32)
    pixels[top : top + rows, :columns] = picture[:, ::-1] if mirrored else picture
    placement = Placement(
        stored_rows=display.shape[0],
        stored_columns=display.shape[1],
        crop_left=breast.left,
        crop_top=breast.top,
        crop_right=breast.right,
        crop_bottom=breast.bottom,
        scale_x=columns / crop.shape[1],
        scale_y=rows / crop.shape[0],
        shift_x=0.0,
        shift_y=float(top),
        mirrored=mirrored,
        model_rows=preset.height,
        model_columns=preset.width,
    )
    return PreparedView(np.clip(pixels, 0, 1), placement, breast.chest_wall, ())


def _prepare_eight_bit(
    grey: NDArray[np.uint8], trimmed_px: int, laterality: Laterality, preset: Preset
) -> PreparedView:
    """Preset mammo-clip from the trimmed 8-bit image: its own crop, resized whatever the aspect, not mirrored."""
    crop = mammo_clip.find_crop(grey)
    picture = grey[crop.top : crop.bottom, crop.left : crop.right]
    pixels = resize_as_opencv(picture, preset.height, preset.width).astype(np.float32) / np.float32(255)
    placement = Placement(
        stored_rows=grey.shape[0] + 2 * trimmed_px,
        stored_columns=grey.shape[1] + 2 * trimmed_px,
        crop_left=crop.left + trimmed_px,
        crop_top=crop.top + trimmed_px,
        crop_right=crop.right + trimmed_px,
        crop_bottom=crop.bottom + trimmed_px,
        scale_x=preset.width / picture.shape[1],
        scale_y=preset.height / picture.shape[0],
        shift_x=0.0,
        shift_y=0.0,
        mirrored=False,
        model_rows=preset.height,
        model_columns=preset.width,
    )
    flags = (CROP_TIED,) if crop.tied else ()
    expected = expected_chest_wall(laterality)
    breast = find_breast(grey.astype(np.float32) / np.float32(255))
    if breast is None:
        constant = int(grey.min()) == int(grey.max())
        flags = (*flags, CONSTANT_IMAGE if constant else BREAST_NOT_FOUND)
        return PreparedView(pixels, placement, expected, flags)
    chest_wall = breast.chest_wall if breast.chest_wall_certain else expected
    return PreparedView(pixels, placement, chest_wall, (*flags, *_mirror_flag(chest_wall, expected)))


def _mirror_flag(chest_wall: Laterality, expected: Laterality) -> tuple[str, ...]:
    return (STORED_MIRRORED,) if chest_wall is not expected else ()
