"""Phantoms with one known lesion through the shipped model: every object marks it on its breast, and nothing else."""

from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from node.inference.openvino_model import OpenVinoModel
from node.interpretation import interpret
from node.mammography.findings import FindingKind
from node.mammography.pixels import prepare, preset
from node.mammography.views import STANDARD_VIEWS, Laterality, View
from node.results import view_capture, view_picture
from node.results.reading import InstanceReference, ModelIdentity, Reading, ViewReading
from node.settings import InferenceSettings, ReadingSettings
from tests.node.results import exams
from tests.node.results.marked import KIND_COLOURS, contours_in_picture, marks_in
from tests.node.results.test_coordinates import EXPECTED, objects
from training.phantoms import RenderedView, Truth, make_exam, render_view, view_dataset
from training.phantoms.lesions import CALCIFICATION_PLEOMORPHIC, MASS_SPICULATED, LesionKind

MODEL = Path(__file__).parents[3] / "triton_models/exam_encoder"
LOOKED_FOR = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
NOT_ASKED = (("architectural_distortion", 1.0), ("asymmetry", 1.0))
"""Thresholds that nothing reaches: a spiculated mass is a distortion too, and asymmetries are told badly."""
PIXEL_MM = 0.28
MARGIN_PX = 3.0 / PIXEL_MM
"""How far a mark may lie outside the lesion's own box: the model's error, not that of coordinates."""
RAW = "for processing"
PHANTOMS = {
    Laterality.LEFT: (7_200_014, MASS_SPICULATED),
    Laterality.RIGHT: (7_200_001, CALCIFICATION_PLEOMORPHIC),
}
"""The side of the only lesion, the seed, the kind; the shipped model marks it in both views and nothing elsewhere."""
RAW_PHANTOM = (7_200_044, CALCIFICATION_PLEOMORPHIC)
"""The same for raw images: most others have false marks there, which is the model's and not under test."""
CASES = [
    (Laterality.LEFT, "as hung"),
    (Laterality.LEFT, "mirrored"),
    (Laterality.LEFT, RAW),
    (Laterality.RIGHT, "mirrored"),
]

Case = tuple[Reading, dict[View, Dataset], dict[View, Truth]]
"""The reading, the images that are displayed, and the lesion by view."""


@cache
def model() -> OpenVinoModel:
    return OpenVinoModel(InferenceSettings("openvino", MODEL, "f32", 2, "", "", 30.0, 1))


def lesion_of(side: Laterality, storage: str) -> tuple[int, LesionKind]:
    return RAW_PHANTOM if storage == RAW else PHANTOMS[side]


@cache
def phantom(side: Laterality, storage: str) -> dict[View, RenderedView]:
    seed, kind = lesion_of(side, storage)
    exam = make_exam(seed, kinds=(kind,))
    assert [lesion.laterality for lesion in exam.lesions] == [side]
    return {view: render_view(exam, view, PIXEL_MM) for view in STANDARD_VIEWS}


def dataset_of(lesion: tuple[int, LesionKind], rendered: RenderedView, *, for_processing: bool = False) -> Dataset:
    seed, kind = lesion
    return view_dataset(make_exam(seed, kinds=(kind,)), rendered, for_processing=for_processing)


def mirrored(rendered: RenderedView) -> RenderedView:
    """The same image stored with its chest wall on the other edge, and the truth with it."""
    columns = rendered.pixels.shape[1]
    truth = tuple(
        replace(thing, patch=thing.patch[:, ::-1], left=columns - thing.left - thing.patch.shape[1])
        for thing in rendered.truth
    )
    return replace(rendered, pixels=np.ascontiguousarray(rendered.pixels[:, ::-1]), truth=truth)


@cache
def read(side: Laterality, storage: str) -> Case:
    """One phantom, stored in one way, as the node reads it."""
    contract, lesion = model().contract, lesion_of(side, storage)
    stored = {view: mirrored(one) if storage == "mirrored" else one for view, one in phantom(side, storage).items()}
    shown = {view: dataset_of(lesion, one) for view, one in stored.items()}
    raw = storage == RAW
    seen = {view: dataset_of(lesion, one, for_processing=True) for view, one in stored.items()} if raw else shown
    for view in STANDARD_VIEWS if storage == "mirrored" else ():
        row, column = shown[view].PatientOrientation
        shown[view].PatientOrientation = [{"A": "P", "P": "A"}[row], column]
    prepared = {view: prepare(seen[view], view.laterality, preset(contract.preset)) for view in STANDARD_VIEWS}
    pixels = np.stack([prepared[view].pixels[None] for view in STANDARD_VIEWS])
    meaning = interpret(
        model().infer(pixels, np.ones(4, bool)), contract, prepared, NOT_ASKED, ReadingSettings(None, False)
    )
    views = tuple(
        ViewReading(
            view=view,
            sop_instance_uid=str(shown[view].SOPInstanceUID),
            sop_class_uid=str(shown[view].SOPClassUID),
            path="",
            rows=shown[view].Rows,
            columns=shown[view].Columns,
            placement=prepared[view].placement,
            display=prepared[view].pixels,
            heatmap=meaning.heatmaps[view],
            finding_probabilities=meaning.finding_probabilities[view],
            orientation=tuple(shown[view].PatientOrientation),
            flags=prepared[view].flags,
            spacing_mm=(PIXEL_MM, PIXEL_MM),
            read_from=reference(seen[view]) if raw else None,
        )
        for view in STANDARD_VIEWS
    )
    made = replace(
        exams.reading(lesions={}),
        study_instance_uid=str(shown[STANDARD_VIEWS[0]].StudyInstanceUID),
        model=ModelIdentity("exam_encoder", "1", "5e" * 32, "f32", contract.preset, False),
        selection=tuple(sorted((view.sop_instance_uid, "ab" * 32) for view in views)),
        exam_probability=meaning.exam_probability,
        breasts=meaning.breasts,
        views=views,
        not_assessed=meaning.not_assessed,
        findings=meaning.findings,
        correspondences=meaning.correspondences,
    )
    for dataset in shown.values():
        del dataset.PixelData
    lesions = {
        view: thing for view, one in stored.items() for thing in one.truth if thing.finding and view.laterality is side
    }
    return made, shown, lesions


def reference(dataset: Dataset) -> InstanceReference:
    return InstanceReference(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID))


def lies_in(point: NDArray[np.float64], truth: Truth) -> bool:
    """Whether a stored point (x, y) lies on the lesion's box, or within MARGIN_PX of it."""
    rows, columns = truth.patch.shape
    return bool(
        truth.left - MARGIN_PX <= point[0] <= truth.left + columns + MARGIN_PX
        and truth.top - MARGIN_PX <= point[1] <= truth.top + rows + MARGIN_PX
    )


@pytest.mark.parametrize(("side", "storage"), CASES)
def test_every_object_marks_the_phantom_s_lesion_and_nothing_else(side, storage):
    reading, sources, lesions = read(side, storage)
    by_uid = {str(sources[view].SOPInstanceUID): truth for view, truth in lesions.items()}
    assert {finding.view for finding in reading.findings} == set(lesions)
    marks = [mark for content in objects(reading, sources) for mark in marks_in(content)]
    regions = [mark for mark in marks if "FRACTIONAL" not in mark.what]
    for uid, truth in by_uid.items():
        on_image = [mark for mark in regions if mark.image_uid == uid]
        assert {mark.what for mark in on_image} == {name for name in EXPECTED if "FRACTIONAL" not in name}
        assert [mark.what for mark in on_image if not lies_in(mark.middle, truth)] == []
        hottest = [mark for mark in marks if mark.image_uid == uid and "FRACTIONAL" in mark.what]
        assert any(lies_in(mark.middle, truth) for mark in hottest)
    assert {mark.image_uid for mark in regions} == set(by_uid)


@pytest.mark.parametrize(("side", "storage"), CASES)
def test_pictures_show_the_phantom_s_lesion_on_its_side_of_the_hung_breast(side, storage):
    reading, sources, lesions = read(side, storage)
    pictures = {
        view.view: pydicom.dcmread(BytesIO(result.content)).pixel_array
        for view, result in zip(reading.views, view_capture.encode(reading, sources), strict=True)
    }
    for view, picture in pictures.items():
        drawn = [at for kind in LOOKED_FOR for at in contours_in_picture(picture, KIND_COLOURS[kind])]
        assert (len(drawn) > 0) is (view in lesions)
        for at in drawn:
            assert lies_in(stored_point(reading, view, storage, at), lesions[view])


def stored_point(reading: Reading, view: View, storage: str, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a point of a picture lies in the stored image, by how breasts are hung; only the crop is asked for."""
    place = next(read.placement for read in reading.views if read.view == view)
    width, height = place.crop_right - place.crop_left, place.crop_bottom - place.crop_top
    scale = min(view_picture.PANEL_WIDTH / width, view_picture.PANEL_HEIGHT / height)
    is_right = view.laterality is Laterality.RIGHT
    from_wall = (view_picture.PANEL_WIDTH - at[0] if is_right else at[0]) / scale
    wall_is_right = is_right is not (storage == "mirrored")
    x = place.crop_right - from_wall if wall_is_right else place.crop_left + from_wall
    margin = (view_picture.PANEL_HEIGHT - height * scale) / 2
    return np.array([x, place.crop_top + (at[1] - view_picture.HEADER_HEIGHT - margin) / scale])
