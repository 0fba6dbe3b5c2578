"""Breasts of VinDr-Mammo's table: images with labels, of which sentences are made (published: "image-label" rows).

Labels tell the finding and the side, a box where it lies (box_places.py). The subtype is not known, nor the place of a
finding without a box, so no sentence asserts them; the published code draws them by chance.
"""

from collections import defaultdict
from collections.abc import Sequence

from node.mammography.views import Laterality, ViewPosition
from training.mammo_clip.box_places import box_locations
from training.mammo_clip.breasts import Breast
from training.mammo_clip.grammar import ATTRIBUTES, Location
from training.mammo_clip.images import ImageFile
from training.mammo_clip.readers import ImageRow, unique_images
from training.mammo_clip.seen import Seen, SeenViews
from training.mammo_clip.tables import Table

_CLAIMS_NOTHING = frozenset({"", "suspicious", "possible", "questioned", "questionable", "indeterminate"})
TRAINING_SPLIT = "training"


def label_breasts(table: Table[ImageRow]) -> list[Breast]:
    """One row a breast from the table's training split; its test split is never pretrained on.

    A view's findings are those of all of its images.
    """
    groups: dict[tuple[str, Laterality], list[ImageRow]] = defaultdict(list)
    for row in unique_images(table).rows:
        if row.split == TRAINING_SPLIT and row.laterality is not None:
            groups[row.patient, row.laterality].append(row)
    lines = {row.image: line for row, line in zip(reversed(table.rows), reversed(table.lines), strict=False)}
    return [_breast(f"line {lines.get(rows[0].image, 0)}", side, rows) for (_, side), rows in groups.items()]


def _breast(name: str, side: Laterality, rows: Sequence[ImageRow]) -> Breast:
    by_view: dict[ViewPosition | None, list[ImageRow]] = defaultdict(list)
    for row in rows:
        by_view[row.position].append(row)
    views = tuple(tuple(ImageFile(row.image, side) for row in files) for files in by_view.values())
    seen = tuple(_seen(files, side) for files in by_view.values())
    return Breast(name, rows[0].patient, views, SeenViews(seen, tuple(ATTRIBUTES), side), rows[0].fold)


def _seen(files: Sequence[ImageRow], side: Laterality) -> tuple[Seen, ...]:
    """A sentence for each box, and for each finding without one."""
    boxes = [one for row in files for one in box_locations(row)]
    present = [name for name in ATTRIBUTES if any(row.label(name) for row in files)]
    found = []
    for name in present:
        places = [place for boxed, place in boxes if boxed == name] or [Location(side=side)]
        found += [Seen(name, _subtypes(name), place) for place in dict.fromkeys(places)]
    return tuple(found)


def _subtypes(name: str) -> tuple[str, ...]:
    return tuple(kind for kind in ATTRIBUTES[name].subtypes if kind in _CLAIMS_NOTHING)
