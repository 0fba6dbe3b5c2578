import pytest
import torch

from training.efficientnet import EfficientNet, freeze_statistics, load_imagenet, parameter_count, static_padding
from training.maps import OFFSET, STRIDE, MapNetwork, coverage, double, normalise, pretrained_maps


@pytest.mark.parametrize(("name", "count"), [("b5", 28_340_784), ("b2", 7_700_994), ("b0", 4_007_548)])
def test_each_variant_has_the_published_number_of_parameters(name, count):
    with torch.device("meta"):
        assert parameter_count(EfficientNet(name)) == count


def test_static_pads_of_system_a_are_those_of_its_table():
    b5 = [static_padding(*row) for row in ((456, 3, 2), (228, 3, 2), (114, 5, 2), (57, 3, 2), (29, 5, 2), (29, 3, 1))]
    b2 = [static_padding(*row) for row in ((260, 3, 2), (130, 3, 2), (65, 5, 2), (33, 3, 2), (17, 5, 2), (17, 5, 1))]
    assert b5 == [(0, 1), (0, 1), (1, 2), (1, 1), (2, 2), (1, 1)]
    assert b2 == [(0, 1), (0, 1), (2, 2), (1, 1), (2, 2), (2, 2)]


def test_static_network_pads_as_the_table_says():
    with torch.device("meta"):
        trunk = EfficientNet("b2", padding="static")
    assert trunk._conv_stem.uneven == (0, 1, 0, 1)
    assert trunk._blocks[5]._depthwise_conv.uneven is None
    assert trunk._blocks[5]._depthwise_conv.padding == (2, 2)


def test_names_of_b2_are_those_of_the_released_weights(shared_spec):
    rows = [line.split("\t") for line in (shared_spec / "mammoclip_b2_keys.txt").read_text().splitlines()]
    released = {row[0].removeprefix("image_encoder."): row[2] for row in rows if row[0].startswith("image_encoder.")}
    with torch.device("meta"):
        own = {name: str(list(value.shape)) for name, value in EfficientNet("b2").state_dict().items()}
    assert own == released


def test_folded_norms_give_what_norms_give():
    torch.manual_seed(0)
    trunk = EfficientNet("lite0", channels=1, with_head=False)
    load_imagenet(trunk)
    image = torch.rand(1, 1, 96, 64)
    folded = trunk.eval().stage_maps(image)[-1]
    for block in trunk.modules():
        if isinstance(block, torch.nn.BatchNorm2d):
            block.train()
            block.forward = lambda x, norm=block: torch.nn.functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
    assert torch.allclose(trunk.stage_maps(image)[-1], folded, atol=1e-3)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_imagenet_weights_fill_grey_and_coloured_trunks_alike(name):
    grey, coloured = EfficientNet(name, channels=1).eval(), EfficientNet(name).eval()
    load_imagenet(grey)
    load_imagenet(coloured)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = grey(image), coloured(image.expand(-1, 3, -1, -1))
    assert one.abs().max() > 1.0
    assert torch.allclose(one, other, atol=1e-3)


def test_variant_without_imagenet_weights_is_refused():
    with torch.device("meta"):
        trunk = EfficientNet("b2")
    with pytest.raises(ValueError, match="no package has ImageNet weights of b2; there are lite0, lite2"):
        load_imagenet(trunk)


@pytest.mark.parametrize(("name", "precision"), [("b2", None), ("lite0", torch.bfloat16)])
def test_checkpointed_blocks_learn_the_same_and_count_each_batch_once(name, precision):
    """Drop-connect on: the second pass drops what the first dropped."""
    trained = []
    for is_checkpointed in (False, True):
        torch.manual_seed(0)
        trunk = EfficientNet(name).train()
        trunk.checkpointed = is_checkpointed
        image = torch.rand(3, 3, 64, 48).requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision is not None):
            made = trunk(image)
        made.float().square().mean().backward()
        trained.append((trunk, image.grad, torch.get_rng_state()))
    (plain, seen, random), (again, seen_again, random_again) = trained
    assert seen.abs().max() > 0
    assert torch.equal(seen, seen_again)
    assert torch.equal(random, random_again)
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for (key, one), other in zip(plain.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    assert again._blocks[3]._bn1.num_batches_tracked == 1


def test_checkpointed_blocks_keep_fewer_activations():
    kept = []
    for is_checkpointed in (False, True):
        trunk = EfficientNet("b0").train()
        trunk.checkpointed = is_checkpointed
        sizes: list[int] = []

        def packed(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
            trunk(torch.rand(1, 3, 96, 64))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_frozen_statistics_stay():
    network = MapNetwork(16).train()
    freeze_statistics(network.trunk)
    before = network.trunk._bn0.running_mean.clone()
    network(torch.rand(2, 1, 64, 64))
    assert torch.equal(network.trunk._bn0.running_mean, before)


def test_doubling_keeps_cells_where_they_are():
    ramp = torch.arange(24.0)[None, None, :, None].expand(1, 1, 24, 15)
    doubled = double(ramp, 48, 29)
    assert doubled.shape == (1, 1, 48, 29)
    assert torch.allclose(doubled[0, 0, :47, 0], torch.arange(47.0) / 2, atol=1e-5)


def test_coverage_is_that_of_the_cells_pixels():
    mask = torch.zeros(1, 1, 760, 456)
    mask[0, 0, 76:84, 36:44] = 1.0
    cells = coverage(mask)
    assert cells.shape == (1, 1, 95, 57)
    assert cells[0, 0, 10, 5] == 1.0
    assert cells.sum() == 1.0


def test_cells_lie_on_average_at_their_gradients_centroid():
    torch.manual_seed(1)
    network = pretrained_maps(32).eval()
    off = torch.tensor([_centroid_error(network, row, column, trial) for row, column, trial in _CELLS])
    assert off.mean(0).abs().max() < 2.0


_CELLS = [(row, column, trial) for trial in range(3) for row, column in ((20, 12), (24, 16), (27, 19))]


def _centroid_error(network, row, column, trial):
    """How far (y, x), in pixels, the gradient of one cell's features is centred from where the cell should lie."""
    generator = torch.Generator().manual_seed(trial)
    image = torch.rand(1, 1, 384, 256, generator=generator).requires_grad_()
    at_8 = network.trunk.stage_maps(normalise(image))[2]
    (at_8[0, :, row, column] * torch.randn(at_8.shape[1], generator=generator)).sum().backward()
    weight = image.grad[0, 0].abs()
    ys, xs = torch.arange(384.0) + 0.5, torch.arange(256.0) + 0.5
    y, x = (weight.sum(1) * ys).sum() / weight.sum(), (weight.sum(0) * xs).sum() / weight.sum()
    return float(y) - (OFFSET + STRIDE * row), float(x) - (OFFSET + STRIDE * column)
