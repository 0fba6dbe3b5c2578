"""A recipe of controlled runs: one frozen encoder, one set of exams, and arms that each change one thing."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.mammo_clip.pretraining_recipe import Keeping, RecipeError, build, check_parts
from training.multi_view.adapters import AdapterPlan
from training.multi_view.case_prompts import CasePrompts
from training.multi_view.case_training import CLASS_WEIGHTS, CaseOptimisation

VIEWS_SEEN = ("all", "CC", "MLO")
MISSING = ("one view", "CC", "MLO", "one breast")
"""What a test leaves out of exams of four views: one drawn view, both of a position, both of a drawn side."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """The frozen encoder. Its first `cached_blocks` blocks have no adapters: what they give is computed once.

    `kind` "own": the small one of own_vit.py, pretrained here; "clip": the file that --clip names, of `variant`.
    `pooled`: after the cached blocks so many tokens along each side become one, by their mean; 1: all stay.
    """

    kind: str
    variant: str
    """Of clip.VARIANTS; "" for "own"."""
    patch: int
    width: int
    layers: int
    heads: int
    text_width: int
    text_layers: int
    text_heads: int
    context: int
    embed_dim: int
    cached_blocks: int
    pooled: int
    precision: str
    """Of the arithmetic of cached blocks; tokens are kept in float16."""


@dataclass(frozen=True, slots=True)
class Exams:
    """Exams by split, each with a range of seeds of its own; see controlled_exams.py. `size`: what is rendered."""

    size: int
    training: int
    validation: int
    test: int
    pretraining: int
    training_seed: int
    validation_seed: int
    test_seed: int
    pretraining_seed: int
    pair_share: float
    """Part of training, validation and test exams that are pairs, half of them masses, half asymmetries."""
    small_mm: float
    """A calcification cluster up to this extent is small."""


@dataclass(frozen=True, slots=True)
class OwnPretraining:
    """Image-text pretraining of the own encoder on single views; `learning_rate` rises and falls as in schedule.py.

    The encoder of a larger size begins where the smallest one's ended and learns for `larger_epochs`.
    """

    epochs: int
    larger_epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    precision: str
    report_chance: float
    """Chance that a view's text ends in an impression, as reports do."""
    region_weight: float
    """What the loss of cells against phrases counts beside that of views against sentences."""
    lesion_share: float
    """Part of a batch's views that show a lesion."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One system. What an arm does not say is that of the recipe's `base`."""

    views: str
    """Of VIEWS_SEEN."""
    global_blocks: int
    """Of the encoder's blocks, the last ones, across views."""
    adapters: str
    prompts: str
    size: int
    view_dropout: float
    missing: bool
    """Also tested with views left out."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two arms that differ in one thing: `first` less `second`, on the groups of test exams named."""

    question: str
    first: str
    second: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Adapters:
    """See adapters.py."""

    rank: int
    sites: str
    scale: float


@dataclass(frozen=True, slots=True)
class _Plain:
    """What is no table of tables."""

    name: str
    seed: int
    seeds: int
    draws: int
    encoder: Encoder
    exams: Exams
    pretraining: OwnPretraining
    adapters: Adapters
    optimisation: CaseOptimisation
    keeping: Keeping


@dataclass(frozen=True, slots=True)
class ControlledRecipe(_Plain):
    """All of it. `seeds` training seeds; the encoder has one seed."""

    prompts: Mapping[str, CasePrompts]
    arms: Mapping[str, Arm]
    contrasts: tuple[Contrast, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of images that arms see, the smallest first."""
        return tuple(sorted({arm.size for arm in self.arms.values()}))

    def plan(self, arm: Arm) -> AdapterPlan:
        """Adapters of an arm: in blocks that are not cached."""
        if arm.adapters == "none":
            return AdapterPlan()
        towers: Any = arm.adapters
        sites: Any = self.adapters.sites
        return AdapterPlan(towers, self.adapters.rank, sites, self.adapters.scale, self.encoder.cached_blocks)

    def is_joint(self, arm: Arm) -> bool:
        """Views meet before the cached blocks end: all blocks are then across views."""
        return arm.global_blocks == self.encoder.layers


_CHOICES = {
    ("encoder", "kind"): ("own", "clip"),
    ("encoder", "precision"): ("float32", "bfloat16"),
    ("pretraining", "precision"): ("float32", "bfloat16"),
    ("optimisation", "precision"): ("float32", "bfloat16"),
    ("optimisation", "class_weights"): CLASS_WEIGHTS,
    ("adapters", "sites"): ("parallel", "serial"),
}


def load_controlled_recipe(path: Path) -> ControlledRecipe:
    """Read it. Raises RecipeError naming a key that is missing, unknown, of another type, or that fits no other."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from error
    where = path.name
    parts = {name: _table_of(table, name, where) for name in ("base", "arms", "contrasts", "prompts")}
    plain = build(_Plain, table, where)
    check_parts(plain, _CHOICES, where)
    recipe = ControlledRecipe(
        **{name: getattr(plain, name) for name in _Plain.__slots__},
        prompts={name: _prompts(name, one, f"{where}: prompts.{name}") for name, one in parts["prompts"].items()},
        arms={name: _arm(parts["base"], one, f"{where}: arms.{name}") for name, one in parts["arms"].items()},
        contrasts=tuple(
            build(Contrast, {"question": question, **one}, f"{where}: contrasts.{question}")
            for question, one in parts["contrasts"].items()
        ),
    )
    _check(recipe, where)
    return recipe


def _table_of(table: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    part = table.pop(name, None)
    if not isinstance(part, dict) or not part:
        raise RecipeError(f"{where}: the table {name} is missing or empty")
    return part


def _prompts(name: str, table: object, where: str) -> CasePrompts:
    if not isinstance(table, dict):
        raise RecipeError(f"{where} is {table!r}, not a table")
    made: CasePrompts = build(CasePrompts, {"name": name, **table}, where)
    return made


def _arm(base: dict[str, Any], table: object, where: str) -> Arm:
    if not isinstance(table, dict):
        raise RecipeError(f"{where} is {table!r}, not a table")
    made: Arm = build(Arm, {**base, **table}, where)
    return made


def _check(recipe: ControlledRecipe, where: str) -> None:
    if recipe.seeds < 1 or not 0.0 <= recipe.exams.pair_share < 1.0:
        raise RecipeError(f"{where}: seeds must be 1 or more, exams.pair_share from 0 to below 1")
    for name, arm in recipe.arms.items():
        _check_arm(recipe, arm, f"{where}: arms.{name}")
    for contrast in recipe.contrasts:
        for name in (contrast.first, contrast.second):
            if name not in recipe.arms:
                raise RecipeError(f"{where}: contrasts.{contrast.question}: there is no arm {name!r}")


def _check_arm(recipe: ControlledRecipe, arm: Arm, where: str) -> None:
    encoder = recipe.encoder
    for key, value, known in (
        ("views", arm.views, VIEWS_SEEN),
        ("adapters", arm.adapters, ("none", "image", "text", "both")),
        ("prompts", arm.prompts, tuple(recipe.prompts)),
    ):
        if value not in known:
            raise RecipeError(f"{where}.{key} is {value!r}; there are {', '.join(known)}")
    late = encoder.layers - encoder.cached_blocks
    if not (0 <= arm.global_blocks <= late or arm.global_blocks == encoder.layers):
        raise RecipeError(
            f"{where}.global_blocks is {arm.global_blocks}; 0 to {late}, the blocks that are not cached, or all "
            f"{encoder.layers}"
        )
    if arm.global_blocks == encoder.layers and (arm.missing or arm.view_dropout):
        raise RecipeError(
            f"{where}: cached blocks across views have seen all views: missing and view_dropout must be off"
        )
    if arm.size % encoder.patch or recipe.exams.size % arm.size:
        raise RecipeError(f"{where}.size is {arm.size}: not whole patches of {encoder.patch}, or no part of exams.size")
