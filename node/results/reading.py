"""The result model: everything that stands in a result object comes from here, never from the clock."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from node.mammography.findings import BreastAssessment as BreastAssessment
from node.mammography.findings import BreastDensity, Correspondence, Finding, FindingKind
from node.mammography.pixels import Placement
from node.mammography.quality import QualityFinding
from node.mammography.views import View


class ResultKind(StrEnum):
    """Kinds of object that a reading is rendered as. The values are the words of `objects` in settings.toml."""

    CAD_REPORT = "CADSR"
    """Mammography CAD SR, TID 4000."""
    STRUCTURED_REPORT = "SR"
    """Comprehensive 3D SR, TID 1500."""
    PRESENTATION_STATE = "GSPS"
    """Grayscale Softcopy Presentation State, one for each view read."""
    SECONDARY_CAPTURE = "SC"
    """One page of the four views as hung."""
    VIEW_CAPTURE = "SCVIEW"
    """Secondary Capture, one for each view read."""
    SEGMENTATION = "SEG"
    """Regions, BINARY, one object for each view with findings."""
    LABELMAP = "LABELMAP"
    """Regions, LABELMAP, one object for each view with findings; SEG instead where it is not taken."""
    HEATMAP = "HEATMAP"
    """Heat, FRACTIONAL, one object for each view with heat."""
    KEY_OBJECTS = "KOS"
    """Key Object Selection of all other objects that a destination gets."""
    REJECTION = "REJECT"
    """Key Object Selection that withdraws our objects of the reading before (IOCM)."""
    MESSAGE = "ORU"
    """HL7 v2 ORU^R01; no DICOM object."""


class Outcome(StrEnum):
    """What became of an exam. The value is what status and reports say."""

    READ = "read"
    REFUSED = "refused for quality"
    """No view could be assessed, for reasons of image quality."""
    NOT_ATTEMPTED = "not attempted"
    """Skipped, `Reading.reason` says why."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which algorithm read: goes into TID 4019, Contributing Equipment and every UID."""

    name: str
    version: str
    weights_hash: str
    variant: str
    preset: str
    calibrated_on_patients: bool
    findings: tuple[FindingKind, ...] = ()
    """Kinds that it looks for: what was attempted in an image that could not be read."""


@dataclass(frozen=True, slots=True)
class InstanceReference:
    """A SOP instance that results refer to."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str = ""
    """Empty: unknown; an SR cannot name the instance then (PS3.3 C.17.2.1 wants its series)."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewReading:
    """One view as read.

    `sop_instance_uid` is the image that marks stand on: the one that is displayed. `read_from` is the image that the
    model saw, where that is another one: a For Processing image of the same rows, columns, spacing and orientation.
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
    spacing_mm: tuple[float, float] | None = None
    """(row, column) spacing in the breast: Imager Pixel Spacing over the magnification factor; None: unknown."""
    quality: tuple[QualityFinding, ...] = ()
    """None of them refused: the view was assessed all the same."""
    read_from: InstanceReference | None = None


@dataclass(frozen=True, slots=True)
class UnreadView:
    """An image of a standard view that was there and was not assessed: unreadable, refused, its exam not read."""

    view: View
    sop_instance_uid: str
    sop_class_uid: str
    rows: int
    columns: int
    orientation: tuple[str, ...]
    reason: str
    """In words, without patient attributes."""
    quality: tuple[QualityFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentReference:
    """One of our own objects as a later one refers to it."""

    kind: ResultKind
    form: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    destinations: tuple[str, ...] = ()
    """Names of the destinations to which it was or may have been sent: what a rejection note for one of them names."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The reading that this one replaces, and the objects of it that left the node."""

    number: int
    read_at: datetime
    """Aware, UTC."""
    documents: tuple[DocumentReference, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One reading of one exam by one model at one operating point; or, with another `outcome`, why there is none.

    An exam that was not read has no `views`, its images are `unread`, and every probability is None.
    """

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
    exam_probability: float | None
    breasts: tuple[BreastAssessment, BreastAssessment]
    """Right, left."""
    views: tuple[ViewReading, ...]
    """The views read, in the order of STANDARD_VIEWS."""
    not_assessed: tuple[str, ...]
    """In words: views that are missing, outputs that the model does not give."""
    findings: tuple[Finding, ...]
    allow_probability: bool = False
    """The site lets a model that was calibrated on phantoms alone write "probability of cancer"."""
    outcome: Outcome = Outcome.READ
    reason: str = ""
    """Why the exam was not read, in words; empty where it was."""
    unread: tuple[UnreadView, ...] = ()
    """In the order of STANDARD_VIEWS; no view stands here and in `views`."""
    correspondences: tuple[Correspondence, ...] = ()
    """Findings of CC and MLO that are taken for the same lesion; no finding twice."""
    density: BreastDensity | None = None
    """None where the model gives none."""
    predecessor: Predecessor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedResult:
    """One object, as bytes of a Part 10 file (of an HL7 message for ResultKind.MESSAGE). A retry sends these bytes.

    `form` tells apart what is written differently for different destinations; "" where there is one form.
    """

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    content: bytes
    series_instance_uid: str = ""
    form: str = ""
    problem: str = ""
    """Why the object must not leave (the gate's words); empty where it may."""
