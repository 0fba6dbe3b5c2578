"""Small labelled sets in the layouts as they are published: VinDr-Mammo, RSNA, EMBED; and phantoms of a few pixels."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from training.cache import CachedExam, TruthBox, save_exam
from training.mammo_clip.readers import VINDR_FINDINGS

HEIGHT, WIDTH = 64, 48
VINDR_COLUMNS = (
    "patient_id", "series_id", "image_id", "laterality", "view", "height", "width", "breast_birads", "breast_density",
    "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax", "split", "resized_xmin", "resized_ymin",
    "resized_xmax", "resized_ymax", "fold", *VINDR_FINDINGS,
)  # fmt: skip


def vindr_row(patient: str, image: str, side: str, view: str, **more: object) -> dict[str, object]:
    """A row as `vindr_detection_v1_folds.csv` has it; a finding by its name as `finding`."""
    finding = str(more.pop("finding", "No_Finding"))
    row: dict[str, object] = dict.fromkeys(VINDR_COLUMNS, "")
    row |= {name: int(name == finding) for name in VINDR_FINDINGS}
    row |= {
        "patient_id": patient, "series_id": f"s{patient}", "image_id": image, "laterality": side, "view": view,
        "height": 3518, "width": 2800, "breast_birads": "BI-RADS 2", "breast_density": 2, "split": "training",
        "fold": 0, "finding_categories": f"['{finding.replace('_', ' ')}']",
    }  # fmt: skip
    return row | more


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_image(path: Path, seed: int, *, mass: bool = False, grey: int = 60) -> None:
    """Noise, brighter with `grey`, and a square for a mass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plane = np.random.default_rng(seed).integers(0, grey, (HEIGHT, WIDTH), dtype=np.uint8)
    if mass:
        plane[20:40, 10:30] = 250
    Image.fromarray(plane).save(path)


def write_vindr(folder: Path, exams: int = 60) -> str:
    """VinDr-Mammo of four views an exam: every third exam has a mass on the right, every fourth dense breasts.

    The last third is its test split. Gives the source's words.
    """
    rows = []
    for number in range(exams):
        split = "test" if number >= 2 * exams // 3 else "training"
        for side in "RL":
            for view in ("CC", "MLO"):
                has_mass = number % 3 == 0 and side == "R"
                name, density = f"{side}{view}.png", 3 if number % 4 == 0 else number % 3
                write_image(folder / "images" / f"p{number}" / name, number, mass=has_mass, grey=40 + 40 * density)
                box = {"resized_xmin": 190, "resized_ymin": 475, "resized_xmax": 570, "resized_ymax": 950}
                more = {"finding": "Mass", **box} if has_mass else {}
                rows.append(vindr_row(f"p{number}", name, side, view, split=split, breast_density=density, **more))
    write_csv(folder / "vindr.csv", rows)
    return f"vindr={folder / 'vindr.csv'},{folder / 'images'}"


def tiny_exam(seed: int) -> CachedExam:
    """Four views; even seeds have a malignant mass in both views of the right breast."""
    images = np.random.default_rng(seed).integers(0, 60, (4, HEIGHT, WIDTH), dtype=np.uint8)
    flags, boxes = np.zeros_like(images), []
    if seed % 2 == 0:
        for view in (0, 2):
            images[view, 20:40, 10:30] = 250
            flags[view, 20:40, 10:30] = 1 | 128
            boxes.append(TruthBox(view, 0, True, 10, 20, 30, 40))
    return CachedExam(seed, images, flags, tuple(boxes), (seed % 2 == 0, False), seed % 4)


def write_phantoms(cache: Path, training: int = 12, others: int = 8) -> str:
    """Exams of every split in a cache. Gives the source's words."""
    cache.mkdir(parents=True, exist_ok=True)
    for first, count in ((0, training), (1_000_000, others), (2_000_000, others), (3_000_000, others)):
        for seed in range(first, first + count):
            save_exam(cache, tiny_exam(seed))
    return f"phantoms={cache}"
