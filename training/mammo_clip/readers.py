"""The published tables as rows of one kind: an image with what is known of it, or a breast with its texts.

Contracts: VinDr-Mammo, RSNA 2022 and the image-text table as the authors of arXiv 2405.12255 publish them; CBIS-DDSM
(Lee et al. 2017), CDD-CESM (Khaled et al. 2022), mini-MIAS (Suckling et al. 1994) and EMBED (Jeong et al. 2023) as they
are distributed. Images lie at `images / patient / image`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from node.mammography.views import Laterality, ViewPosition
from training.mammo_clip.tables import (
    Problem,
    Record,
    Table,
    TableError,
    flag,
    image_below,
    optional_number,
    position,
    read_table,
    side,
    text,
    texts,
    whole,
)

DENSITIES = ("A", "B", "C", "D")
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in the pixels of the image file."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image. `labels` by name, in [0, 1]; what a table does not tell is absent, never 0.

    `split` is the table's own word, `fold` its number; "" and None where it has none. `vendor` is the machine as the
    table names it.
    """

    image: Path
    patient: str
    laterality: Laterality | None
    position: ViewPosition | None
    labels: tuple[tuple[str, float], ...]
    boxes: tuple[tuple[str, Box], ...] = ()
    density: str | None = None
    split: str = ""
    fold: int | None = None
    vendor: str = ""

    def label(self, name: str) -> float | None:
        """The label of that name, None where the table does not tell it."""
        return dict(self.labels).get(name)


@dataclass(frozen=True, slots=True)
class TextRow:
    """One breast with its images by view and its texts: `texts` by section, `augmented` back-translated, in order."""

    patient: str
    laterality: Laterality
    views: tuple[tuple[ViewPosition, tuple[Path, ...]], ...]
    texts: tuple[str, ...]
    augmented: tuple[str, ...]
    fold: int | None = None


# fmt: off
VINDR_FINDINGS = (
    "Architectural_Distortion", "Asymmetry", "Focal_Asymmetry", "Global_Asymmetry", "Mass", "Nipple_Retraction",
    "No_Finding", "Skin_Retraction", "Skin_Thickening", "Suspicious_Calcification", "Suspicious_Lymph_Node",
)
_VINDR = (
    "patient_id", "image_id", "laterality", "view", "breast_density", "split", "fold",
    "resized_xmin", "resized_ymin", "resized_xmax", "resized_ymax", *VINDR_FINDINGS,
)
_RSNA = ("patient_id", "image_id", "laterality", "view", "cancer", "density", "fold")
_IMAGE_TEXT = ("patient_id", "laterality", "CC", "MLO", "text", "fold")
_CBIS = (
    "patient_id", "left or right breast", "image view", "abnormality id", "abnormality type", "assessment",
    "pathology", "cropped image file path",
)
_CESM = ("Image_name", "Patient_ID", "Side", "Type", "Breast density (ACR)", "Findings", "View")
_EMBED = ("empi_anon", "acc_anon", "anon_dicom_path", "ImageLateralityFinal", "ViewPosition", "FinalImageType")
# fmt: on
CANVAS = (912.0, 1520.0)
"""Width and height to which the published boxes were resized."""


def read_vindr(path: Path, images: Path, *, strict: bool = False) -> Table[ImageRow]:
    """VinDr-Mammo's downstream table: one row a finding. `unique_images` joins the rows of one image."""

    def row(record: Record) -> ImageRow:
        present = tuple((name, float(flag(record, name))) for name in VINDR_FINDINGS)
        _check_no_finding(present)
        if text(record, "split") not in _VINDR_SPLITS:
            raise ValueError(f"split is {record['split']!r}, not training or test")
        return ImageRow(
            image=image_below(images, text(record, "patient_id"), text(record, "image_id")),
            patient=text(record, "patient_id"),
            laterality=side(record, "laterality"),
            position=position(record, "view"),
            labels=present,
            boxes=_vindr_boxes(record, [name for name, there in present if there and name != "No_Finding"]),
            density=_vindr_density(record),
            split=text(record, "split"),
            fold=whole(record, "fold"),
        )

    return read_table(path, _VINDR, row, strict=strict, key=lambda row: row.image, facts=_of_the_image)


_VINDR_SPLITS = ("training", "test")


def _of_the_image(row: ImageRow) -> tuple[object, ...]:
    """What all rows of one image must say alike; its findings differ from row to row."""
    return row.laterality, row.position, row.density, row.split, row.fold


def _check_no_finding(labels: tuple[tuple[str, float], ...]) -> None:
    found = [name for name, there in labels if there and name != "No_Finding"]
    if found and dict(labels)["No_Finding"]:
        raise ValueError(f"No_Finding is 1, and so is {found[0]}")


def _vindr_boxes(record: Record, names: list[str]) -> tuple[tuple[str, Box], ...]:
    """The row's box on the 912 x 1520 canvas, clipped to it; a box that lies outside altogether is none."""
    edges = [optional_number(record, f"resized_{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = edges
    if left is None or top is None or right is None or bottom is None:
        return ()
    if right <= left or bottom <= top:
        raise ValueError(f"the box {left}, {top}, {right}, {bottom} has no area")
    width, height = CANVAS
    box = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
    return tuple((name, box) for name in names) if box[2] > box[0] and box[3] > box[1] else ()


def _vindr_density(record: Record) -> str | None:
    """A0 B1 C2 D3, or "DENSITY C"."""
    value = record["breast_density"].upper().removeprefix("DENSITY").strip()
    if not value:
        return None
    if value in DENSITIES:
        return value
    index = whole(record, "breast_density")
    if not 0 <= index < len(DENSITIES):
        raise ValueError(f"breast_density is {record['breast_density']!r}, not 0 to 3")
    return DENSITIES[index]


def unique_images(table: Table[ImageRow]) -> Table[ImageRow]:
    """One row an image: labels by OR over its rows, all its boxes. The unit that figures per image count.

    A finding of any row makes No_Finding 0.
    """
    joined: dict[Path, ImageRow] = {}
    for row in table.rows:
        joined[row.image] = _joined(joined[row.image], row) if row.image in joined else row
    return Table(tuple(joined.values()), table.problems)


def _joined(first: ImageRow, second: ImageRow) -> ImageRow:
    labels = dict(first.labels)
    for name, value in second.labels:
        labels[name] = max(value, labels.get(name, 0.0))
    if "No_Finding" in labels and any(value for name, value in labels.items() if name != "No_Finding"):
        labels["No_Finding"] = 0.0
    boxes = tuple(dict.fromkeys([*first.boxes, *second.boxes]))
    return ImageRow(
        first.image,
        first.patient,
        first.laterality,
        first.position,
        tuple(labels.items()),
        boxes,
        first.density or second.density,
        first.split,
        first.fold,
    )


def read_rsna(path: Path, images: Path, *, strict: bool = False) -> Table[ImageRow]:
    """RSNA 2022's table with folds: cancer by image. Its image ids carry no ending; ".png" is added."""

    def row(record: Record) -> ImageRow:
        density = record["density"].upper()
        if density not in ("", *DENSITIES):
            raise ValueError(f"density is {record['density']!r}, not A to D")
        return ImageRow(
            image=image_below(images, text(record, "patient_id"), _with_ending(text(record, "image_id"))),
            patient=text(record, "patient_id"),
            laterality=side(record, "laterality"),
            position=position(record, "view"),
            labels=(("cancer", float(flag(record, "cancer"))),),
            density=density or None,
            fold=whole(record, "fold"),
            vendor=record.get("machine_id", ""),
        )

    return read_table(path, _RSNA, row, strict=strict, key=lambda row: row.image)


def _with_ending(image_id: str) -> str:
    return image_id if image_id.endswith(".png") else f"{image_id}.png"


def read_image_text(path: Path, images: Path, *, strict: bool = False) -> Table[TextRow]:
    """The image-text table: one row a breast, its lists written as Python writes them.

    `text_augment` may be empty or missing: back-translation is an optional column.
    """

    def row(record: Record) -> TextRow:
        patient = text(record, "patient_id")
        views = tuple(
            (view, tuple(image_below(images, patient, name) for name in texts(record, view.value)))
            for view in (ViewPosition.CC, ViewPosition.MLO)
        )
        there = tuple((view, files) for view, files in views if files)
        sections = tuple(section.strip() for section in texts(record, "text"))
        augmented = texts(record, "text_augment") if "text_augment" in record else ()
        if not there:
            raise ValueError("no image in CC or MLO")
        if not any(sections):
            raise ValueError("text is empty")
        if augmented and len(augmented) != len(sections):
            raise ValueError(f"text_augment has {len(augmented)} sections, text {len(sections)}")
        fold = whole(record, "fold") if record["fold"] else None
        return TextRow(patient, side(record, "laterality"), there, sections, augmented, fold)

    return read_table(path, _IMAGE_TEXT, row, strict=strict, key=lambda row: (row.patient, row.laterality.value))


def read_cbis(path: Path, crops: Path, *, strict: bool = False) -> Table[ImageRow]:
    """One of CBIS-DDSM's description tables, joined to its crops by patient, side, view and abnormality."""
    found = {crop_name(crop): crop for crop in sorted(crops.glob("*/*.jpg"))}

    def row(record: Record) -> ImageRow:
        name = "_".join(text(record, column) for column in _CBIS[:3]) + f"_{whole(record, 'abnormality id')}"
        if name not in found:
            raise ValueError(f"no crop of {name} below {crops}")
        pathology = text(record, "pathology")
        if pathology not in ("MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"):
            raise ValueError(f"pathology is {pathology!r}")
        kind = text(record, "abnormality type").lower()
        if kind not in ("mass", "calcification"):
            raise ValueError(f"abnormality type is {kind!r}, not mass or calcification")
        is_mass = kind == "mass"
        return ImageRow(
            image=found[name],
            patient=text(record, "patient_id"),
            laterality=side(record, "left or right breast"),
            position=position(record, "image view"),
            labels=(
                ("Mass", float(is_mass)),
                ("Suspicious_Calcification", float(not is_mass)),
                ("malignant", float(pathology == "MALIGNANT")),
            ),
        )

    return read_table(path, _CBIS, row, strict=strict, key=lambda row: row.image)


def crop_name(crop: Path) -> str:
    """ "P_00007_LEFT_CC_PLEOMORPHIC_LINEAR_1.jpg" is P_00007_LEFT_CC_1: what stands between tells its description."""
    parts = crop.stem.split("_")
    return "_".join([*parts[:4], parts[-1]])


def read_cesm_texts(path: Path, *, strict: bool = False) -> Table[tuple[str, str, str]]:
    """CDD-CESM's sentences of plain mammograms (Type DM): (image name, patient, sentence), for the text tower."""

    def row(record: Record) -> tuple[str, str, str] | None:
        if text(record, "Type") != "DM":
            return None  # contrast-enhanced, not a plain mammogram
        words = " ".join(text(record, "Findings").replace("$", ". ").lower().split())
        return text(record, "Image_name"), text(record, "Patient_ID"), words

    return read_table(path, _CESM, row, strict=strict)


def read_embed(path: Path, images: Path, *, strict: bool = False) -> Table[ImageRow]:
    """EMBED's metadata: 2D images (FinalImageType); `split` is the exam. Its clinical table has the labels."""

    def row(record: Record) -> ImageRow | None:
        if text(record, "FinalImageType") not in ("2D", "cview") or record.get("spot_mag", "") in ("1", "1.0"):
            return None  # a volume, or a spot or magnification view
        return ImageRow(
            image=image_below(images, text(record, "anon_dicom_path")),
            patient=text(record, "empi_anon"),
            laterality=side(record, "ImageLateralityFinal"),
            position=position(record, "ViewPosition"),
            labels=(),
            split=text(record, "acc_anon"),
            vendor=record.get("Manufacturer", ""),
        )

    return read_table(path, _EMBED, row, strict=strict, key=lambda row: row.image)


_MIAS = {"CALC": "Suspicious_Calcification", "CIRC": "Mass", "SPIC": "Mass", "MISC": "Mass"}
_MIAS |= {"ARCH": "Architectural_Distortion", "ASYM": "Asymmetry", "NORM": ""}


def read_mias(path: Path, *, strict: bool = False) -> Table[ImageRow]:
    """mini-MIAS's lesions.json, a row a film: MLO, of which the side is not known. A problem's line is the number of
    the entry. Raises TableError.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file; give the folder of mini-MIAS") from error
    except (OSError, ValueError, RecursionError) as error:
        raise TableError(f"{path}: no list of mini-MIAS lesions: {type(error).__name__}: {error}") from error
    if not isinstance(entries, list):
        raise TableError(f"{path}: no list of mini-MIAS lesions but {type(entries).__name__}")
    rows, problems = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            rows.append(_mias_row(entry, path.parent))
        except ValueError as error:
            problems.append(Problem(path, number, str(error)))
            if strict:
                raise TableError(
                    f"{problems[-1]}. Mend the entry, or leave --strict out to go on without it"
                ) from error
    if not rows:
        raise TableError(f"{path}: no usable entry among {len(entries)}{f'; {problems[0]}' if problems else ''}")
    return Table(unique_images(Table(tuple(rows), ())).rows, tuple(problems))


def _mias_row(entry: object, folder: Path) -> ImageRow:
    if not isinstance(entry, dict):
        raise ValueError(f"the entry is {entry!s:.60}, not a table of file, abn, pair")
    missing = [key for key in ("file", "abn", "pair") if not isinstance(entry.get(key), str | int)]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    if entry["abn"] not in _MIAS:
        raise ValueError(f"abn is {entry['abn']!r}, not {', '.join(_MIAS)}")
    name = _MIAS[entry["abn"]]
    image = image_below(folder, Path(str(entry["file"])).name)
    boxes = ((name, _box(entry["box"])),) if name and entry.get("box") else ()
    found = tuple((kind, float(kind == name)) for kind in dict.fromkeys(_MIAS.values()) if kind)
    labels = (*found, ("malignant", float(entry.get("severity") == "M")))
    return ImageRow(image, f"pair {entry['pair']}", None, ViewPosition.MLO, labels, boxes)


def _box(values: object) -> Box:
    if not isinstance(values, list) or len(values) != 4 or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"box is {values!s:.60}, not four numbers")
    left, top, right, bottom = (float(value) for value in values)
    if not (left < right and top < bottom):
        raise ValueError(f"the box {left}, {top}, {right}, {bottom} has no area")
    return left, top, right, bottom
