"""The data of one run of pretraining: sources named on the command line, split, decoded, counted."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.mammo_clip.breasts import (
    Breast,
    Breasts,
    DataError,
    numbered,
    pictures_of,
    reported_breasts,
    split_by_fold,
)
from training.mammo_clip.images import decode
from training.mammo_clip.label_breasts import label_breasts
from training.mammo_clip.phantom_breasts import phantom_breasts
from training.mammo_clip.pretraining_recipe import PretrainingRecipe
from training.mammo_clip.readers import read_cesm_texts, read_image_text, read_vindr
from training.mammo_clip.regions import crop_regions, phantom_regions
from training.mammo_clip.texts import clean_section
from training.phantoms import GENERATOR_VERSION, TRAIN_SEED, VALIDATION_SEED

SOURCES = ("image-text", "vindr", "phantoms", "tiles", "cbis-crops", "cesm-texts")
_TABLES_WITH_IMAGES = ("image-text", "vindr")


@dataclass(frozen=True, slots=True)
class Source:
    """One of SOURCES: `path` the table or folder, `images` the folder of a table's images."""

    kind: str
    path: Path
    images: Path | None = None


def parse_source(words: str) -> Source:
    """ "image-text=TABLE,IMAGES", "vindr=TABLE,IMAGES", "phantoms=CACHE", "tiles=CACHE" (parts of phantom views),
    "cbis-crops=FOLDER", "cesm-texts=TABLE". Raises DataError.
    """
    kind, equals, rest = words.partition("=")
    if not equals or kind not in SOURCES:
        raise DataError(
            f"--data {words!r}: write image-text=TABLE.csv,IMAGES, vindr=TABLE.csv,IMAGES, phantoms=CACHE, "
            "tiles=CACHE, cbis-crops=FOLDER or cesm-texts=TABLE.csv"
        )
    if kind not in _TABLES_WITH_IMAGES:
        return Source(kind, Path(rest))
    table, comma, images = rest.rpartition(",")
    if not comma:
        raise DataError(f"--data {words!r}: the folder of the images is missing: {kind}=TABLE,IMAGES")
    return Source(kind, Path(table), Path(images))


@dataclass(frozen=True, slots=True, eq=False)
class PretrainingData:
    """Rows that train and rows that validate; `facts` of them for the run's record; `problems`: what was left out.

    `sentences` are reports without images.
    """

    training: Breasts
    validation: Breasts
    facts: dict[str, Any]
    problems: list[str]
    sentences: tuple[str, ...] = ()


def load_data(
    recipe: PretrainingRecipe,
    sources: list[Source],
    cache: Path,
    *,
    strict: bool = False,
    threads: int = 1,
    first: bool = True,
) -> PretrainingData:
    """Read the sources, split them, decode their images in `cache`. Of a machine's processes one is the `first`.

    Raises TableError, DataError; with `strict` also for a single bad row.
    """
    training: list[Breast] = []
    validation: list[Breast] = []
    problems: list[str] = []
    sentences: list[str] = []
    for source in sources:
        if source.kind == "cesm-texts":
            table = read_cesm_texts(source.path, strict=strict)
            problems += map(str, table.problems)
            sentences += [" . ".join(clean_section(words, keep_short=True)) for _, _, words in table.rows]
            continue
        if source.kind in _TABLES_WITH_IMAGES:
            read = _image_text if source.kind == "image-text" else _vindr
            trains, validates, bad = read(recipe, source, strict)
            problems += bad
        elif source.kind == "cbis-crops":
            trains, validates = crop_regions(source.path, "train"), crop_regions(source.path, "validation")
        else:
            trains, validates = _phantoms(recipe, source, first)
        training += trains
        validation += validates
    pictures = pictures_of([*training, *validation])
    size = (recipe.data.height, recipe.data.width)
    decoded = decode(pictures, size, cache, threads=threads, first=first)
    problems += decoded.problems.values()
    if strict and problems:
        raise DataError(f"{problems[0]}. Mend it, or leave --strict out to go on without it")
    made = numbered(training, pictures, decoded), numbered(validation, pictures, decoded)
    kept = tuple(sentence for sentence in sentences if sentence)
    facts = _facts(sources, *made) | ({"sentences": len(kept)} if kept else {})
    return PretrainingData(*made, facts, problems, kept)


def _phantoms(recipe: PretrainingRecipe, source: Source, first: bool) -> tuple[list[Breast], list[Breast]]:
    data = recipe.data
    if not data.phantom_exams or not data.phantom_validation_exams:
        raise DataError(f"--data {source.kind}: the recipe has no phantom_exams or no phantom_validation_exams")
    seeds = ((TRAIN_SEED, data.phantom_exams), (VALIDATION_SEED, data.phantom_validation_exams))
    if source.kind == "tiles":
        made = [phantom_regions(source.path, *which, render=first) for which in seeds]
    else:
        made = [phantom_breasts(source.path, *which, data.phantom_report_chance, render=first) for which in seeds]
    return made[0], made[1]


def _image_text(
    recipe: PretrainingRecipe, source: Source, strict: bool
) -> tuple[list[Breast], list[Breast], list[str]]:
    assert source.images is not None
    table = read_image_text(source.path, source.images, strict=strict)
    breasts, problems = reported_breasts(table)
    training, validation = split_by_fold(breasts, recipe.data.validation_fold)
    return training, validation, [*map(str, table.problems), *(f"{source.path}: {words}" for words in problems)]


def _vindr(recipe: PretrainingRecipe, source: Source, strict: bool) -> tuple[list[Breast], list[Breast], list[str]]:
    assert source.images is not None
    table = read_vindr(source.path, source.images, strict=strict)
    training, validation = split_by_fold(label_breasts(table), recipe.data.validation_fold)
    return training, validation, [*map(str, table.problems)]


def _facts(sources: list[Source], training: Breasts, validation: Breasts) -> dict[str, Any]:
    """Counts and a hash of the rows in their order, by which a run that goes on knows its data again."""
    digest = hashlib.sha256()
    for breasts in (training, validation):
        for row in breasts.rows:
            digest.update(f"{row.row} {row.views} {row.said!r}\n".encode())
    generator = (
        {"phantom generator": GENERATOR_VERSION} if any(one.kind in ("phantoms", "tiles") for one in sources) else {}
    )
    return {
        "sources": ", ".join(source.kind for source in sources),
        "training rows": len(training),
        "validation rows": len(validation),
        "hash": digest.hexdigest()[:16],
        **generator,
    }
