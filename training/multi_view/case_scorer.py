"""An exam against the prompts of two answers: the logit of malignancy that training, tests and comparisons share."""

from torch import Tensor, nn

from training.multi_view.case_prompts import PromptIds, case_logits, class_features
from training.multi_view.exam_model import ExamClip


class CaseScorer(nn.Module):
    """`model(inputs, present) -> (B)`: scale * (cosine to the positive prompts - cosine to the negative ones).

    Inputs are views (B, 4, 1, S, S) in [0, 1], or, with `first`, tokens (B, 4, T, d) that so many blocks have seen.
    `ids`: of the prompts, see case_prompts.py. With `frozen_image` the
    view embedding does not learn either.
    """

    negative: Tensor
    positive: Tensor

    def __init__(
        self,
        exam: ExamClip,
        ids: PromptIds,
        first: int | None = None,
        *,
        frozen_image: bool = False,
    ) -> None:
        super().__init__()
        self.exam, self.first = exam, first
        self.register_buffer("negative", ids[0], persistent=False)
        self.register_buffer("positive", ids[1], persistent=False)
        if frozen_image and exam.view_embedding is not None:
            exam.view_embedding.requires_grad_(False)

    def forward(self, inputs: Tensor, present: Tensor) -> Tensor:
        """Logits (B)."""
        if self.first is None:
            features = self.exam(inputs, present)
        else:
            features = self.exam.exam_features(inputs, present, self.first)
        classes = class_features(self.exam.encode_text, (self.negative, self.positive))
        logits = case_logits(features, classes, self.exam.clip.logit_scale)
        found: Tensor = logits[:, 1] - logits[:, 0]
        return found

    @property
    def learns(self) -> bool:
        """Whether anything of it can be trained."""
        return any(parameter.requires_grad for parameter in self.parameters())


def learnt_share(model: nn.Module) -> tuple[int, int]:
    """Trained parameters, and all."""
    sizes = [(p.numel() if p.requires_grad else 0, p.numel()) for p in model.parameters()]
    return sum(size[0] for size in sizes), sum(size[1] for size in sizes)
