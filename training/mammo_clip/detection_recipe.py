"""A recipe of `detect`: everything that decides a detector's weights and which of its boxes count."""

from dataclasses import dataclass
from pathlib import Path

from training.mammo_clip.augmentation import Augmentation
from training.mammo_clip.detection import NetworkPart, Reading
from training.mammo_clip.detection_anchors import Matching
from training.mammo_clip.detection_levels import LAYOUTS
from training.mammo_clip.detection_losses import FocalSettings
from training.mammo_clip.gradients import PRECISIONS
from training.mammo_clip.loading import FIXED, IMAGE, Input
from training.mammo_clip.pretraining_recipe import Keeping, RecipeError, check_parts, read_recipe

BOX_SHAPES = ("corners", "ellipse")
_LEAST_SIDE_PX = 32


@dataclass(frozen=True, slots=True)
class EncoderPart:
    """The image encoder: as in pretraining's recipes, `pretraining_recipe.ImageTower`."""

    encoder: str
    padding: str
    """ "static" as in the released dual encoders, "constant" as in the released detectors, "registered", "centred"."""
    channels: int
    weights: str
    """Where training starts: "random", "imagenet" (lite0, lite2), "given" by --encoder."""
    frozen: bool
    """It learns nothing and stays in eval mode."""
    frozen_statistics: bool
    """Batch norms of one that learns keep their running statistics."""

    @property
    def dropout(self) -> float:
        """Of pooled features, which no detector reads."""
        return 0.0


@dataclass(frozen=True, slots=True)
class DetectionData:
    """Images and their boxes. Which files they are stands on the command line."""

    height: int
    width: int
    normalisation: str
    """ "image" or "fixed": that of the encoder."""
    classes: tuple[str, ...]
    """Labels whose boxes are looked for, in the order of the classes: one, as published, or several."""
    positive_images_only: bool
    """Images without a box of these classes are left out everywhere, also where figures are made: as published."""
    selection_split: str
    """Split that chooses the epoch: "validation", or "test", as published."""
    validation_share: float
    """Part of the training patients that validates, where the source has no fold for it."""
    phantom_exams: int
    phantom_validation_exams: int
    box_shape: str
    """What of a box is turned with the image: its "corners", as published, which makes it larger, or the "ellipse"
    inside, nearer to a lesion."""


@dataclass(frozen=True, slots=True)
class DetectionLoss:
    """Focal loss and box loss, and which anchors count; `box_weight` times the box loss is added to the focal one."""

    focal: FocalSettings
    matching: Matching
    box_weight: float


@dataclass(frozen=True, slots=True)
class DetectionOptimisation:
    """Adam, or AdamW where `weight_decay` is above 0; gradients are cut to a length of `clip_norm`, 0: never."""

    learning_rate: float
    weight_decay: float
    schedule: str
    """ "constant", or "cosine": schedule.py, with a warm-up."""
    warmup_epochs: float
    epochs: int
    batch: int
    clip_norm: float
    precision: str
    patience: int
    """Epochs without a better figure after which training stops; 0: never."""
    selection_overlap: float
    """Least overlap of a box that is right, in the average precision that chooses the epoch."""


@dataclass(frozen=True, slots=True)
class DetectionRecipe:
    """One run of `detect`. `seed` decides initial weights and every draw."""

    name: str
    seed: int
    image: EncoderPart
    network: NetworkPart
    data: DetectionData
    augmentation: Augmentation
    loss: DetectionLoss
    optimisation: DetectionOptimisation
    reading: Reading
    keeping: Keeping

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.data.height, self.data.width

    @property
    def input(self) -> Input:
        """What a plane is made into; its preset is that of the source."""
        return Input("", self.data.height, self.data.width, self.data.normalisation, self.image.channels)


_CHOICES = {
    ("image", "padding"): ("static", "constant", "registered", "centred"),
    ("image", "weights"): ("random", "imagenet", "given"),
    ("network", "levels"): LAYOUTS,
    ("data", "normalisation"): (IMAGE, FIXED),
    ("data", "selection_split"): ("validation", "test"),
    ("data", "box_shape"): BOX_SHAPES,
    ("optimisation", "schedule"): ("constant", "cosine"),
    ("optimisation", "precision"): tuple(PRECISIONS),
}


def load_detection_recipe(path: Path) -> DetectionRecipe:
    """Read a recipe. Raises RecipeError naming a key that is missing, unknown, or of another type."""
    recipe: DetectionRecipe = read_recipe(DetectionRecipe, path)
    check_parts(recipe, _CHOICES, path.name)
    _check(recipe, path.name)
    return recipe


def _check(recipe: DetectionRecipe, where: str) -> None:
    data, matching = recipe.data, recipe.loss.matching
    if not data.classes or len(set(data.classes)) < len(data.classes):
        raise RecipeError(f"{where}: data.classes is {list(data.classes)}; name one label or several, each once")
    if min(recipe.size) < _LEAST_SIDE_PX:
        raise RecipeError(f"{where}: data: {data.height} x {data.width} is less than {_LEAST_SIDE_PX} pixels a side")
    if not 0.0 < matching.background <= matching.positive < 1.0:
        raise RecipeError(f"{where}: loss.matching: 0 < background <= positive < 1 does not hold")
    if not recipe.network.width or not recipe.reading.most:
        raise RecipeError(f"{where}: network.width and reading.most must be at least 1")
    if recipe.keeping.compile:
        raise RecipeError(f"{where}: keeping.compile is not there for detectors")
