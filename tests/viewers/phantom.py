"""A phantom exam as the shipped model reads it: files for a PACS, the reading, its sources, the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset

from node.inference.load import load_model
from node.inference.model import Model
from node.interpretation import Interpretation, interpret
from node.mammography.findings import Finding, FindingKind
from node.mammography.pixels import PreparedView, prepare, preset
from node.mammography.views import STANDARD_VIEWS, Laterality, View
from node.results.orientation import patient_orientation
from node.results.reading import ModelIdentity, Reading, ViewReading
from node.settings import InferenceSettings, ReadingSettings
from training.phantoms import PhantomExam, RenderedView, make_exam, render_view
from training.phantoms.dicom import phantom_uid, view_dataset
from training.phantoms.lesions import CALCIFICATION_PLEOMORPHIC, MASS_SPICULATED

MODEL_FOLDER = Path(__file__).parents[2] / "triton_models/exam_encoder"
SEED = 7_000_107
"""No split of training or evaluation holds it."""
PIXEL_MM = 0.14
MAGNIFICATION = 1.1
"""Source to detector over source to patient, as the phantom's headers have it: 660 mm and 600 mm."""
READ_AT = datetime(2026, 3, 14, 12, 30, 15, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PhantomReading:
    """By view: `sources`, without pixels; `display`, values (rows, columns) in [0, 1] that its image shows;
    `truth`, the pixels (rows, columns) of its lesions by kind.
    """

    files: tuple[Path, ...]
    sources: dict[View, Dataset]
    reading: Reading
    display: dict[View, np.ndarray]
    truth: dict[View, dict[FindingKind, np.ndarray]]


def read_phantom(folder: Path) -> PhantomReading:
    """A spiculated mass in the right breast, pleomorphic calcifications in the left one; half-size pixels."""
    kinds = (MASS_SPICULATED.on(Laterality.RIGHT), CALCIFICATION_PLEOMORPHIC.on(Laterality.LEFT))
    exam = make_exam(SEED, kinds=kinds)
    rendered = {view: render_view(exam, view, PIXEL_MM) for view in STANDARD_VIEWS}
    images = {view: _image(exam, rendered[view]) for view in STANDARD_VIEWS}
    files = tuple(folder / f"{view.name}.dcm" for view in STANDARD_VIEWS)
    for image, file in zip(images.values(), files, strict=True):
        image.save_as(file, enforce_file_format=True)
    truth = {view: _truth(rendered[view]) for view in rendered}
    model = load_model(InferenceSettings("openvino", MODEL_FOLDER, "f32", 1, "", "", 30.0, 1))
    wanted = preset(model.contract.preset)
    prepared = {view: prepare(image, view.laterality, wanted) for view, image in images.items()}
    for image in images.values():
        del image.PixelData
    meaning = _interpreted(model, prepared)
    meaning = replace(meaning, findings=_one_a_view(meaning.findings, truth))
    return PhantomReading(
        files,
        images,
        _reading(model, images, prepared, meaning),
        {view: rendered[view].pixels for view in rendered},
        truth,
    )


def _image(exam: PhantomExam, rendered: RenderedView) -> FileDataset:
    """A series for each view, named after it, as many mammography units write them.

    Where all views are in one series, OHIF 3.12.10 may take a segmentation of any of them for one of the first: it does
    where the segmentation is listed before the image.
    """
    image = view_dataset(exam, rendered)
    image.SeriesInstanceUID = phantom_uid(exam, f"series of {rendered.view.name}")
    image.SeriesNumber = image.InstanceNumber
    image.SeriesDescription = f"{rendered.view.laterality.value} {rendered.view.position.value}"
    return image


def _interpreted(model: Model, prepared: Mapping[View, PreparedView]) -> Interpretation:
    tensor = np.stack([prepared[view].pixels for view in STANDARD_VIEWS])[:, None]
    prediction = model.infer(tensor, np.ones(len(STANDARD_VIEWS), np.bool_))
    return interpret(prediction, model.contract, prepared, (), ReadingSettings(None, False))


def _reading(
    model: Model, images: Mapping[View, Dataset], prepared: Mapping[View, PreparedView], meaning: Interpretation
) -> Reading:
    contract = model.contract
    return Reading(
        study_instance_uid=str(images[STANDARD_VIEWS[0]].StudyInstanceUID),
        number=1,
        read_at=READ_AT,
        model=ModelIdentity(
            contract.name, contract.version, contract.weights_hash, model.variant, contract.preset, False
        ),
        settings_hash="c0" * 32,
        selection=tuple(sorted((str(image.SOPInstanceUID), _hash(image)) for image in images.values())),
        exam_probability=meaning.exam_probability,
        breasts=meaning.breasts,
        views=tuple(_view(view, images[view], prepared[view], meaning) for view in STANDARD_VIEWS),
        not_assessed=meaning.not_assessed,
        findings=meaning.findings,
    )


def _hash(image: Dataset) -> str:
    return sha256(str(image.SOPInstanceUID).encode()).hexdigest()


def _view(view: View, image: Dataset, prepared: PreparedView, meaning: Interpretation) -> ViewReading:
    spacing = float(image.ImagerPixelSpacing[0]) / MAGNIFICATION
    return ViewReading(
        view=view,
        sop_instance_uid=str(image.SOPInstanceUID),
        sop_class_uid=str(image.SOPClassUID),
        path=f"{view.name}.dcm",
        rows=int(image.Rows),
        columns=int(image.Columns),
        placement=prepared.placement,
        display=prepared.pixels,
        heatmap=meaning.heatmaps[view],
        finding_probabilities=meaning.finding_probabilities[view],
        orientation=patient_orientation(image, view, prepared.chest_wall),
        flags=prepared.flags,
        spacing_mm=(spacing, spacing),
    )


def _one_a_view(
    findings: Sequence[Finding], truth: Mapping[View, Mapping[FindingKind, np.ndarray]]
) -> tuple[Finding, ...]:
    """The first finding of each view that lies on its lesion. What the viewers show of it is compared with the truth;
    the model's other marks, and how many there are, are no matter of theirs.
    """
    on_lesions = {finding.view: finding for finding in reversed(findings) if _lies_on(finding, truth)}
    return tuple(on_lesions[view] for view in STANDARD_VIEWS if view in on_lesions)


def _lies_on(finding: Finding, truth: Mapping[View, Mapping[FindingKind, np.ndarray]]) -> bool:
    mask = truth[finding.view].get(finding.kind)
    x, y = (int(value) for value in finding.centre)
    return mask is not None and bool(mask[y, x])


def _truth(rendered: RenderedView) -> dict[FindingKind, np.ndarray]:
    masks = {kind: rendered.finding_mask(kind) for kind in FindingKind}
    return {kind: mask for kind, mask in masks.items() if mask.any()}
