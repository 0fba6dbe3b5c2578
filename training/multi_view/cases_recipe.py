"""A recipe of cases-cross-validate: System B's model, folds, augmentation, optimiser (mammo-clip.md 10.6)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.mammo_clip.augmentation import Augmentation
from training.mammo_clip.gradients import PRECISIONS
from training.mammo_clip.pretraining_recipe import Keeping, RecipeError, check_parts, read_recipe
from training.multi_view.adapters import AdapterPlan
from training.multi_view.case_training import CLASS_WEIGHTS, CaseOptimisation


@dataclass(frozen=True, slots=True)
class CaseModel:
    """System B on the weights that --clip names."""

    size: int
    """Side of the square that a view becomes; CLIP's position embeddings are interpolated where it is not 224."""
    global_blocks: int
    """Of the image tower's blocks, the last ones, across the views."""
    adapters: str
    """Towers with adapters: "none", "image", "text", "both"."""
    rank: int
    sites: str
    """ "parallel" or "serial", see adapters.py."""
    scale: float
    projections: bool
    prompts: str
    """ "simple", "detailed", or a TOML file, see case_prompts.py."""

    @property
    def plan(self) -> AdapterPlan:
        """Adapters in every block of these towers. Raises RecipeError."""
        towers: Any = self.adapters
        sites: Any = self.sites
        return AdapterPlan(towers, self.rank, sites, self.scale, 0, self.projections)


@dataclass(frozen=True, slots=True)
class CaseFolds:
    """How cases are parted. `shots`: training cases of each class, one cross-validation for each number, 0: all."""

    folds: int
    """Where the table does not give them."""
    validation_share: float
    """Part of a fold's training patients that chooses the epoch."""
    shots: tuple[float, ...]
    shot_seeds: int
    """Draws of the few cases; all cases are drawn once."""
    phantom_exams: int
    """Of a source phantoms=CACHE."""

    def draws(self, shots: int) -> range:
        """Seeds of one number of shots."""
        return range(self.shot_seeds if shots else 1)


@dataclass(frozen=True, slots=True)
class CasesRecipe:
    """One cross-validation. `seed` decides folds, initial weights and every draw."""

    name: str
    seed: int
    model: CaseModel
    data: CaseFolds
    augmentation: Augmentation
    optimisation: CaseOptimisation
    keeping: Keeping

    @property
    def shots(self) -> tuple[int, ...]:
        """Whole numbers."""
        return tuple(int(number) for number in self.data.shots)


_CHOICES = {
    ("model", "adapters"): ("none", "image", "text", "both"),
    ("model", "sites"): ("parallel", "serial"),
    ("optimisation", "precision"): tuple(PRECISIONS),
    ("optimisation", "class_weights"): CLASS_WEIGHTS,
}


def load_cases_recipe(path: Path) -> CasesRecipe:
    """Read a recipe. Raises RecipeError naming a key that is missing, unknown, of another type, or out of range."""
    recipe: CasesRecipe = read_recipe(CasesRecipe, path)
    check_parts(recipe, _CHOICES, path.name)
    data, where = recipe.data, path.name
    if not 0.0 < data.validation_share <= 0.5:
        raise RecipeError(f"{where}: data.validation_share is {data.validation_share}, not above 0 and at most .5")
    if data.folds < 2 or not data.shots or any(number != int(number) or number < 0 for number in data.shots):
        raise RecipeError(f"{where}: data.folds must be 2 or more, data.shots whole numbers, 0 for all cases")
    if data.shot_seeds < 1:
        raise RecipeError(f"{where}: data.shot_seeds must be 1 or more")
    if recipe.augmentation.vertical_flip:
        raise RecipeError(f"{where}: augmentation.vertical_flip must be off: above and below would change places")
    return recipe
