"""Any phrase asked of an image: heat where it is shown, marks, and in words what is not known of it.

The phrase is parsed by `node.mammography.phrases`: the finding's words go to the text tower, words of side, view and
place become a mask. A denied finding ("no mass") gives no heat; whether it is absent is answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.errors import NodeError, SettingsError
from node.mammography.anatomy import Landmarks, find_landmarks, hung_orientation, spacing_mm
from node.mammography.known_phrases import KnownPhrases, nearest
from node.mammography.phrases import Statement, parse
from node.mammography.pixels import Placement, PreparedView
from node.mammography.place_words import PlaceMask, place_mask
from node.mammography.regions import HeatGrid
from node.mammography.views import STANDARD_VIEWS, Laterality, View, view_of
from training.cache import prepare_exam
from training.localisation import FloatImage
from training.mammo_clip.breasts import DataError
from training.mammo_clip.factor import HeatSettings, PaperMapper, SharedMapper, image_scores, phrase_heat
from training.mammo_clip.factor_features import grid_of
from training.mammo_clip.factor_folder import check_fits, load_any_mapper, load_phrases
from training.mammo_clip.factor_phrases import embed, finding_embeddings, plain_phrase
from training.mammo_clip.factor_views import FINDINGS
from training.mammo_clip.grammar import ATTRIBUTES
from training.mammo_clip.images import DICOM_ENDINGS, WholeImage
from training.mammo_clip.importing import RECORD as IMPORTED
from training.mammo_clip.loading import LoadedModel, load_model
from training.mammo_clip.localising import HeatBox, breast_of, half_maximum_boxes, registered, scaled_per_image
from training.mammo_clip.released import CheckpointError

PHANTOM = "phantom:"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A phrase as it was understood. `embedding` (D,) unit length; `like` the finding of the nearest trained phrase."""

    phrase: str
    statement: Statement
    embedding: Tensor
    like: str
    remarks: tuple[str, ...]


def ask(model: LoadedModel, known: KnownPhrases, phrase: str) -> Question:
    """Parse and embed a phrase. Raises DataError with the parser's words."""
    try:
        statement = parse(phrase)
    except ValueError as error:
        raise DataError(f"--text {error}") from error
    vectors = embed(model, [statement.finding, *known.phrases]).numpy()
    number, cosine = nearest(vectors[0], vectors[1:])
    remarks = known.remarks(statement.finding, cosine)
    return Question(phrase, statement, torch.from_numpy(vectors[0]), finding_in(known.phrases[number]), remarks)


def finding_in(text: str) -> str:
    """Which of FINDINGS a training phrase speaks of."""
    return next(name for name in FINDINGS if ATTRIBUTES[name].noun in text)


@dataclass(frozen=True, slots=True, eq=False)
class AskedImage:
    """One image to be asked: `plane` uint8 (H, W) as the model sees it, and where it lies in its file.

    `view` None: not known. `orientation` as `anatomy.place` takes it; () where not known.
    """

    name: str
    plane: NDArray[np.uint8]
    prepared: PreparedView
    view: View | None
    orientation: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None


def read_images(names: Sequence[str], model: LoadedModel, view: View | None) -> list[AskedImage]:
    """DICOM objects, pictures (`view` says what they show), and "phantom:SEED" for four views. Raises DataError."""
    found: list[AskedImage] = []
    for name in names:
        if name.startswith(PHANTOM):
            found += _phantom(name, model)
        else:
            found.append(_file(Path(name), model, view))
    return found


def _phantom(name: str, model: LoadedModel) -> list[AskedImage]:
    try:
        seed = int(name.removeprefix(PHANTOM))
    except ValueError as error:
        raise DataError(f"{name}: write {PHANTOM}SEED, a whole number") from error
    preset = f"fit-{model.input.height}x{model.input.width}"
    images = prepare_exam(seed, preset_name=preset).images
    return [
        phantom_image(f"phantom-{seed}-{view}", plane, view) for view, plane in zip(STANDARD_VIEWS, images, strict=True)
    ]


def phantom_image(name: str, plane: NDArray[np.uint8], view: View) -> AskedImage:
    """A view of a cached exam: chest wall on the left edge, hung as usual, its own frame."""
    rows, columns = plane.shape
    placement = Placement(rows, columns, 0, 0, columns, rows, 1.0, 1.0, 0.0, 0.0, False, rows, columns)
    prepared = PreparedView(plane.astype(np.float32) / np.float32(255.0), placement, Laterality.LEFT, ())
    return AskedImage(name, plane, prepared, view, hung_orientation(view, Laterality.LEFT))


def _file(path: Path, model: LoadedModel, view: View | None) -> AskedImage:
    try:
        if path.suffix.lower() in DICOM_ENDINGS:
            return _dicom(path, model)
        side = view.laterality if view else None
        prepared = WholeImage(path, side, model.input.preset).prepared()
    except (OSError, ValueError, KeyError, AttributeError, NodeError) as error:
        raise DataError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error
    orientation = hung_orientation(view, prepared.chest_wall) if view else ()
    return AskedImage(path.stem, _plane(prepared), prepared, view, orientation)


def _dicom(path: Path, model: LoadedModel) -> AskedImage:
    header = pydicom.dcmread(path)
    view = view_of(header)
    prepared = WholeImage(path, view.laterality, model.input.preset).prepared()
    orientation = tuple(str(word) for word in header.get("PatientOrientation") or ())
    return AskedImage(path.stem, _plane(prepared), prepared, view, orientation, spacing_mm(header))


def _plane(prepared: PreparedView) -> NDArray[np.uint8]:
    return np.round(prepared.pixels * 255.0).astype(np.uint8)


def landmarks_of(image: AskedImage) -> Landmarks | None:
    """Nipple and chest wall; None where the view is not known or they are not found."""
    if image.view is None:
        return None
    return find_landmarks(image.prepared, image.view, image.orientation, image.spacing)


def mask_for(statement: Statement, image: AskedImage) -> PlaceMask:
    """Where in this image the statement may be shown."""
    return place_mask(statement, image.view, image.prepared, landmarks_of(image), image.orientation, image.spacing)


@dataclass(frozen=True, slots=True)
class Threshold:
    """From validation, by finding: `presence`, the score of cosines from which a view shows it, and `heat_scale`, the
    median peak at true lesions. Imported heads have none: presence -1, every view shows it.
    """

    presence: float
    heat_scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What is said of one image. `heat` (H, W) in units of the median peak at true lesions, 0 where nothing may be
    shown; `boxes` in model pixels; `presence` the score of the channels' cosines with the phrase.
    """

    image: AskedImage
    words: str
    heat: FloatImage
    boxes: tuple[HeatBox, ...]
    presence: float
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Asker:
    """A model and its mapper, ready to be asked. `encoder` gives the maps, `model` reads the phrases.

    The paper's mapper has one head for each of `thresholds` and answers for these alone, with `heads` (K, D) and heat
    scaled from 0 to 1 in each image, as published.
    """

    model: LoadedModel
    encoder: LoadedModel
    mapper: SharedMapper | PaperMapper
    settings: HeatSettings
    grid: HeatGrid
    thresholds: dict[str, Threshold]
    heads: Tensor | None = None

    @torch.inference_mode()
    def answer(self, question: Question, image: AskedImage) -> Answer:
        """Heat, marks and words for one image."""
        place = mask_for(question.statement, image)
        remarks, nothing = (*question.remarks, *place.remarks), np.zeros(image.plane.shape, np.float32)
        if not place.asked:
            return Answer(image, "not asked of this view", nothing, (), float("nan"), remarks)
        maps = self.encoder.features(image.plane[None]).feature_map.float().cpu()
        cosines, limits = self._cosines(question, maps), self.thresholds[question.like]
        presence = float(image_scores(cosines, self.settings))
        shown = presence >= limits.presence
        if question.statement.negated:
            return Answer(image, _absence(shown), nothing, (), presence, remarks)
        inside = breast_of(image.plane)
        heat = registered(phrase_heat(maps, cosines, self.settings)[0, 0].numpy(), self.grid, inside)
        scaled = heat / np.float32(limits.heat_scale) if self.heads is None else scaled_per_image(heat, inside)
        placed = np.where(place.inside, scaled, np.float32(0.0))
        boxes = half_maximum_boxes(placed, inside & place.inside) if shown else ()
        return Answer(image, "shown" if boxes else _NOT_SEEN, placed, boxes, presence, remarks)

    def _cosines(self, question: Question, maps: Tensor) -> Tensor:
        """(1, C, 1)."""
        if self.heads is None:
            found: Tensor = self.mapper(maps, question.embedding[None])
            return found
        head = list(self.thresholds).index(question.like)
        every: Tensor = self.mapper(maps, self.heads)
        return every[..., head : head + 1]


_NOT_SEEN = "not seen above the operating point"


def load_asker(model: LoadedModel, folder: Path) -> tuple[Asker, KnownPhrases]:
    """A mapper's folder with the model that it was trained on, or an imported FActOR file with a model whose text tower
    was its own. Raises CheckpointError.
    """
    if (folder / IMPORTED).is_file():
        return _imported_asker(model, folder)
    found = load_any_mapper(folder)
    check_fits(folder, found, model)
    record = found.record
    thresholds = {
        name: Threshold(float(limits["presence"]), float(limits["heat_scale"]))
        for name, limits in record["findings"].items()
    }
    grid = HeatGrid((record["stride"][0], record["stride"][1]), (record["offset"][0], record["offset"][1]))
    heads = finding_embeddings(model, list(thresholds)) if isinstance(found.mapper, PaperMapper) else None
    try:
        return Asker(model, model, found.mapper, found.heat, grid, thresholds, heads), load_phrases(folder)
    except SettingsError as error:
        raise CheckpointError(str(error)) from error


RELEASED_FINDINGS = ("Mass", "Suspicious_Calcification")
"""What the heads of the authors' FActOR file stand for, in order (their notebook)."""
RELEASED_HEAT = HeatSettings(strongest=3, temperature=0.0)


def _imported_asker(model: LoadedModel, folder: Path) -> tuple[Asker, KnownPhrases]:
    encoder = load_model(folder)
    if encoder.mapper is None:
        raise CheckpointError(
            f"{folder}: holds a {encoder.kind}, no mapper; give a folder of `factor`, or a FActOR file"
        )
    names = RELEASED_FINDINGS[: len(encoder.mapper.pool)]
    heads = finding_embeddings(model, names)
    thresholds = {name: Threshold(-1.0, 1.0) for name in names}
    texts = tuple(plain_phrase(name).text for name in names)
    known = KnownPhrases(texts, frozenset(word for text in texts for word in text.split()), -1.0)
    return Asker(model, encoder, encoder.mapper, RELEASED_HEAT, grid_of(encoder), thresholds, heads), known


def _absence(shown: bool) -> str:
    """What is said of a denied finding."""
    if shown:
        return "its absence cannot be confirmed: the finding is seen above the operating point"
    return "absent: the finding is not seen above the operating point"


def stored_box(box: HeatBox, image: AskedImage) -> list[float]:
    """Left, top, right, bottom in pixels of the file, in the frame of DICOM's SCOORD."""
    left, top, right, bottom = box.box
    corners = image.prepared.placement.to_stored(np.array([[left, top], [right, bottom]]))
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return [round(float(value), 2) for value in (x0, y0, x1, y1)]
