"""A detector as a recipe wants it, and as a finished run or an imported file left it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.mammo_clip.building import build_image_encoder, start_from_imagenet
from training.mammo_clip.detection import (
    PUBLISHED_SIZE_PX,
    Detections,
    Detector,
    Reading,
    classes_of,
    detections,
    published_detector,
)
from training.mammo_clip.detection_recipe import DetectionRecipe
from training.mammo_clip.gradients import PRECISIONS
from training.mammo_clip.importing import CARD, RECORD, WEIGHTS
from training.mammo_clip.loading import IMAGE, Input, Planes, load_model, model_folder, record_of
from training.mammo_clip.pretraining_recipe import RecipeError, build
from training.mammo_clip.released import CheckpointError, split_state

OWN_DETECTOR, IMPORTED_DETECTOR = "own detector", "detector"
PUBLISHED_READING = Reading(least_probability=0.2)


def build_detector(recipe: DetectionRecipe) -> Detector:
    """The recipe's detector with weights drawn from its seed. Raises RecipeError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        detector = Detector(
            build_image_encoder(recipe.image), len(recipe.data.classes), recipe.network, frozen=recipe.image.frozen
        )
    detector.frozen_statistics = recipe.image.frozen_statistics
    return detector.to(PRECISIONS["float64" if recipe.optimisation.precision == "float64" else "float32"])


def load_encoder(detector: Detector, recipe: DetectionRecipe, folder: Path | None) -> dict[str, Any]:
    """Weights from which the encoder starts; where they are given, what must be said of them: hash and licence.

    Raises RecipeError for what is not there, CheckpointError for a misfit.
    """
    encoder = detector.efficientnet
    if recipe.image.weights != "given":
        if folder is not None:
            raise RecipeError(f'--encoder {folder}: the recipe takes weights "{recipe.image.weights}", not "given"')
        if recipe.image.weights == "imagenet":
            start_from_imagenet(encoder)
        return {}
    if folder is None:
        raise RecipeError("the recipe leaves the encoder's weights to you: --encoder FOLDER is missing")
    loaded = load_model(folder)
    if loaded.input.normalisation != recipe.data.normalisation:
        raise RecipeError(
            f'{folder}: was trained with normalisation "{loaded.input.normalisation}"; set data.normalisation to it'
        )
    state = split_state(loaded.folder / WEIGHTS, loaded.image_encoder.state_dict(), "", encoder.state_dict())
    encoder.load_state_dict(state)
    return {"encoder": loaded.weights_hash, **({"licence": loaded.licence} if loaded.licence else {})}


def said_of_encoder(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's record says of the encoder's given weights: hash and licence."""
    record = record_of(checkpoint)
    return {key: record[key] for key in ("encoder", "licence") if key in record}


def save_detector(folder: Path, detector: Detector, recipe: DetectionRecipe, facts: dict[str, Any]) -> None:
    """Weights as safetensors, recipe and facts as JSON, in a folder that exists."""
    state = {key: value.detach().to("cpu").contiguous() for key, value in detector.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    record = {"kind": OWN_DETECTOR, **facts, "recipe": asdict(recipe)}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedDetector:
    """A detector in eval mode: `classes` in its order, what an image must be made into, and which boxes count."""

    folder: Path
    detector: Detector
    classes: tuple[str, ...]
    input: Input
    reading: Reading
    record: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.detector.parameters()).device

    @property
    def positive_images_only(self) -> bool:
        """Whether images without a box were left out where it was trained and measured, as published."""
        if self.record.get("kind") != OWN_DETECTOR:
            return True
        return recipe_of(self.record, str(self.folder / RECORD)).data.positive_images_only

    def to(self, device: torch.device) -> "LoadedDetector":
        """The same on a device."""
        self.detector.to(device)
        return self

    def find_all(self, planes: Sequence[NDArray[np.uint8]], batch: int) -> list[Detections]:
        """`find` for many planes of one size, a batch at a time."""
        starts = range(0, len(planes), batch)
        return [found for start in starts for found in self.find(np.stack(planes[start : start + batch]))]

    @torch.no_grad()
    def find(self, planes: Planes) -> list[Detections]:
        """Boxes in grey planes (N, H, W), uint8 or float in [0, 1], in their pixels; best at the size of `input`."""
        images = self.input.normalise(planes).to(self.device)
        return detections(self.detector(images), (images.shape[2], images.shape[3]), self.reading)


def load_detector(folder: Path, classes: tuple[str, ...] = ()) -> LoadedDetector:
    """The detector of a run (its best epoch), of a checkpoint's folder, or of an imported file.

    `classes`: names for an imported file, which has none. Raises CheckpointError.
    """
    found = model_folder(folder)
    record = record_of(found)
    kind = record.get("kind")
    if kind not in (OWN_DETECTOR, IMPORTED_DETECTOR):
        raise CheckpointError(
            f"{folder}: holds a model of kind {kind}, not a detector; train one: python -m training detect"
        )
    try:
        state = load_file(found / WEIGHTS)
        return _own(found, record, state) if kind == OWN_DETECTOR else _imported(found, record, state, classes)
    except (OSError, SafetensorError, KeyError, RecipeError) as error:
        raise CheckpointError(f"{found}: cannot be read as a detector: {type(error).__name__}: {error}") from error


def recipe_of(record: dict[str, Any], where: str) -> DetectionRecipe:
    """The recipe in a detector's record. Raises RecipeError."""
    recipe: DetectionRecipe = build(DetectionRecipe, record["recipe"], where)
    return recipe


def _own(folder: Path, record: dict[str, Any], state: dict[str, torch.Tensor]) -> LoadedDetector:
    recipe = recipe_of(record, str(folder / RECORD))
    detector = build_detector(recipe)
    detector.load_state_dict(split_state(folder / WEIGHTS, state, "", detector.state_dict()))
    return LoadedDetector(folder, detector.eval(), recipe.data.classes, recipe.input, recipe.reading, record)


def _imported(
    folder: Path, record: dict[str, Any], state: dict[str, torch.Tensor], classes: tuple[str, ...]
) -> LoadedDetector:
    count = classes_of(state)
    if len(classes) != count:
        raise CheckpointError(
            f"{folder}: tells {count} classes apart and names none; name them in order: --classes, for example Mass"
        )
    detector = published_detector(str(record["variant"]), count)
    detector.load_state_dict(split_state(folder / WEIGHTS, state, "", detector.state_dict()))
    sees = Input("", PUBLISHED_SIZE_PX, PUBLISHED_SIZE_PX, IMAGE, 3)
    return LoadedDetector(folder, detector.eval(), classes, sees, PUBLISHED_READING, record)


def write_card(folder: Path, recipe: DetectionRecipe, facts: dict[str, Any], kept: str) -> None:
    """The model card of a run: what made the detector, its one figure, and what it is not."""
    data = "\n".join(f"- {key}: {value}" for key, value in facts["data"].items())
    licence = f"\nLicence of the encoder that it began from: {facts['licence']}\n" if "licence" in facts else ""
    said = _SELECTED_ON_TEST if recipe.data.selection_split == "test" else "."
    text = f"""# {recipe.name}

A detector of {", ".join(recipe.data.classes)} in mammograms: RetinaNet (arXiv 1708.02002) on an image encoder, after
Mammo-CLIP (arXiv 2405.12255). For research; no medical device. Probabilities are not calibrated.

- Image encoder: {recipe.image.encoder}, {recipe.data.height} x {recipe.data.width}, padding {recipe.image.padding},
  begun from weights "{recipe.image.weights}", {"frozen" if recipe.image.frozen else "trained"}
- Code: {facts["code"]}; torch {facts["torch"]}; {facts["device"]}
- Kept: {kept}
{licence}
## Data

{data}

The {recipe.data.selection_split} images chose the epoch{said}
Phantom exams are drawn by a program and stand for no patient.
"""
    (folder / CARD).write_text(text, encoding="utf-8")


_SELECTED_ON_TEST = ", as published: figures on them are too good."
