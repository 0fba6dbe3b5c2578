"""System B: one embedding for an exam of four views (Chen et al., arXiv 2404.15946), on CLIP's image tower.

The first blocks see one view at a time, with the same weights for each; the last `global_blocks` see the tokens of all
present views at once. Where the paper is silent the choice is ours (mammo-clip.md 10.6): tokens keep the position
embedding of their view; a learnt view embedding, zero at the start, is added where the views meet; the exam is the mean
of the present views' class tokens, through CLIP's last norm and projection. So at the start one present view, or no
global block, gives what plain CLIP gives. Axes: B exams, V = 4 views in the order of STANDARD_VIEWS, T tokens of a
view, d width, D embedding.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from node.mammography.views import STANDARD_VIEWS
from training.mammo_clip.pretraining_recipe import RecipeError
from training.multi_view.adapters import AdapterPlan, check_share
from training.multi_view.clip import VARIANTS, Clip, ClipConfig, unit

VIEWS = len(STANDARD_VIEWS)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels of CLIP's training images, red, green, blue."""
_PROJECTIONS = {
    "image": ("visual.ln_post.", "visual.proj"),
    "text": ("ln_final.", "text_projection"),
}


def normalised(views: Tensor) -> Tensor:
    """Grey views (N, 1, H, W) in [0, 1] to CLIP's input (N, 3, H, W)."""
    mean, std = (torch.tensor(three, dtype=views.dtype, device=views.device)[:, None, None] for three in (MEAN, STD))
    return (views - mean) / std


def drop_views(present: Tensor, chance: float, generator: torch.Generator | None = None) -> Tensor:
    """Presence (..., V) bool with each present view dropped by `chance`; of an exam that would lose all, one stays."""
    drawn = torch.rand(present.shape, device=present.device, generator=generator)
    kept = present & (drawn >= chance)
    best = torch.where(present, drawn, -1.0)
    last = present & (best == best.amax(-1, keepdim=True))
    return torch.where(kept.any(-1, keepdim=True), kept, last)


class ExamClip(nn.Module):
    """CLIP over the views of an exam; `global_blocks` from 0 (late fusion) to all (early fusion). Raises RecipeError.

    `view_dropout`: chance with which a view is left out in training.
    """

    def __init__(self, clip: Clip, global_blocks: int, view_dropout: float = 0.1) -> None:
        super().__init__()
        depth = clip.config.vision_layers
        if not 0 <= global_blocks <= depth:
            raise RecipeError(f"global_blocks is {global_blocks}; the image tower has {depth} blocks, so 0 to {depth}")
        if not 0 <= view_dropout < 1:
            raise RecipeError(f"view_dropout is {view_dropout}, not a chance below 1")
        self.clip = clip
        self.local_blocks = depth - global_blocks
        self.view_dropout = view_dropout
        zeros = torch.zeros(VIEWS, clip.config.vision_width)
        self.view_embedding = nn.Parameter(zeros) if global_blocks else None

    def local_tokens(self, images: Tensor, blocks: int | None = None) -> Tensor:
        """Grey images (N, 1, H, W) in [0, 1] -> tokens (N, T, d) after the first `blocks` blocks, class token first.

        All local blocks where not given; never more. What frozen blocks give can be kept and used again.
        """
        last = self._done(blocks)
        tower = self.clip.visual
        tokens: Tensor = tower.transformer(tower.embed(normalised(images)), last=last)
        return tokens

    def exam_features(self, tokens: Tensor, present: Tensor, first: int | None = None) -> Tensor:
        """Tokens (B, V, T, d) that `first` blocks have seen (all local ones where not given) -> (B, D), unit length.

        `present` (B, V) bool: what stands in the tokens of an absent view changes no bit of the result. Raises
        ValueError where an exam has no view.
        """
        _check_present(tokens, present)
        visual, (exams, views, length, width) = self.clip.visual, tokens.shape
        tokens = torch.where(present[..., None, None], tokens, 0.0)
        tokens = visual.transformer(tokens.flatten(0, 1), first=self._done(first), last=self.local_blocks)
        tokens = tokens.view(exams, views, length, width)
        if self.view_embedding is not None:
            together = (tokens + self.view_embedding[:, None]).flatten(1, 2)
            keep = present.repeat_interleave(length, 1)
            tokens = visual.transformer(together, keep, first=self.local_blocks).view(exams, views, length, width)
        classes = torch.where(present[..., None], tokens[:, :, 0], 0.0).sum(1) / present.sum(1, keepdim=True)
        return unit(visual.project(classes))

    def forward(self, views: Tensor, present: Tensor) -> Tensor:
        """Grey views (B, V, 1, H, W) in [0, 1] and presence (B, V) bool -> exam embeddings (B, D) of unit length."""
        if self.training and self.view_dropout:
            present = drop_views(present, self.view_dropout)
        images = torch.where(present[..., None, None, None], views, 0.0)
        tokens = self.local_tokens(images.flatten(0, 1))
        return self.exam_features(tokens.view(*present.shape, *tokens.shape[1:]), present)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """See `Clip.encode_text`."""
        return self.clip.encode_text(token_ids)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """What an optimiser gets."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def _done(self, blocks: int | None) -> int:
        """Blocks that see one view alone."""
        if blocks is not None and not 0 <= blocks <= self.local_blocks:
            raise ValueError(f"{blocks} blocks, but {self.local_blocks} see one view alone")
        return self.local_blocks if blocks is None else blocks


def _check_present(tokens: Tensor, present: Tensor) -> None:
    if present.dtype != torch.bool or present.shape != tokens.shape[:2] or present.shape[1] != VIEWS:
        raise ValueError(
            f"tokens {tuple(tokens.shape)} and presence {present.dtype} {tuple(present.shape)}: wanted are tokens of "
            f"{VIEWS} views an exam and a bool for each"
        )
    if not torch.compiler.is_compiling() and not bool(present.any(1).all()):
        raise ValueError("an exam without any view has no embedding")


def freeze_backbone(model: ExamClip, plan: AdapterPlan) -> None:
    """Leave trainable the adapters, the view embedding and, where the plan says so, norms and projections at the end.

    The logit scale stays as it is, 100 in OpenAI's weights.
    """
    open_ends = [
        name
        for tower, has in (("image", plan.in_image), ("text", plan.in_text))
        if has and plan.projections
        for name in _PROJECTIONS[tower]
    ]
    for name, parameter in model.clip.named_parameters():
        is_adapter = "_adapter." in name
        parameter.requires_grad_(is_adapter or any(name.startswith(end) for end in open_ends))
    if model.view_embedding is not None:
        model.view_embedding.requires_grad_(True)


def counted(model: ExamClip) -> tuple[int, int]:
    """Trainable parameters, and parameters of the backbone without adapters and view embedding."""
    backbone = sum(value.numel() for name, value in model.clip.named_parameters() if "_adapter." not in name)
    return sum(parameter.numel() for parameter in model.trainable_parameters()), backbone


def build_exam_clip(
    config: ClipConfig,
    plan: AdapterPlan,
    global_blocks: int,
    view_dropout: float = 0.1,
    state: Mapping[str, Tensor] | None = None,
) -> ExamClip:
    """System B with a frozen backbone. `state` is a whole state of CLIP of that config (`clip_keys`), random if None.

    Raises RecipeError for a depth that does not fit, and for one of OpenAI's sizes with adapters in every block that
    would train less than .5 or more than 1.5 % of it.
    """
    if plan.in_image and plan.first_block >= config.vision_layers:
        raise RecipeError(f"adapters: first_block is {plan.first_block} of {config.vision_layers}: no block has one")
    clip = Clip(config, plan)
    if state is not None:
        fill_backbone(clip, state)
    model = ExamClip(clip, global_blocks, view_dropout)
    freeze_backbone(model, plan)
    if _is_published(config):
        check_share(*counted(model), plan)
    return model


def fill_backbone(clip: Clip, state: Mapping[str, Tensor]) -> None:
    """Set every parameter of CLIP that is no adapter; the adapters stay. Raises RuntimeError for any other key."""
    adapters = {name: value for name, value in clip.state_dict().items() if "_adapter." in name}
    clip.load_state_dict({**adapters, **state})


def _is_published(config: ClipConfig) -> bool:
    """As large as one of OpenAI's, whatever its image size and activation."""
    return any(
        (config.vision_width, config.vision_layers, config.text_width, config.text_layers)
        == (known.vision_width, known.vision_layers, known.text_width, known.text_layers)
        for name, known in VARIANTS.items()
        if name != "tiny"
    )
