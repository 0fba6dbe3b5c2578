"""The loss: its switches, and two ranks against one. Parity with what is published: tests/training/parity."""

import math
import os
import socket

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from training.mammo_clip.loss import Embeddings, LossSettings, contrastive_loss


def rows(seed: int, count: int, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(count, 16, generator=generator, dtype=torch.float64) for _ in range(4)]
    return [(vectors / vectors.norm(dim=1, keepdim=True)).to(dtype) for vectors in drawn]


def test_logits_are_float32_inside_autocast():
    drawn = rows(3, 6, torch.float32)
    scale = torch.tensor(2.6593)
    outside = contrastive_loss(Embeddings(*drawn), scale)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_loss(Embeddings(*drawn), scale)
    assert inside.dtype == torch.float32
    assert inside.item() == outside.item()


def test_identical_texts_are_no_negatives_where_asked():
    drawn = rows(1, 4)
    keys = torch.tensor([[1, 5], [1, 6], [2, 7], [3, 8]])
    scale = torch.tensor(1.0, dtype=torch.float64)
    plain = contrastive_loss(Embeddings(*drawn, keys), scale)
    masked = contrastive_loss(Embeddings(*drawn, keys), scale, LossSettings(mask_identical_texts=True))
    none_equal = torch.arange(8).reshape(4, 2)
    unchanged = contrastive_loss(Embeddings(*drawn, none_equal), scale, LossSettings(mask_identical_texts=True))
    assert masked < plain
    assert unchanged.item() == plain.item()


def test_masking_without_keys_is_an_error():
    with pytest.raises(ValueError, match="text_keys"):
        contrastive_loss(Embeddings(*rows(1, 4)), torch.tensor(1.0), LossSettings(mask_identical_texts=True))


def test_scale_is_bounded_where_asked():
    drawn = Embeddings(*rows(2, 4))
    bounded = LossSettings(maximum_logit_scale=100.0)
    at_bound = contrastive_loss(drawn, torch.tensor(math.log(100.0), dtype=torch.float64))
    assert contrastive_loss(drawn, torch.tensor(9.0, dtype=torch.float64), bounded).item() == pytest.approx(
        at_bound.item()
    )


def test_smoothing_counts_in_training_alone_and_in_image_text_alone():
    drawn, scale = Embeddings(*rows(4, 5)), torch.tensor(1.0, dtype=torch.float64)
    smooth = LossSettings(label_smoothing=0.1, view_weight=0.0, text_weight=0.0)
    plain = LossSettings(view_weight=0.0, text_weight=0.0)
    assert contrastive_loss(drawn, scale, smooth, training=False).item() == contrastive_loss(drawn, scale, plain).item()
    assert contrastive_loss(drawn, scale, smooth).item() != contrastive_loss(drawn, scale, plain).item()
    only_others = LossSettings(label_smoothing=0.1)
    difference = contrastive_loss(drawn, scale, only_others) - contrastive_loss(drawn, scale)
    expected = contrastive_loss(drawn, scale, smooth) - contrastive_loss(drawn, scale, plain)
    assert difference.item() == pytest.approx(expected.item(), abs=1e-12)


def two_ranks(rank: int, port: int, queue) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    weight, scale = parameters()
    whole = [part.chunk(2)[rank] for part in rows(9, 6)]
    loss = contrastive_loss(Embeddings(*projected(whole, weight)), scale)
    loss.backward()
    for parameter in (weight, scale):
        distributed.all_reduce(parameter.grad)
        parameter.grad /= 2  # the mean over ranks, as DistributedDataParallel takes it
    total = loss.detach().clone()
    distributed.all_reduce(total)
    queue.put((rank, total.item() / 2, weight.grad.numpy(), scale.grad.item()))
    distributed.barrier()
    distributed.destroy_process_group()


def parameters():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(16, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return weight, torch.tensor(1.5, dtype=torch.float64, requires_grad=True)


def projected(parts, weight):
    return [(part @ weight) / (part @ weight).norm(dim=1, keepdim=True) for part in parts]


def test_two_ranks_give_the_loss_and_the_gradients_of_the_whole_batch():
    weight, scale = parameters()
    loss = contrastive_loss(Embeddings(*projected(rows(9, 6), weight)), scale)
    loss.backward()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ranks = [context.Process(target=two_ranks, args=(rank, port, queue)) for rank in range(2)]
    for process in ranks:
        process.start()
    answers = [queue.get(timeout=120) for _ in ranks]
    for process in ranks:
        process.join(30)
    for _, total, weight_gradient, scale_gradient in answers:
        assert total == pytest.approx(loss.item(), abs=1e-12)
        assert np.allclose(weight_gradient, weight.grad.numpy(), atol=1e-12)
        assert scale_gradient == pytest.approx(scale.grad.item(), abs=1e-12)
