"""A dual encoder small enough for tests, and image-text tables of drawn pictures to train it on."""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from training.mammo_clip.model import ImageFeatures

HEIGHT, WIDTH = 64, 48


class ConvEncoder(nn.Module):
    """Three convolutions with batch norm, and dropout: an image encoder of one's own."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_channels, self.dropout = 24, dropout
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 8), (8, 16), (16, 24)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def features(self, images: torch.Tensor) -> ImageFeatures:
        feature_map = self.layers(images)
        return ImageFeatures(functional.dropout(feature_map.mean((2, 3)), self.dropout, self.training), feature_map)


def plain() -> ConvEncoder:
    return ConvEncoder()


def with_dropout() -> ConvEncoder:
    return ConvEncoder(0.2)


RECIPE = f"""
name = "tiny"
seed = 3
embed_dim = 16
[image]
encoder = "tests.training.mammo_clip.tiny_runs:with_dropout"
padding = "centred"
channels = 1
dropout = 0.2
weights = "random"
frozen_statistics = false
frozen_blocks = 0
[text]
vocabulary = "own"
lower_case = true
max_length = 40
hidden = 16
layers = 2
heads = 2
intermediate = 32
positions = 40
dropout = 0.1
weights = "random"
[data]
height = {HEIGHT}
width = {WIDTH}
flipped_texts = "swap"
shuffle_sentences = true
constant_images = "zeros"
normalisation = "image"
crop = 0
phrases = 0
validation_fold = 1
phantom_exams = 0
phantom_validation_exams = 0
phantom_report_chance = 0.0
[augmentation]
rotation = [-20, 20]
translation = [-0.1, 0.1]
scale = [0.8, 1.2]
shear = [-20, 20]
elastic_alpha = 10
elastic_sigma = 15
horizontal_flip = true
vertical_flip = false
probability = 0.5
tone = 0
[loss]
view_weight = 1.0
text_weight = 0.5
label_smoothing = 0.0
mask_identical_texts = true
maximum_logit_scale = 100
phrase_weight = 0
[optimisation]
learning_rate = 3e-3
weight_decay = 1e-4
decay = "all"
epochs = 2
warmup_epochs = 1
batch = 4
accumulate = 1
cached_chunk = 0
precision = "float32"
skipped_steps_count = true
patience = 0
[keeping]
log_steps = 1
checkpoint_steps = 1
checkpoint_minutes = 0
compile = false
"""

_WORDS = ("a round mass in the {} breast", "grouped calcifications are seen {}", "nothing suspicious is seen {}")


def write_recipe(folder: Path, **changes: str) -> Path:
    """RECIPE with keys replaced, `encoder="..."` as TOML writes the value."""
    lines = RECIPE.splitlines()
    for key, value in changes.items():
        at = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        assert len(at) == 1 or key in ("dropout", "weights"), key
        for number in at:
            lines[number] = f"{key} = {value}"
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_table(folder: Path, breasts: int = 20, validation: int = 4) -> Path:
    """TABLE.csv and its images: blobs whose number goes with the text; CC and MLO of each breast, MLO twice."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(breasts):
        patient, side = f"p{number // 2}", "RL"[number % 2]
        names = [f"{side}-{view}.png" for view in ("cc", "mlo", "mlo2")]
        for name in names:
            plane = rng.integers(0, 60, (HEIGHT, WIDTH), dtype=np.uint8)
            for blob in range(number % 3):
                plane[10 + 20 * blob : 24 + 20 * blob, 8:30] = 200
            (folder / "images" / patient).mkdir(parents=True, exist_ok=True)
            Image.fromarray(plane).save(folder / "images" / patient / name)
        words = _WORDS[number % 3].format({"R": "right", "L": "left"}[side])
        texts = [f"{words}. It is number {number} here", f"BI-RADS {number} for row {number}"]
        fold = 1 if number // 2 < validation / 2 else 0
        rows.append([patient, side, [names[0]], names[1:], texts, [], fold])
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient_id", "laterality", "CC", "MLO", "text", "text_augment", "fold"])
        writer.writerows(rows)
    return folder / "table.csv"


def data_of(folder: Path) -> str:
    return f"image-text={folder / 'table.csv'},{folder / 'images'}"
