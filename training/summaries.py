"""Whole exams through the map network once: what the heads learn from, with the truth beside it."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.cache import CachedExam, load_exam
from training.exam_encoder import FINDINGS, ViewSummary, summarise
from training.maps import MapNetwork


@dataclass(frozen=True, slots=True, eq=False)
class ExamSummaries:
    """N exams: summaries of their views (see ViewSummary), finding maps (N, 4, K, h, w) as float16, and the truth."""

    seeds: Tensor
    descriptors: Tensor
    rings: Tensor
    peaks: Tensor
    maps: Tensor
    findings: Tensor
    """(N, 4, K): the view shows the finding."""
    breasts: Tensor
    """(N, 2): the breast is malignant."""
    density: Tensor
    """(N): 0 to 3 for A to D."""

    def views(self, rows: Tensor) -> ViewSummary:
        """The summaries of some exams."""
        return ViewSummary(self.descriptors[rows], self.rings[rows], self.peaks[rows])

    def save(self, path: Path) -> None:
        """Write all tensors."""
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "ExamSummaries":
        """Read what `save` wrote."""
        return cls(**torch.load(path, map_location="cpu", weights_only=True))


def summarise_exams(network: MapNetwork, paths: tuple[Path, ...]) -> ExamSummaries:
    """Run the map network over cached exams."""
    network.eval()
    rows = [_summarise_exam(network, load_exam(path)) for path in paths]
    return ExamSummaries(*(torch.stack(column) for column in zip(*rows, strict=True)))


@torch.inference_mode()
def _summarise_exam(network: MapNetwork, exam: CachedExam) -> tuple[Tensor, ...]:
    views = torch.from_numpy(exam.images.astype(np.float32) / 255.0)[None, :, None]
    features, maps = network(views[0].to(memory_format=torch.channels_last))
    summary = summarise(views, features[None], maps[None])
    count = len(FINDINGS)
    return (
        torch.tensor(exam.seed),
        summary.descriptors[0],
        summary.rings[0],
        summary.peaks[0],
        maps[:, :count].to(torch.float16),
        torch.from_numpy(exam.findings(count)),
        torch.tensor(exam.malignant_breasts),
        torch.tensor(exam.density),
    )
