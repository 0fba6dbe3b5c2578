"""A recipe of pretraining: everything that decides the weights, as a TOML file read into frozen values.

Published behaviour and its corrections are keys of it; `training/recipes/mammo-clip-*.toml` have both.
"""

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.mammo_clip.augmentation import Augmentation
from training.mammo_clip.gradients import PRECISIONS
from training.mammo_clip.loss import LossSettings
from training.mammo_clip.sampling import CONSTANT_IMAGES, FLIPPED_TEXTS, NORMALISATIONS, Sampling


class RecipeError(Exception):
    """A recipe that cannot be used. The message names the file and the key."""


@dataclass(frozen=True, slots=True)
class ImageTower:
    """`encoder`: b0, b2, b5, lite0, pyramid (see pyramid.py), or "module:function" of your own, a function without
    arguments that gives a module with `out_channels` and `features(images)`, see `model.ImageEncoder`.
    """

    encoder: str
    padding: str
    """Of the four: "static" as the released weights have it, "registered" or "centred"."""
    channels: int
    """The grey image is given so many times."""
    dropout: float
    """Chance with which training drops a pooled feature."""
    weights: str
    """Where training starts: "random", "imagenet" (lite0 and the pyramid on it), "given" by --image-weights, "trunk":
    the pyramid's trunk alone, of the first model's map network, given likewise, "run": both towers as the run of
    --start left them.
    """
    frozen_statistics: bool
    """Batch norms keep their running statistics: for very small batches."""
    frozen_blocks: int
    """The stem and so many blocks do not learn, and the trunk's batch norms keep their statistics; 0: all learns."""


@dataclass(frozen=True, slots=True)
class TextTower:
    """BERT's shape, and its tokenizer."""

    vocabulary: str
    """ "own": the committed one; "given" by --vocabulary."""
    lower_case: bool
    max_length: int
    """Tokens of one text, [CLS] and [SEP] included."""
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    dropout: float
    weights: str
    """ "random", or "given" by --text-weights."""


@dataclass(frozen=True, slots=True)
class DataPart:
    """Images and rows. Which files they are stands on the command line."""

    height: int
    width: int
    flipped_texts: str
    """Of images flipped left to right: "swap" (sides change places), or "published" (texts unchanged)."""
    shuffle_sentences: bool
    constant_images: str
    """ "zeros", or "published": NaN."""
    normalisation: str
    """ "image", as published, or "fixed": one line for all images, see `maps.normalise`."""
    crop: int
    """Training sees a random square of so many pixels a side; 0: the whole image."""
    phrases: int
    """Phrases that a batch's images are compared with, where `loss.phrase_weight` is above 0."""
    validation_fold: int
    """Fold of an image-text table that validates and does not train."""
    phantom_exams: int
    phantom_validation_exams: int
    phantom_report_chance: float
    """Chance that a phantom's finding is said in its report's words, not in the grammar's."""


@dataclass(frozen=True, slots=True)
class Optimisation:
    """AdamW with a warm-up and a cosine, see schedule.py."""

    learning_rate: float
    weight_decay: float
    decay: str
    """ "all" parameters, as published, or "matrices": no norm, no bias, not the logit scale."""
    epochs: int
    warmup_epochs: float
    batch: int
    """Rows whose texts and images are compared with each other, over all processes."""
    accumulate: int
    """Batches whose gradients are averaged for one step."""
    cached_chunk: int
    """Rows a process holds with their graph, see gradients.py; 0: its whole part of the batch."""
    precision: str
    """ "float32", "bfloat16", "float16" with a loss scale, or "float64"."""
    skipped_steps_count: bool
    """The schedule goes on where the loss scale skips a step, as published."""
    patience: int
    """Epochs without a better validation loss after which training stops; 0: never."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What does not decide the weights: when to print and to keep."""

    log_steps: int
    checkpoint_steps: int
    """0: at the end of each epoch alone."""
    checkpoint_minutes: float
    compile: bool


@dataclass(frozen=True, slots=True)
class PretrainingRecipe:
    """One run. `seed` decides initial weights and every draw."""

    name: str
    seed: int
    embed_dim: int
    image: ImageTower
    text: TextTower
    data: DataPart
    augmentation: Augmentation
    loss: LossSettings
    optimisation: Optimisation
    keeping: Keeping

    @property
    def sampling(self) -> Sampling:
        """How items are drawn."""
        data = self.data
        return Sampling(
            self.augmentation,
            data.flipped_texts,
            data.shuffle_sentences,
            data.constant_images,
            self.seed,
            data.normalisation,
            data.crop,
            data.phrases if self.loss.phrase_weight else 0,
        )


_CHOICES = {
    ("image", "padding"): ("static", "registered", "centred"),
    ("image", "weights"): ("random", "imagenet", "given", "trunk", "run"),
    ("text", "vocabulary"): ("own", "given"),
    ("text", "weights"): ("random", "given"),
    ("data", "flipped_texts"): FLIPPED_TEXTS,
    ("data", "constant_images"): CONSTANT_IMAGES,
    ("data", "normalisation"): NORMALISATIONS,
    ("optimisation", "decay"): ("all", "matrices"),
    ("optimisation", "precision"): tuple(PRECISIONS),
}
_AT_LEAST_ONE = ("height", "width", "epochs", "batch", "accumulate", "log_steps", "channels", "max_length", "embed_dim")


def load_pretraining_recipe(path: Path) -> PretrainingRecipe:
    """Read a recipe. Raises RecipeError naming a key that is missing, unknown, or of another type."""
    recipe: PretrainingRecipe = read_recipe(PretrainingRecipe, path)
    check_parts(recipe, _CHOICES, path.name)
    if recipe.loss.phrase_weight and recipe.optimisation.cached_chunk:
        raise RecipeError(f"{path.name}: loss.phrase_weight wants whole batches: optimisation.cached_chunk must be 0")
    return recipe


def read_recipe(kind: type[Any], path: Path) -> Any:
    """A recipe file as a frozen value of `kind`. Raises RecipeError naming the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from error
    return build(kind, table, path.name)


def check_parts(recipe: object, choices: Mapping[tuple[str, str], Collection[str]], where: str) -> None:
    """Raises RecipeError where the key of a part, `choices` by (part, key), holds none of its choices."""
    for (part, key), known in choices.items():
        if (value := getattr(getattr(recipe, part), key)) not in known:
            raise RecipeError(f"{where}: {part}.{key} is {value!r}; there are {', '.join(known)}")


def build(kind: type[Any], table: object, where: str) -> Any:
    """A frozen value of a table of the same keys, values checked by their annotations. Raises RecipeError."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where} is {table!r}, not a table")
    hints = get_type_hints(kind)
    wanted = {field.name for field in fields(kind)}
    if unknown := sorted(set(table) - wanted):
        raise RecipeError(f"{where}: unknown key {', '.join(unknown)}; there are {', '.join(sorted(wanted))}")
    if missing := sorted(wanted - set(table)):
        raise RecipeError(f"{where}: key {', '.join(missing)} is missing")
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()})


def _value(hint: Any, value: object, where: str) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        return build(hint, value, where)
    if hint is bool or hint is str:
        return _of_type(hint, value, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise RecipeError(f"{where} is {value!r}; there are {', '.join(get_args(hint))}")
        return value
    if hint is int:
        whole = _of_type(int, value, where)
        if whole < (1 if where.endswith(_AT_LEAST_ONE) else 0):
            raise RecipeError(f"{where} is {whole}, too small")
        return whole
    if hint is float:
        return _number(value, where)
    if hint == float | None:
        return _number(value, where) or None
    if hint == tuple[str, ...]:
        return tuple(_of_type(str, word, where) for word in _of_type(list, value, where))
    if hint == tuple[float, ...]:
        return tuple(_number(one, where) for one in _of_type(list, value, where))
    if isinstance(value, list) and len(value) == 2:
        return tuple(_number(part, where) for part in value)
    raise RecipeError(f"{where} is {value!r}, not a range of two numbers")


def _of_type(kind: type[Any], value: object, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{where} is {value!r}, not {kind.__name__}")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecipeError(f"{where} is {value!r}, not a number")
    return float(value)
