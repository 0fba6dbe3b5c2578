"""Drawn exams with lesions in a grey of their finding, where make_exam has them, and an encoder that has a channel for
each such grey."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from node.mammography.findings import FINDING_KINDS
from node.mammography.views import STANDARD_VIEWS, ViewPosition
from tests.training.mammo_clip.tiny_runs import write_recipe
from training.cache import CachedExam, TruthBox, save_exam
from training.mammo_clip.building import build_model, save_model
from training.mammo_clip.model import ImageFeatures
from training.mammo_clip.phrases import phrases
from training.mammo_clip.pretraining_recipe import load_pretraining_recipe
from training.mammo_clip.vocabulary import VOCABULARY, own_tokenizer
from training.maps import GREY_DEVIATION, GREY_MEAN
from training.phantoms import make_exam

HEIGHT, WIDTH, STRIDE = 152, 96, 8
DEPTH, SIDE = 60, 16
GREYS = (250.0, 240.0, 230.0, 220.0)


class PlantedEncoder(nn.Module):
    """Channel k is the share of a cell's pixels with the grey of finding k; four more channels say nothing."""

    stride = float(STRIDE)
    offset = STRIDE / 2

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = 8
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, images):
        grey = (images * GREY_DEVIATION + GREY_MEAN) * 255.0
        planted = [(grey - value).abs().lt(2.0).float() for value in GREYS]
        vague = [
            grey.clamp(max=120.0) / 255.0,
            1.0 - grey / 255.0,
            (grey / 64.0).sin().abs(),
            (grey / 32.0).cos().abs(),
        ]
        maps = functional.avg_pool2d(torch.cat([*planted, *vague], dim=1), STRIDE) * self.scale
        return ImageFeatures(maps.amax((2, 3)), maps)


def planted():
    return PlantedEncoder()


def write_exams(cache: Path, first: int, count: int) -> None:
    """A plain half disc for each view, nipple at mid height, and a square where each lesion of the seed lies."""
    cache.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        exam = make_exam(seed)
        drawn = [_view(exam, number) for number in range(4)]
        boxes = tuple(box for _, _, found in drawn for box in found)
        images, flags = (np.stack([view[part] for view in drawn]) for part in range(2))
        save_exam(cache, CachedExam(seed, images, flags, boxes, exam.malignant_breasts, 1))


def _view(exam, number):
    view, boxes = STANDARD_VIEWS[number], []
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.where(np.hypot((rows - HEIGHT / 2) / 1.25, columns) < DEPTH, 120, 0).astype(np.uint8)
    image += (np.random.default_rng((exam.seed, number)).integers(0, 20, image.shape) * (image > 0)).astype(np.uint8)
    flags = np.zeros_like(image)
    for lesion in exam.lesions:
        if lesion.laterality is not view.laterality:
            continue
        kind, site = FINDING_KINDS.index(lesion.finding), lesion.site
        distance = DEPTH * (
            0.12 if site.nipple_distance_mm < 22 else {"anterior": 0.2, "middle": 0.5}.get(site.depth, 0.8)
        )
        beside = 14 if (site.outer if view.position is ViewPosition.CC else site.upper) > 0 else -14
        x, y = int(DEPTH - distance), int(HEIGHT / 2 - (beside if site.nipple_distance_mm >= 22 else 0))
        box = (max(x - SIDE // 2, 0), y - SIDE // 2, max(x - SIDE // 2, 0) + SIDE, y + SIDE // 2)
        part = np.s_[box[1] : box[3], box[0] : box[2]]
        image[part], flags[part] = GREYS[kind], flags[part] | (1 << kind)
        boxes.append(TruthBox(number, kind, lesion.malignant, *box))
    return image, flags, boxes


def write_model(folder: Path) -> Path:
    """A dual encoder with the planted encoder and a text tower that knows nothing but tells texts apart."""
    folder.mkdir(parents=True)
    changes = {
        "encoder": '"tests.training.mammo_clip.planted:planted"',
        "height": str(HEIGHT),
        "width": str(WIDTH),
        "normalisation": '"fixed"',
    }
    recipe = load_pretraining_recipe(write_recipe(folder, **changes))
    tokenizer = own_tokenizer()
    model = build_model(recipe, len(tokenizer.ids)).eval()
    ids, mask = tokenizer.batch([phrase.text for phrase in phrases() if not phrase.located], 40)
    with torch.no_grad():  # an untrained tower hardly tells texts apart: words count more, and their mean is taken off
        for name, weight in model.text_encoder.named_parameters():
            weight.mul_(10.0 if "attention" in name and weight.dim() == 2 else 1.0)
        mean = model.text_encoder(torch.tensor(ids), torch.tensor(mask)).mean(0)
        projection = model.text_projection.projection
        projection.bias.copy_(-(projection.weight @ mean))
    save_model(folder, model, recipe, VOCABULARY, {"data": {"sources": "phantoms"}})
    return folder


RECIPE = """
name = "tiny-factor"
mapper = "shared"
seeds = 2
first_seed = 0
heads_mixed = false
[data]
first_exam = 0
training_exams = 26
validation_exams = 14
normal_views = 1.0
coarse = false
[phrases]
held_out = ["oval mass"]
hold_out_every = 5
placed_a_step = 4
[loss]
temperature = 0.07
ones_for_positives = false
[heat]
strongest = 1
temperature = 0
[optimisation]
learning_rate = 1e-3
weight_decay = 0.01
epochs = 12
batch = 24
patience = 0
hidden = 32
stay = 100
[baselines]
views = 16
epochs = 4
seeds = 1
"""
TRAINING, VALIDATION = (0, 26), (1_000_000, 14)
