"""The recipe of a report: everything that decides its figures, as a TOML file read into frozen values."""

from dataclasses import dataclass
from pathlib import Path

from training.mammo_clip.evaluation_recipe import check_choices
from training.mammo_clip.labelled_images import ROW_UNITS
from training.mammo_clip.pretraining_recipe import RecipeError, read_recipe
from training.mammo_clip.prompts import SETS
from training.mammo_clip.units import UNITS

PARTS = ("prompts", "probe", "location", "detection", "page")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class ReportRows:
    """Which rows are read. `rows`: "image", or "row" for the published unit of VinDr-Mammo; `validation_share` of the
    training patients validates where a source has no fold for it; phantom exams are the first seeds of each split.
    """

    rows: str
    validation_share: float
    phantom_validation_exams: int
    phantom_calibration_exams: int
    phantom_test_exams: int


@dataclass(frozen=True, slots=True)
class ReportImages:
    """How images go through the encoder. `image_size`: height and width, (0, 0) for the model's own; `crop_px`: side of
    lesion crops, which are squares; `preset` of whole images, "" for the model's own.
    """

    image_size: tuple[float, float]
    crop_px: int
    preset: str
    batch: int
    precision: str


@dataclass(frozen=True, slots=True)
class ReportLocation:
    """Where: filter and true mask are told of the views of the first `baseline_exams` exams of the test split."""

    baseline_exams: int


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The page of heatmaps: views with a finding for each label, and views without any, drawn by `seed`."""

    views_a_label: int
    normal_views: int
    seed: int


@dataclass(frozen=True, slots=True)
class ReportRecipe:
    """One report. `labels` are those asked for where a source tells them; the first of `units` is a single image.
    `prompts`: sets of prompts.py; a label takes the first one that has it.
    """

    name: str
    parts: tuple[str, ...]
    labels: tuple[str, ...]
    units: tuple[str, ...]
    prompts: tuple[str, ...]
    data: ReportRows
    images: ReportImages
    location: ReportLocation
    page: ReportPage


def load_report_recipe(path: Path) -> ReportRecipe:
    """Raises RecipeError naming the file and the key."""
    recipe: ReportRecipe = read_recipe(ReportRecipe, path)
    check_choices("data.rows", [recipe.data.rows], ROW_UNITS)
    check_choices("units", recipe.units, UNITS)
    if not recipe.units or not recipe.labels or not recipe.prompts:
        raise RecipeError(f"{path.name}: units, labels and prompts need one entry at least")
    check_choices("parts", recipe.parts, PARTS)
    check_choices("prompts", recipe.prompts, SETS)
    check_choices("images.precision", [recipe.images.precision], PRECISIONS)
    return recipe
