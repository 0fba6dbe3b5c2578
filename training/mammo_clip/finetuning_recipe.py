"""A recipe of `finetune`: an image encoder with a linear head on its pooled features (section 3 of arXiv 2405.12255).

What the published code does and what corrects it are keys; `training/recipes/finetune-*.toml` have both.
"""

from dataclasses import dataclass
from pathlib import Path

from training.mammo_clip.augmentation import Augmentation
from training.mammo_clip.evaluation_recipe import check_choices
from training.mammo_clip.gradients import PRECISIONS
from training.mammo_clip.labelled_images import ROW_UNITS
from training.mammo_clip.loading import FIXED, IMAGE, Input
from training.mammo_clip.pretraining_recipe import Keeping, Optimisation, RecipeError, read_recipe
from training.mammo_clip.probing import DENSITIES, DENSITY, POSITIVE_WEIGHTS, PUBLISHED_WEIGHTS
from training.mammo_clip.units import UNITS


@dataclass(frozen=True, slots=True)
class TunedEncoder:
    """The image encoder: names as in pretraining's recipes, see `pretraining_recipe.ImageTower`."""

    encoder: str
    padding: str
    channels: int
    dropout: float
    weights: str
    """Where training starts: "random", "imagenet" (lite0, lite2, pyramid), "given" by --model."""
    frozen: bool
    """Only the head learns: the published form of a linear probe."""
    frozen_mode: str
    """ "eval", or "train", as published: a frozen encoder's batch norms go on counting, and its dropout is on."""
    frozen_statistics: bool
    """Batch norms of an encoder that learns keep their running statistics: for very small batches."""
    checkpointed: bool
    """The backward pass computes each block again: less memory, the same gradients, see `efficientnet.py`."""


@dataclass(frozen=True, slots=True)
class TuningData:
    """Rows and images. Which files they are stands on the command line."""

    height: int
    width: int
    normalisation: str
    """ "image" or "fixed": that of the encoder."""
    preset: str
    """Prepares DICOM files and films: "mammo-clip", "fit-760x456"."""
    rows: str
    """ "image": each once, labels by OR; "row": those of VinDr-Mammo's table as they are, as published."""
    targets: tuple[str, ...]
    """Findings, "cancer", "density". One, as published, or several that share the encoder."""
    fractions: tuple[float, ...]
    """Parts of the training data; one run for each."""
    fraction_of: str
    """ "patients", or "rows", as published: a patient may then train with one image and be left out with another."""
    selection_split: str
    """Split that chooses the epoch: "validation", or "test", as published."""
    selection_unit: str
    """Unit of the figure that chooses it: "row", "image", "breast", "exam"."""
    validation_share: float
    """Part of the training patients that validates, where the source has no fold for it."""
    phantom_exams: int
    phantom_validation_exams: int
    phantom_test_exams: int


@dataclass(frozen=True, slots=True)
class FinetuningRecipe:
    """One run. `seed` decides initial weights and every draw. `positive_weight`: what a positive row counts, see
    `probing.weight_of_positives`. `units` are those that figures are reported in.
    """

    name: str
    seed: int
    positive_weight: str
    units: tuple[str, ...]
    image: TunedEncoder
    data: TuningData
    augmentation: Augmentation
    optimisation: Optimisation
    keeping: Keeping

    @property
    def input(self) -> Input:
        """What an image is made into."""
        data = self.data
        return Input(data.preset, data.height, data.width, data.normalisation, self.image.channels)

    @property
    def findings(self) -> tuple[str, ...]:
        """The targets with one output each, in their order."""
        return tuple(name for name in self.data.targets if name != DENSITY)

    @property
    def outputs(self) -> int:
        """Of the head: one for each finding, then four for density."""
        return len(self.findings) + DENSITIES * (DENSITY in self.data.targets)


def load_finetuning_recipe(path: Path) -> FinetuningRecipe:
    """Read a recipe. Raises RecipeError naming a key that is missing, unknown, or of another type."""
    recipe: FinetuningRecipe = read_recipe(FinetuningRecipe, path)
    try:
        check_recipe(recipe)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error
    return recipe


def check_recipe(recipe: FinetuningRecipe) -> None:
    """Raises RecipeError for a value that is none of those that there are, or that do not go together."""
    data, image, optimisation = recipe.data, recipe.image, recipe.optimisation
    for key, value, known in (
        ("image.padding", image.padding, ("static", "registered", "centred")),
        ("image.weights", image.weights, ("random", "imagenet", "given")),
        ("image.frozen_mode", image.frozen_mode, ("eval", "train")),
        ("data.normalisation", data.normalisation, (IMAGE, FIXED)),
        ("data.rows", data.rows, ROW_UNITS),
        ("data.fraction_of", data.fraction_of, ("patients", "rows")),
        ("data.selection_split", data.selection_split, ("validation", "test")),
        ("data.selection_unit", data.selection_unit, UNITS),
        ("positive_weight", recipe.positive_weight, POSITIVE_WEIGHTS),
        ("optimisation.decay", optimisation.decay, ("all", "matrices")),
        ("optimisation.precision", optimisation.precision, tuple(PRECISIONS)),
    ):
        check_choices(key, [value], known)
    check_choices("units", recipe.units, UNITS)
    if not data.targets or len(set(data.targets)) < len(data.targets):
        raise RecipeError(f"data.targets is {list(data.targets)}; name one target or several, each once")
    if not data.fractions or not all(0.0 < fraction <= 1.0 for fraction in data.fractions):
        raise RecipeError(f"data.fractions is {list(data.fractions)}; they are above 0 and at most 1")
    if optimisation.cached_chunk:
        raise RecipeError("optimisation.cached_chunk must be 0: no row's loss depends on another; take accumulate")
    if not recipe.units or ("row" in (*recipe.units, data.selection_unit) and data.rows != "row"):
        raise RecipeError('units: name one at least; "row" is for data.rows = "row"')
    if recipe.positive_weight == "published" and (unknown := set(recipe.findings) - set(PUBLISHED_WEIGHTS)):
        raise RecipeError(f'positive_weight "published" is not known for {", ".join(sorted(unknown))}')
