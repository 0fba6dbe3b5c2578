"""One item of pretraining: two views of one breast and two texts, drawn as published (section 3 of arXiv 2405.12255).

Every draw follows from (seed, epoch, row) alone: no worker, no rank and no restart changes an item.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from node.mammography.wordpiece import PAD, WordPiece
from training.mammo_clip import texts
from training.mammo_clip.augmentation import Augmentation, augment
from training.mammo_clip.breasts import Breasts, Numbered

MEAN, STANDARD_DEVIATION = 0.3089279, 0.25053555408335154
FLIPPED_TEXTS = ("swap", "published")
CONSTANT_IMAGES = ("zeros", "published")
_KNOWN_TEXTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Sampling:
    """How items are drawn.

    Where the augmentation flips left to right, `flipped_texts` is "swap": both images of an item are flipped together
    and the texts' sides change places; or "published": each image by itself, the texts unchanged.
    `constant_images`: "zeros", or "published": NaN.
    """

    augmentation: Augmentation
    flipped_texts: str = "swap"
    shuffle_sentences: bool = True
    constant_images: str = "zeros"
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """`images` float32 (2, 1, H, W), normalised; `texts` of the first and the second view; `constant`: a picture of
    the two has one value throughout.
    """

    images: Tensor
    texts: tuple[str, str]
    row: str
    constant: bool


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
    made = []
    for image in images:
        generator = torch.Generator().manual_seed(chance.getrandbits(63))
        made.append(augment(image.flip(2) if flips else image, own, generator).image)
    constant = any(map(_is_constant, images))
    return _item(made, texts.flipped(said) if flips else said, row.row, constant, settings)


def first_item(breasts: Breasts, index: int, settings: Sampling) -> Item:
    """The item of one row in validation: the first files of the first two views, nothing drawn, nothing changed."""
    row = breasts.rows[index]
    views, pictures = _first_pictures(row)
    images = [_image(breasts, picture, settings) for picture in pictures]
    return _item(images, row.said.first(views), row.row, any(map(_is_constant, images)), settings)


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

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The same on a device, the images in another type."""
        images = self.images.to(device, dtype, non_blocking=True)
        ids, mask, keys = (part.to(device, non_blocking=True) for part in (self.token_ids, self.mask, self.text_keys))
        return replace(self, images=images, token_ids=ids, mask=mask, text_keys=keys)

    def pinned(self) -> "Batch":
        """The same in memory from which a GPU copies by itself."""
        images, ids, mask = (part.pin_memory() for part in (self.images, self.token_ids, self.mask))
        return replace(self, images=images, token_ids=ids, mask=mask)


class Collate:
    """Joins items to a batch. Token ids of texts met before are kept."""

    def __init__(self, tokenizer: WordPiece, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.known: dict[str, list[int]] = {}

    def __call__(self, items: Sequence[Item]) -> Batch:
        """Texts are filled up with [PAD] to the longest of the batch."""
        encoded = [self._encode(text) for item in items for text in item.texts]
        token_ids = torch.full((len(encoded), max(map(len, encoded))), self.tokenizer.ids[PAD])
        mask = torch.zeros_like(token_ids)
        for row, ids in enumerate(encoded):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        return Batch(
            torch.stack([item.images for item in items]),
            token_ids.view(len(items), 2, -1),
            mask.view(len(items), 2, -1),
            torch.tensor([[_key(text) for text in item.texts] for item in items]),
            tuple(item.row for item in items),
            tuple(item.row for item in items if item.constant),
        )

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
