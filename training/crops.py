"""CBIS-DDSM lesion crops (Lee et al. 2017, CC BY 3.0): labels from folders, one split by patient over both kinds."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CROP_PX = 96
"""One size for all crops, so that a crop's own size tells nothing."""

EXCLUDED_PATIENTS = frozenset({"P_00173", "P_00820"})

SPLITS = ("train", "validation", "test")

_KIND_FOLDERS = {"mass_train": 0, "calc_train": 1}


@dataclass(frozen=True, slots=True)
class Crop:
    """One lesion crop: `kind` 0 mass, 1 calcification; `malignant` by pathology."""

    path: Path
    patient: str
    kind: int
    malignant: bool


def split_of(patient: str) -> str:
    """Split of a patient, by a hash of the identifier: 60 % train, 15 % validation, 25 % test."""
    share = share_of(patient)
    return SPLITS[0] if share < 0.60 else SPLITS[1] if share < 0.75 else SPLITS[2]


def share_of(patient: str) -> float:
    """A number in [0, 1) by which a patient falls into a split: from the identifier's hash, the same on any machine."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:4], "big") / 2**32


def list_crops(folder: Path, split: str | None = None) -> tuple[Crop, ...]:
    """Crops below `folder` in order of their paths, of one split or of all, without the excluded patients."""
    found = []
    for kind_folder, kind in _KIND_FOLDERS.items():
        for path in sorted((folder / kind_folder).glob("*/*.jpg")):
            patient = "_".join(path.name.split("_")[:2])
            if patient not in EXCLUDED_PATIENTS and split in (None, split_of(patient)):
                found.append(Crop(path, patient, kind, path.parent.name == "MALIGNANT"))
    return tuple(found)


def load_crop(crop: Crop, size: int = CROP_PX) -> npt.NDArray[np.uint8]:
    """The crop at size x size, grey, uint8."""
    with Image.open(crop.path) as image:
        return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX), dtype=np.uint8)
