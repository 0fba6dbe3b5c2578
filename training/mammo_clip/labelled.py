"""Labelled images of every set as one structure: what probes, fine-tuning, detection and evaluation read.

A source is named on the command line: `vindr=TABLE,IMAGES`, `rsna=TABLE,IMAGES`, `embed=METADATA,CLINICAL,IMAGES`,
`cbis=FOLDER`, `mini-mias=FOLDER`, `phantoms=CACHE`. Validation is a split of its own, cut by patient out of what is not
tested on; the published code selected on the fold that it reported.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from training.mammo_clip.breasts import DataError
from training.mammo_clip.labelled_images import SPLITS, Labelled, LabelledImage, Reading
from training.mammo_clip.labelled_sources import READERS

__all__ = ["SPLITS", "Labelled", "LabelledImage", "Reading", "check_splits", "load_labelled", "parse_labelled"]

_PARTS = {
    "vindr": ("TABLE.csv", "IMAGES"),
    "rsna": ("TABLE.csv", "IMAGES"),
    "embed": ("METADATA.csv", "CLINICAL.csv", "IMAGES"),
    "cbis": ("FOLDER",),
    "mini-mias": ("FOLDER",),
    "phantoms": ("CACHE",),
}


def load_labelled(source: str, reading: Reading | None = None, *, strict: bool = False) -> Labelled:
    """Read one source. Raises TableError for a table that cannot be used and, with `strict`, for a single bad row;
    DataError for a source that is not known, a patient in two splits, or when no row is left.
    """
    reading = reading or Reading(strict=strict)
    kind, paths = parse_labelled(source)
    found = READERS[kind](paths, reading)
    if reading.strict and found.problems:
        raise DataError(f"{found.problems[0]}. Mend it, or leave --strict out to go on without it")
    check_splits(found.images)
    kept = tuple(image for image in found.images if image.split in reading.splits)
    if not kept:
        first = f"; the first problem: {found.problems[0]}" if found.problems else ""
        raise DataError(f"{source}: no image is left in {', '.join(reading.splits)}{first}")
    return Labelled(kind, reading.unit, kept, found.problems, found.contradictory)


def parse_labelled(source: str) -> tuple[str, list[Path]]:
    """The source's kind and its paths. Raises DataError that says how sources are written."""
    kind, _, rest = source.partition("=")
    parts = rest.split(",") if rest else []
    if kind not in _PARTS or len(parts) != len(_PARTS[kind]) or not all(parts):
        forms = ", ".join(f"{name}={','.join(words)}" for name, words in _PARTS.items())
        raise DataError(f"--data {source!r}: write one of {forms}")
    return kind, [Path(part) for part in parts]


def check_splits(images: Iterable[LabelledImage]) -> None:
    """Raises DataError where a patient stands in two splits."""
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for image in images:
        splits[image.patient].setdefault(image.split, image.row)
    shared = [found for found in splits.values() if len(found) > 1]
    if shared:
        places = ", ".join(f"{row} in {split}" for split, row in shared[0].items())
        raise DataError(f"{len(shared)} patients stand in two splits, the first: {places}. Give a patient one split")
