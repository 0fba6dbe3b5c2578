"""The figures of a released model: phantoms, DICOM against direct rendering, real crops, real films."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from PIL import Image

from node.mammography.pixels import prepare, prepare_display, preset
from node.mammography.regions import breast_mask, register_heatmap
from node.mammography.views import STANDARD_VIEWS, Laterality
from training.cache import CachedExam, load_exam
from training.crops import Crop, load_crop
from training.exam_encoder import FINDINGS
from training.finish import probability_of
from training.localisation import GRID, marks, point
from training.losses import crop_logits
from training.maps import MapNetwork
from training.phantoms import make_exam
from training.phantoms.dicom import write_dicom
from training.served_model import Answers, ServedModel
from training.statistics import auc_estimate, calibration_error, share_estimate

Table = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class TestSet:
    """Phantom exams with what the model answered."""

    exams: list[CachedExam]
    answers: Answers

    @property
    def seeds(self) -> npt.NDArray[np.int64]:
        """One patient an exam."""
        return np.array([exam.seed for exam in self.exams], np.int64)


def answer(model: ServedModel, paths: tuple[Path, ...]) -> TestSet:
    """Run the model over cached exams."""
    exams = [load_exam(path) for path in paths]
    return TestSet(exams, model.answers([exam.images for exam in exams]))


def phantom_figures(tests: TestSet, contract: Table) -> Table:
    """AUCs, pointing and marks with their intervals."""
    return {"exams": len(tests.exams), **auc_figures(tests, contract), **location_figures(tests, contract)}


def auc_figures(tests: TestSet, contract: Table) -> Table:
    """Exam, breast and per-view finding AUC; calibration error of the exam."""
    breasts = np.array([exam.malignant_breasts for exam in tests.exams])
    findings = np.stack([exam.findings(len(FINDINGS)) for exam in tests.exams])
    seeds, answers = tests.seeds, tests.answers
    malignant: npt.NDArray[np.bool_] = np.asarray(breasts.any(1))
    exam_probability = probability_of(answers.exam, contract["calibration"]["exam_logit"])
    table = {
        "exam_auc": auc_estimate(answers.exam, malignant, seeds).as_table(),
        "breast_auc": auc_estimate(answers.breasts.ravel(), breasts.ravel(), np.repeat(seeds, 2)).as_table(),
        "exam_calibration_error": round(calibration_error(exam_probability, malignant), 4),
    }
    for index, name in enumerate(FINDINGS):
        logits, shown = answers.findings[:, :, index].ravel(), findings[:, :, index].ravel()
        table[f"{name}_view_auc"] = auc_estimate(logits, shown, np.repeat(seeds, 4)).as_table()
    return table


def location_figures(tests: TestSet, contract: Table) -> Table:
    """Pointing beside area chance and the filter, boxes, marks per view without findings."""
    table: Table = {}
    for kind, name in enumerate(FINDINGS):
        rows = [
            row
            for at, exam in enumerate(tests.exams)
            for row in point(exam, tests.answers.heat[at, :, kind], kind, name)
        ]
        seeds = np.array([row.seed for row in rows], np.int64)
        table[f"{name}_location"] = {
            "pointing": share_estimate(np.array([row.heat for row in rows]), seeds).as_table(),
            "area_chance": round(float(np.mean([row.area for row in rows])), 4),
            "log_filter": share_estimate(np.array([row.log_filter for row in rows]), seeds).as_table(),
            "box_hit": share_estimate(np.array([row.box for row in rows]), seeds).as_table(),
            **mark_figures(tests, contract, kind, name),
        }
    total = sum(table[f"{name}_location"]["marks_per_normal_view"] for name in FINDINGS)
    table["marks_per_normal_view"] = round(total, 4)
    return table


def mark_figures(tests: TestSet, contract: Table, kind: int, name: str) -> Table:
    """What the operating point does: marks in views without any finding, lesion views that are marked."""
    at = contract["operating_points"][name]
    calibration = contract["calibration"][f"finding_logits.{name}"]
    false_marks, normal, marked, shown = 0, 0, 0, 0
    for row, exam in enumerate(tests.exams):
        probabilities = probability_of(tests.answers.findings[row, :, kind], calibration)
        found = [
            m
            for m in marks(exam, tests.answers.heat[row, :, kind], kind, at["heat"])
            if probabilities[m.view] >= at["probability"]
        ]
        there = exam.findings(len(FINDINGS))
        empty = {view for view in range(4) if not there[view].any()}
        normal += len(empty)
        false_marks += sum(mark.view in empty for mark in found)
        shown += int(there[:, kind].sum())
        marked += len({mark.view for mark in found if mark.on_lesion})
    return {
        "marks_per_normal_view": round(false_marks / max(normal, 1), 4),
        "lesion_views_marked": round(marked / max(shown, 1), 4),
    }


def dicom_figures(model: ServedModel, direct: TestSet, contract: Table) -> Table:
    """Full-size DICOM through `pixels.prepare` against direct rendering, the same exams."""
    images, worst = [], 0.0
    for exam in direct.exams:
        prepared = dicom_images(exam.seed, contract["preset"])
        inside = (prepared > 0) & (exam.images > 0)
        difference = np.abs(prepared.astype(np.float32) - exam.images)[inside].mean() / 255.0
        worst = max(worst, float(difference))
        images.append(prepared)
    through = TestSet(direct.exams, model.answers(images))
    same, other = phantom_figures(direct, contract), phantom_figures(through, contract)
    apart = float(np.abs(direct.answers.exam - through.answers.exam).mean())
    return {
        "exams": len(images),
        "largest_mean_grey_difference": round(worst, 4),
        "mean_exam_logit_difference": round(apart, 4),
        "direct": same,
        "dicom": other,
    }


def dicom_images(seed: int, preset_name: str) -> npt.NDArray[np.uint8]:
    """One phantom written as four full-size objects, read back and prepared: uint8 (4, H, W)."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_dicom(make_exam(seed), Path(folder))
        views = [
            prepare(pydicom.dcmread(path), view.laterality, preset(preset_name)).pixels
            for path, view in zip(files, STANDARD_VIEWS, strict=True)
        ]
    return np.round(np.stack(views) * 255.0).astype(np.uint8)


@torch.inference_mode()
def crop_figures(network: MapNetwork, crops: tuple[Crop, ...]) -> Table:
    """AUC of kind and of pathology on held-out real crops; each crop fills a tile two by two."""
    network.eval()
    rows = []
    for crop in crops:
        tile = torch.from_numpy(np.tile(load_crop(crop), (2, 2)).astype(np.float32) / 255.0)[None, None]
        rows.append(crop_logits(network(tile)[1]).mean(0).numpy())
    logits = np.stack(rows).astype(np.float64)
    names = {patient: row for row, patient in enumerate(sorted({crop.patient for crop in crops}))}
    patients = np.array([names[crop.patient] for crop in crops], np.int64)
    kinds, bad = np.array([crop.kind for crop in crops]), np.array([crop.malignant for crop in crops])
    table = {
        "crops": len(crops),
        "patients": len(names),
        "mass_against_calcification_auc": auc_estimate(logits[:, 0] - logits[:, 1], kinds == 0, patients).as_table(),
    }
    for kind, name in enumerate(("mass", "calcification")):
        mine = kinds == kind
        table[f"{name}_malignancy_auc"] = auc_estimate(logits[mine, 2], bad[mine], patients[mine]).as_table()
    return table


_MIAS_KIND = {"CIRC": 0, "SPIC": 0, "MISC": 0, "ARCH": 0, "ASYM": 0, "CALC": 1}
"""The finding whose heat is asked for a class of mini-MIAS lesion."""


def mias_figures(model: ServedModel, folder: Path, preset_name: str) -> Table:
    """How often the maximum falls into a lesion's circle, beside the chance by area, on films (half of mini-MIAS)."""
    lesions = [row for row in json.loads((folder / "lesions.json").read_text()) if "circle" in row]
    films: dict[str, list[Table]] = {}
    for row in lesions:
        films.setdefault(row["file"], []).append(row)
    rows = [
        hit
        for file, found in sorted(films.items())
        for hit in _mias_film(model, folder.parent / file, found, preset_name)
    ]
    groups = {
        "all": set(_MIAS_KIND),
        "CIRC SPIC MISC": {"CIRC", "SPIC", "MISC"},
        "ARCH ASYM": {"ARCH", "ASYM"},
        "CALC": {"CALC"},
    }
    return {name: _mias_group([row for row in rows if row["class"] in classes]) for name, classes in groups.items()}


def _mias_group(rows: list[Table]) -> Table:
    pairs = np.array([row["pair"] for row in rows], np.int64)
    hits = share_estimate(np.array([row["hit"] for row in rows]), pairs).as_table()
    return {"pointing": hits, "area_chance": round(float(np.mean([row["area"] for row in rows])), 4)}


def _mias_film(model: ServedModel, path: Path, lesions: list[Table], preset_name: str) -> list[Table]:
    """One row for each class that the film shows: its circles together."""
    with Image.open(path) as image:
        display = np.asarray(image.convert("L"), np.float32) / np.float32(255.0)
    prepared = prepare_display(display, Laterality.LEFT, preset(preset_name))
    inside = breast_mask(prepared.pixels)
    heat = np.where(inside, register_heatmap(model.heat(prepared.pixels), GRID, *inside.shape), -1.0)
    rows = []
    for name in sorted({lesion["abn"] for lesion in lesions}):
        masks = [_circle(prepared.placement, lesion["circle"]) for lesion in lesions if lesion["abn"] == name]
        mask = np.logical_or.reduce(masks)
        at = np.unravel_index(int(heat[_MIAS_KIND[name]].argmax()), mask.shape)
        area = float((mask & inside).sum() / inside.sum())
        rows.append({"class": name, "pair": lesions[0]["pair"], "hit": bool(mask[at]), "area": area})
    return rows


def _circle(placement: Any, circle: list[float]) -> npt.NDArray[np.bool_]:
    """A circle (x, y, radius) of stored pixels on the model's pixels."""
    x, y, radius = circle
    grid_x, grid_y = np.meshgrid(np.arange(placement.model_columns) + 0.5, np.arange(placement.model_rows) + 0.5)
    stored = placement.to_stored(np.stack([grid_x.ravel(), grid_y.ravel()], axis=1))
    inside = np.hypot(stored[:, 0] - x, stored[:, 1] - y) <= max(radius, 1.0)
    return np.asarray(inside.reshape(grid_x.shape), dtype=np.bool_)
