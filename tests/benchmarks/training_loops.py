"""Two loops that train one model: plainly written PyTorch with each of our measures a switch, and the project's own."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from node.mammography.views import Laterality, ViewPosition
from node.mammography.wordpiece import WordPiece
from training import depthwise
from training.mammo_clip.augmentation import none
from training.mammo_clip.breasts import Breasts, Numbered, Reported
from training.mammo_clip.building import build_model, tokenizer_of
from training.mammo_clip.finetuned import build_classifier
from training.mammo_clip.finetuning import FineTuning, Run
from training.mammo_clip.finetuning_data import PlainItems, TargetImages
from training.mammo_clip.finetuning_recipe import FinetuningRecipe, load_finetuning_recipe
from training.mammo_clip.images import ImageFile, decode
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.loss import Embeddings, contrastive_loss
from training.mammo_clip.pretrain import Pretraining
from training.mammo_clip.pretrain import Run as PretrainingRun
from training.mammo_clip.pretraining_data import PretrainingData
from training.mammo_clip.pretraining_recipe import PretrainingRecipe, load_pretraining_recipe
from training.mammo_clip.processes import Process
from training.mammo_clip.sampling import MEAN, STANDARD_DEVIATION, ValidationItems
from training.mammo_clip.texts import report_of
from training.mammo_clip.vocabulary import VOCABULARY

RECIPES = Path(__file__).parents[2] / "training/recipes"
STORED = (1520, 912)
"""Of the PNG files, as System A's preprocessing leaves them."""
Step = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Case:
    """A model and a batch: `task` "pretrain" (rows of two views and two texts) or "finetune" (rows of one image)."""

    task: str
    encoder: str
    height: int
    width: int
    rows: int


@dataclass(frozen=True, slots=True)
class Switches:
    """What of our measures a plain loop has. `gradients`: depthwise gradients by `training.depthwise`."""

    channels_last: bool = False
    bf16: bool = False
    gradients: bool = False
    decoded: bool = False
    tokens: bool = False
    compile: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """What both loops train on: two picture files and two texts a row."""

    files: tuple[tuple[Path, Path], ...]
    texts: tuple[tuple[str, str], ...]


def write_rows(folder: Path, count: int) -> Rows:
    """Pictures whose PNG is about as large as a mammogram's, and texts of a few sentences."""
    rng = np.random.default_rng(0)
    files, texts = [], []
    for number in range(count):
        pair = []
        for view in range(2):
            coarse = torch.from_numpy(rng.random((1, 1, 190, 114), np.float32))
            smooth = functional.interpolate(coarse, STORED, mode="bicubic")[0, 0].clamp(0, 1).numpy()
            smooth[:, 600:] = 0.0
            path = folder / f"{number}-{view}.png"
            Image.fromarray((smooth * 255).astype(np.uint8)).save(path)
            pair.append(path)
        files.append((pair[0], pair[1]))
        words = (
            f"there is a round mass number {number} in the upper outer breast at mid depth there are no calcifications"
        )
        texts.append((f"{words} no change", f"impression {words}"))
    return Rows(tuple(files), tuple(texts))


@contextlib.contextmanager
def _gradients(ours: bool) -> Iterator[None]:
    kept = depthwise.gains
    if not ours:
        depthwise.gains = lambda *_: False
    try:
        yield
    finally:
        depthwise.gains = kept


def _autocast(device: torch.device, wanted: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if wanted else contextlib.nullcontext()


class Reader:
    """Pictures of a size as float images, opened each time or decoded once."""

    def __init__(self, size: tuple[int, int], decoded: bool) -> None:
        self.size, self.decoded = size, decoded
        self.known: dict[Path, Tensor] = {}

    def __call__(self, path: Path) -> Tensor:
        """(1, H, W), normalised."""
        plane = self.known.get(path)
        if plane is None:
            with Image.open(path) as picture:
                grey = np.asarray(picture.convert("L"))
            shown = cv2.resize(grey, self.size[::-1], interpolation=cv2.INTER_AREA)
            plane = torch.from_numpy(shown)[None]
        if self.decoded:
            self.known[path] = plane
        image = plane.float() / 255.0
        shifted = image - image.min()
        return (shifted / shifted.max().clamp(min=1e-6) - MEAN) / STANDARD_DEVIATION


def plain_step(case: Case, rows: Rows, switches: Switches, device: torch.device) -> Step:
    """One step of a plain loop, from files to changed weights; it returns the loss."""
    step = _plain_pretraining if case.task == "pretrain" else _plain_finetuning
    return step(case, rows, switches, device)


def _plain_pretraining(case: Case, rows: Rows, switches: Switches, device: torch.device) -> Step:
    recipe = pretraining_recipe(case, "bfloat16")
    tokenizer = tokenizer_of(recipe, VOCABULARY)
    model = _prepared(build_model(recipe, len(tokenizer.ids)), switches, device)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    reader, known = Reader((case.height, case.width), switches.decoded), dict[str, list[int]]()

    def tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return _tokens(tokenizer, texts, known if switches.tokens else {})

    def step() -> float:
        views = torch.stack([reader(pair[view]) for view in range(2) for pair in rows.files[: case.rows]])
        ids, mask = tokens([pair[which] for which in range(2) for pair in rows.texts[: case.rows]])
        with _gradients(switches.gradients), _autocast(device, switches.bf16):
            images = _placed(views.expand(-1, recipe.image.channels, -1, -1), switches, device)
            image, view = model.encode_image(images).chunk(2)
            text, text2 = model.encode_text(ids.to(device), mask.to(device)).chunk(2)
            keys = torch.arange(2 * case.rows, device=device).view(2, -1).T
            loss = contrastive_loss(Embeddings(image, view, text, text2, keys), model.logit_scale, recipe.loss)
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.item())

    return step


def _plain_finetuning(case: Case, rows: Rows, switches: Switches, device: torch.device) -> Step:
    recipe = finetuning_recipe(case, "bfloat16")
    model = _prepared(build_classifier(recipe), switches, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    reader = Reader((case.height, case.width), switches.decoded)
    targets = _targets(case.rows).float().to(device)

    def step() -> float:
        grey = torch.stack([reader(pair[0]) for pair in rows.files[: case.rows]])
        with _gradients(switches.gradients), _autocast(device, switches.bf16):
            logits = model(_placed(grey.expand(-1, recipe.image.channels, -1, -1), switches, device))
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.item())

    return step


def _prepared(model: Any, switches: Switches, device: torch.device) -> Any:
    model.to(device)
    if switches.channels_last:
        model.to(memory_format=torch.channels_last)
    model.train()
    if switches.compile:
        tower = model.image_encoder
        tower.features = torch.compile(tower.features)
    return model


def _placed(images: Tensor, switches: Switches, device: torch.device) -> Tensor:
    form = torch.channels_last if switches.channels_last else torch.contiguous_format
    return images.to(device).contiguous(memory_format=form)


def _tokens(tokenizer: WordPiece, texts: Sequence[str], known: dict[str, list[int]]) -> tuple[Tensor, Tensor]:
    for text in texts:
        if text not in known:
            known[text] = tokenizer.encode(text, 128)
    longest = max(len(known[text]) for text in texts)
    ids = torch.tensor([known[text] + [0] * (longest - len(known[text])) for text in texts])
    mask = torch.tensor([[1] * len(known[text]) + [0] * (longest - len(known[text])) for text in texts])
    return ids, mask


def _targets(rows: int) -> Tensor:
    return (torch.arange(rows) % 2)[:, None]


def our_step(case: Case, rows: Rows, device: torch.device, precision: str = "bfloat16", **image: Any) -> Step:
    """One step of the project's own training: its items, batches, arithmetic and optimiser, images decoded before."""
    folder = Path(tempfile.mkdtemp(dir=rows.files[0][0].parent))
    process = Process(0, 1, True, device)
    if case.task == "pretrain":
        return _our_pretraining(case, rows, process, folder, precision)
    return _our_finetuning(case, rows, process, folder, precision, **image)


def _our_pretraining(case: Case, rows: Rows, process: Process, folder: Path, precision: str) -> Step:
    recipe = pretraining_recipe(case, precision)
    pictures = [ImageFile(path, Laterality.LEFT) for pair in rows.files for path in pair]
    decoded = decode(pictures, (case.height, case.width), folder)
    said = [Reported(report_of(texts, ())) for texts in rows.texts]
    numbered = tuple(Numbered(f"row {n}", ((2 * n,), (2 * n + 1,)), text) for n, text in enumerate(said))
    breasts = Breasts(numbered[: case.rows], decoded)
    data = PretrainingData(breasts, breasts, {}, [])
    training = Pretraining(PretrainingRun(recipe, data, folder, VOCABULARY, {}, process))
    training.learner.towers.train()
    loader = training._loader(ValidationItems(breasts, training.sampling), [list(range(case.rows))])
    return lambda: _losses(training.progress, lambda: training._step(list(loader)))


def _our_finetuning(case: Case, rows: Rows, process: Process, folder: Path, precision: str, **image: Any) -> Step:
    recipe = finetuning_recipe(case, precision)
    recipe = replace(recipe, image=replace(recipe.image, **image))
    pictures = [ImageFile(pair[0], Laterality.LEFT) for pair in rows.files[: case.rows]]
    decoded = decode(pictures, (case.height, case.width), folder)
    images = [
        LabelledImage(p, f"row {n}", str(n), str(n), Laterality.LEFT, ViewPosition.CC, {})
        for n, p in enumerate(pictures)
    ]
    training = TargetImages(decoded.planes, tuple(range(case.rows)), tuple(images), _targets(case.rows))
    tuning = FineTuning(Run(recipe, training, training, folder, {}, process))
    tuning.model.set_mode(recipe)
    loader = tuning._loader(PlainItems(training, recipe.input), [list(range(case.rows))])
    return lambda: _losses(tuning.books.progress, lambda: tuning._step(list(loader)))


def _losses(progress: Any, step: Callable[[], None]) -> float:
    before = progress.loss_sum
    step()
    return float(progress.loss_sum - before)


def pretraining_recipe(case: Case, precision: str) -> PretrainingRecipe:
    """The small recipe at the case's size, nothing drawn and nothing dropped."""
    recipe = load_pretraining_recipe(RECIPES / "mammo-clip-small.toml")
    channels = 1 if case.encoder.startswith("lite") else 3
    image = replace(
        recipe.image, encoder=case.encoder, channels=channels, padding="static", weights="random", dropout=0.0
    )
    return replace(
        recipe,
        image=image,
        text=replace(recipe.text, dropout=0.0),
        data=replace(recipe.data, height=case.height, width=case.width),
        augmentation=none(),
        optimisation=replace(recipe.optimisation, batch=case.rows, cached_chunk=0, precision=precision, decay="all"),
        keeping=replace(recipe.keeping, log_steps=1 << 30, checkpoint_minutes=0),
    )


def finetuning_recipe(case: Case, precision: str) -> FinetuningRecipe:
    """The corrected recipe at the case's size, one target, nothing drawn and nothing dropped."""
    recipe = load_finetuning_recipe(RECIPES / "finetune-corrected.toml")
    channels = 1 if case.encoder.startswith("lite") else 3
    return replace(
        recipe,
        positive_weight="none",
        image=replace(recipe.image, encoder=case.encoder, channels=channels, weights="random", dropout=0.0),
        data=replace(recipe.data, height=case.height, width=case.width, targets=("Mass",)),
        augmentation=none(),
        optimisation=replace(recipe.optimisation, batch=case.rows, accumulate=1, precision=precision, decay="all"),
    )
