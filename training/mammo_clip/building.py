"""A dual encoder and its tokenizer as a recipe wants them, and as a finished run left them."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from node.errors import SettingsError
from node.mammography.wordpiece import WordPiece, load_wordpiece
from training.efficientnet import VARIANTS, EfficientNet, load_imagenet
from training.mammo_clip.importing import RECORD, WEIGHTS
from training.mammo_clip.model import EfficientNetEncoder, MammoClip, TextConfig
from training.mammo_clip.pretraining_recipe import PretrainingRecipe, RecipeError, build
from training.mammo_clip.pyramid import PyramidEncoder
from training.mammo_clip.released import CheckpointError, load_file, read_safetensors, split_state
from training.mammo_clip.vocabulary import VOCABULARY

VOCABULARY_FILE = "vocabulary.txt"


@dataclass(frozen=True, slots=True)
class Given:
    """Files that a recipe leaves to the user: None where they were not given."""

    vocabulary: Path | None = None
    image_weights: Path | None = None
    text_weights: Path | None = None
    start: Path | None = None


def vocabulary_of(recipe: PretrainingRecipe, given: Given) -> Path:
    """The file of the recipe's vocabulary. Raises RecipeError where it must be given and was not."""
    return VOCABULARY if recipe.text.vocabulary == "own" else _given(given.vocabulary, "vocabulary")


def tokenizer_of(recipe: PretrainingRecipe, vocabulary: Path) -> WordPiece:
    """The recipe's tokenizer. Raises RecipeError where its file is none."""
    try:
        return load_wordpiece(vocabulary, lower_case=recipe.text.lower_case)
    except SettingsError as error:
        raise RecipeError(str(error)) from error


def build_model(recipe: PretrainingRecipe, pieces: int) -> MammoClip:
    """The recipe's dual encoder with weights drawn from its seed; `pieces` in the vocabulary. Raises RecipeError."""
    text = recipe.text
    if text.max_length > text.positions:
        raise RecipeError(f"text: max_length is {text.max_length}, but there are {text.positions} positions")
    config = TextConfig(pieces, text.hidden, text.layers, text.heads, text.intermediate, text.positions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MammoClip(build_image_encoder(recipe.image), config, recipe.embed_dim)
    if recipe.image.frozen_blocks:
        trunk_of(model.image_encoder).freeze(recipe.image.frozen_blocks)
    # Nothing reads BERT's pooler, so it gets no gradient: left out of the optimiser it stays as it is.
    for name, parameter in model.text_encoder.text_encoder.named_parameters():
        parameter.requires_grad_(not name.startswith("pooler."))
    for part in model.text_encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = text.dropout
    return model


class Architecture(Protocol):
    """What of a recipe's image tower its modules are made of."""

    @property
    def encoder(self) -> str:
        """See `ImageTower`."""
        ...

    @property
    def padding(self) -> str:
        """See `ImageTower`."""
        ...

    @property
    def channels(self) -> int:
        """See `ImageTower`."""
        ...

    @property
    def dropout(self) -> float:
        """See `ImageTower`."""
        ...


def build_image_encoder(image: Architecture) -> nn.Module:
    """The image encoder that a recipe names, weights random. Raises RecipeError where there is none of that name."""
    if image.encoder in VARIANTS:
        return EfficientNetEncoder(image.encoder, channels=image.channels, padding=image.padding, dropout=image.dropout)
    if image.encoder == "pyramid":
        return PyramidEncoder(dropout=image.dropout)
    module, colon, function = image.encoder.partition(":")
    if not colon:
        known = ", ".join([*VARIANTS, "pyramid"])
        raise RecipeError(f"image: encoder is {image.encoder!r}; there are {known}, and module:function of your own")
    try:
        encoder: nn.Module = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"image: encoder {image.encoder!r} cannot be imported: {error}") from error
    return encoder


def trunk_of(encoder: nn.Module) -> EfficientNet:
    """The EfficientNet that is the encoder or that it stands on. Raises RecipeError for another encoder."""
    trunk = encoder.trunk if isinstance(encoder, PyramidEncoder) else encoder
    if not isinstance(trunk, EfficientNet):
        raise RecipeError("image: an encoder without an EfficientNet has no ImageNet weights and no frozen_blocks")
    return trunk


def start_from_imagenet(encoder: nn.Module) -> None:
    """Fill the encoder's EfficientNet with ImageNet weights. Raises RecipeError where no package has them."""
    try:
        load_imagenet(trunk_of(encoder))
    except ValueError as error:
        raise RecipeError(f'image: weights "imagenet": {error}; take "random" or "given"') from error


def load_starting_weights(model: MammoClip, recipe: PretrainingRecipe, given: Given) -> None:
    """Weights from which training starts. Raises RecipeError for what is not there, CheckpointError for a misfit."""
    if recipe.image.weights == "run":
        start, _, _ = load_own(_given(given.start, "start"))
        model.load_state_dict(start.state_dict())
        return
    if recipe.image.weights == "imagenet":
        start_from_imagenet(model.image_encoder)
    elif recipe.image.weights == "trunk":
        _load_trunk(model, _given(given.image_weights, "image-weights"))
    elif recipe.image.weights == "given":
        _load(model.image_encoder, _given(given.image_weights, "image-weights"), str)
    if recipe.text.weights == "given":
        tower = model.text_encoder.text_encoder
        _load(tower, _given(given.text_weights, "text-weights"), _bert_key)


def _load_trunk(model: MammoClip, path: Path) -> None:
    """The trunk of a map network (`training.maps`), as its training leaves it."""
    if not isinstance(model.image_encoder, PyramidEncoder):
        raise RecipeError('image: weights "trunk" are for the encoder "pyramid"')
    trunk = model.image_encoder.trunk
    state = {k: v for k, v in load_file(path).items() if k.startswith("trunk.") and isinstance(v, Tensor)}
    trunk.load_state_dict(split_state(path, state, "trunk.", trunk.state_dict()))


def _given(path: Path | None, option: str) -> Path:
    if path is None:
        raise RecipeError(f"the recipe leaves this file to you: --{option} FILE is missing")
    return path


def _bert_key(key: str) -> str:
    """Names of whole BERT checkpoints to those of the bare tower; layer norms of old ones are called gamma and beta."""
    return (
        key.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )


def _load(module: nn.Module, path: Path, rename: Callable[[str], str]) -> None:
    """Fill a module from a state dict, safetensors or torch's own; what a head for words wants is left out."""
    state = read_safetensors(path) if path.suffix == ".safetensors" else load_file(path)
    named = {rename(key): value for key, value in state.items() if isinstance(value, Tensor)}
    own = module.state_dict()
    foreign = ("cls.", "classifier.", "embeddings.position_ids")
    kept = {key: value for key, value in named.items() if not key.startswith(foreign)}
    module.load_state_dict(split_state(path, kept, "", own))


def save_model(
    folder: Path, model: MammoClip, recipe: PretrainingRecipe, vocabulary: Path, facts: dict[str, Any]
) -> None:
    """Weights as safetensors, recipe and facts as JSON, and the vocabulary, in a folder that exists."""
    state = {key: value.detach().to("cpu").contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    record = {"kind": "own", **facts, "recipe": asdict(recipe)}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / VOCABULARY_FILE).write_bytes(vocabulary.read_bytes())


def load_own(folder: Path) -> tuple[MammoClip, WordPiece, PretrainingRecipe]:
    """The dual encoder of a run's checkpoint in eval mode, its tokenizer and its recipe. Raises CheckpointError."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        recipe: PretrainingRecipe = build(PretrainingRecipe, _as_toml(record["recipe"]), str(folder / RECORD))
        tokenizer = tokenizer_of(recipe, folder / VOCABULARY_FILE)
        model = build_model(recipe, len(tokenizer.ids))
        state = read_safetensors(folder / WEIGHTS)
        model.load_state_dict(split_state(folder / WEIGHTS, state, "", model.state_dict()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecipeError) as error:
        raise CheckpointError(f"{folder}: holds no model of a run: {type(error).__name__}: {error}") from error
    return model.eval(), tokenizer, recipe


def _as_toml(recipe: dict[str, Any]) -> dict[str, Any]:
    """JSON's null is TOML's 0: no bound of the logit scale."""
    bound = recipe["loss"].get("maximum_logit_scale")
    return {**recipe, "loss": {**recipe["loss"], "maximum_logit_scale": bound or 0.0}}
