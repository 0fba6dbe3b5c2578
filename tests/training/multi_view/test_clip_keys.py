"""Weights of CLIP given as files: read in each layout, refused with words when they are something else."""

import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.mammo_clip.released import CheckpointError
from training.multi_view import clip_keys
from training.multi_view.clip import VARIANTS, Clip
from training.multi_view.clip_keys import read_clip_weights
from training.multi_view.jit_archive import read_jit_archive

TINY = VARIANTS["tiny"]
State = dict[str, Tensor]


def state_of(seed: int = 0, **changes) -> State:
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in Clip(replace(TINY, **changes)).state_dict().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def jit_file(path: Path, state: State) -> Path:
    """An archive as OpenAI's are: modules in modules with half-precision parameters, and numbers."""
    top = nn.Module()
    for key, value in state.items():
        part, *names = top, *key.split(".")
        for name in names[:-1]:
            if name not in part._modules:
                part.add_module(name, nn.Module())
            part = part._modules[name]
        part.register_parameter(names[-1], nn.Parameter(value, requires_grad=False))
    top.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.save(torch.jit.script(top), path)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_archive_of_openai_is_read_without_running_it(tmp_path: Path):
    state = {key: value.half() for key, value in state_of().items()}
    found = read_clip_weights(jit_file(tmp_path / "ViT.pt", state))
    assert found.layout == "OpenAI"
    assert found.config == TINY
    assert same(found.state, {key: value.float() for key, value in state.items()})


def archive_of(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/code/__torch__.py", "")
        archive.writestr("clip/data.pkl", content)
    return path


class Command:
    def __reduce__(self):
        return os.mkdir, ("made-by-the-archive",)


def test_an_archive_that_wants_to_run_something_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"refused: its objects want (posix|nt)\.mkdir"):
        read_jit_archive(archive_of(tmp_path / "evil.pt", pickle.dumps(Command())))
    assert not (tmp_path / "made-by-the-archive").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_archive_that_is_cut_off_says_so(tmp_path: Path):
    whole = jit_file(tmp_path / "ViT.pt", state_of())
    with zipfile.ZipFile(whole) as archive:
        objects = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    with pytest.raises(CheckpointError, match=r"cannot be read as a TorchScript archive: KeyError.*Is it whole"):
        read_clip_weights(archive_of(tmp_path / "cut.pt", objects))
    with pytest.raises(CheckpointError, match="cannot be read as a TorchScript archive"):
        read_clip_weights(archive_of(tmp_path / "short.pt", objects[:200]))


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("layout", ["flat", "training", "custom text"])
def test_state_dicts_of_open_clip_are_read(tmp_path: Path, layout: str, ending: str):
    state = state_of()
    path = tmp_path / f"open_clip_model.{ending}"
    given = state
    if layout == "custom text":
        given = {key if key.startswith(("visual.", "logit")) else f"text.{key}": value for key, value in state.items()}
    if layout == "training":
        given = {f"module.{key}": value for key, value in state.items()}
    if ending == "safetensors":
        save_file(given, path)
    else:
        torch.save({"epoch": 3, "state_dict": given} if layout == "training" else given, path)
    found = read_clip_weights(path, "gelu")
    assert same(found.state, state)
    assert found.config == replace(TINY, activation="gelu")
    assert "open_clip" in found.layout


@pytest.mark.parametrize(("said", "expected"), [({}, "gelu"), ({"quick_gelu": True}, "quick_gelu")])
def test_open_clips_configuration_beside_the_file_tells_the_activation(tmp_path: Path, said, expected: str):
    torch.save(state_of(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 16, **said}}))
    assert read_clip_weights(tmp_path / "open_clip_pytorch_model.bin").config.activation == expected


def test_numbers_of_openais_state_dict_tell_its_activation(tmp_path: Path):
    torch.save({**state_of(), "input_resolution": torch.tensor(32)}, tmp_path / "ViT.pt")
    assert read_clip_weights(tmp_path / "ViT.pt").config.activation == "quick_gelu"


def test_an_activation_that_nothing_tells_is_asked_for(tmp_path: Path):
    torch.save(state_of(), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"activation cannot be told from shapes: quick_gelu .* or gelu"):
        read_clip_weights(tmp_path / "clip.pt")
    (tmp_path / "open_clip_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="configuration beside it cannot be read"):
        read_clip_weights(tmp_path / "clip.pt")


def test_the_size_of_the_images_is_told_by_the_position_embeddings(tmp_path: Path):
    torch.save(state_of(image_size=48), tmp_path / "clip.pt")
    assert read_clip_weights(tmp_path / "clip.pt", "gelu").config.image_size == 48


@pytest.mark.parametrize(("name", "image_size"), [("B/32", 224), ("B/16", 384), ("L/14", 336)])
def test_published_sizes_are_told_by_their_shapes(tmp_path: Path, monkeypatch, name: str, image_size: int):
    config = replace(VARIANTS[name], image_size=image_size)
    with torch.device("meta"):
        state = Clip(config).state_dict()
    monkeypatch.setattr(clip_keys, "load_file", lambda path: state)
    assert read_clip_weights(tmp_path / "clip.pt", "quick_gelu").config == config


def transformers_model(activation: str = "quick_gelu"):
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        vocab_size=600,
        hidden_size=24,
        intermediate_size=96,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_act=activation,
        bos_token_id=598,
        eos_token_id=599,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        projection_dim=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        hidden_act=activation,
    )
    torch.manual_seed(4)
    made = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    with torch.no_grad():
        for value in made.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    return made.eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_weights_of_transformers_give_the_embeddings_of_transformers(tmp_path: Path, activation: str):
    theirs = transformers_model(activation)
    theirs.save_pretrained(tmp_path)
    found = read_clip_weights(tmp_path / "model.safetensors")
    assert (found.layout, found.config) == ("transformers", replace(TINY, activation=activation))
    ours = Clip(found.config).eval()
    ours.load_state_dict(found.state)
    images, larger = torch.randn(2, 3, 32, 32), torch.randn(1, 3, 64, 48)
    ids = torch.tensor([[598, 5, 90, 599, 0, 0], [598, 7, 7, 33, 200, 599]])
    with torch.no_grad():
        out = theirs(input_ids=ids, pixel_values=images)
        torch.testing.assert_close(ours.encode_image(images), out.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.encode_text(ids), out.text_embeds, atol=1e-5, rtol=0)
        scaled = ours.logit_scale.exp() * ours.encode_image(images) @ ours.encode_text(ids).T
        torch.testing.assert_close(scaled, out.logits_per_image, atol=1e-4, rtol=0)
        grown = theirs.vision_model(pixel_values=larger, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(ours.visual(larger), theirs.visual_projection(grown), atol=1e-5, rtol=1e-5)


def without(state: State, *starts: str) -> State:
    return {key: value for key, value in state.items() if not key.startswith(starts)}


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"image_encoder._conv_stem.weight": ONE, "text_encoder.x": ONE}, r"System A \(Mammo-CLIP\)"),
        ({"visual.layer1.0.conv1.weight": ONE}, "CLIP with a ResNet"),
        ({"visual.trunk.blocks.0.x": ONE, "logit_bias": ONE}, "an image tower of timm"),
        ({"visual.blocks.0.attn.x": ONE}, "an EVA CLIP"),
        ({"logit_bias": ONE, "vision_model.head.probe": ONE}, "a SigLIP model"),
        ({"vision_model.encoder.x": ONE}, "image tower of a CLIP without its text tower"),
        ({"text_model.encoder.x": ONE}, "a text tower without an image tower"),
        ({"clip.visual.transformer.resblocks.0.mlp_adapter.up.weight": ONE}, "trained adapters of System B"),
        ({"conv1.weight": ONE, "layer1.0.bn1.weight": ONE}, "a convolutional network"),
        ({"weights": ONE, "other": ONE}, "no CLIP: its keys are weights, other"),
        ({}, "no CLIP: its keys are none"),
    ],
)
def test_another_model_is_refused_by_what_it_is(tmp_path: Path, content: State, words: str):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=words):
        read_clip_weights(tmp_path / "file.pt", "gelu")


def test_a_clip_that_does_not_fit_is_refused_by_its_keys_and_shapes(tmp_path: Path):
    path, state = tmp_path / "file.pt", state_of()

    def refused(content: State, words: str) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            read_clip_weights(path, "gelu")

    refused(without(state, "ln_final.bias"), r"ln_final\.bias is missing")
    refused({**state, "extra.weight": ONE}, r"extra\.weight is unexpected")
    refused({**state, "visual.proj": torch.zeros(32, 17)}, r"visual\.proj is \[32, 17\], not \[32, 16\]")
    refused(without(state, "positional_embedding"), "positional_embedding is missing")
    refused(without(state, "token_embedding", "positional"), "is the image tower of a CLIP without its text tower")
    refused(state_of(patch=4), r"CLIP of another size: patch 4, 4 blocks of width 32.*known are ViT-B/32")
    refused({**state, "text_projection": ONE}, "text_projection has another shape")
    theirs = transformers_model().state_dict()
    lacking = without(theirs, "text_model.encoder.layers.0.self_attn.v_proj.weight")
    refused(lacking, "does not fit: .* key or value projection is missing")


def test_files_that_are_none_are_refused(tmp_path: Path):
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    for name, words in (("page.pt", "page"), ("page.safetensors", "Is it whole"), ("none.pt", "no such file")):
        with pytest.raises(CheckpointError, match=words):
            read_clip_weights(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a folder; give the file"):
        read_clip_weights(tmp_path)
