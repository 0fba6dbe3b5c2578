import math

import pytest
import torch
from torch import nn

from training.efficientnet import parameter_count
from training.mammo_clip.model import (
    EfficientNetEncoder,
    ImageFeatures,
    MammoClip,
    TextConfig,
    TextEncoder,
    published,
    unit_length,
)

TINY = TextConfig(vocabulary=50, hidden=16, layers=2, heads=2, intermediate=32, positions=40)


def tiny(encoder: nn.Module | None = None) -> MammoClip:
    return MammoClip(encoder or EfficientNetEncoder("lite0"), TINY, embed_dim=12)


@pytest.mark.parametrize(("name", "count"), [("b5", 138_093_873), ("b2", 117_126_403)])
def test_each_variant_has_the_published_number_of_parameters(name, count):
    with torch.device("meta"):
        assert parameter_count(published(name)) == count


@pytest.mark.parametrize("name", ["b5", "b2"])
def test_keys_and_shapes_are_those_of_the_released_checkpoints(name, shared_spec):
    lines = (shared_spec / f"mammoclip_{name}_keys.txt").read_text().splitlines()
    released = {row[0]: (row[1], row[2]) for row in (line.split("\t") for line in lines if not line.startswith("#"))}
    with torch.device("meta"):
        state = published(name).state_dict()
    own = {key: (str(value.dtype).removeprefix("torch."), str(list(value.shape))) for key, value in state.items()}
    assert own == released


@pytest.mark.parametrize(("name", "channels"), [("b5", 2048), ("b2", 1408)])
def test_feature_map_at_1520_x_912_is_48_x_29(name, channels):
    with torch.device("meta"):
        features = EfficientNetEncoder(name).eval().features(torch.empty(1, 3, 1520, 912))
    assert features.feature_map.shape == (1, channels, 48, 29)
    assert features.pooled.shape == (1, channels)


def test_text_is_pooled_at_its_last_token_and_padding_does_not_count():
    torch.manual_seed(0)
    encoder = TextEncoder(TINY).eval()
    ids = torch.tensor([[2, 7, 9, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded, bare = encoder(ids, mask), encoder(ids[:, :4], mask[:, :4])
    states = encoder.text_encoder(input_ids=ids[:, :4]).last_hidden_state
    assert torch.allclose(padded, bare, atol=1e-6)
    assert torch.allclose(bare, states[:, 3], atol=1e-6)


def test_embeddings_have_unit_length_and_the_scale_starts_at_one_over_the_temperature():
    torch.manual_seed(0)
    model = tiny().eval()
    images = model.encode_image(torch.rand(2, 3, 96, 64))
    texts = model.encode_text(torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.int64))
    assert images.shape == (2, 12)
    assert torch.allclose(images.norm(dim=1), torch.ones(2), atol=1e-6)
    assert torch.allclose(texts.norm(dim=1), torch.ones(1), atol=1e-6)
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert model.logit_scale.item() == pytest.approx(2.6593, abs=1e-4)


def test_any_module_with_the_two_outputs_can_be_the_image_encoder():
    class Patches(nn.Module):
        out_channels = 6

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 16, 16)

        def features(self, images):
            maps = self.conv(images)
            return ImageFeatures(maps.mean((2, 3)), maps)

    assert tiny(Patches()).encode_image(torch.rand(2, 3, 64, 32)).shape == (2, 12)


def test_pooled_features_are_the_mean_of_the_map_in_float64():
    torch.manual_seed(0)
    encoder = EfficientNetEncoder("b0", dropout=0.2).double().eval()
    pooled, feature_map = encoder.features(torch.rand(1, 3, 64, 96, dtype=torch.float64))
    by_hand = sum(feature_map[0, :, y, x] for y in range(2) for x in range(3)) / 6
    assert torch.allclose(pooled[0], by_hand, atol=1e-12)


def test_half_precision_is_normalised_in_float32():
    vectors = torch.full((1, 512), 60.0, dtype=torch.float16)
    unit = unit_length(vectors)
    assert unit.dtype == torch.float32
    assert math.isclose(unit.norm().item(), 1.0, abs_tol=1e-5)
