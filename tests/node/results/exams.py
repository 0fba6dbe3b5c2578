"""A real-looking exam made by hand: four MG data sets, and a reading of them with a lesion in each breast."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from pydicom import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from node.destinations import Destination, check_destination
from node.errors import EncodeError
from node.interpretation import interpret
from node.mammography.contract import Calibration, ModelContract, OperatingPoint, Prediction
from node.mammography.findings import FindingKind
from node.mammography.pixels import Placement, PreparedView
from node.mammography.views import LMLO, RCC, RMLO, STANDARD_VIEWS, Laterality, View, ViewPosition
from node.results.orientation import patient_orientation
from node.results.reading import EncodedResult, ModelIdentity, Reading, ViewReading
from node.results.rendering import Rendering, Shipment
from node.settings import ReadingSettings

ROWS, COLUMNS = 1536, 1152
H, W = 380, 228
CELLS, STRIDE, OFFSET = (24, 14), (16.0, 16.0), (7.5, 7.5)
KINDS = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
STUDY = "1.2.826.0.1.3680043.10.1557.20260314.4711"

LESIONS: dict[View, tuple[FindingKind, float, float]] = {
    RCC: (FindingKind.MASS, 700.0, 480.0),
    RMLO: (FindingKind.MASS, 760.0, 620.0),
    LMLO: (FindingKind.SUSPICIOUS_CALCIFICATION, 300.0, 900.0),
}
"""Centres of the lesions in stored pixels; the right breast is stored with its chest wall on the right."""


def source(view: View, **changes: object) -> Dataset:
    """The header of a digital mammogram, For Presentation, without its pixels."""
    number = 1 + STANDARD_VIEWS.index(view)
    is_right = view.laterality is Laterality.RIGHT
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = f"{STUDY}.1.{number}"
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = f"{STUDY}.1"
    dataset.StudyDate, dataset.StudyTime = "20260314", "101500"
    dataset.AccessionNumber, dataset.StudyID = "A4711", "4711"
    dataset.ReferringPhysicianName = "Weiß^Jörg"
    dataset.StudyDescription = "Screening"
    dataset.PatientName, dataset.PatientID = "Müller^Änne", "P-000123"
    dataset.PatientBirthDate, dataset.PatientSex = "19610504", "F"
    dataset.Modality = "MG"
    dataset.ImageLaterality = view.laterality.value
    dataset.ViewPosition = view.position.value
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.PatientOrientation = ["P" if is_right else "A", _down(view)]
    dataset.ImagerPixelSpacing = ["0.14", "0.14"]
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def _down(view: View) -> str:
    other = "L" if view.laterality is Laterality.RIGHT else "R"
    return other if view.position is ViewPosition.CC else f"F{other}"


def sources() -> dict[View, Dataset]:
    return {view: source(view) for view in STANDARD_VIEWS}


def placement(view: View) -> Placement:
    """The breast fills the model image from its chest wall; right breasts are mirrored."""
    scale = H / ROWS
    width = int(W / scale)
    is_right = view.laterality is Laterality.RIGHT
    left = COLUMNS - width if is_right else 0
    return Placement(ROWS, COLUMNS, left, 0, left + width, ROWS, scale, scale, 0.0, 0.0, is_right, H, W)


def display(view: View) -> np.ndarray:
    """A half ellipse of tissue on the left edge, a triangle of muscle in MLO, a bright disc at the lesion."""
    y, x = np.mgrid[:H, :W] + 0.5
    centre_y = 190.0 if view.position is ViewPosition.CC else 215.0
    inside = (x / 175.0) ** 2 + ((y - centre_y) / 150.0) ** 2 < 1.0
    texture = 0.06 * np.sin(x / 9.0) * np.cos(y / 7.0) + 0.05 * np.sin((x + y) / 3.1)
    image = np.where(inside, 0.42 + texture - 0.15 * x / W, 0.0)
    if view.position is ViewPosition.MLO:
        image = np.where(x / 80.0 + y / 240.0 < 1.0, 0.75, image)
    if view in LESIONS:
        _, sx, sy = LESIONS[view]
        (lx, ly), *_ = placement(view).to_model(np.array([[sx, sy]]))
        image += 0.4 * np.exp(-(((x - lx) ** 2 + (y - ly) ** 2) / (2 * 9.0**2)))
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def contract() -> ModelContract:
    names = ("exam_logit", "breast_logits", *(f"finding_logits.{kind.value}" for kind in KINDS))
    return ModelContract(
        contract_version=1,
        name="exam_encoder",
        version="1",
        preset=f"fit-{H}x{W}",
        views=("RCC", "LCC", "RMLO", "LMLO"),
        findings=KINDS,
        outputs=("exam_logit", "exam_embedding", "breast_logits", "finding_logits", "heatmaps"),
        input_shape=(H, W),
        wire_type="float32",
        embed_dim=8,
        heatmap_shape=CELLS,
        heatmap_stride=STRIDE,
        heatmap_offset=OFFSET,
        calibration={name: Calibration(1.0, 0.0, "phantoms", 0.5) for name in names},
        operating_points={kind: OperatingPoint(0.5, 0.5) for kind in KINDS},
        calibrated_on_patients=False,
        weights_hash="5e" * 32,
        text_space=None,
        variant="fp32",
    )


def prediction(lesions: dict[View, tuple[FindingKind, float, float]]) -> Prediction:
    heatmaps = np.zeros((4, len(KINDS), *CELLS), np.float32)
    logits = np.full((4, len(KINDS)), -3.0, np.float32)
    rows, columns = np.mgrid[: CELLS[0], : CELLS[1]]
    y, x = OFFSET[0] + STRIDE[0] * rows, OFFSET[1] + STRIDE[1] * columns
    for view, (kind, sx, sy) in lesions.items():
        (lx, ly), *_ = placement(view).to_model(np.array([[sx, sy]]))
        at = (STANDARD_VIEWS.index(view), KINDS.index(kind))
        heatmaps[at] = 1.3 * np.exp(-((x - lx) ** 2 + (y - ly) ** 2) / (2 * 14.0**2))
        logits[at] = 1.9
    breasts = np.array([1.5 if RCC in lesions else -2.5, 0.4 if LMLO in lesions else -2.5], np.float32)
    return Prediction(float(breasts.max()), np.zeros(8, np.float32), breasts, logits, heatmaps, None, None)


def reading(
    views: tuple[View, ...] = STANDARD_VIEWS,
    lesions: dict[View, tuple[FindingKind, float, float]] | None = None,
    headers: dict[View, Dataset] | None = None,
    **changes: object,
) -> Reading:
    """A reading of `views`, made by `interpret` from blobs of heat at the lesions."""
    headers = headers or sources()
    lesions = {view: at for view, at in (LESIONS if lesions is None else lesions).items() if view in views}
    walls = {view: view.laterality for view in views}
    prepared = {view: PreparedView(display(view), placement(view), walls[view], ()) for view in views}
    meaning = interpret(prediction(lesions), contract(), prepared, (), ReadingSettings(None, False))
    read = tuple(
        ViewReading(
            view=view,
            sop_instance_uid=str(headers[view].SOPInstanceUID),
            sop_class_uid=str(headers[view].SOPClassUID),
            path=f"{view.name}.dcm",
            rows=ROWS,
            columns=COLUMNS,
            placement=placement(view),
            display=prepared[view].pixels,
            heatmap=meaning.heatmaps[view],
            finding_probabilities=meaning.finding_probabilities[view],
            orientation=patient_orientation(headers[view], view, walls[view]),
            flags=(),
        )
        for view in views
    )
    made = Reading(
        study_instance_uid=STUDY,
        number=1,
        read_at=datetime(2026, 3, 14, 12, 30, 15, 250000, tzinfo=UTC),
        model=ModelIdentity("exam_encoder", "1", "5e" * 32, "openvino bf16", f"fit-{H}x{W}", False),
        settings_hash="c0" * 32,
        selection=tuple(sorted((view.sop_instance_uid, "ab" * 32) for view in read)),
        exam_probability=meaning.exam_probability,
        breasts=meaning.breasts,
        views=read,
        not_assessed=meaning.not_assessed,
        findings=meaning.findings,
    )
    return replace(made, **changes)


def destination(*objects: str, **changes: object) -> Destination:
    """A destination that gets `objects`, its preset's where none are named."""
    made = Destination("pacs", "dicom", host="localhost", port=4242, ae_title="PACS", objects=objects or None)
    made = replace(made, **changes)
    check_destination(made, "destinations[0]")
    return made


def shipments(made: Reading, headers: dict[View, Dataset], where: Destination) -> tuple[Shipment, ...]:
    return Rendering(made, headers, lambda result: "").shipments(where)


def encode_all(
    made: Reading, headers: dict[View, Dataset], *objects: str, **changes: object
) -> tuple[EncodedResult, ...]:
    """What a destination gets that wants `objects`; raises where one cannot be made."""
    where = destination(*(objects or ("SR", "SEG", "SC")), **changes)
    results = [shipment.result for shipment in shipments(made, headers, where)]
    for result in results:
        if result.problem:
            raise EncodeError(result.problem)
    return tuple(results)
