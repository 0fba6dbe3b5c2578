"""A dual encoder, a mapper and drawn exams small enough to serve one in a test."""

from pathlib import Path

import numpy as np
import torch

from node.mammography.wordpiece import load_wordpiece
from tests.training.mammo_clip.tiny_runs import ConvEncoder
from training.cache import CachedExam, TruthBox, save_exam
from training.deployment import round_values, served_module
from training.mammo_clip.factor import HeatSettings, SharedMapper
from training.mammo_clip.loading import Input, LoadedModel
from training.mammo_clip.model import MammoClip, TextConfig
from training.mammo_clip.served import ClipViews
from training.mammo_clip.served_heads import ServedHeads
from training.mammo_clip.vocabulary import VOCABULARY

HEIGHT, WIDTH, EMBED_DIM = 96, 64, 16
SEES = Input(f"fit-{HEIGHT}x{WIDTH}", HEIGHT, WIDTH, "fixed", 1)


def clip(encoder: torch.nn.Module | None = None, seed: int = 0) -> MammoClip:
    """Random weights; norms with statistics of their own."""
    torch.manual_seed(seed)
    pieces = len(VOCABULARY.read_text(encoding="utf-8").splitlines())
    made = MammoClip(encoder or ConvEncoder(), TextConfig(pieces, 16, 2, 2, 32, 40), EMBED_DIM)
    for part in made.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    return made.eval()


def mapper(channels: int, seed: int = 0) -> SharedMapper:
    torch.manual_seed(seed)
    return SharedMapper(channels, EMBED_DIM, hidden=8).eval()


def views_of(made: MammoClip, sees: Input = SEES, settings: HeatSettings | None = None) -> ClipViews:
    """The frozen part with rounded weights, four findings, five targets."""
    torch.manual_seed(1)
    phrases = torch.nn.functional.normalize(torch.randn(4, EMBED_DIM), dim=1)
    prompts = torch.nn.functional.normalize(torch.randn(5, 2, EMBED_DIM), dim=2)
    shared = mapper(int(made.image_encoder.out_channels))
    parts = ClipViews(served_module(made), served_module(shared), sees, phrases, prompts, settings or HeatSettings())
    round_values(parts)
    return parts.eval()


def heads(channels: int) -> ServedHeads:
    torch.manual_seed(2)
    made = ServedHeads(channels, 4, hidden=8)
    for layer in (made.finding[-1], made.breast[-1]):
        torch.nn.init.normal_(layer.weight, std=0.3)
    round_values(made)
    return made.eval()


def loaded(folder: Path) -> LoadedModel:
    """As `load_model` would give it, with the committed vocabulary in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabulary.txt").write_bytes(VOCABULARY.read_bytes())
    made = clip()
    tokenizer = load_wordpiece(VOCABULARY, lower_case=True)
    return LoadedModel(folder, "own", made.image_encoder, SEES, made, tokenizer, 40, None, None, {}, "0" * 64)


def exam(seed: int) -> CachedExam:
    """A plain breast; view v shows finding (v + seed) % 4 as a bright square, every third exam shows none."""
    rng = np.random.default_rng(seed)
    images = np.zeros((4, HEIGHT, WIDTH), np.uint8)
    images[:, 4:92, :52] = 110 + rng.integers(0, 12, (4, 88, 52), dtype=np.uint8)
    flags, boxes = np.zeros_like(images), []
    for view in range(4) if seed % 3 else ():
        kind = (view + seed) % 4
        top, left = (int(value) for value in rng.integers(12, 40, 2))
        images[view, top : top + 16, left - 8 : left + 8] = 200 + 10 * kind
        flags[view, top : top + 16, left - 8 : left + 8] = 1 << kind
        boxes.append(TruthBox(view, kind, kind < 2, left - 8, top, left + 8, top + 16))
    return CachedExam(seed, images, flags, tuple(boxes), (bool(seed % 3), False), seed % 4)


def fill(cache: Path, first: int, count: int) -> tuple[Path, ...]:
    """Drawn exams in place of rendered ones."""
    cache.mkdir(parents=True, exist_ok=True)
    return tuple(save_exam(cache, exam(seed)) for seed in range(first, first + count))
