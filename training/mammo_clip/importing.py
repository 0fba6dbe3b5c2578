"""Released checkpoints, once converted: safetensors with our own names beside a JSON record that shows the licence."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from node.errors import SettingsError
from node.mammography.wordpiece import WordPiece, load_wordpiece
from training.efficientnet import VARIANTS
from training.mammo_clip.detection import PUBLISHED_SIZE_PX, classes_of, published_detector
from training.mammo_clip.factor import PaperMapper
from training.mammo_clip.model import EfficientNetEncoder, MammoClip, published
from training.mammo_clip.released import CheckpointError, Released, read_released, split_state

WEIGHTS, RECORD, CARD, VOCABULARY_FILE = "model.safetensors", "model.json", "card.md", "vocabulary.txt"
KINDS = ("pretrained", "classifier", "detector", "factor")
_HEAD, _POOL = "classifier.classification_head.", "pool."


def import_checkpoint(source: Path, folder: Path, vocabulary: Path | None = None) -> Released:
    """Read a released file, check every key against the published model, write WEIGHTS, RECORD and CARD into `folder`.

    The optimiser's state is left out. `vocabulary`: the vocab.txt of its text tower, copied beside the weights. Raises
    CheckpointError; then nothing is written.
    """
    released = read_released(source)
    state = checked_state(source, released)
    if vocabulary is not None:
        tokenizer_for(vocabulary, pieces_of(source, state))
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value.contiguous() for key, value in state.items()}
    save_file(kept, folder / WEIGHTS)
    record = {**released.record, "variant": released.variant, "tensors": len(kept)}
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(record), encoding="utf-8")
    if vocabulary is not None:
        (folder / VOCABULARY_FILE).write_bytes(vocabulary.read_bytes())
    return released


def pieces_of(source: Path, state: Mapping[str, Tensor]) -> int:
    """Pieces that the text tower knows. Raises CheckpointError where there is no text tower."""
    words = state.get("text_encoder.text_encoder.embeddings.word_embeddings.weight")
    if words is None:
        raise CheckpointError(f"{source}: has no text tower; leave --vocabulary out")
    return len(words)


def tokenizer_for(vocabulary: Path, pieces: int) -> WordPiece:
    """A given vocabulary as a tokenizer; texts are lowered, as those of the released training were.

    Raises CheckpointError where the file is no vocabulary, or has not so many pieces.
    """
    try:
        tokenizer = load_wordpiece(vocabulary, lower_case=True)
    except SettingsError as error:
        raise CheckpointError(f"{error}; give the vocab.txt that belongs to the checkpoint") from error
    if len(tokenizer.ids) != pieces:
        raise CheckpointError(
            f"{vocabulary}: has {len(tokenizer.ids)} pieces, the text tower {pieces}; give the vocab.txt that belongs "
            "to the checkpoint (Bio_ClinicalBERT for the released ones)"
        )
    return tokenizer


def _card(record: Mapping[str, object]) -> str:
    """The model card: whose weights these are, and on what terms."""
    figures = [f"- {key}: {record[key]}" for key in _FIGURES if key in record]
    return (
        "\n".join(
            [
                f"# Mammo-CLIP {str(record['variant']).upper()}, {record['kind']}",
                "",
                f"Weights of Ghosh et al. (MICCAI 2024, arXiv 2405.12255), imported from `{record['file']}` (SHA-256",
                f"{record['sha256']}). For research; no medical device.",
                "",
                f"Licence: {record['licence']}",
                "",
                "Whatever is made from these weights (a probe, a fine-tuned model, an export) falls under these terms.",
                f"Images: preset `mammo-clip`, {_SIZES.get(str(record['kind']), '1520 x 912')}, least value 0, "
                "greatest 1, published mean and deviation.",
                "",
                *figures,
            ]
        )
        + "\n"
    )


_SIZES = {"detector": f"{PUBLISHED_SIZE_PX} x {PUBLISHED_SIZE_PX}"}
_FIGURES = ("epoch", "train_loss", "auroc", "accuracy", "f1", "MAP", "best_MAP")
"""What the file says of itself; not checked here."""


def checked_state(source: Path, released: Released) -> dict[str, Tensor]:
    """The state with every key accounted for: none missing, none unexpected, all of the published shape."""
    if released.kind == "pretrained":
        return split_state(source, released.state, "", _expected(published, released.variant))
    if released.kind == "detector":
        return split_state(source, released.state, "", _detector_state(source, released))
    trunk = split_state(source, released.state, "image_encoder.", _expected(EfficientNetEncoder, released.variant))
    rest = {key: value for key, value in released.state.items() if not key.startswith("image_encoder.")}
    build = _head_of if released.kind == "classifier" else _mapper_of
    with torch.device("meta"):
        expected = build(source, rest, released.variant).state_dict()
    prefix = _HEAD if released.kind == "classifier" else ""
    checked = split_state(source, rest, "", {f"{prefix}{key}": value for key, value in expected.items()})
    return {**{f"image_encoder.{key}": value for key, value in trunk.items()}, **checked}


def _expected(build: Callable[[str], nn.Module], variant: str) -> dict[str, Tensor]:
    """The published state, shapes only."""
    with torch.device("meta"):
        return dict(build(variant).state_dict())


def _detector_state(source: Path, released: Released) -> dict[str, Tensor]:
    """The published detector's state, shapes only, of as many classes as the file tells apart."""
    classes = classes_of(released.state)
    if not classes:
        raise CheckpointError(f"{source}: does not fit: classificationModel.output.weight is missing")
    return _expected(lambda variant: published_detector(variant, classes), released.variant)


def _head_of(source: Path, state: Mapping[str, Tensor], variant: str) -> nn.Linear:
    """A classifier's layer: as many classes as its weight has rows."""
    weight = state.get(f"{_HEAD}weight")
    if weight is None or weight.dim() != 2:
        raise CheckpointError(f"{source}: does not fit: {_HEAD}weight is missing")
    return nn.Linear(VARIANTS[variant].head, len(weight))


def _mapper_of(source: Path, state: Mapping[str, Tensor], variant: str) -> PaperMapper:
    """FActOR's mapper: cells, dimensions and phrases by the shapes of its weights."""
    first, last = state.get(f"{_POOL}0.0.weight"), state.get(f"{_POOL}0.2.weight")
    if first is None or last is None or first.dim() != 2 or last.dim() != 2:
        raise CheckpointError(f"{source}: does not fit: {_POOL}0.0.weight or {_POOL}0.2.weight is missing")
    phrases = {key.split(".")[1] for key in state if key.startswith(_POOL)}
    return PaperMapper(first.shape[1], last.shape[0], len(phrases))


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """The modules of an imported file, in eval mode; None for what it has not."""

    image_encoder: nn.Module
    dual: MammoClip | None = None
    head: nn.Linear | None = None
    mapper: PaperMapper | None = None


def load_imported(folder: Path) -> Imported:
    """The modules of an imported file. Raises CheckpointError, for a detector too: `detect` loads those."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    kind, variant, path = record.get("kind"), record.get("variant"), folder / WEIGHTS
    if kind not in KINDS or kind == "detector" or variant not in ("b2", "b5"):
        words = "a detector; only the command `detect` takes it" if kind == "detector" else f"a model of kind {kind}"
        raise CheckpointError(f"{folder}: holds {words}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; import the checkpoint again")
    state = checked_state(path, Released(kind, variant, load_file(path), record))
    if kind == "pretrained":
        model = published(variant)
        model.load_state_dict(state)
        return Imported(model.eval().image_encoder, model)
    encoder = EfficientNetEncoder(variant)
    encoder.load_state_dict(_below("image_encoder.", state))
    if kind == "classifier":
        head = _head_of(path, state, variant)
        head.load_state_dict(_below(_HEAD, state))
        return Imported(encoder.eval(), head=head.eval())
    mapper = _mapper_of(path, state, variant)
    mapper.load_state_dict({key: value for key, value in state.items() if key.startswith(_POOL)})
    return Imported(encoder.eval(), mapper=mapper.eval())


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def load_pretrained(folder: Path) -> MammoClip:
    """The dual encoder of an imported pretraining checkpoint, in eval mode. Raises CheckpointError."""
    model = load_imported(folder).dual
    if model is None:
        raise CheckpointError(f"{folder}: holds no pretrained dual encoder")
    return model
