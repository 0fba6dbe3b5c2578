"""The demo's phantom exams: rendered on the spot in processes of their own, with the boxes that are true of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
)

from deploy.demo.cases import SHOULD_BE_READ, SKIPPED, DemoExam, Expected, Run, TruthBox
from node.mammography.findings import Box
from node.mammography.views import LMLO, STANDARD_VIEWS, Laterality, View
from training.phantoms import PhantomExam, RenderedView, Truth, make_exam, render_view
from training.phantoms.dicom import view_dataset
from training.phantoms.lesions import (
    CALCIFICATION_PLEOMORPHIC,
    MASS_OVAL,
    MASS_SPICULATED,
    LesionKind,
)

FULL_SIZE_MM = 0.07
HALF_SIZE_MM = 0.14
_FIRST_SEED = 7_000_000
"""No split of training or evaluation holds these seeds."""


@dataclass(frozen=True, slots=True)
class PhantomPlan:
    """One phantom exam to be made."""

    key: str
    title: str
    seed: int
    kinds: tuple[LesionKind, ...]
    truth: str
    transfer_syntax_uid: str
    form: str
    pixel_mm: float = HALF_SIZE_MM
    without: View | None = None
    expected: Expected = SHOULD_BE_READ


PLANS: tuple[PhantomPlan, ...] = (
    PhantomPlan(
        "incomplete",
        "Phantom, LMLO missing",
        _FIRST_SEED,
        (),
        "no lesion, three views",
        ImplicitVRLittleEndian,
        "Implicit little endian, half size",
        without=LMLO,
        expected=Expected(SKIPPED, "views missing: LMLO", explained=True),
    ),
    PhantomPlan(
        "normal",
        "Phantom, normal",
        _FIRST_SEED + 1,
        (),
        "no lesion",
        JPEGLossless,
        "JPEG Lossless, 12 bit, full size",
        FULL_SIZE_MM,
    ),
    PhantomPlan(
        "mass",
        "Phantom, malignant mass",
        _FIRST_SEED + 2,
        (MASS_SPICULATED.on(Laterality.RIGHT),),
        "spiculated mass right, malignant",
        JPEG2000Lossless,
        "JPEG 2000 lossless, 12 bit, full size",
        FULL_SIZE_MM,
    ),
    PhantomPlan(
        "calcification",
        "Phantom, malignant calcifications",
        _FIRST_SEED + 3,
        (CALCIFICATION_PLEOMORPHIC.on(Laterality.LEFT),),
        "pleomorphic calcifications left, malignant",
        JPEGLSLossless,
        "JPEG-LS lossless, 12 bit, half size",
    ),
    PhantomPlan(
        "benign",
        "Phantom, benign mass",
        _FIRST_SEED + 4,
        (MASS_OVAL.on(Laterality.LEFT),),
        "oval mass left, benign",
        HTJ2KLossless,
        "HTJ2K lossless, 12 bit, half size",
    ),
)


def phantom_exam(run: Run, plan: PhantomPlan) -> DemoExam:
    """Render, encode and write the exam of a plan below the run's folder."""
    exam = make_exam(plan.seed, kinds=plan.kinds)
    folder = run.folder / plan.key
    folder.mkdir(parents=True)
    files: dict[View, Path] = {}
    lesions: list[TruthBox] = []
    for number, view in enumerate(STANDARD_VIEWS, start=1):
        if view == plan.without:
            continue
        rendered = render_view(exam, view, plan.pixel_mm)
        dataset = _dataset(run, plan, exam, rendered, number)
        files[view] = folder / f"{view}.dcm"
        dataset.save_as(files[view], enforce_file_format=True)
        lesions += [_truth_box(dataset.SOPInstanceUID, exam, view, t) for t in rendered.truth if t.finding is not None]
    right, left = exam.malignant_breasts
    malignant = tuple(side for side, is_so in ((Laterality.RIGHT, right), (Laterality.LEFT, left)) if is_so)
    return DemoExam(
        plan.key,
        plan.title,
        plan.form,
        plan.truth,
        run.uid(plan.key, "study"),
        tuple(files.values()),
        tuple(files),
        plan.expected,
        malignant,
        tuple(lesions),
    )


def _truth_box(sop_instance_uid: str, exam: PhantomExam, view: View, truth: Truth) -> TruthBox:
    rows, columns = np.nonzero(truth.patch)
    box = Box(
        float(truth.left + columns.min()),
        float(truth.top + rows.min()),
        float(truth.left + columns.max() + 1),
        float(truth.top + rows.max() + 1),
    )
    lesion = exam.lesions[truth.index]
    return TruthBox(sop_instance_uid, view.name, box, f"{lesion.subtype} {lesion.finding.value}", truth.malignant)


def _dataset(run: Run, plan: PhantomPlan, exam: PhantomExam, rendered: RenderedView, number: int) -> pydicom.Dataset:
    dataset = view_dataset(exam, rendered)
    dataset.PatientID = run.patient_id(plan.key)
    dataset.PatientName = f"Demo^{plan.key}"
    dataset.AccessionNumber = run.accession_number(plan.key)
    dataset.StudyInstanceUID = run.uid(plan.key, "study")
    dataset.SeriesInstanceUID = run.uid(plan.key, "series")
    dataset.SOPInstanceUID = run.uid(plan.key, "instance", str(number))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    _encode(dataset, plan.transfer_syntax_uid)
    return dataset


def _encode(dataset: pydicom.Dataset, transfer_syntax_uid: str) -> None:
    """Put the pixels into a transfer syntax without loss, in place."""
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    if transfer_syntax_uid not in _ENCODERS:
        return
    stored = np.frombuffer(dataset.PixelData, dtype="<u2").reshape(dataset.Rows, dataset.Columns)
    frame = _ENCODERS[transfer_syntax_uid](stored)
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


_ENCODERS: dict[str, Callable[[NDArray[np.uint16]], bytes | bytearray]] = {
    JPEGLossless: lambda pixels: imagecodecs.ljpeg_encode(pixels, bitspersample=12),
    JPEGLSLossless: lambda pixels: imagecodecs.jpegls_encode(pixels),
    JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(
        pixels, level=0, reversible=True, codecformat="j2k", bitspersample=12
    ),
    HTJ2KLossless: lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True),
}
