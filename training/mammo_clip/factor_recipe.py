"""A recipe of FActOR: everything that decides the mapper, as a TOML file read into frozen values."""

from dataclasses import dataclass
from pathlib import Path

from training.mammo_clip.factor import FactorLoss, HeatSettings
from training.mammo_clip.pretraining_recipe import RecipeError, read_recipe

MAPPERS = ("shared", "paper")


@dataclass(frozen=True, slots=True)
class FactorData:
    """Which views train and which choose. Views without a finding are drawn, `normal_views` for each that has one."""

    first_exam: int
    training_exams: int
    """Phantom exams, `first_exam` counted from the first training seed. Of tables all training rows are taken."""
    validation_exams: int
    normal_views: float
    coarse: bool
    """Training views are encoded in bfloat16; validation never is."""


@dataclass(frozen=True, slots=True)
class FactorPhrases:
    """`held_out` phrases without a place, and of the placed ones every `hold_out_every`-th (0: none), do not train.

    Mode `paper` trains on one phrase a finding, the mean of its wordings, and holds none out.
    """

    held_out: tuple[str, ...]
    hold_out_every: int
    placed_a_step: int
    """Phrases with a place that a step draws beside all without one."""


@dataclass(frozen=True, slots=True)
class FactorOptimisation:
    """AdamW at one rate; an epoch passes every view once. Each seed stops after `patience` epochs without a better
    loss on validation views, and its best epoch is kept.
    """

    learning_rate: float
    weight_decay: float
    epochs: int
    batch: int
    patience: int
    hidden: int
    """Width of the shared mapper."""
    stay: float
    """What holds the shared mapper's vectors to where they began (factor_start.py): so many times their mean squared
    distance is added to the loss. Images alone would let channels speak that tell which image, not where.
    """


@dataclass(frozen=True, slots=True)
class FactorBaselines:
    """Multiple-instance pooling on the same maps: `views` of training (0: left out), passes, seeds."""

    views: int
    epochs: int
    seeds: int


@dataclass(frozen=True, slots=True)
class FactorRecipe:
    """One run: `seeds` mappers from `first_seed` on, of which validation chooses one."""

    name: str
    mapper: str
    """ "shared" or "paper"."""
    seeds: int
    first_seed: int
    heads_mixed: bool
    """Mode `paper`: heads are joined as the authors' code does, a defect."""
    data: FactorData
    phrases: FactorPhrases
    loss: FactorLoss
    heat: HeatSettings
    optimisation: FactorOptimisation
    baselines: FactorBaselines


def load_factor_recipe(path: Path) -> FactorRecipe:
    """Read a recipe. Raises RecipeError naming a key that is missing, unknown, or of another type."""
    recipe: FactorRecipe = read_recipe(FactorRecipe, path)
    if recipe.mapper not in MAPPERS:
        raise RecipeError(f"{path.name}: mapper is {recipe.mapper!r}; there are {', '.join(MAPPERS)}")
    if not recipe.seeds or not recipe.data.training_exams or not recipe.data.validation_exams:
        raise RecipeError(f"{path.name}: seeds, training_exams and validation_exams are 1 at least")
    if recipe.loss.temperature <= 0.0:
        raise RecipeError(f"{path.name}: loss.temperature is {recipe.loss.temperature}, not above 0")
    return recipe
