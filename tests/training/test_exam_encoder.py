import pytest
import torch

from training.exam_encoder import ABSENT_LOGIT, ExamOutputs

SHAPE = (96, 64)


def views(batch=2, seed=0):
    image = torch.rand(batch, 4, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))
    image[..., 50:] = 0.0
    return image


@torch.inference_mode()
def run(encoder, image, present) -> ExamOutputs:
    return encoder(image, torch.tensor(present, dtype=torch.bool).reshape(-1, 4))


def test_outputs_have_the_contracts_shapes(encoder):
    outputs = run(encoder, views(), [[1, 1, 1, 1], [1, 0, 1, 0]])
    shapes = [tuple(tensor.shape) for tensor in outputs]
    assert shapes == [(2,), (2, 16), (2, 2), (2, 4, 2), (2, 4, 2, 12, 8), (2, 4, 16)]


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 0.0, 0.7])
def test_pixels_of_absent_views_change_no_bit(encoder, fill):
    present = [[1, 0, 1, 1], [0, 1, 0, 0]]
    image = views()
    other = image.clone()
    other[~torch.tensor(present, dtype=torch.bool)] = fill
    for a, b in zip(run(encoder, image, present), run(encoder, other, present), strict=True):
        assert torch.equal(a, b)


def test_what_is_absent_says_so(encoder):
    outputs = run(encoder, views(1), [[1, 0, 1, 0]])
    assert outputs.breast_logits[0, 1] == ABSENT_LOGIT
    assert outputs.breast_logits[0, 0] > ABSENT_LOGIT
    assert (outputs.finding_logits[0, [1, 3]] == ABSENT_LOGIT).all()
    assert (outputs.heatmaps[0, [1, 3]] == 0).all()
    assert (outputs.view_embeddings[0, [1, 3]] == 0).all()


def test_embeddings_have_unit_length_and_heat_is_not_negative(encoder):
    outputs = run(encoder, views(), [[1, 1, 1, 1], [1, 1, 1, 0]])
    assert torch.allclose(outputs.exam_embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(outputs.view_embeddings[0].norm(dim=1), torch.ones(4), atol=1e-5)
    assert outputs.heatmaps.min() >= 0


def test_a_constant_view_gives_finite_outputs(encoder):
    for value in (0.0, 0.5, 1.0):
        outputs = run(encoder, torch.full((1, 4, 1, *SHAPE), value), [[1, 1, 1, 1]])
        assert all(torch.isfinite(tensor).all() for tensor in outputs)


def test_a_batch_equals_its_exams_alone(encoder):
    present = [[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 1]]
    image = views(3)
    together = run(encoder, image, present)
    for row in range(3):
        alone = run(encoder, image[row : row + 1], present[row])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[row], b[0], atol=1e-4)


def test_the_exam_is_never_below_its_worse_breast(encoder):
    outputs = run(encoder, views(3), [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]])
    assert (outputs.exam_logit >= outputs.breast_logits.amax(1) - 1e-6).all()


def test_exchanging_the_breasts_exchanges_their_logits(encoder):
    image = views(1)
    there = run(encoder, image, [[1, 1, 1, 1]])
    back = run(encoder, image[:, [1, 0, 3, 2]], [[1, 1, 1, 1]])
    assert torch.allclose(there.breast_logits[0, [1, 0]], back.breast_logits[0], atol=1e-4)
    assert torch.allclose(there.exam_logit, back.exam_logit, atol=1e-4)
