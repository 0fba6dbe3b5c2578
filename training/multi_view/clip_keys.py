"""CLIP weights given as files: OpenAI's archives, open_clip's and transformers' state dicts; every key accounted for.

What a file is, is told by its keys and shapes, never by its name. Nothing in it is run: safetensors, `torch.load` with
weights only, and TorchScript archives by jit_archive.py.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.mammo_clip.released import CheckpointError, load_file, read_safetensors, split_state
from training.multi_view.blocks import Activation
from training.multi_view.clip import VARIANTS, Clip, ClipConfig
from training.multi_view.jit_archive import is_jit_archive, read_jit_archive

_SCALARS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""OpenAI's state dicts carry these numbers; shapes say the same."""
_ACTIVATIONS: tuple[Activation, Activation] = ("quick_gelu", "gelu")


@dataclass(frozen=True, slots=True, eq=False)
class ClipWeights:
    """A whole state of `Clip(config)`, float32, and the `layout` it came in: OpenAI, open_clip or transformers."""

    config: ClipConfig
    state: dict[str, Tensor]
    layout: str


def read_clip_weights(path: Path, activation: Activation | None = None) -> ClipWeights:
    """Weights of one of CLIP's sizes: B/32, B/16, L/14, at any image size.

    No shape tells the activation: OpenAI's own archives have quick_gelu; elsewhere config.json or
    open_clip_config.json beside the file says it, or the caller does. Raises CheckpointError that says what the file
    is and what is wanted.
    """
    content, is_archive = _content(path)
    layout, state = _in_clips_keys(path, content)
    config = _config_of(path, state)
    is_openais = is_archive or bool(_SCALARS & content.keys())
    told = activation or ("quick_gelu" if is_openais else _activation_beside(path, layout))
    if told not in _ACTIVATIONS:
        raise CheckpointError(
            f"{path}: its activation cannot be told from shapes: quick_gelu (all of OpenAI's weights) or gelu (most of "
            "open_clip's own); put the open_clip_config.json or config.json that belongs to it beside the file"
        )
    config = replace(config, activation=told)
    with torch.device("meta"):
        expected = Clip(config).state_dict()
    own = split_state(path, state, "", expected)
    return ClipWeights(config, {key: own[key].float().contiguous() for key in expected}, layout)


def _content(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The file's tensors by key, and whether it is a TorchScript archive. Wrappers of a training run are taken off."""
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give the file of weights in it")
    if path.is_file() and is_jit_archive(path):
        return read_jit_archive(path), True
    content: Mapping[str, Any] = read_safetensors(path) if path.suffix == ".safetensors" else load_file(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(inner := content.get(wrapper), Mapping):
            content = inner
    found = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    return found, False


def _in_clips_keys(path: Path, content: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The layout's name, and the tensors under OpenAI's keys."""
    if "vision_model.embeddings.class_embedding" in content and "text_projection.weight" in content:
        return "transformers", _from_transformers(path, content)
    state = {key: value for key, value in content.items() if key not in _SCALARS}
    if "visual.transformer.resblocks.0.ln_1.weight" not in state:
        raise CheckpointError(f"{path}: {_what_else(content)}; wanted is CLIP with a vision transformer")
    if "text.token_embedding.weight" in state:
        return "open_clip", {
            key.removeprefix("text."): value for key, value in state.items() if key != "text.attn_mask"
        }
    if "token_embedding.weight" not in state:
        raise CheckpointError(f"{path}: {_what_else(content)}; wanted is CLIP with a vision transformer")
    state.pop("attn_mask", None)
    layout = "OpenAI" if _SCALARS & content.keys() else "OpenAI or open_clip"
    return layout, state


_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"image_encoder\.|text_encoder\.", "a checkpoint of System A (Mammo-CLIP); see `python -m training import`"),
    (r"clip\..*_adapter\.|visual\..*_adapter\.", "trained adapters of System B without their backbone"),
    (r"visual\.layer1\.", "CLIP with a ResNet"),
    (r"visual\.trunk\.", "an open_clip model with an image tower of timm (SigLIP, ConvNeXt and others)"),
    (r"visual\.blocks\.", "an EVA CLIP"),
    (r"text\.transformer\.(embeddings|encoder)\.", "an open_clip model with a BERT text tower (BiomedCLIP and others)"),
    (r"text_decoder\.", "a CoCa model"),
    (r"logit_bias$|vision_model\.head\.", "a SigLIP model"),
    (r"(visual|vision_model)\.", "the image tower of a CLIP without its text tower"),
    (r"(text_model|transformer|token_embedding)\.", "a text tower without an image tower"),
    (r"_?conv_?(stem|1)\.|conv_head\.|trunk\.", "a convolutional network"),
)
"""Patterns of keys, in the order in which they are tried, and what a file with such a key is."""


def _what_else(content: Mapping[str, Tensor]) -> str:
    for pattern, words in _FOREIGN:
        if any(re.match(pattern, key) for key in content):
            return f"is {words}"
    return f"is no CLIP: its keys are {', '.join(list(content)[:4]) or 'none'}"


def _config_of(path: Path, state: Mapping[str, Tensor]) -> ClipConfig:
    """The size whose shapes these are; only the image size may differ. Raises CheckpointError."""
    conv, positions = _of(path, state, "visual.conv1.weight", 4), _of(path, state, "visual.positional_embedding", 2)
    tokens, context = _of(path, state, "token_embedding.weight", 2), _of(path, state, "positional_embedding", 2)
    width, patch, grid = conv.shape[0], conv.shape[2], math.isqrt(max(0, positions.shape[0] - 1))
    layers, text_layers = _blocks(state, "visual.transformer"), _blocks(state, "transformer")
    embed_dim = _of(path, state, "text_projection", 2).shape[1]
    found = (embed_dim, patch, width, layers, tokens.shape[1], text_layers, tokens.shape[0], context.shape[0])
    for known in VARIANTS.values():
        tower = (known.embed_dim, known.patch, known.vision_width, known.vision_layers)
        if (*tower, known.text_width, known.text_layers, known.vocabulary, known.context) == found:
            return replace(known, image_size=grid * patch)
    raise CheckpointError(
        f"{path}: is a CLIP of another size: patch {patch}, {layers} blocks of width {width}, text {text_layers} of "
        f"{tokens.shape[1]}, {tokens.shape[0]} tokens; known are ViT-B/32, B/16 and L/14"
    )


def _of(path: Path, state: Mapping[str, Tensor], key: str, axes: int) -> Tensor:
    value = state.get(key)
    if value is None or value.dim() != axes:
        raise CheckpointError(f"{path}: does not fit: {key} {'is missing' if value is None else 'has another shape'}")
    return value


def _blocks(state: Mapping[str, Tensor], tower: str) -> int:
    return sum(1 for key in state if re.fullmatch(rf"{re.escape(tower)}\.resblocks\.\d+\.ln_1\.weight", key))


def _activation_beside(path: Path, layout: str) -> str | None:
    """What the configuration in the file's folder says: open_clip's, or transformers' for weights in its layout."""
    try:
        if layout == "transformers":
            config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
            said = {config.get(part, {}).get("hidden_act", "quick_gelu") for part in ("vision_config", "text_config")}
            return said.pop() if len(said) == 1 else None
        config = json.loads((path.parent / "open_clip_config.json").read_text(encoding="utf-8"))
        return "quick_gelu" if config["model_cfg"].get("quick_gelu", False) else "gelu"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: the configuration beside it cannot be read: {error}; name the activation"
        ) from error


_TRANSFORMERS: tuple[tuple[str, str], ...] = (
    (r"vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", "visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"visual_projection\.weight", "visual.proj"),
    (r"text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.", "ln_final."),
    (r"text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"text_projection\.weight", "text_projection"),
)
_TRANSFORMERS_INNER: tuple[tuple[str, str], ...] = (
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
)
_HEADS = re.compile(r"(?P<block>.*)\.self_attn\.(?P<part>[qkv])_proj\.(?P<kind>weight|bias)")


def _from_transformers(path: Path, content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of `transformers.CLIPModel` renamed; query, key and value in one matrix; projections transposed."""
    state: dict[str, Tensor] = {}
    for key, name in _renamed(content):
        value = content[key]
        if (match := _HEADS.fullmatch(name)) is not None:
            if match["part"] != "q":
                continue
            parts = [content.get(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            if any(part is None for part in parts):
                raise CheckpointError(f"{path}: does not fit: beside {key} the key or value projection is missing")
            name = f"{match['block']}.attn.in_proj_{match['kind']}"
            value = torch.cat([part for part in parts if part is not None])
        state[name] = value.T if name in ("visual.proj", "text_projection") else value
    return state


def _renamed(content: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    for key in content:
        if key.endswith(".position_ids"):
            continue
        name = key
        for pattern, word in _TRANSFORMERS:
            name = re.sub(f"^{pattern}", word, name)
        for old, new in _TRANSFORMERS_INNER:
            name = name.replace(old, new)
        yield key, name
