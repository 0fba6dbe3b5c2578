"""A classifier: an image encoder with a linear head on its pooled features, with the keys of the released classifiers.

The head's outputs: one logit for each finding of the recipe, in its order, then four for density where that is told.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.efficientnet import freeze_statistics
from training.mammo_clip.building import build_image_encoder, start_from_imagenet, trunk_of
from training.mammo_clip.finetuning_recipe import FinetuningRecipe, check_recipe
from training.mammo_clip.gradients import PRECISIONS
from training.mammo_clip.importing import RECORD, WEIGHTS
from training.mammo_clip.loading import FINETUNED, LoadedModel, load_model
from training.mammo_clip.model import ImageFeatures
from training.mammo_clip.pretraining_recipe import RecipeError, build
from training.mammo_clip.released import CheckpointError, split_state


class Classifier(nn.Module):
    """`image_encoder` and `classifier.classification_head`."""

    def __init__(self, encoder: nn.Module, outputs: int) -> None:
        super().__init__()
        self.image_encoder = encoder
        channels = int(encoder.out_channels)  # type: ignore[arg-type]
        self.classifier = nn.ModuleDict({"classification_head": nn.Linear(channels, outputs)})

    @property
    def head(self) -> nn.Linear:
        """The linear layer."""
        head = self.classifier["classification_head"]
        assert isinstance(head, nn.Linear)
        return head

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W), normalised -> logits (B, outputs), float32 or wider."""
        features: ImageFeatures = self.image_encoder.features(images)  # type: ignore[operator]
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(features.pooled.to(self.head.weight.dtype))
        return logits

    def set_mode(self, recipe: FinetuningRecipe) -> None:
        """Training mode as the recipe has it: of a frozen encoder, and of batch norms that keep their statistics."""
        self.train()
        if recipe.image.frozen and recipe.image.frozen_mode == "eval":
            self.image_encoder.eval()
        elif recipe.image.frozen_statistics:
            freeze_statistics(self.image_encoder)


def build_classifier(recipe: FinetuningRecipe) -> Classifier:
    """The recipe's classifier with weights drawn from its seed. Raises RecipeError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Classifier(build_image_encoder(recipe.image), recipe.outputs)
    if recipe.image.checkpointed:
        trunk_of(model.image_encoder).checkpointed = True
    model.image_encoder.requires_grad_(not recipe.image.frozen)
    return model.to(PRECISIONS["float64" if recipe.optimisation.precision == "float64" else "float32"])


def load_start(model: Classifier, recipe: FinetuningRecipe, folder: Path | None) -> dict[str, Any]:
    """Weights from which training starts; of given ones what must be said of them: hash and licence.

    A given classifier's head is taken over where it has as many outputs. Raises RecipeError, CheckpointError.
    """
    wanted = recipe.image.weights
    if (wanted == "given") != (folder is not None):
        raise RecipeError(f'the recipe takes weights "{wanted}": --model goes with "given", and with it alone')
    if folder is None:
        if wanted == "imagenet":
            start_from_imagenet(model.image_encoder)
        return {}
    loaded = load_model(folder)
    if loaded.input.normalisation != recipe.data.normalisation:
        raise RecipeError(f'data.normalisation: {folder} was trained with "{loaded.input.normalisation}"')
    encoder = model.image_encoder
    state = split_state(loaded.folder / WEIGHTS, loaded.image_encoder.state_dict(), "", encoder.state_dict())
    encoder.load_state_dict(state)
    taken = _take_head(model, loaded)
    licence = {"licence": loaded.licence} if loaded.licence else {}
    return {"start": loaded.weights_hash, "start_has_head": taken, **licence}


def _take_head(model: Classifier, loaded: LoadedModel) -> bool:
    if loaded.head is None or loaded.head.weight.shape != model.head.weight.shape:
        return False
    model.head.load_state_dict(loaded.head.state_dict())
    return True


def save_classifier(folder: Path, model: Classifier, recipe: FinetuningRecipe, facts: dict[str, Any]) -> None:
    """Weights as safetensors, recipe and facts as JSON, in a folder that exists."""
    state = {key: value.detach().to("cpu").contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    record = {"kind": FINETUNED, **facts, "targets": list(recipe.data.targets), "recipe": asdict(recipe)}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_classifier(folder: Path) -> tuple[Classifier, FinetuningRecipe]:
    """What `save_classifier` wrote, in eval mode, and its recipe. Raises CheckpointError."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        recipe: FinetuningRecipe = build(FinetuningRecipe, record["recipe"], str(folder / RECORD))
        check_recipe(recipe)
        model = build_classifier(recipe)
        model.load_state_dict(split_state(folder / WEIGHTS, load_file(folder / WEIGHTS), "", model.state_dict()))
    except (OSError, ValueError, KeyError, RecipeError) as error:
        raise CheckpointError(f"{folder}: holds no fine-tuned classifier: {type(error).__name__}: {error}") from error
    return model.eval(), recipe
