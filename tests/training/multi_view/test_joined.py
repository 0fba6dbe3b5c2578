"""Tokens of the maps, and the joined encoder's rules: its start is System A, absent views change no bit."""

import numpy as np
import pytest
import torch

from tests.training.mammo_clip import tiny_served
from tests.training.mammo_clip.test_served import apart, exams, onnx_answers, openvino_answers, run, there
from training.exam_encoder import ABSENT_LOGIT
from training.mammo_clip.loading import Input
from training.mammo_clip.served import ServedClip
from training.mammo_clip.served_export import exam_graph
from training.multi_view.joined_model import CrossViews, JoinedHeads, ServedJoined
from training.multi_view.joined_recipe import NetworkPart
from training.multi_view.joined_tokens import TokenPooling, TokenViews

SMALL = NetworkPart(width=16, heads=2, mlp_width=32, global_blocks=2, parent_local_blocks=1, dropout=0.0)
GRID = (4, 3)


def windows(count, parts):
    size = -(-count // parts)
    return [(start, start + size) for start in np.round(np.linspace(0, count - size, parts)).astype(int)]


@pytest.mark.parametrize("largest", [0, 1, 3])
def test_a_token_is_the_mean_of_its_windows_greatest_cells(largest):
    maps = torch.rand(2, 5, 19, 11)
    tokens = TokenPooling((19, 11), GRID, largest)(maps)
    assert tokens.shape == (2, 12, 5)
    for row, (top, bottom) in enumerate(windows(19, 4)):
        for column, (left, right) in enumerate(windows(11, 3)):
            cells = np.sort(maps[1, 2, top:bottom, left:right].numpy().ravel())[::-1]
            wanted = cells[: largest or cells.size].mean()
            assert tokens[1, row * 3 + column, 2].item() == pytest.approx(wanted, abs=1e-6)


def test_every_cell_is_in_some_token():
    for row, column in ((0, 0), (94, 56), (46, 28), (7, 50), (62, 7), (94, 0)):
        hot = torch.zeros(1, 1, 95, 57)
        hot[0, 0, row, column] = 1.0
        assert TokenPooling((95, 57), (12, 8), 1)(hot).amax() == 1.0
    pooling = TokenPooling((95, 57), (12, 8), 1)
    assert set(pooling.rows.tolist()) == set(range(95))
    assert set(pooling.columns.tolist()) == set(range(57))


def test_a_grid_finer_than_the_cells_repeats_them():
    tokens = TokenPooling((3, 2), (12, 8), 1)(torch.rand(1, 4, 3, 2))
    assert tokens.shape == (1, 96, 4)


def test_without_a_mirror_tokens_of_right_views_lie_as_those_of_left_ones():
    made, image = tiny_served.clip(), exams(1)
    sees = Input("mammo-clip", tiny_served.HEIGHT, tiny_served.WIDTH, "image", 1)
    pooling = TokenPooling((12, 8), (12, 8), 1)
    hung = TokenViews(tiny_served.views_of(made, sees), pooling)
    plain = TokenViews(tiny_served.views_of(made, sees), pooling)
    plain.mirrored = True
    with torch.inference_mode():
        turned, kept = hung(image).tokens, plain(image).tokens
    grid = turned.reshape(1, 4, 12, 8, -1)
    assert torch.equal(grid[:, [0, 2]].flip(3), kept.reshape(1, 4, 12, 8, -1)[:, [0, 2]])
    assert torch.equal(turned[:, [1, 3]], kept[:, [1, 3]])


def network(local=0):
    torch.manual_seed(4)
    return CrossViews(24, GRID[0] * GRID[1], 5, SMALL, local)


def moved(model):
    """The same with random values where training starts at 0."""
    torch.manual_seed(5)
    for value in model.network.parameters():
        if not value.any():
            torch.nn.init.normal_(value, std=0.3)
    return model


@pytest.fixture(scope="module")
def views():
    frozen = tiny_served.views_of(tiny_served.clip())
    return TokenViews(frozen, TokenPooling((12, 8), GRID, 2)).eval()


def served(views, joined):
    own = tiny_served.heads(24) if joined.heads is None else joined.heads
    return ServedJoined(views, own, torch.tensor([0.5, 1.0, 2.0, 0.25]), joined).eval()


@pytest.fixture(scope="module", params=["joined", "B alone"])
def trained(request, views):
    alone = request.param == "B alone"
    return served(views, moved(JoinedHeads(None if alone else tiny_served.heads(24), network(local=int(alone)))))


def test_the_start_is_system_a_to_the_bit(views):
    own = ServedClip(views.views, tiny_served.heads(24), torch.tensor([0.5, 1.0, 2.0, 0.25])).eval()
    start = served(views, JoinedHeads(tiny_served.heads(24), network()))
    for rows in ([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], [[0, 1, 1, 1]]):
        image, present = exams(len(rows)), there(rows)
        for a, b in zip(run(start, image, present), run(own, image, present), strict=True):
            assert torch.equal(a, b)


def test_the_start_in_training_mode_is_system_a_too(views):
    joined = JoinedHeads(tiny_served.heads(24), network()).train()
    assert not joined.heads.training
    assert joined.network.training


def test_corrections_move_all_logits_and_neither_heat_nor_embeddings(views, trained):
    own = ServedClip(views.views, tiny_served.heads(24), trained.heat_scale).eval()
    image, present = exams(), there()
    mine, theirs = run(trained, image, present), run(own, image, present)
    for at in (0, 2, 3):
        assert not torch.allclose(mine[at], theirs[at], atol=1e-3)
    for at in (1, 4, 5):
        assert torch.equal(mine[at], theirs[at])


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 0.7])
def test_pixels_of_absent_views_change_no_bit(trained, fill):
    image, present = exams(), there()
    other = image.clone()
    other[~present] = fill
    for a, b in zip(run(trained, image, present), run(trained, other, present), strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


def test_tokens_of_absent_views_change_no_bit():
    made = network(local=1).eval()
    tokens, present = torch.rand(3, 4, 12, 24), there()
    other = torch.where(present[:, :, None, None], tokens, float("nan"))
    for a, b in zip(made(tokens, present), made(other, present), strict=True):
        assert torch.equal(a, b)


def test_what_is_absent_says_so(trained):
    outputs = trained(exams(1), there([[1, 0, 1, 0]]))
    assert outputs.breast_logits[0, 1] == ABSENT_LOGIT
    assert outputs.breast_logits[0, 0] > ABSENT_LOGIT
    assert (outputs.finding_logits[0, [1, 3]] == ABSENT_LOGIT).all()
    assert (outputs.finding_logits[0, [0, 2]] > ABSENT_LOGIT).all()


def test_a_batch_equals_its_exams_alone(trained):
    image, present = exams(), there()
    together = run(trained, image, present)
    for row in range(3):
        own = slice(row, row + 1)
        for a, b in zip(together, run(trained, image[own], present[own]), strict=True):
            assert torch.allclose(a[own], b, atol=1e-4)


def test_another_view_changes_what_is_said_of_this_one(trained):
    image, present = exams(1), there([[1, 1, 1, 1]])
    other = image.clone()
    other[:, 3] = other[:, 3].flip(-2)
    mine, changed = (run(trained, one, present)[3][0, 0] for one in (image, other))
    assert not torch.allclose(mine, changed, atol=1e-5)


@pytest.mark.parametrize("answers", [onnx_answers, openvino_answers])
def test_the_graph_agrees_with_torch_for_any_batch(trained, answers):
    graph = exam_graph(trained)
    for rows in (slice(0, 1), slice(0, 3)):
        image, present = exams()[rows], there()[rows]
        image[~present] = float("nan")
        # The graph stores the network's weights as float16.
        assert apart(answers(graph, {"views": image, "present": present}), run(trained, image, present)) < 2e-2
