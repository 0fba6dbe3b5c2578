"""Small tables of cases, a tiny CLIP as a folder, and a recipe for both."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from node.mammography.views import STANDARD_VIEWS, Laterality
from training.multi_view.clip import Clip, ClipConfig
from training.multi_view.clip_tokenizer import OWN_VOCABULARY, load_clip_tokenizer
from training.multi_view.exam_checkpoint import save_clip

SIZE = 32
COLUMNS = ("study_id", "patient_id", "label", "RCC", "LCC", "RMLO", "LMLO")


def write_view(path: Path, seed: int, right: bool, bright: bool) -> None:
    """A half-disc of tissue on one edge; a bright square for a malignant one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:64, 0:48]
    plane = np.where((columns / 40) ** 2 + ((rows - 32) / 28) ** 2 < 1, 90 + rng.integers(0, 20, (64, 48)), 0)
    if bright:
        plane[24:40, 8:24] = 250
    plane = plane[:, ::-1] if right else plane
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane.astype(np.uint8)).save(path)


def case_row(number: int, folder: Path, **more: str) -> dict[str, str]:
    """A case of four views, whose files are written; every second one is malignant."""
    malignant = number % 2 == 1
    row = {"study_id": f"s{number}", "patient_id": f"p{number}", "label": "malignant" if malignant else "0"}
    for place, view in enumerate(STANDARD_VIEWS):
        right = view.laterality is Laterality.RIGHT
        write_view(folder / f"{number}-{view}.png", 10 * number + place, right, malignant and right)
        row[view.name] = f"{number}-{view}.png"
    return row | more


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_cases(folder: Path, count: int) -> str:
    """The source's words."""
    rows = [case_row(number, folder / "images") for number in range(count)]
    return f"cases={write_table(folder / 'cases.csv', rows)},{folder / 'images'}"


def tiny_config() -> ClipConfig:
    return ClipConfig(16, SIZE, 8, 32, 2, 2, 24, 1, 2, load_clip_tokenizer(OWN_VOCABULARY).size, 32)


def write_clip(folder: Path) -> Path:
    """A tiny CLIP with random weights."""
    folder.mkdir()
    torch.manual_seed(5)
    save_clip(folder, Clip(tiny_config()), OWN_VOCABULARY, {})
    return folder


RECIPE = """
name = "tiny"
seed = 1
[model]
size = 32
global_blocks = 1
adapters = "both"
rank = 4
sites = "parallel"
scale = 1.0
projections = false
prompts = "simple"
[data]
folds = 2
validation_share = 0.3
shots = [0]
shot_seeds = 1
phantom_exams = 0
[augmentation]
rotation = [0, 0]
translation = [0, 0]
scale = [1, 1]
shear = [0, 0]
elastic_alpha = 0
elastic_sigma = 15
horizontal_flip = true
vertical_flip = false
probability = 0.5
tone = 0.0
[optimisation]
learning_rate = 1e-2
weight_decay = 0.01
epochs = 2
warmup_share = 0.1
batch = 4
precision = "float32"
patience = 0
class_weights = "balanced"
view_dropout = 0.2
[keeping]
log_steps = 50
checkpoint_steps = 0
checkpoint_minutes = 0
compile = false
"""
