"""Whole exams through the frozen part of the served model once, by the graph as it will be served, in OpenVINO.

What the heads learn from and what finishing decides on is thus what the exported file computes, to the bit of its
float16 weights; and OpenVINO takes a fraction of torch's time.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import torch
from torch import Tensor

from node.mammography.findings import FINDING_KINDS
from training.cache import cached_seeds, load_exam, render_seeds
from training.export import hash_of_graph, store_half, trace_module
from training.mammo_clip.breasts import DataError
from training.mammo_clip.loading import Input
from training.mammo_clip.served import ClipViews, ViewEvidence

KINDS = len(FINDING_KINDS)


@dataclass(frozen=True, slots=True, eq=False)
class ClipSummaries:
    """N exams: what `ViewEvidence` says of their views, maps as float16, and the truth."""

    seeds: Tensor
    pooled: Tensor
    embeddings: Tensor
    text: Tensor
    maps: Tensor
    peaks: Tensor
    rings: Tensor
    findings: Tensor
    """Bool (N, 4, K): the view shows the finding."""
    breasts: Tensor
    """Bool (N, 2): the breast is malignant."""
    density: Tensor
    """(N): 0 to 3 for A to D."""

    @property
    def evidence(self) -> ViewEvidence:
        """The exams as one batch."""
        return ViewEvidence(self.pooled, self.embeddings, self.text, self.maps, self.peaks, self.rings)

    def save(self, path: Path) -> None:
        """Write all tensors, whole or not at all."""
        part = path.with_suffix(".part")
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "ClipSummaries":
        """Read what `save` wrote."""
        return cls(**torch.load(path, map_location="cpu", weights_only=True))


class EvidenceGraph:
    """`ClipViews` as a graph with stored weights, run by OpenVINO in float32. `digest` is the hash of its weights."""

    def __init__(self, views: ClipViews, threads: int) -> None:
        self.sees: Input = views.sees
        sample = torch.rand(2, 4, 1, self.sees.height, self.sees.width)
        graph: onnx.ModelProto = store_half(trace_module(views, {"views": sample}, ViewEvidence._fields, {}))
        self.digest = hash_of_graph(graph)
        core = openvino.Core()
        model = core.read_model(graph.SerializeToString())
        model.reshape({"views": [1, *sample.shape[1:]]})
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, images: npt.NDArray[np.uint8]) -> ViewEvidence:
        """One exam, uint8 (4, H, W) -> its evidence without the batch axis."""
        views = images.astype(np.float32)[None, :, None] / np.float32(255.0)
        answer = self._request.infer({"views": views})
        return ViewEvidence(*(torch.from_numpy(answer[name][0].copy()) for name in ViewEvidence._fields))


def summarise(graph: EvidenceGraph, cache: Path, folder: Path, seeds: tuple[int, int]) -> ClipSummaries:
    """Summaries of the exams first, first + 1, ..., made once for each graph; exams that the cache lacks are rendered.

    `seeds`: first and count. Raises DataError where the cache holds exams of another size.
    """
    path = folder / f"{seeds[0]}-{seeds[1]}-{graph.digest[:16]}.summaries"
    if not path.exists():
        render_seeds(cache, *seeds, graph.sees.preset)
        rows = [_summarised(graph, exam) for exam in cached_seeds(cache, *seeds)]
        ClipSummaries(*(torch.stack(column) for column in zip(*rows, strict=True))).save(path)
    return ClipSummaries.load(path)


def _summarised(graph: EvidenceGraph, path: Path) -> tuple[Tensor, ...]:
    exam = load_exam(path)
    if exam.images.shape[1:] != (graph.sees.height, graph.sees.width):
        rows, columns = exam.images.shape[1:]
        raise DataError(
            f"{path}: is {rows} x {columns} pixels, this model sees {graph.sees.height} x {graph.sees.width}; give a "
            "--cache of its own"
        )
    seen = graph.run(exam.images)
    return (
        torch.tensor(exam.seed),
        seen.pooled,
        seen.embeddings,
        seen.text,
        seen.maps.to(torch.float16),
        seen.peaks,
        seen.rings,
        torch.from_numpy(exam.findings(KINDS)),
        torch.tensor(exam.malignant_breasts),
        torch.tensor(exam.density),
    )
