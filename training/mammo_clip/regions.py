"""Tiles with sentences: square parts of phantom views around a lesion, around what only looks like one, and elsewhere;
and CBIS-DDSM's lesion crops with sentences of their descriptors.

The place of a lesion decides where a tile is cut; no mask is used. A tile shows no place, so its sentences name none.
"""

import csv
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from node.mammography.findings import FINDING_KINDS
from node.mammography.views import BREASTS, STANDARD_VIEWS, View
from training.cache import NO_FINDING, CachedExam, TruthBox, load_exam
from training.crops import EXCLUDED_PATIENTS, split_of
from training.mammo_clip.breasts import Breast, DataError
from training.mammo_clip.grammar import Location
from training.mammo_clip.images import ImageFile, PhantomTile
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES, SUBTYPES, described, rendered
from training.mammo_clip.readers import crop_name
from training.mammo_clip.seen import Seen, SeenViews
from training.phantoms import make_exam
from training.phantoms.lesions import Lesion

TILE_PX = 256
"""Side of a tile as it is cut; training takes a smaller random part of it."""
SHOWN_PX = 80
"""A lesion whose centre lies within so many pixels of a tile's middle, in both directions, is shown by it."""
_CLEAR_PX = 150
"""A tile without lesions keeps so far from all of them, in one direction at least."""
_TRIES = 20
_FINDINGS = tuple(GRAMMAR_NAMES.values())


def phantom_regions(cache: Path, first: int, count: int, *, render: bool = True) -> list[Breast]:
    """Tiles of the exams first, first + 1, ...; exams that the cache lacks are rendered first, see `rendered`.

    A row for each lesion, with a tile of it in each view that shows it, and as many rows without a lesion, at least one
    a breast that has one and one an exam: every second of them on a look-alike where there is one.
    """
    return [row for path in rendered(cache, first, count, render) for row in _rows(path)]


def _rows(path: Path) -> list[Breast]:
    cached = load_exam(path)
    exam = make_exam(cached.seed)
    chance, found = random.Random(cached.seed), []
    for side in BREASTS:
        views = [number for number, view in enumerate(STANDARD_VIEWS) if view.laterality is side]
        lesions = [lesion for lesion in exam.lesions if lesion.laterality is side]
        boxes = {view: _lesion_boxes(cached, view, lesions) for view in views}
        for number, _ in enumerate(lesions):
            tiles = [(view, _middle(boxes[view][number])) for view in views if number in boxes[view]]
            if tiles:
                found.append(_row(path, cached.seed, f"{side.value} {number}", tiles, lesions, boxes))
        for number in range(max(len(lesions), int(chance.random() < 0.5))):
            tiles = _empty_tiles(cached, views, chance, on_lookalike=chance.random() < 0.6)
            if tiles:
                found.append(_row(path, cached.seed, f"{side.value} empty {number}", tiles, lesions, boxes))
    return found


def _lesion_boxes(cached: CachedExam, view: int, lesions: Sequence[Lesion]) -> dict[int, TruthBox]:
    """The box of each lesion of a breast in one view, by its number: boxes of a kind stand in the lesions' order."""
    boxes, found = [box for box in cached.boxes if box.view == view and box.kind != NO_FINDING], {}
    for number, lesion in enumerate(lesions):
        kind = FINDING_KINDS.index(lesion.finding)
        for box in boxes:
            if (box.kind, box.malignant) == (kind, lesion.malignant):
                found[number] = box
                boxes.remove(box)
                break
    return found


def _middle(box: TruthBox) -> tuple[int, int]:
    return (box.left + box.right) // 2, (box.top + box.bottom) // 2


def _empty_tiles(
    cached: CachedExam, views: Sequence[int], chance: random.Random, *, on_lookalike: bool
) -> list[tuple[int, tuple[int, int]]]:
    """A tile of each view, away from every lesion: on what only looks like one, or anywhere in the breast."""
    found = []
    for view in views:
        wanted = [_middle(box) for box in cached.boxes if box.view == view and box.kind == NO_FINDING]
        if not wanted or not on_lookalike:
            wanted = _inside(cached, view, chance)
        lesions = [_middle(box) for box in cached.boxes if box.view == view and box.kind != NO_FINDING]
        clear = [(x, y) for x, y in wanted if all(max(abs(x - a), abs(y - b)) > _CLEAR_PX for a, b in lesions)]
        if clear:
            found.append((view, chance.choice(clear)))
    return found


def _inside(cached: CachedExam, view: int, chance: random.Random) -> list[tuple[int, int]]:
    plane = cached.images[view]
    points = [(chance.randrange(plane.shape[1]), chance.randrange(plane.shape[0])) for _ in range(_TRIES)]
    return [(x, y) for x, y in points if plane[y, x] > 20]


def _row(
    path: Path,
    seed: int,
    name: str,
    tiles: Sequence[tuple[int, tuple[int, int]]],
    lesions: Sequence[Lesion],
    boxes: dict[int, dict[int, TruthBox]],
) -> Breast:
    pictures = tuple((PhantomTile(path, view, x, y, TILE_PX),) for view, (x, y) in tiles)
    seen = tuple(_shown(lesions, boxes[view], middle, STANDARD_VIEWS[view]) for view, middle in tiles)
    said = SeenViews(seen, _FINDINGS, report_chance=0.3, placed=False)
    return Breast(f"phantom {seed} {name}", str(seed), pictures, said)


def _shown(
    lesions: Sequence[Lesion], boxes: dict[int, TruthBox], middle: tuple[int, int], view: View
) -> tuple[Seen, ...]:
    found = []
    for number, box in boxes.items():
        x, y = _middle(box)
        if max(abs(x - middle[0]), abs(y - middle[1])) <= SHOWN_PX:
            lesion = lesions[number]
            words = described(lesion)
            found.append(Seen(GRAMMAR_NAMES[lesion.finding], SUBTYPES[lesion.subtype], Location(), words, words))
    return tuple(found)


_TABLES = {"mass": "mass_case_description_train_set.csv", "calc": "calc_case_description_train_set.csv"}


def crop_regions(folder: Path, split: str) -> list[Breast]:
    """CBIS-DDSM's crops of one split: a row for each abnormality, its views, sentences of its descriptors.

    One split by patient over both kinds (see `training.crops`). Raises DataError where a table is missing.
    """
    groups: dict[str, list[tuple[Path, dict[str, str]]]] = {}
    for kind in _TABLES:
        for path, record in _described_crops(folder, kind):
            patient = record["patient_id"]
            if patient not in EXCLUDED_PATIENTS and split_of(patient) == split:
                name = f"{kind} {patient} {record['left or right breast']} {record['abnormality id']}"
                groups.setdefault(name, []).append((path, record))
    return [_crop_row(name, members) for name, members in groups.items()]


@lru_cache(4)
def _described_crops(folder: Path, kind: str) -> tuple[tuple[Path, dict[str, str]], ...]:
    table = folder / _TABLES[kind]
    try:
        records = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines(keepends=True)))
    except OSError as error:
        raise DataError(f"{table}: cannot be read: {error}. It comes with the crops") from error
    files = {crop_name(path): path for path in sorted(folder.glob(f"{kind}_train/*/*.jpg"))}
    found = []
    for record in records:
        name = "_".join(record[column] for column in ("patient_id", "left or right breast", "image view"))
        path = files.get(f"{name}_{record['abnormality id']}")
        if path is not None:
            found.append((path, record))
    return tuple(found)


def _crop_row(name: str, members: Sequence[tuple[Path, dict[str, str]]]) -> Breast:
    sides = {side.name: side for side in BREASTS}
    pictures = tuple((ImageFile(path, sides[record["left or right breast"].upper()]),) for path, record in members)
    seen = tuple((_described(record),) for _, record in members)
    said = SeenViews(seen, ("Mass", "Suspicious_Calcification"), report_chance=0.5, placed=False)
    return Breast(f"crop {name}", members[0][1]["patient_id"], pictures, said)


_GRAMMAR_MASS = ("irregular", "spiculated")
_GRAMMAR_CALCIFICATION = ("grouped", "clustered", "segmental", "linear", "pleomorphic")


def _described(record: dict[str, str]) -> Seen:
    """A crop's finding in words; only what its descriptors say may be said of it."""
    if record["abnormality type"] == "mass":
        shape, margins = (_words(record[column]) for column in ("mass shape", "mass margins"))
        words = " ".join(dict.fromkeys(f"{shape} mass with {margins} margins".split()))
        subtypes = ("", *(kind for kind in _GRAMMAR_MASS if kind in words.split()))
        return Seen("Mass", subtypes, Location(), words, words)
    kind, distribution = _words(record["calc type"]), _words(record["calc distribution"])
    spread = "grouped" if distribution == "clustered" else distribution
    words = " ".join(dict.fromkeys(f"{spread} {kind} calcifications".split()))
    how = [
        word for word in _GRAMMAR_CALCIFICATION if word in f"{words} {distribution}".split() and word != "pleomorphic"
    ]
    subtypes = tuple(f"suspicious {word}" for word in how) or ("suspicious",)
    return Seen("Suspicious_Calcification", subtypes, Location(), words, words)


def _words(value: str) -> str:
    return value.lower().replace("-", " ").replace("_", " ").replace("n/a", "").strip()
