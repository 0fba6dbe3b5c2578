"""The exported file as it is served, for figures: exams in, numpy arrays out, by OpenVINO in float32."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Outputs of N exams: exam (N), breasts (N, 2), findings (N, 4, K), heat (N, 4, K, h, w)."""

    exam: FloatArray
    breasts: FloatArray
    findings: FloatArray
    heat: FloatArray


class ServedModel:
    """One exported model."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        self._compiled = core.compile_model(core.read_model(path), "CPU", settings)

    def run(self, views: FloatArray, present: npt.NDArray[np.bool_]) -> dict[str, FloatArray]:
        """Views (B, 4, 1, H, W), present (B, 4) -> outputs by name."""
        answer = self._compiled({"views": views, "present": present})
        return {output.get_any_name(): np.array(answer[output]) for output in self._compiled.outputs}

    def heat(self, image: FloatArray) -> FloatArray:
        """Heat (K, h, w) of one prepared view (H, W), given as the only view of an exam."""
        views = np.zeros((1, 4, 1, *image.shape), np.float32)
        views[0, 3, 0] = image
        heat: FloatArray = self.run(views, np.array([[False, False, False, True]]))["heatmaps"][0, 3]
        return heat

    def answers(self, images: list[npt.NDArray[np.uint8]]) -> Answers:
        """Whole exams, each uint8 (4, H, W), one after the other."""
        present = np.ones((1, 4), np.bool_)
        rows = [self.run(exam.astype(np.float32)[None, :, None] / np.float32(255.0), present) for exam in images]
        names = ("exam_logit", "breast_logits", "finding_logits", "heatmaps")
        return Answers(*(np.concatenate([row[name] for row in rows]) for name in names))


def read_contract(path: Path) -> dict[str, Any]:
    """The contract in an exported file."""
    graph = onnx.load(path, load_external_data=False)
    for entry in graph.metadata_props:
        if entry.key == "contract":
            contract: dict[str, Any] = json.loads(entry.value)
            return contract
    raise ValueError(f"{path.name} carries no contract")
