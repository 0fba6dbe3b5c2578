"""A recipe of the served model of System A: its heads, its calibration, its name, as a TOML file."""

from dataclasses import dataclass
from pathlib import Path

from training.mammo_clip.pretraining_recipe import RecipeError, read_recipe

MAPPER, FIXED = HEATS = ("mapper", "fixed")


@dataclass(frozen=True, slots=True)
class Malignancy:
    """Sentences whose mean is malignancy, and those whose mean is none."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeadsPart:
    """Linear probes and the comparison of views, trained on exams that the encoder has not seen."""

    first_exam: int
    """Counted from the training split's first seed."""
    exams: int
    folds: int
    """The comparison learns on logits of probes that did not see the exam: so many probes of each kind."""
    penalties: tuple[float, ...]
    """Ridge penalties of the probes; validation chooses one."""
    hidden: int
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    view_dropout: float
    """Chance that a view is taken as missing."""


@dataclass(frozen=True, slots=True)
class SplitsPart:
    """Exams of the other splits, from each split's first seed."""

    validation: int
    calibration: int


@dataclass(frozen=True, slots=True)
class ServedRecipe:
    """One served model. `seeds` heads from `first_seed` on, of which validation chooses one."""

    name: str
    version: str
    heat: str
    """Weights of channels in the findings' heat: "mapper", of each image, or "fixed", FActOR's as one 1 x 1
    convolution. Validation chooses.
    """
    seeds: int
    first_seed: int
    malignancy: Malignancy
    heads: HeadsPart
    splits: SplitsPart


def load_served_recipe(path: Path) -> ServedRecipe:
    """Read a recipe. Raises RecipeError naming a key that is missing, unknown, or of another type."""
    recipe: ServedRecipe = read_recipe(ServedRecipe, path)
    counts = {
        "seeds": recipe.seeds,
        "heads.exams": recipe.heads.exams,
        "heads.steps": recipe.heads.steps,
        "splits.validation": recipe.splits.validation,
        "splits.calibration": recipe.splits.calibration,
    }
    if low := [key for key, value in counts.items() if value < 1]:
        raise RecipeError(f"{path.name}: {', '.join(low)}: at least 1")
    if recipe.heat not in HEATS:
        raise RecipeError(f"{path.name}: heat is {recipe.heat!r}; there are {', '.join(HEATS)}")
    if recipe.heads.folds < 2 or not recipe.heads.penalties or min(recipe.heads.penalties) <= 0.0:
        raise RecipeError(f"{path.name}: heads: folds are 2 at least, penalties one at least and above 0")
    if not recipe.malignancy.positive or not recipe.malignancy.negative:
        raise RecipeError(f"{path.name}: malignancy: needs a positive and a negative sentence")
    return recipe
