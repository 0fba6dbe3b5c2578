"""One item of pretraining: two views of one breast and two texts, drawn as published (section 3 of arXiv 2405.12255).

Every draw follows from (seed, epoch, row) alone: no worker, no rank and no restart changes an item.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.mammography.wordpiece import PAD, WordPiece
from training.data import change_brightness
from training.mammo_clip import texts
from training.mammo_clip.augmentation import Augmentation, augment
from training.mammo_clip.breasts import Breasts, Numbered
from training.mammo_clip.phrases import drawn_phrases, negated_phrases, phrases, truth_of
from training.mammo_clip.seen import SeenViews
from training.maps import normalise

MEAN, STANDARD_DEVIATION = 0.3089279, 0.25053555408335154
FLIPPED_TEXTS = ("swap", "published")
CONSTANT_IMAGES = ("zeros", "published")
NORMALISATIONS = ("image", "fixed")
_KNOWN_TEXTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Sampling:
    """How items are drawn.

    Where the augmentation flips left to right, `flipped_texts` is "swap": both images of an item are flipped together
    and the texts' sides change places; or "published": each image by itself, the texts unchanged.
    `constant_images`: "zeros", or "published": NaN. `normalisation`: "image", least and greatest value of each image,
    as published, or "fixed", one line for all.
    """

    augmentation: Augmentation
    flipped_texts: str = "swap"
    shuffle_sentences: bool = True
    constant_images: str = "zeros"
    seed: int = 0
    normalisation: str = "image"
    crop: int = 0
    """Training sees a random square of so many pixels a side, validation the middle one; 0: the whole image."""
    phrases: int = 0
    """Phrases that a batch's images are compared with, see `phrases.py`."""
    sentences: tuple[str, ...] = ()
    """Reports without images, for the text tower."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """`images` float32 (2, 1, H, W), normalised; `texts` of the first and the second view; `constant`: a picture of
    the two has one value throughout.
    """

    images: Tensor
    texts: tuple[str, str]
    row: str
    constant: bool
    truth: NDArray[np.int8] | None = None
    """(2, P) of every phrase: 1 shown, 0 not, -1 not known; None where it is known of none."""
    sentences: tuple[str, str] | None = None
    """A report without images, twice, its sentences in two orders."""
    number: int = 0
    """Drawn: decides the batch's phrases."""


def draw_item(breasts: Breasts, index: int, settings: Sampling, epoch: int) -> Item:
    """The item of one row in one epoch of training."""
    chance = random.Random(f"{settings.seed} {epoch} {index}")
    row = breasts.rows[index]
    views, pictures = _drawn_pictures(row, chance)
    said = row.said.draw(views, chance, shuffle=settings.shuffle_sentences)
    together = settings.augmentation.horizontal_flip and settings.flipped_texts == "swap"
    flips = together and chance.random() < settings.augmentation.probability
    own = replace(settings.augmentation, horizontal_flip=False) if together else settings.augmentation
    images = [_image(breasts, picture, settings) for picture in pictures]
    made = [_changed(image.flip(2) if flips else image, own, settings, chance) for image in images]
    constant = any(map(_is_constant, images))
    item = _item(made, texts.flipped(said) if flips else said, row.row, constant, settings)
    pair = texts.reordered(chance.choice(settings.sentences), chance) if settings.sentences else None
    return replace(item, truth=_truth(row, views, settings), sentences=pair, number=chance.getrandbits(32))


def _changed(image: Tensor, own: Augmentation, settings: Sampling, chance: random.Random) -> Tensor:
    generator = torch.Generator().manual_seed(chance.getrandbits(63))
    made = augment(image, own, generator).image
    if own.tone and chance.random() < own.tone:
        made = change_brightness(made, np.random.default_rng(chance.getrandbits(32)))
    if settings.crop:
        top, left = (chance.randint(0, max(0, side - settings.crop)) for side in made.shape[1:])
        made = made[:, top : top + settings.crop, left : left + settings.crop]
    return made


def _truth(row: Numbered, views: tuple[int, int], settings: Sampling) -> NDArray[np.int8] | None:
    """Of every phrase for both views, where the findings are known one by one; a report's words are not judged."""
    said = row.said
    if not settings.phrases or not isinstance(said, SeenViews):
        return None
    return np.stack([truth_of(said.views[view], said.known, placed=said.placed) for view in views])


def first_item(breasts: Breasts, index: int, settings: Sampling) -> Item:
    """The item of one row in validation: the first files of the first two views, nothing drawn, nothing changed."""
    row = breasts.rows[index]
    views, pictures = _first_pictures(row)
    images = [_image(breasts, picture, settings) for picture in pictures]
    constant = any(map(_is_constant, images))
    if settings.crop:
        images = [_middle(image, settings.crop) for image in images]
    item = _item(images, row.said.first(views), row.row, constant, settings)
    return replace(item, truth=_truth(row, views, settings))


def _middle(image: Tensor, size: int) -> Tensor:
    top, left = (max(0, side - size) // 2 for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def _drawn_pictures(row: Numbered, chance: random.Random) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two views without replacement in any order, a file of each; of one view two files, or its only one twice."""
    if len(row.views) > 1:
        first, second = chance.sample(range(len(row.views)), 2)
        return (first, second), (chance.choice(row.views[first]), chance.choice(row.views[second]))
    (files,) = row.views
    one, other = chance.sample(files, 2) if len(files) > 1 else (files[0], files[0])
    return (0, 0), (one, other)


def _first_pictures(row: Numbered) -> tuple[tuple[int, int], tuple[int, int]]:
    if len(row.views) > 1:
        return (0, 1), (row.views[0][0], row.views[1][0])
    (files,) = row.views
    return (0, 0), (files[0], files[min(1, len(files) - 1)])


def _image(breasts: Breasts, number: int, settings: Sampling) -> Tensor:
    """Float32 (1, H, W) in [0, 1]. One of a single value is 0 where it is to be: augmented it then has no frame."""
    image = torch.tensor(breasts.plane(number), dtype=torch.float32)[None] / 255.0
    is_zeros = settings.constant_images == "zeros" and _is_constant(image)
    return torch.zeros_like(image) if is_zeros else image


def _is_constant(image: Tensor) -> bool:
    return bool(image.min() == image.max())


def _item(images: Sequence[Tensor], said: tuple[str, str], row: str, constant: bool, settings: Sampling) -> Item:
    if settings.normalisation == "fixed":
        made = [normalise(image) for image in images]
    else:
        made = [normalised(image, guarded=settings.constant_images == "zeros") for image in images]
    return Item(torch.stack(made), said, row, constant)


def normalised(image: Tensor, *, guarded: bool = True) -> Tensor:
    """Least value to 0, greatest to 1, then less the published mean over the published standard deviation.

    An image of one value is 0 before the second step; unguarded it becomes NaN, as in the published code.
    """
    shifted = image - image.min()
    greatest = shifted.max()
    spread = greatest.clamp(min=1e-6) if guarded else greatest
    return (shifted / spread - MEAN) / STANDARD_DEVIATION


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Texts beside the items' own: `token_ids` and `mask` int64 (K, T). Of phrases `truth` int8 (B, 2, K), -1 where it
    is not known; of sentences without images, in pairs one after the other, `truth` is empty.
    """

    token_ids: Tensor
    mask: Tensor
    truth: Tensor

    def to(self, device: torch.device) -> "Said":
        """The same on a device."""
        return Said(*(part.to(device, non_blocking=True) for part in (self.token_ids, self.mask, self.truth)))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`images` float32 (B, 2, 1, H, W); `token_ids` and `mask` int64 (B, 2, T); `text_keys` int64 (B, 2) are equal
    where texts are; `rows` name the items; `constant` are the rows with an image of one value.
    """

    images: Tensor
    token_ids: Tensor
    mask: Tensor
    text_keys: Tensor
    rows: tuple[str, ...]
    constant: tuple[str, ...]
    phrases: Said | None = None
    sentences: Said | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The same on a device, the images in another type."""
        images = self.images.to(device, dtype, non_blocking=True)
        ids, mask, keys = (part.to(device, non_blocking=True) for part in (self.token_ids, self.mask, self.text_keys))
        phrases, sentences = (said and said.to(device) for said in (self.phrases, self.sentences))
        return replace(
            self, images=images, token_ids=ids, mask=mask, text_keys=keys, phrases=phrases, sentences=sentences
        )

    def pinned(self) -> "Batch":
        """The same in memory from which a GPU copies by itself."""
        images, ids, mask = (part.pin_memory() for part in (self.images, self.token_ids, self.mask))
        return replace(self, images=images, token_ids=ids, mask=mask)


class Collate:
    """Joins items to a batch. Token ids of texts met before are kept."""

    def __init__(self, tokenizer: WordPiece, max_length: int, phrases: int = 0) -> None:
        self.tokenizer, self.max_length, self.phrases = tokenizer, max_length, phrases
        self.known: dict[str, list[int]] = {}

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Texts are filled up with [PAD] to the longest of the batch."""
        token_ids, mask = self._tokens([text for item in items for text in item.texts])
        pairs = [text for item in items if item.sentences for text in item.sentences]
        return Batch(
            torch.stack([item.images for item in items]),
            token_ids.view(len(items), 2, -1),
            mask.view(len(items), 2, -1),
            torch.tensor([[_key(text) for text in item.texts] for item in items]),
            tuple(item.row for item in items),
            tuple(item.row for item in items if item.constant),
            self._phrases(items) if self.phrases else None,
            Said(*self._tokens(pairs), torch.empty(0, dtype=torch.int8)) if pairs else None,
        )

    def _phrases(self, items: Sequence[Item]) -> Said:
        """The findings' own phrases, their negations, and others drawn, each in one of its wordings."""
        chance = random.Random(sum(item.number for item in items))
        numbers = drawn_phrases(self.phrases, chance)
        known = (*phrases(), *negated_phrases())
        unknown = np.full((2, len(known)), -1, np.int8)
        truth = np.stack([unknown if item.truth is None else item.truth for item in items])
        token_ids, mask = self._tokens([chance.choice(known[number].wordings) for number in numbers])
        return Said(token_ids, mask, torch.from_numpy(truth[:, :, numbers]))

    def _tokens(self, said: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = [self._encode(text) for text in said]
        token_ids = torch.full((len(encoded), max(map(len, encoded))), self.tokenizer.ids[PAD])
        mask = torch.zeros_like(token_ids)
        for row, ids in enumerate(encoded):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        return token_ids, mask

    def _encode(self, text: str) -> list[int]:
        if text not in self.known:
            if len(self.known) >= _KNOWN_TEXTS:
                self.known.clear()
            self.known[text] = self.tokenizer.encode(text, self.max_length)
        return self.known[text]


def _key(text: str) -> int:
    """A number for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class TrainingItems(torch.utils.data.Dataset[Item]):
    """The items of one epoch."""

    def __init__(self, breasts: Breasts, settings: Sampling, epoch: int) -> None:
        self.breasts, self.settings, self.epoch = breasts, settings, epoch

    def __len__(self) -> int:
        return len(self.breasts)

    def __getitem__(self, index: int) -> Item:
        return draw_item(self.breasts, index, self.settings, self.epoch)


class ValidationItems(torch.utils.data.Dataset[Item]):
    """The items of validation."""

    def __init__(self, breasts: Breasts, settings: Sampling) -> None:
        self.breasts, self.settings = breasts, settings

    def __len__(self) -> int:
        return len(self.breasts)

    def __getitem__(self, index: int) -> Item:
        return first_item(self.breasts, index, self.settings)


def batches_of(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """One epoch's batches: a permutation of the rows cut to whole batches; what is left over waits for another."""
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
