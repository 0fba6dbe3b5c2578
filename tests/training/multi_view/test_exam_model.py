"""System B: what equals plain CLIP at the start, what absent views may not change, and what is trained."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from training.mammo_clip.pretraining_recipe import RecipeError
from training.multi_view.adapters import AdapterPlan, Sites
from training.multi_view.clip import VARIANTS, Clip
from training.multi_view.exam_model import (
    ExamClip,
    build_exam_clip,
    counted,
    drop_views,
    fill_backbone,
    freeze_backbone,
    normalised,
)

TINY = VARIANTS["tiny"]
BOTH = AdapterPlan("both", 2)


def model(global_blocks: int = 2, plan: AdapterPlan = BOTH, *, moved: bool = False) -> ExamClip:
    """With `moved`, adapters and view embedding are no longer zero."""
    torch.manual_seed(3)
    made = build_exam_clip(TINY, plan, global_blocks)
    if moved:
        with torch.no_grad():
            for value in made.trainable_parameters():
                value.add_(torch.randn(value.shape) * 0.3)
    return made.eval()


def exams(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 4, 1, 32, 32, generator=torch.Generator().manual_seed(1))


ALL = torch.ones(2, 4, dtype=torch.bool)


@pytest.mark.parametrize("global_blocks", range(5))
def test_one_present_view_gives_plain_clip_at_the_start_for_every_split(global_blocks: int):
    made, views = model(global_blocks).double(), exams().double()
    present = torch.tensor([[False, False, True, False], [True, False, False, False]])
    with torch.no_grad():
        found = made(views, present)
        plain = made.clip.encode_image(normalised(views[present]))
    torch.testing.assert_close(found, plain, atol=1e-12, rtol=0)


def test_without_global_blocks_the_exam_is_the_mean_of_plain_class_tokens():
    made, views = model(0), exams()
    with torch.no_grad():
        found = made(views, ALL)
        visual = made.clip.visual
        tokens = visual.transformer(visual.embed(normalised(views.flatten(0, 1))))[:, 0].view(2, 4, -1)
        expected = visual.project(tokens.mean(1))
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_views_meet_only_in_global_blocks():
    """A view's class token before the mean depends on another view's pixels where there is a global block."""
    views, other = exams(1), exams(1)
    other[0, 1] = 0.5
    for global_blocks, alike in ((0, True), (1, False), (4, False)):
        made = model(global_blocks)
        seen: list[torch.Tensor] = []
        hook = made.clip.visual.transformer.resblocks[3].register_forward_hook(
            lambda *parts, seen=seen: seen.append(parts[2])
        )
        with torch.no_grad():
            made(views, ALL[:1])
            made(other, ALL[:1])
        hook.remove()
        first, second = (tokens.reshape(4, 17, -1)[0, 0] for tokens in seen)
        assert torch.equal(first, second) is alike


@pytest.mark.parametrize("content", [0.0, 1.0, math.nan, math.inf, -1e30])
@pytest.mark.parametrize("global_blocks", [0, 2, 4])
def test_pixels_of_absent_views_change_no_bit(global_blocks: int, content: float):
    made, views = model(global_blocks, moved=True), exams()
    present = torch.tensor([[True, False, True, True], [False, True, False, False]])
    other = views.clone()
    other[~present] = content
    with torch.no_grad():
        assert torch.equal(made(views, present), made(other, present))
        tokens = made.local_tokens(other.flatten(0, 1)).unflatten(0, (2, 4))
        assert torch.equal(made.exam_features(tokens, present), made(views, present))


def test_absent_views_leave_finite_gradients():
    made, views = model(2, moved=True).train(), exams()
    present = torch.tensor([[True, False, True, True], [False, True, False, False]])
    views[~present] = math.nan
    made(views, present).sum().backward()
    gradients = [value.grad for name, value in made.named_parameters() if value.requires_grad and "visual" in name]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_tokens_can_be_kept_after_any_number_of_local_blocks():
    made, views = model(1, moved=True), exams()
    with torch.no_grad():
        whole = made(views, ALL)
        for done in range(4):
            kept = made.local_tokens(views.flatten(0, 1), done).unflatten(0, (2, 4))
            torch.testing.assert_close(made.exam_features(kept, ALL, first=done), whole)
    with pytest.raises(ValueError, match="4 blocks, but 3 see one view alone"):
        made.local_tokens(views.flatten(0, 1), 4)


def test_an_exam_without_views_and_a_wrong_presence_are_refused():
    made = model()
    with pytest.raises(ValueError, match="an exam without any view"):
        made(exams(), torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"tokens \(2, 4, 17, 32\) and presence torch.float32"):
        made.exam_features(torch.zeros(2, 4, 17, 32), torch.ones(2, 4))


def test_the_view_embedding_starts_at_zero_and_tells_views_apart_once_trained():
    still, moved = model(2), model(2, moved=True)
    swapped = exams()[:, [1, 0, 2, 3]]
    assert still.view_embedding is not None
    assert torch.equal(still.view_embedding, torch.zeros(4, 32))
    with torch.no_grad():
        torch.testing.assert_close(still(exams(), ALL), still(swapped, ALL))
        assert not torch.allclose(moved(exams(), ALL), moved(swapped, ALL), atol=1e-3)


def test_view_dropout_drops_about_its_share_and_never_all():
    generator = torch.Generator().manual_seed(0)
    present = torch.ones(5000, 4, dtype=torch.bool)
    present[:1000, 1:] = False
    kept = drop_views(present, 0.3, generator)
    assert bool(kept.any(1).all())
    assert not bool((kept & ~present).any())
    assert 0.28 < 1 - kept[1000:].float().mean() < 0.31
    assert torch.equal(kept[:1000], present[:1000])
    assert torch.equal(drop_views(present, 0.0), present)
    rarely = drop_views(present[1000:], 0.999, generator)
    assert bool((rarely.sum(1) >= 1).all())
    assert rarely.float().mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_views_are_dropped_in_training_only():
    made = build_exam_clip(TINY, BOTH, 2, view_dropout=0.5)
    with torch.no_grad():
        assert torch.equal(made.eval()(exams(), ALL), made(exams(), ALL))
        torch.manual_seed(0)
        assert not torch.equal(made.train()(exams(), ALL), made(exams(), ALL))


@pytest.mark.parametrize("sites", ["parallel", "serial"])
@pytest.mark.parametrize(("towers", "image", "text"), [("image", 4, 0), ("text", 0, 2), ("both", 4, 2), ("none", 0, 0)])
def test_adapters_stand_in_every_block_of_the_chosen_towers_and_alone_are_trained(towers, image, text, sites: Sites):
    made = model(2, AdapterPlan(towers, 2 if towers != "none" else 0, sites))
    each = 2 if sites == "serial" else 1
    ups = [name for name, _ in made.clip.named_parameters() if name.endswith("adapter.up.weight")]
    assert sum(name.startswith("visual.") for name in ups) == image * each
    assert sum(not name.startswith("visual.") for name in ups) == text * each
    trainable = {name for name, value in made.named_parameters() if value.requires_grad}
    assert trainable == {name for name, _ in made.named_parameters() if "_adapter." in name} | {"view_embedding"}


def test_blocks_before_the_first_one_have_no_adapter():
    made = model(2, AdapterPlan("both", 2, first_block=2))
    blocks = [block.mlp_adapter is not None for block in made.clip.visual.transformer.resblocks]
    assert blocks == [False, False, True, True]
    with pytest.raises(RecipeError, match="first_block is 4 of 4: no block has one"):
        model(2, AdapterPlan("both", 2, first_block=4))


def test_a_step_changes_what_is_trained_and_nothing_else():
    made = model(2).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    optimiser = torch.optim.AdamW(made.trainable_parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        text = made.encode_text(torch.tensor([[598, 5, 599], [598, 6, 599]]))
        (made(exams(), ALL) @ text.T)[:, 0].sum().backward()
        optimiser.step()
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in made.named_parameters() if value.requires_grad}


def test_ends_of_the_towers_with_adapters_are_trained_where_the_plan_says_so():
    made = model(2, AdapterPlan("image", 2, projections=True))
    trainable = {name for name, value in made.clip.named_parameters() if value.requires_grad and "_adapter" not in name}
    assert trainable == {"visual.ln_post.weight", "visual.ln_post.bias", "visual.proj"}


def bottleneck(width: int, rank: int) -> int:
    """Section 10.8: 2 d r + r + d a site."""
    return 2 * width * rank + rank + width


@pytest.mark.parametrize(
    ("name", "sites", "rank", "share"),
    [
        ("B/16", "parallel", 48, "1.00"),
        ("B/16", "serial", 24, "1.01"),
        ("L/14", "parallel", 64, "1.02"),
        ("L/14", "serial", 32, "1.03"),
    ],
)
def test_about_one_percent_is_trained(name: str, sites: Sites, rank: int, share: str):
    config = VARIANTS[name]
    with torch.device("meta"):
        made = build_exam_clip(config, AdapterPlan("both", rank, sites), config.vision_layers // 2)
    trainable, backbone = counted(made)
    each = 2 if sites == "serial" else 1
    image, text = (bottleneck(width, rank) * each for width in (config.vision_width, config.text_width))
    adapters = config.vision_layers * image + config.text_layers * text
    assert trainable == adapters + 4 * config.vision_width
    assert f"{100 * adapters / backbone:.2f}" == share


@pytest.mark.parametrize(("name", "rank", "said"), [("B/16", 16, "0.34%"), ("B/16", 80, "1.66%"), ("L/14", 8, "0.14%")])
def test_a_share_far_from_one_percent_is_refused_with_the_cure(name: str, rank: int, said: str):
    config = VARIANTS[name]
    with (
        torch.device("meta"),
        pytest.raises(RecipeError, match=f"rank {rank} trains {said} of .* a rank near (4[78]|5[789]) trains 1 %"),
    ):
        build_exam_clip(config, AdapterPlan("both", rank), 6)


def test_plans_for_comparison_may_train_less():
    with torch.device("meta"):
        made = build_exam_clip(VARIANTS["B/16"], AdapterPlan("image", 16), 6)
    trainable, backbone = counted(made)
    assert trainable / backbone < 0.005


def test_the_backbone_can_be_filled_with_plain_clips_state():
    torch.manual_seed(9)
    plain = Clip(TINY)
    made = build_exam_clip(TINY, BOTH, 2, state=plain.state_dict())
    assert all(torch.equal(made.clip.state_dict()[name], value) for name, value in plain.state_dict().items())
    short = dict(plain.state_dict())
    del short["ln_final.bias"]
    with pytest.raises(RuntimeError, match=r"ln_final\.bias"):
        fill_backbone(made.clip, short)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: model(5), "global_blocks is 5; the image tower has 4 blocks, so 0 to 4"),
        (lambda: build_exam_clip(TINY, BOTH, 2, 1.0), "view_dropout is 1.0"),
        (lambda: AdapterPlan("some", 2), "towers is 'some'; there are none, image, text, both"),  # type: ignore[arg-type]
        (lambda: AdapterPlan("both", 0), 'rank is 0 with towers "both"'),
        (lambda: AdapterPlan("none", 4), 'rank is 4 with towers "none"'),
        (lambda: replace(BOTH, sites="before"), "sites is 'before'; there are parallel, serial"),
        (lambda: replace(BOTH, first_block=-1), "first_block is -1"),
    ],
)
def test_what_fits_nothing_is_refused(build, words: str):
    with pytest.raises(RecipeError, match=words):
        build()


def test_freezing_again_by_another_plan_takes_effect():
    made = model(2)
    freeze_backbone(made, AdapterPlan("both", 2, projections=True))
    assert made.clip.text_projection.requires_grad
    freeze_backbone(made, BOTH)
    assert not made.clip.text_projection.requires_grad
    assert isinstance(made.view_embedding, nn.Parameter)
