"""Any model of System A from its folder: a run of one's own, or an imported checkpoint, classifier or FActOR file.

Every command takes `--model FOLDER` through `load_model`: the encoders, the tokenizer, and what an image must be made
into before the encoder sees it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from node.mammography import mammo_clip
from node.mammography.pixels import preset
from node.mammography.wordpiece import WordPiece
from training import maps
from training.cache import PRESET
from training.mammo_clip.building import load_own
from training.mammo_clip.checkpoint import latest_checkpoint
from training.mammo_clip.factor import PaperMapper
from training.mammo_clip.importing import RECORD, VOCABULARY_FILE, WEIGHTS, load_imported, tokenizer_for
from training.mammo_clip.model import TEXT_MAX_LENGTH, ImageFeatures, MammoClip
from training.mammo_clip.pretraining_recipe import PretrainingRecipe
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.sampling import normalised

OWN, FINETUNED = "own", "fine-tuned"
IMAGE, FIXED = "image", "fixed"
Planes = NDArray[np.uint8] | Tensor


@dataclass(frozen=True, slots=True)
class Input:
    """What an image is made into: `preset` of `node.mammography.pixels`, then (height, width), then `normalisation`:
    "image" (least value 0, greatest 1, published mean and deviation) or "fixed" (`maps.normalise`), then `channels`.
    """

    preset: str
    height: int
    width: int
    normalisation: str
    channels: int

    def normalise(self, planes: Planes) -> Tensor:
        """Grey planes (N, H, W), uint8 or float in [0, 1] -> float32 (N, channels, H, W). A plane of one value is
        finite.
        """
        grey = torch.as_tensor(np.array(planes) if isinstance(planes, np.ndarray) else planes)
        scaled = grey.float() / 255.0 if grey.dtype == torch.uint8 else grey.float()
        views = scaled[:, None]
        if self.normalisation == FIXED:
            made = maps.normalise(views)
        else:
            made = torch.stack([normalised(view) for view in views]) if len(views) else views
        return made.expand(-1, self.channels, -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model in eval mode, whatever its folder holds: `kind` "own", "fine-tuned", "pretrained", "classifier" or
    "factor".

    `image_encoder` has `out_channels` and `features`. `dual` is the whole dual encoder, None without a text tower;
    `tokenizer` None where the vocabulary was not given; `head` the classifier's layer on pooled features; `mapper`
    FActOR's. `record` is the folder's JSON, `licence` what must be said of the weights, "" for one's own.
    """

    folder: Path
    kind: str
    image_encoder: nn.Module
    input: Input
    dual: MammoClip | None
    tokenizer: WordPiece | None
    max_length: int
    head: nn.Linear | None
    mapper: PaperMapper | None
    record: dict[str, Any]
    weights_hash: str

    @property
    def licence(self) -> str:
        """To be shown, and written into the card of whatever is made from these weights."""
        return str(self.record.get("licence", ""))

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.image_encoder.parameters()).device

    def clip(self) -> MammoClip:
        """The dual encoder. Raises CheckpointError where there is no text tower."""
        if self.dual is None:
            raise CheckpointError(
                f"{self.folder}: holds a {self.kind}, which has no text tower; take a pretraining checkpoint"
            )
        return self.dual

    def features(self, planes: Planes) -> ImageFeatures:
        """Pooled features (N, C) and feature map (N, C, h, w) of grey planes (N, H, W), see `Input.normalise`."""
        images = self.input.normalise(planes).to(self.device)
        found: ImageFeatures = self.image_encoder.features(images)  # type: ignore[operator]
        return found

    def embed_images(self, planes: Planes) -> Tensor:
        """Grey planes (N, H, W) -> (N, D) of unit length, float32. Raises CheckpointError without a text tower."""
        return self.clip().encode_image(self.input.normalise(planes).to(self.device))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (N, D) of unit length, float32. Raises CheckpointError without a text tower or a vocabulary."""
        clip = self.clip()
        if self.tokenizer is None:
            raise CheckpointError(
                f"{self.folder}: has no vocabulary; give the vocab.txt of Bio_ClinicalBERT: python -m training import "
                "CHECKPOINT --vocabulary vocab.txt --out FOLDER, or --vocabulary to this command"
            )
        token_ids, mask = self.tokenizer.batch(texts, self.max_length)
        return clip.encode_text(torch.tensor(token_ids).to(self.device), torch.tensor(mask).to(self.device))

    def classify(self, planes: Planes) -> Tensor:
        """Logits (N, classes) of a classifier. Raises CheckpointError where the folder holds none."""
        if self.head is None:
            raise CheckpointError(f"{self.folder}: holds a model of kind {self.kind}, not a classifier")
        logits: Tensor = self.head(self.features(planes).pooled.float())
        return logits


def load_model(folder: Path, vocabulary: Path | None = None) -> LoadedModel:
    """The model of a run (its best epoch), of a checkpoint's folder, or of an imported file's, in eval mode.

    `vocabulary`: vocab.txt for an imported checkpoint that was imported without. Raises CheckpointError that names the
    folder, what is wrong, and the cure.
    """
    found = model_folder(folder)
    record = record_of(found)
    if vocabulary is not None and record.get("kind") != "pretrained":
        raise CheckpointError(f"{found}: takes no vocabulary from outside; leave --vocabulary out")
    try:
        if record.get("kind") == OWN:
            return _own(found, record)
        if record.get("kind") == FINETUNED:
            return _finetuned(found, record)
        return _imported(found, record, vocabulary)
    except SafetensorError as error:
        raise CheckpointError(f"{found / WEIGHTS}: cannot be read: {error}. Is it whole? Copy it again") from error


def model_folder(folder: Path) -> Path:
    """The folder itself where a model lies in it; of a run its best epoch, else its last checkpoint."""
    if (folder / RECORD).is_file():
        return folder
    if folder.is_file():
        raise CheckpointError(f"{folder}: is a file; import it first: python -m training import {folder} --out FOLDER")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give a run, or what `python -m training import` wrote")
    best = max(folder.glob(f"best-epoch-*/{RECORD}"), default=None)
    found = best.parent if best is not None else latest_checkpoint(folder)
    if found is None:
        raise CheckpointError(
            f"{folder}: holds no model: neither {RECORD} nor best-epoch-*; give a run of `pretrain`, or what "
            "`python -m training import` wrote"
        )
    return found


def record_of(folder: Path) -> dict[str, Any]:
    """What stands in the JSON beside the weights. Raises CheckpointError."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / RECORD}: cannot be read as a model's record: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{folder / RECORD}: is no model's record")
    return record


def _own(folder: Path, record: dict[str, Any]) -> LoadedModel:
    model, tokenizer, recipe = load_own(folder)
    sees = input_of(record, recipe)
    length = recipe.text.max_length
    return LoadedModel(
        folder, OWN, model.image_encoder, sees, model, tokenizer, length, None, None, record, _hash(folder)
    )


def input_of(record: dict[str, Any], recipe: PretrainingRecipe) -> Input:
    """What a run's encoder wants to see. Files go through `mammo-clip`, phantom views are fitted and mirrored; a run
    on tiles alone sees whole views at the size of which its tiles are parts.
    """
    facts = record.get("data")
    sources = str(facts.get("sources", "")) if isinstance(facts, dict) else ""
    kinds = {kind.strip() for kind in sources.split(",")}
    height, width, name = recipe.data.height, recipe.data.width, mammo_clip.NAME
    if "phantoms" in kinds:
        name = f"fit-{height}x{width}"
    elif "tiles" in kinds:
        whole = preset(PRESET)
        height, width, name = whole.height, whole.width, whole.name
    return Input(name, height, width, recipe.data.normalisation, recipe.image.channels)


def _finetuned(folder: Path, record: dict[str, Any]) -> LoadedModel:
    """A classifier of `finetune`; its head's outputs are the recipe's findings, then four for density."""
    from training.mammo_clip.finetuned import load_classifier  # which begins from what this module loads

    model, recipe = load_classifier(folder)
    sees, weights = recipe.input, _hash(folder)
    return LoadedModel(folder, FINETUNED, model.image_encoder, sees, None, None, 0, model.head, None, record, weights)


def _imported(folder: Path, record: dict[str, Any], vocabulary: Path | None) -> LoadedModel:
    parts = load_imported(folder)
    sees = Input(mammo_clip.NAME, mammo_clip.ROWS, mammo_clip.COLUMNS, IMAGE, 3)
    beside = folder / VOCABULARY_FILE
    path = vocabulary or (beside if beside.is_file() else None)
    tokenizer = None
    if path is not None and parts.dual is not None:
        tokenizer = tokenizer_for(path, int(parts.dual.text_encoder.text_encoder.config.vocab_size))
    return LoadedModel(
        folder,
        str(record["kind"]),
        parts.image_encoder,
        sees,
        parts.dual,
        tokenizer,
        TEXT_MAX_LENGTH,
        parts.head,
        parts.mapper,
        record,
        _hash(folder),
    )


def _hash(folder: Path) -> str:
    """SHA-256 of the weights' file."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
