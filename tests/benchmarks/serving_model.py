"""System A with an EfficientNet B2 trunk and weights from a seed, as torch and as a served model: for figures of speed.

No weights of B2 can be had here; its norms and heads are set on phantoms so that activations and probabilities are of
the size that trained ones have.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from node.inference.contract import contract_from_json
from node.inference.triton_config import write_config
from node.mammography.contract import ModelContract
from node.mammography.findings import FINDING_KINDS
from node.mammography.pixels import preset
from training.deployment import round_values, served_module
from training.export import contract_of, write_graph
from training.mammo_clip.factor import HeatSettings, SharedMapper
from training.mammo_clip.loading import IMAGE, Input
from training.mammo_clip.model import EfficientNetEncoder, MammoClip, TextConfig
from training.mammo_clip.served import ClipViews, ServedClip
from training.mammo_clip.served_export import exam_graph
from training.mammo_clip.served_heads import ServedHeads

NAMES = [kind.value for kind in FINDING_KINDS]
EMBED_DIM = 512
NO_TEXT = TextConfig(8, 8, 1, 1, 8, 8)
"""Exams ask the text tower nothing."""
LOGIT_SPREAD = 1.5
DIRECTIONS = 3
SEED = 0


@dataclass(frozen=True, slots=True)
class Size:
    """A trunk of training.efficientnet at the size of a preset."""

    trunk: str
    preset: str

    @property
    def sees(self) -> Input:
        """One grey plane, stretched over its own range as System A does it."""
        wanted = preset(self.preset)
        return Input(self.preset, wanted.height, wanted.width, IMAGE, 3)


FULL = Size("b2", "mammo-clip")
QUICK = Size("b0", "fit-192x128")


def seeded_model(size: Size, exams: NDArray[np.float32]) -> ServedClip:
    """exam_encoder with float32 weights as the file will hold them; `exams` (N, 4, 1, H, W), prepared phantoms."""
    torch.manual_seed(SEED)
    clip = MammoClip(EfficientNetEncoder(size.trunk), NO_TEXT, EMBED_DIM)
    views = torch.from_numpy(exams)
    _set_norms(clip.image_encoder, size.sees, views)
    clip = served_module(clip)
    channels = int(clip.image_encoder.out_channels)
    phrases, prompts = _unit(torch.randn(len(NAMES), EMBED_DIM)), _unit(torch.randn(len(NAMES) + 1, 2, EMBED_DIM))
    weights = torch.relu(torch.randn(channels, len(NAMES))) / channels
    mapper = SharedMapper(channels, EMBED_DIM, hidden=8)
    seen = ClipViews(clip, mapper, size.sees, phrases, prompts, HeatSettings(), weights).eval()
    model = ServedClip(seen, ServedHeads(channels, len(NAMES)), torch.ones(len(NAMES))).eval()
    _set_heads(model, views)
    round_values(model)
    return model


@torch.no_grad()
def _set_norms(encoder: nn.Module, sees: Input, views: Tensor) -> None:
    """The statistics of these views, a quarter of their size: what the norms have learnt of other images."""
    small = nn.functional.interpolate(views.flatten(0, 1), scale_factor=0.5, mode="area")
    planes = sees.normalise(small[:, 0])
    for part in encoder.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    encoder.train()
    encoder(planes)
    encoder.eval()


@torch.no_grad()
def _set_heads(model: ServedClip, views: Tensor) -> None:
    """Probes along what varies most between these views, with logits of spread 1.5 and mean 0; heat 1 at the peaks.

    Any other direction of features that nobody trained would be made of rounding more than of the image.
    """
    evidence = model.views(views)
    pooled = evidence.pooled.flatten(0, 1)
    probe = model.heads.probe
    directions = torch.linalg.svd(pooled - pooled.mean(0), full_matrices=False).Vh[:DIRECTIONS]
    towards = torch.randn(len(probe.weight), len(directions)) @ directions
    logits = pooled @ towards.T
    probe.weight.copy_(towards * (LOGIT_SPREAD / logits.std(0))[:, None])
    probe.bias.copy_(-(pooled @ probe.weight.T).mean(0))
    model.heat_scale.copy_(evidence.peaks.flatten(0, 1).median(0).values.clamp_min(1e-3))


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)


def export_seeded(model: ServedClip, size: Size, folder: Path, precisions: dict[str, str]) -> ModelContract:
    """Write the graph once, and for each name of `precisions` a model folder that computes in that precision."""
    graph = exam_graph(model)
    contract = _contract(size, graph)
    for name, precision in precisions.items():
        write_graph(graph, contract, folder / name)
        write_config(folder / name)
        set_precision(folder / name, precision)
    written = onnx.load(folder / name / "1/model.onnx", load_external_data=False).metadata_props[0].value
    return contract_from_json(written)


def set_precision(model_folder: Path, precision: str) -> None:
    """What OpenVINO computes in on the server: the parameter of config.pbtxt."""
    file = model_folder / "config.pbtxt"
    text = file.read_text()
    wanted = f'"precision" value: {{ string_value: "{precision}" }}'
    changed = text.replace('"precision" value: { string_value: "f32" }', wanted)
    assert wanted in changed
    file.write_text(changed)


def _contract(size: Size, graph: onnx.ModelProto) -> dict[str, Any]:
    sees = size.sees
    shapes = {out.name: [dim.dim_value for dim in out.type.tensor_type.shape.dim] for out in graph.graph.output}
    rows, columns = shapes["heatmaps"][-2:]
    outputs = ("exam_logit", "breast_logits", *(f"finding_logits.{name}" for name in NAMES))
    figures = {
        "embed_dim": EMBED_DIM,
        "calibration": {name: {"a": 1.0, "b": 0.0, "dataset": "none", "prevalence": 0.5} for name in outputs},
        "operating_points": {name: {"probability": 0.5, "heat": 1.0} for name in NAMES},
    }
    named = ("exam_encoder", f"{size.trunk}-seeded", size.preset)
    made = contract_of(named, (sees.height, sees.width), (rows, columns, 32.0, 0.0), figures)
    return {**made, "findings": NAMES}


def torch_answers(model: ServedClip, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """The plain loop: eager float32, one exam."""
    with torch.inference_mode():
        outputs = model(torch.from_numpy(inputs["views"]), torch.from_numpy(inputs["present"]))
    return {name: value.numpy() for name, value in outputs._asdict().items()}
