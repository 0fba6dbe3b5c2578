"""A recipe of the joined exam encoder: System A, corrected by System B's blocks across the views; a TOML file."""

from dataclasses import dataclass
from pathlib import Path

from training.mammo_clip.pretraining_recipe import RecipeError, check_parts, read_recipe
from training.mammo_clip.served_recipe import ServedRecipe, load_served_recipe


@dataclass(frozen=True, slots=True)
class TokensPart:
    """The grid of tokens of a view."""

    rows: int
    columns: int
    largest_cells: int
    """A token is the mean of so many of its window's greatest cells, by channel; 0: of all."""


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """The blocks. `parent_local_blocks`: blocks within each view that System B alone, the second parent, has first."""

    width: int
    heads: int
    mlp_width: int
    global_blocks: int
    parent_local_blocks: int
    dropout: float


@dataclass(frozen=True, slots=True)
class LearningPart:
    """Exams that the blocks learn from, counted from the training split's first seed, and how."""

    first_exam: int
    exams: int
    epochs: int
    """At most; validation's loss says which one is kept."""
    patience: int
    """Epochs without a lower loss on validation after which a seed stops."""
    batch: int
    learning_rate: float
    warmup: float
    """Share of the steps."""
    weight_decay: float
    average_decay: float
    view_dropout: float
    token_dropout: float
    precision: str
    """Of the blocks in training: "float32" or "bfloat16"."""


@dataclass(frozen=True, slots=True)
class ExamsPart:
    """The test set is chosen by A alone, on exams that are not test exams: of `benign_shares`, tried in this order, the
    first that lets A's exam AUC reach `least_auc`.
    """

    min_conspicuity: float
    """Exams with a fainter lesion are left out: the least relative contrast, 1.0 being typical; 0: none is."""
    benign_shares: tuple[float, ...]
    """Of the exams with benign lesions alone so large a share stays."""
    least_auc: float


@dataclass(frozen=True, slots=True)
class JoinedRecipe:
    """One joined model. `served`: System A's recipe, a file in the same folder; `seeds` networks from `first_seed`."""

    name: str
    version: str
    served: str
    seeds: int
    first_seed: int
    tokens: TokensPart
    network: NetworkPart
    learning: LearningPart
    test_set: ExamsPart


def load_joined_recipe(path: Path) -> tuple[JoinedRecipe, ServedRecipe]:
    """Read a recipe and the one it names. Raises RecipeError naming a key that is missing, unknown, or of another type.

    System A's part is as its own recipe has it, under the version of the joined model.
    """
    recipe: JoinedRecipe = read_recipe(JoinedRecipe, path)
    check_parts(recipe, {("learning", "precision"): ("float32", "bfloat16")}, path.name)
    network, learning = recipe.network, recipe.learning
    counts = {
        "seeds": recipe.seeds,
        "tokens.rows": recipe.tokens.rows,
        "tokens.columns": recipe.tokens.columns,
        "network.global_blocks": network.global_blocks,
        "network.heads": network.heads,
        "network.mlp_width": network.mlp_width,
        "learning.exams": learning.exams,
        "learning.patience": learning.patience,
    }
    if low := [key for key, value in counts.items() if value < 1]:
        raise RecipeError(f"{path.name}: {', '.join(low)}: at least 1")
    if network.width % network.heads:
        raise RecipeError(f"{path.name}: network.width {network.width} does not divide into {network.heads} heads")
    shares = recipe.test_set.benign_shares
    if not shares or min(shares) < 0.0 or max(shares) > 1.0:
        raise RecipeError(f"{path.name}: test_set.benign_shares: one at least, each from 0 to 1")
    return recipe, load_served_recipe(path.parent / recipe.served)
