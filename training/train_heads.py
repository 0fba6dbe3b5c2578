"""Training of the exam's heads on summaries: whole exams, views missing at random, sides swapped at random."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.exam_encoder import FINDINGS, ExamHeads, ViewSummary
from training.recipe import HeadsRecipe
from training.summaries import ExamSummaries
from training.train_maps import move_average

SWAPPED = [1, 0, 3, 2]
"""Right and left exchanged on the view axis: the model image shows all breasts the same way round."""

EMBEDDING_SCALE = 8.0
"""Unit vectors are stretched by this before the linear probes that shape the embeddings."""


class Probes(nn.Module):
    """Linear readers of the embeddings, for training alone: they make the embeddings say what the exam holds."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.view = nn.Linear(embed_dim, len(FINDINGS) + 1)
        self.exam = nn.Linear(embed_dim, 1 + 4)

    def forward(self, views: Tensor, exam: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, 4, D), (B, D) -> findings and malignancy (B, 4, K + 1), malignancy and density (B, 5)."""
        return self.view(EMBEDDING_SCALE * views), self.exam(EMBEDDING_SCALE * exam)


def train_heads(data: ExamSummaries, recipe: HeadsRecipe, width: int, seed: int) -> ExamHeads:
    """Heads with averaged weights. Draws follow the seed alone."""
    torch.manual_seed(seed)
    heads = ExamHeads(width)
    probes = Probes(heads.embed.out_features)
    parameters = [*heads.parameters(), *probes.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    average = copy.deepcopy(heads)
    heads.train()
    for _ in range(recipe.steps):
        rows = torch.randint(len(data.seeds), (recipe.batch,))
        loss = heads_loss(heads, probes, data, rows, recipe.view_dropout)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        move_average(average, heads, 0.99)
    return average.eval()


def heads_loss(heads: ExamHeads, probes: Probes, data: ExamSummaries, rows: Tensor, view_dropout: float) -> Tensor:
    """Cross-entropies of findings, breasts, exam, and of the probes of the embeddings."""
    swap = bool(torch.rand(()) < 0.5)
    order, sides = (SWAPPED, [1, 0]) if swap else ([0, 1, 2, 3], [0, 1])
    summary = ViewSummary(*(part[:, order] for part in data.views(rows)))
    present = draw_present(len(rows), view_dropout)
    exam, exam_embedding, breasts, findings, view_embeddings = heads(summary, present)
    wanted_findings = data.findings[rows][:, order].float()
    seen = present[:, :2] | present[:, 2:]
    wanted_breasts = data.breasts[rows][:, sides] & seen
    wanted_exam = wanted_breasts.any(1).float()
    probed_views, probed_exam = probes(view_embeddings, exam_embedding)
    of_views = torch.cat([wanted_findings, wanted_breasts.repeat(1, 2)[:, :, None].float()], dim=2)
    return (
        _chosen_error(findings, wanted_findings, present)
        + _chosen_error(breasts, wanted_breasts.float(), seen)
        + _error(exam, wanted_exam)
        + 0.3 * _chosen_error(probed_views, of_views, present)
        + 0.3 * _error(probed_exam[:, 0], wanted_exam)
        + 0.1 * functional.cross_entropy(probed_exam[:, 1:], data.density[rows])
    )


def draw_present(count: int, dropout: float) -> Tensor:
    """Views taken as there, bool (count, 4); half of the exams are whole, none is empty."""
    present = (torch.rand(count, 4) >= dropout) | (torch.rand(count, 1) < 0.5)
    empty = ~present.any(1)
    present[empty, torch.randint(4, (int(empty.sum()),))] = True
    return present


def _error(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted)


def _chosen_error(logits: Tensor, wanted: Tensor, chosen: Tensor) -> Tensor:
    return _error(logits[chosen], wanted[chosen])
