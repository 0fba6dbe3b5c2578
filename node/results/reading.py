"""The stored reading: everything that stands in a result object comes from here, never from the clock."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import BreastAssessment as BreastAssessment
from node.mammography.findings import Finding, FindingKind
from node.mammography.pixels import Placement
from node.mammography.views import View


class ResultKind(StrEnum):
    """Kinds of object that a reading is rendered as."""

    STRUCTURED_REPORT = "SR"
    SEGMENTATION = "SEG"
    SECONDARY_CAPTURE = "SC"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which algorithm read: goes into TID 4019, Contributing Equipment and every UID."""

    name: str
    version: str
    weights_hash: str
    variant: str
    preset: str
    calibrated_on_patients: bool


@dataclass(frozen=True, slots=True, eq=False)
class ViewReading:
    """One view as read.

    `finding_probabilities`: per kind, calibrated, in [0, 1]. `display` (H, W) in [0, 1]: the model's input.
    `heatmap` (K, H, W): heat registered on the model's pixels, K as in `finding_probabilities`; what
    `interpretation.Interpretation.heatmaps` gives. `placement` leads from model pixels to stored pixels.
    `orientation` is the Patient Orientation that results write, of `orientation.patient_orientation`: row and column
    direction (PS3.3 C.7.6.1.1.1), or () where it cannot be told.
    """

    view: View
    sop_instance_uid: str
    sop_class_uid: str
    path: str
    rows: int
    columns: int
    placement: Placement
    display: NDArray[np.float32]
    heatmap: NDArray[np.float32] | None
    finding_probabilities: tuple[tuple[FindingKind, float], ...]
    orientation: tuple[str, ...]
    flags: tuple[str, ...]
    """What a reader should know: "constant image", "For Processing image"."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One reading of one exam by one model at one operating point."""

    study_instance_uid: str
    number: int
    """1 for the first reading of the study; later ones supersede it."""
    read_at: datetime
    """Aware, UTC: when the reading was stored."""
    model: ModelIdentity
    settings_hash: str
    """SHA-256 of the settings that shape the result: preset, calibration, thresholds, precision."""
    selection: tuple[tuple[str, str], ...]
    """Sorted (SOP Instance UID, content hash) of the images read."""
    exam_probability: float
    breasts: tuple[BreastAssessment, BreastAssessment]
    """Right, left."""
    views: tuple[ViewReading, ...]
    """The views read, in the order of STANDARD_VIEWS."""
    not_assessed: tuple[str, ...]
    """In words: views that are missing, outputs that the model does not give."""
    findings: tuple[Finding, ...]
    allow_probability: bool = False
    """The site lets a model that was calibrated on phantoms alone write "probability of cancer"."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedResult:
    """One DICOM object, as bytes of a Part 10 file. A retry sends these bytes."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    content: bytes
