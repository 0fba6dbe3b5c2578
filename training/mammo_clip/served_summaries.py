"""Whole exams through the frozen part of the served model once, by the graph as it will be served, in OpenVINO.

What the heads learn from and what finishing decides on is thus what the exported file computes, to the bit of its
float16 weights; and OpenVINO takes a fraction of torch's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import torch
from torch import Tensor, nn

from node.mammography.findings import FINDING_KINDS
from training.cache import cached_seeds, load_exam, render_seeds
from training.export import hash_of_graph, store_half, trace_module
from training.mammo_clip.breasts import DataError
from training.mammo_clip.served import ClipViews, ViewEvidence

KINDS = len(FINDING_KINDS)
PART = 100
"""Exams that are kept in one file: what was made before a stop is not made again, nor what two splits share."""


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
    tokens: Tensor | None = None
    """(N, 4, P, C), float16: maps pooled to tokens, where the graph gives them."""

    @property
    def evidence(self) -> ViewEvidence:
        """The exams as one batch."""
        return ViewEvidence(self.pooled, self.embeddings, self.text, self.maps, self.peaks, self.rings)

    def save(self, path: Path) -> None:
        """Write all tensors, whole or not at all."""
        part = path.with_suffix(".part")
        table = {field.name: getattr(self, field.name) for field in fields(self)}
        torch.save({name: value for name, value in table.items() if value is not None}, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "ClipSummaries":
        """Read what `save` wrote."""
        return cls(**torch.load(path, map_location="cpu", weights_only=True))

    @classmethod
    def together(cls, parts: Sequence["ClipSummaries"]) -> "ClipSummaries":
        """The exams of all parts."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls) if getattr(parts[0], field.name) is not None]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


class EvidenceGraph:
    """`ClipViews`, or what gives more `outputs` of it, as a graph with stored weights, run by OpenVINO in float32.
    `digest` is the hash of its weights.
    """

    def __init__(self, views: nn.Module, threads: int) -> None:
        frozen = cast(ClipViews, views)
        self.sees, self._outputs = frozen.sees, frozen.outputs
        sample = torch.rand(2, 4, 1, self.sees.height, self.sees.width)
        graph: onnx.ModelProto = store_half(trace_module(views, {"views": sample}, self._outputs, {}))
        self.digest = hash_of_graph(graph)
        core = openvino.Core()
        model = core.read_model(graph.SerializeToString())
        model.reshape({"views": [1, *sample.shape[1:]]})
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
        """One exam, uint8 (4, H, W) -> its evidence by name, without the batch axis."""
        views = images.astype(np.float32)[None, :, None] / np.float32(255.0)
        answer = self._request.infer({"views": views})
        return {name: torch.from_numpy(answer[name][0].copy()) for name in self._outputs}


def summarise(graph: EvidenceGraph, cache: Path, folder: Path, seeds: tuple[int, int]) -> ClipSummaries:
    """Summaries of the exams first, first + 1, ..., made once for each graph; exams that the cache lacks are rendered.

    `seeds`: first and count. Raises DataError where the cache holds exams of another size.
    """
    return ClipSummaries.together([_part(graph, cache, folder, *piece) for piece in pieces(*seeds)])


def pieces(first: int, count: int) -> list[tuple[int, int]]:
    """Seeds as firsts and counts of at most PART, cut at its multiples."""
    end = first + count
    cuts = [first, *range((first // PART + 1) * PART, end, PART), end]
    return [(start, stop - start) for start, stop in pairwise(cuts)]


def _part(graph: EvidenceGraph, cache: Path, folder: Path, first: int, count: int) -> ClipSummaries:
    path = folder / f"{first}-{count}-{graph.digest[:16]}.summaries"
    if not path.exists():
        render_seeds(cache, first, count, graph.sees.preset)
        rows = [_summarised(graph, exam) for exam in cached_seeds(cache, first, count)]
        ClipSummaries(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]}).save(path)
    return ClipSummaries.load(path)


_HALF = ("maps", "tokens")
"""What is kept as float16."""


def _summarised(graph: EvidenceGraph, path: Path) -> dict[str, Tensor]:
    exam = load_exam(path)
    if exam.images.shape[1:] != (graph.sees.height, graph.sees.width):
        rows, columns = exam.images.shape[1:]
        raise DataError(
            f"{path}: is {rows} x {columns} pixels, this model sees {graph.sees.height} x {graph.sees.width}; give a "
            "--cache of its own"
        )
    seen = graph.run(exam.images)
    return {name: value.to(torch.float16) if name in _HALF else value for name, value in seen.items()} | {
        "seeds": torch.tensor(exam.seed),
        "findings": torch.from_numpy(exam.findings(KINDS)),
        "breasts": torch.tensor(exam.malignant_breasts),
        "density": torch.tensor(exam.density),
    }
