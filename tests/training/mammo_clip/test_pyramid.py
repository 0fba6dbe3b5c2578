import torch

from training.mammo_clip.pyramid import LARGEST_CELLS, PyramidEncoder, pooled


def test_maps_have_stride_8_and_pooling_takes_the_largest_cells():
    torch.manual_seed(0)
    encoder = PyramidEncoder(width=8, channels=12).eval()
    features = encoder.features(torch.randn(2, 1, 70, 45))
    assert features.feature_map.shape == (2, 12, 9, 6)
    assert features.feature_map.min() >= 0
    largest = features.feature_map.flatten(2).sort(dim=2, descending=True).values[:, :, :LARGEST_CELLS]
    torch.testing.assert_close(features.pooled, largest.mean(2))


def test_fewer_cells_than_are_pooled_are_all_taken():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    assert pooled(maps).item() == 2.5


def test_small_spot_moves_its_pooled_feature_and_would_be_lost_in_a_mean():
    maps = torch.zeros(1, 1, 95, 57)
    maps[0, 0, 40:42, 20:24] = 1.0
    assert pooled(maps).item() == 1.0
    assert maps.mean() < 0.002
