"""Each set's rows as labelled images: VinDr-Mammo, RSNA 2022, EMBED, CBIS-DDSM crops, mini-MIAS, phantoms."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from node.mammography.findings import FINDING_KINDS
from node.mammography.pixels import Placement
from node.mammography.views import BREASTS, STANDARD_VIEWS
from training.cache import ExamTruth, TruthBox, cached_seeds, exam_path, load_truth
from training.crops import EXCLUDED_PATIENTS, share_of, split_of
from training.mammo_clip.breasts import DataError
from training.mammo_clip.embed_clinical import Clinical, read_clinical
from training.mammo_clip.images import ImageFile, PhantomView, Picture, WholeImage
from training.mammo_clip.labelled_images import Labelled, LabelledImage, Reading
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES
from training.mammo_clip.readers import (
    DENSITIES,
    Box,
    ImageRow,
    read_cbis,
    read_embed,
    read_mias,
    read_rsna,
    read_vindr,
    unique_images,
)
from training.phantoms import CALIBRATION_SEED, GENERATOR_VERSION, TEST_SEED, TRAIN_SEED, VALIDATION_SEED

_RSNA_SPLITS = {0: "test", 1: "training", 2: "training", 3: "validation"}
"""Fold 0 is reported and folds 1 and 2 train, as published; fold 3, unused there, validates."""
_CBIS_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_CBIS_TABLES = (
    ("mass_case_description_train_set.csv", "mass_train"),
    ("calc_case_description_train_set.csv", "calc_train"),
)
_PHANTOM_SPLITS = {
    "training": TRAIN_SEED,
    "validation": VALIDATION_SEED,
    "calibration": CALIBRATION_SEED,
    "test": TEST_SEED,
}
_SPLIT_SEEDS = 1_000_000
_EMBED_TEST = 0.2


def _vindr(paths: Sequence[Path], reading: Reading) -> Labelled:
    table = read_vindr(*paths, strict=reading.strict)
    good = list(zip(table.rows, table.lines, strict=True))
    if reading.unit == "image":
        lines = {row.image: line for row, line in reversed(good)}
        good = [(row, lines[row.image]) for row in unique_images(table).rows]

    def split(row: ImageRow) -> str:
        validates = row.split == "training" and share_of(row.patient) < reading.validation_share
        return "validation" if validates else row.split

    images = tuple(_from_row(row, f"line {line}", split(row), row.patient) for row, line in good)
    return Labelled("vindr", reading.unit, images, tuple(map(str, table.problems)), _contradictions(table.rows))


def _contradictions(rows: Sequence[ImageRow]) -> dict[str, int]:
    """By label, images of which one row says yes and another no."""
    said: dict[tuple[Path, str], set[float]] = defaultdict(set)
    for row in rows:
        for name, value in row.labels:
            said[row.image, name].add(value)
    return dict(Counter(name for (_, name), values in said.items() if len(values) > 1))


def _from_row(
    row: ImageRow,
    name: str,
    split: str,
    exam: str,
    *,
    picture: Picture | None = None,
    more: Mapping[str, bool | None] | None = None,
) -> LabelledImage:
    """A reader's row. Its "malignant" is the label "cancer", as RSNA calls it."""
    labels: dict[str, bool | None] = {
        {"malignant": "cancer"}.get(label, label): bool(value) for label, value in row.labels
    }
    boxes: dict[str, tuple[Box, ...]] = {}
    for label, box in row.boxes:
        boxes[label] = (*boxes.get(label, ()), box)
    if picture is None:
        assert row.laterality is not None
        picture = ImageFile(row.image, row.laterality)
    density = DENSITIES.index(row.density) if row.density else None
    return LabelledImage(
        picture=picture,
        row=name,
        patient=row.patient,
        exam=exam,
        laterality=row.laterality,
        position=row.position,
        labels={**labels, **(more or {})},
        density=density,
        vendor=row.vendor or None,
        boxes=boxes,
        split=split,
    )


def _rsna(paths: Sequence[Path], reading: Reading) -> Labelled:
    table = read_rsna(*paths, strict=reading.strict)
    images, problems = [], list(map(str, table.problems))
    for row, line in zip(table.rows, table.lines, strict=True):
        if row.fold in _RSNA_SPLITS:
            images.append(_from_row(row, f"line {line}", _RSNA_SPLITS[row.fold], row.patient))
        else:
            problems.append(f"{paths[0]}:{line}: fold is {row.fold}, not 0 to 3")
    return Labelled("rsna", reading.unit, tuple(images), tuple(problems))


def _embed(paths: Sequence[Path], reading: Reading) -> Labelled:
    metadata, clinical_path, files = paths
    table = read_embed(metadata, files, strict=reading.strict)
    clinical, bad = read_clinical(clinical_path, strict=reading.strict)
    images, problems = [], [*map(str, table.problems), *bad]
    for row, line in zip(table.rows, table.lines, strict=True):
        assert row.laterality is not None
        known = clinical.get((row.split, row.laterality))
        if known is None:
            problems.append(f"{metadata}:{line}: {clinical_path.name} has no row of this exam and side")
            continue
        images.append(_embed_image(row, f"line {line}", known, reading))
    return Labelled("embed", reading.unit, tuple(images), tuple(problems))


def _embed_image(row: ImageRow, name: str, known: Clinical, reading: Reading) -> LabelledImage:
    """EMBED publishes no split: a fifth of the patients is tested on."""
    share = share_of(row.patient)
    validates = share < _EMBED_TEST + reading.validation_share
    split = "test" if share < _EMBED_TEST else "validation" if validates else "training"
    picture = WholeImage(row.image, row.laterality, reading.preset)
    made = _from_row(row, name, split, row.split, picture=picture, more=known.labels)
    return replace(made, density=known.density)


def _cbis(paths: Sequence[Path], reading: Reading) -> Labelled:
    (folder,) = paths
    images: list[LabelledImage] = []
    problems: list[str] = []
    for name, crops in _CBIS_TABLES:
        table = read_cbis(folder / name, folder / crops, strict=reading.strict)
        problems += map(str, table.problems)
        images += [
            _from_row(row, f"{name} line {line}", _CBIS_SPLITS[split_of(row.patient)], row.patient)
            for row, line in zip(table.rows, table.lines, strict=True)
            if row.patient not in EXCLUDED_PATIENTS
        ]
    return Labelled("cbis", reading.unit, tuple(images), tuple(problems))


def _mini_mias(paths: Sequence[Path], reading: Reading) -> Labelled:
    """Evaluation only: every film is of the test split. The two films of a pair are one woman's."""
    (folder,) = paths
    images = []
    table = read_mias(folder / "lesions.json", strict=reading.strict)
    for row in table.rows:
        picture = WholeImage(row.image, None, reading.preset)
        image = _from_row(row, row.image.name, "test", row.patient, picture=picture)
        images.append(_boxes_in_model(image, picture) if row.boxes else image)
    return Labelled("mini-mias", reading.unit, tuple(images), tuple(map(str, table.problems)))


def _boxes_in_model(image: LabelledImage, picture: WholeImage) -> LabelledImage:
    placement = picture.prepared().placement
    boxes = {label: tuple(_mapped(box, placement) for box in found) for label, found in image.boxes.items()}
    return replace(image, boxes=boxes)


def _mapped(box: Box, placement: Placement) -> Box:
    """A box of stored pixels in model pixels, clipped to the model's image."""
    corners = placement.to_model(np.array([[box[0], box[1]], [box[2], box[3]]]))
    size = np.array([placement.model_columns, placement.model_rows], float)
    low, high = np.clip(corners.min(0), 0, size), np.clip(corners.max(0), 0, size)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _phantoms(paths: Sequence[Path], reading: Reading) -> Labelled:
    (cache,) = paths
    images = [
        image
        for split, first in _PHANTOM_SPLITS.items()
        if split in reading.splits
        for path in _phantom_files(cache, split, first + _skipped(split, reading), reading.phantom_exams.get(split))
        for image in _phantom_views(path, load_truth(path), split)
    ]
    return Labelled("phantoms", reading.unit, tuple(images))


def _skipped(split: str, reading: Reading) -> int:
    """Training exams that a probe leaves to the encoder's own training."""
    return reading.phantom_first_training_exam if split == "training" else 0


def _phantom_files(cache: Path, split: str, first: int, count: int | None) -> tuple[Path, ...]:
    """The first `count` exams of a split, all that are there where it is None. Raises DataError where some are not."""
    if count is None:
        found = sorted(cache.glob(f"phantom-{GENERATOR_VERSION}-*.npz"))
        low, high = exam_path(cache, first), exam_path(cache, first + _SPLIT_SEEDS)
        return tuple(path for path in found if low.name <= path.name < high.name)
    there = cached_seeds(cache, first, count)
    if len(there) < count:
        raise DataError(
            f"{cache}: {len(there)} of {count} {split} exams are rendered; run python -m training render --cache "
            f"{cache} --first {first} --count {count}"
        )
    return there


def _phantom_views(path: Path, truth: ExamTruth, split: str) -> Iterator[LabelledImage]:
    """The four views. "cancer": the view's breast holds a malignant lesion, whether or not this view shows it."""
    for number, view in enumerate(STANDARD_VIEWS):
        boxes: dict[str, tuple[Box, ...]] = {}
        for box in truth.boxes:
            if box.view == number and box.kind >= 0:
                name = GRAMMAR_NAMES[FINDING_KINDS[box.kind]]
                boxes[name] = (*boxes.get(name, ()), _edges(box))
        labels: dict[str, bool | None] = {name: name in boxes for name in GRAMMAR_NAMES.values()}
        labels["cancer"] = truth.malignant_breasts[BREASTS.index(view.laterality)]
        yield LabelledImage(
            picture=PhantomView(path, number),
            row=f"phantom {truth.seed} {view}",
            patient=str(truth.seed),
            exam=str(truth.seed),
            laterality=view.laterality,
            position=view.position,
            labels=labels,
            density=truth.density,
            boxes=boxes,
            split=split,
        )


def _edges(box: TruthBox) -> Box:
    return float(box.left), float(box.top), float(box.right), float(box.bottom)


READERS: dict[str, Callable[[Sequence[Path], Reading], Labelled]] = {
    "vindr": _vindr,
    "rsna": _rsna,
    "embed": _embed,
    "cbis": _cbis,
    "mini-mias": _mini_mias,
    "phantoms": _phantoms,
}
