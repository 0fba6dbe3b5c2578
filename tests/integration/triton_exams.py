"""Exams for tiny models on Triton, and tiny models with one thing changed."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from node.mammography.contract import Prediction

HEIGHT, WIDTH = 152, 96
EVERY = np.ones(4, dtype=np.bool_)


def some_views(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((4, 1, HEIGHT, WIDTH), dtype=np.float32)


def differ(first: Prediction, second: Prediction) -> float:
    """The largest difference of any number."""
    pairs = [
        (first.exam_logit, second.exam_logit),
        (first.exam_embedding, second.exam_embedding),
        (first.breast_logits, second.breast_logits),
        (first.finding_logits, second.finding_logits),
        (first.heatmaps, second.heatmaps),
        (first.view_embeddings, second.view_embeddings),
    ]
    return max(float(np.abs(np.subtract(one, other)).max()) for one, other in pairs)


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def change_contract(folder: Path, old: str, new: str, version: str = "1") -> None:
    """In the ONNX and in config.pbtxt alike, so that Triton itself sees nothing wrong."""
    model = onnx.load(folder / version / "model.onnx")
    assert old in model.metadata_props[0].value
    model.metadata_props[0].value = model.metadata_props[0].value.replace(old, new)
    onnx.save(model, folder / version / "model.onnx")
    change(folder / "config.pbtxt", old.replace('"', '\\"'), new.replace('"', '\\"'))


def change_answer(folder: Path, how: str) -> None:
    """`how`: a line of Python that changes the dict `answer` of the outputs before they are cut into responses."""
    change(
        folder / "1/model.py",
        "        responses, start = [], 0\n",
        f"        answer = {{name: answer[name].copy() for name in self._outputs}}\n        {how}\n"
        "        responses, start = [], 0\n",
    )
