"""CLIP's two towers: sizes, keys, and equality with a transcription and with another implementation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.training.multi_view import transcription
from training.mammo_clip.pretraining_recipe import RecipeError
from training.multi_view.clip import VARIANTS, Clip, ClipConfig, positions_for

TINY = VARIANTS["tiny"]


def clip(config: ClipConfig = TINY, seed: int = 0) -> Clip:
    """Weights large enough for every term to be seen, biases among them."""
    torch.manual_seed(seed)
    made = Clip(config)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(torch.randn(value.shape) * 0.2)
    return made.eval()


def arithmetic(config: ClipConfig) -> int:
    """Parameters counted by hand, part by part."""

    def tower(width: int, layers: int) -> int:
        attention = 4 * width * width + 4 * width
        mlp = 8 * width * width + 5 * width
        return layers * (attention + mlp + 4 * width)

    d, t = config.vision_width, config.text_width
    image = 3 * config.patch**2 * d + d + (config.grid**2 + 1) * d + 2 * d + tower(d, config.vision_layers)
    image += 2 * d + d * config.embed_dim
    text = config.vocabulary * t + config.context * t + tower(t, config.text_layers) + 2 * t + t * config.embed_dim
    return image + text + 1


@pytest.mark.parametrize(("name", "known"), [("B/32", 151_277_313), ("B/16", 149_620_737), ("L/14", 427_616_513)])
def test_published_sizes_have_exactly_their_parameters(name: str, known: int):
    with torch.device("meta"):
        made = Clip(VARIANTS[name])
    assert sum(value.numel() for value in made.parameters()) == arithmetic(VARIANTS[name]) == known


def test_keys_are_those_of_openais_files():
    keys = {key for key in Clip(TINY).state_dict() if "resblocks" not in key}
    assert keys == {
        *("visual.class_embedding", "visual.positional_embedding", "visual.proj", "visual.conv1.weight"),
        *("visual.ln_pre.weight", "visual.ln_pre.bias", "visual.ln_post.weight", "visual.ln_post.bias"),
        *("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"),
        *("text_projection", "logit_scale"),
    }


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_both_towers_equal_their_transcription_in_float64(activation):
    made = clip(replace(TINY, activation=activation)).double()
    state = {key: value.numpy() for key, value in made.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    ids = torch.tensor([[598, 5, 90, 599, 0, 0], [598, 7, 7, 33, 200, 599]])
    with torch.no_grad():
        found, said = made.encode_image(images).numpy(), made.encode_text(ids).numpy()
    for row in range(2):
        expected = transcription.encode_image(images[row].numpy(), state, 4, 2, activation)
        np.testing.assert_allclose(found[row], expected, atol=1e-12)
        expected = transcription.encode_text(ids[row].tolist(), state, 2, 2, activation)
        np.testing.assert_allclose(said[row], expected, atol=1e-12)


def test_padding_behind_the_end_changes_nothing():
    made = clip()
    with torch.no_grad():
        short = made.encode_text(torch.tensor([[598, 5, 599]]))
        padded = made.encode_text(torch.tensor([[598, 5, 599, 0, 0, 0, 0]]))
    torch.testing.assert_close(short, padded)


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="texts of 17 tokens, but the context is 16"):
        clip().encode_text(torch.zeros(1, 17, dtype=torch.int64))


def test_positions_of_their_own_grid_are_left_alone_and_others_are_bicubic():
    positions = clip().visual.positional_embedding
    assert positions_for(positions, 4, 4) is positions
    wanted = positions_for(positions, 8, 8)
    plain = F.interpolate(positions[1:].T.reshape(1, -1, 4, 4), (8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(wanted[1:], plain[0].flatten(1).T)
    assert torch.equal(wanted[0], positions[0])


def test_a_gradient_of_positions_stays_one_at_any_size():
    ramp = torch.arange(4.0).expand(4, 4).flatten()
    wanted = positions_for(torch.cat([torch.zeros(1), ramp])[:, None], 8, 16)[1:, 0].view(8, 16)
    torch.testing.assert_close(wanted, wanted[:1].expand(8, 16))
    torch.testing.assert_close(wanted + wanted.flip(1), torch.full((8, 16), 3.0))
    assert bool((wanted.diff(dim=1)[:, 2:-2] > 0.1).all())


def test_an_image_of_twice_the_size_has_an_embedding():
    with torch.no_grad():
        found = clip().encode_image(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 33}, "image_size 33 is not a multiple of patch 8"),
        ({"vision_heads": 3}, "vision_width 32 does not divide into vision_heads 3"),
        ({"text_heads": 0}, "text_width 24 does not divide into text_heads 0"),
    ],
)
def test_a_shape_that_fits_nothing_is_refused(change: dict[str, int], words: str):
    with pytest.raises(RecipeError, match=words):
        replace(TINY, **change)
