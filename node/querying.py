"""`query`: phrases asked of exams of the node's archive or of files, one JSON line an exam. Nothing leaves the node."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from node.answering import PhraseMark, Question, ViewAnswer, absence_words, answers_of, question_of
from node.database import Database
from node.database.exams import exam_records
from node.errors import ContractError, NodeError, QuestionError
from node.exam import Exam, assemble
from node.inference.phrase_models import PhraseModels
from node.instance import Instance, instance_of
from node.intake import exam_of
from node.loading import Images, LoadedView, prepare_images, read_images
from node.mammography.findings import Place
from node.mammography.known_phrases import nearest
from node.mammography.phrases import SIDES
from node.mammography.pixels import preset
from node.results.phrase_page import PhraseView, mark_of, render_phrase
from node.results.reading import ViewReading
from node.settings import ExamSettings

MEANING = "relative index 0 to 1, fitted on {dataset}, {patients}; no probability of disease"

Embedded = NDArray[np.float32] | None
"""Unit vectors (P, D) of the phrases that were trained on; None where they are not told."""


@dataclass(frozen=True, slots=True, eq=False)
class Inquiry:
    """Phrases, understood and embedded, and the models that answer them. `overlays`: a folder for pictures, or None."""

    models: PhraseModels
    questions: tuple[Question, ...]
    embeddings: NDArray[np.float32]
    settings: ExamSettings
    overlays: Path | None = None

    @property
    def meaning(self) -> str:
        """What the numbers are, in words."""
        contract = self.models.query
        patients = "calibrated on patients" if contract.calibrated_on_patients else "not calibrated on patients"
        return MEANING.format(dataset=contract.calibration.dataset, patients=patients)


def inquire(
    models: PhraseModels, texts: Sequence[str], settings: ExamSettings, overlays: Path | None = None
) -> Inquiry:
    """Understand and embed phrases. Raises QuestionError for the first that cannot be, ModelError."""
    if not texts:
        raise QuestionError("no phrase is asked for")
    asked = [question_of(text) for text in texts]
    embeddings = models.embed([question.statement.finding for question in asked])
    known = models.embed(models.known.phrases) if models.known is not None and models.known.phrases else None
    questions = tuple(
        _remarked(question, embedding, models, known) for question, embedding in zip(asked, embeddings, strict=True)
    )
    return Inquiry(models, questions, embeddings, replace(settings, read_incomplete=True), overlays)


def answer(inquiry: Inquiry, exams: Iterator[Exam], stream: TextIO) -> int:
    """A JSON line for each exam as it is done. Returns how many could not be asked; why stands in their lines.

    Raises ContractError: no other exam would fare better.
    """
    failed = 0
    for exam in exams:
        try:
            line = ask(inquiry, exam)
        except ContractError:
            raise
        except NodeError as error:
            failed += 1
            line = {"study_instance_uid": exam.study_instance_uid, "error": str(error)}
        stream.write(json.dumps(line) + "\n")
        stream.flush()
    return failed


def ask(inquiry: Inquiry, exam: Exam) -> dict[str, Any]:
    """What one exam answers. Raises UnreadableError where it cannot be asked, ModelError where the models fail."""
    if exam.problem is not None or not exam.chosen:
        raise QuestionError(exam.problem or "no image of a standard view")
    models = inquiry.models
    images = prepare_images(exam, read_images(exam), preset(models.query.preset), True)
    if not images.loaded:
        raise QuestionError("; ".join(f"{unread.view}: {unread.reason}" for unread in images.unread))
    found = models.ask(*images.tensors(), inquiry.embeddings)
    answers = [
        answers_of(
            question,
            number,
            found,
            models.query,
            {image.view: image.prepared for image in images.loaded},
            orientations={image.view: image.orientation for image in images.loaded},
            spacings={image.view: image.spacing_mm for image in images.loaded},
        )
        for number, question in enumerate(inquiry.questions)
    ]
    told = [
        _phrase_json(question, views, images) | _overlay(inquiry, exam, number, views, images)
        for number, (question, views) in enumerate(zip(inquiry.questions, answers, strict=True))
    ]
    return {
        "study_instance_uid": exam.study_instance_uid,
        "asked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "meaning": inquiry.meaning,
        "models": _models_json(models),
        "not_asked": _not_asked(exam, images),
        "phrases": told,
    }


def archived(database: Database, uids: Sequence[str], settings: ExamSettings) -> Iterator[Exam]:
    """Exams of the node's archive as their images now stand; `problem` tells of those of which nothing arrived."""
    for uid in uids:
        exam = exam_of(database, uid, settings)
        yield exam if exam.instances else replace(exam, problem="nothing of this study has arrived")


def every_uid(database: Database, limit: int) -> tuple[str, ...]:
    """The studies that changed last, newest first. Raises QuestionError where there is none."""
    found = tuple(record.study_instance_uid for record in exam_records(database, max(limit, 0)))
    if not found:
        raise QuestionError(f"--every-exam: nothing has arrived, or --limit is {limit}")
    return found


def in_folders(folders: Sequence[Path], settings: ExamSettings) -> Iterator[Exam]:
    """The studies of the DICOM files below some folders, or of single files, by Study Instance UID.

    Of two files with one SOP Instance UID the first counts. What is no DICOM file is passed over. Raises QuestionError
    where a folder is not there or there is no DICOM file at all.
    """
    studies: dict[str, dict[str, Instance]] = {}
    for file in _files(folders):
        instance = _instance_in(file, settings)
        if instance is not None:
            studies.setdefault(instance.study_instance_uid, {}).setdefault(instance.sop_instance_uid, instance)
    if not studies:
        raise QuestionError(f"no DICOM file in {', '.join(map(str, folders))}")
    for uid, instances in sorted(studies.items()):
        yield assemble(uid, tuple(instances.values()), settings)


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.rglob("*") if path.is_file())
        elif folder.is_file():
            yield folder
        else:
            raise QuestionError(f"{folder}: no such file or folder")


def _instance_in(file: Path, settings: ExamSettings) -> Instance | None:
    try:
        header = dcmread(file, stop_before_pixels=True)
        return instance_of(
            header,
            content_hash="",
            path=str(file),
            received_at=datetime.now(UTC),
            from_patient_orientation=settings.view_from_patient_orientation,
        )
    except (InvalidDicomError, EOFError, OSError, ValueError, TypeError):
        return None


def _remarked(question: Question, embedding: NDArray[np.float32], models: PhraseModels, known: Embedded) -> Question:
    """With a remark where the models were not trained on such a phrase."""
    finding = question.statement.finding
    if models.known is not None and known is not None:
        remarks = models.known.remarks(finding, nearest(embedding, known)[1])
    else:
        unknown = [word for word in dict.fromkeys(finding.split()) if models.tokens.pieces(word) != [word]]
        said = f"not known to the text encoder as words: {', '.join(unknown)}; trust the answer less"
        remarks = (said,) if unknown else ()
    return replace(question, remarks=(*question.remarks, *remarks))


def _models_json(models: PhraseModels) -> dict[str, Any]:
    return {
        "exam_query": f"{models.query.version} ({models.query_variant})",
        "text_encoder": f"{models.text.version} ({models.text_variant})",
        "weights_hash": models.query.weights_hash,
        "text_space": models.query.text_space,
    }


def _not_asked(exam: Exam, images: Images) -> list[str]:
    unread = [f"{view.view}: {view.reason}" for view in images.unread]
    return [*(f"{view}: no image" for view in exam.missing()), *unread, *images.not_assessed]


def _phrase_json(question: Question, answers: Sequence[ViewAnswer], images: Images) -> dict[str, Any]:
    statement = question.statement
    where = statement.location
    uids = {image.view: image.shown.sop_instance_uid for image in images.loaded}
    asked = [answer for answer in answers if answer.asked]
    shown = [answer.view.name for answer in asked if answer.shown]
    return {
        "text": question.text,
        "understood": {
            "finding": statement.finding,
            "denied": statement.negated,
            "side": SIDES[where.side] if where.side else "",
            "view": statement.view,
            "position": where.position,
            "depth": where.depth,
        },
        "remarks": list(question.remarks),
        "answer": _answer_words(statement.negated, asked, shown),
        "index": _rounded(max((answer.index for answer in asked if answer.index is not None), default=None)),
        "shown_in": [] if statement.negated else shown,
        "views": [_view_json(answer, uids[answer.view], statement.negated) for answer in answers],
    }


def _answer_words(denied: bool, asked: Sequence[ViewAnswer], shown: Sequence[str]) -> str:
    if not asked:
        return "not asked of any view"
    if denied:
        return f"absence cannot be confirmed: {', '.join(shown)}" if shown else "not seen: absence is not contradicted"
    return f"shown in {', '.join(shown)}" if shown else "not seen"


def _view_json(answer: ViewAnswer, uid: str, denied: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"view": answer.view.name, "sop_instance_uid": uid, "asked": answer.asked}
    told["remarks"] = list(answer.remarks)
    if not answer.asked:
        return told
    told |= {"logit": _rounded(answer.logit), "index": _rounded(answer.index), "heat": _rounded(answer.heat)}
    if denied:
        return told | {"answer": absence_words(answer)}
    return told | {"shown": answer.shown, "marks": [_mark_json(mark) for mark in answer.marks]}


def _mark_json(mark: PhraseMark) -> dict[str, Any]:
    """Coordinates in stored pixels: (column, row), (0, 0) is the corner of the first pixel."""
    box = mark.box
    return {
        "centre": [_rounded(value, 1) for value in mark.centre],
        "box": [_rounded(value, 1) for value in (box.left, box.top, box.right, box.bottom)],
        "contour": [[_rounded(x, 1), _rounded(y, 1)] for x, y in mark.contour],
        "heat": _rounded(mark.peak_heat),
        "place": None if mark.place is None else _place_json(mark.place),
    }


def _place_json(place: Place) -> dict[str, Any]:
    return {
        "depth": place.depth.value,
        "sector": None if place.sector is None else place.sector.value,
        "nipple_distance": _rounded(place.nipple_distance),
        "nipple_distance_mm": _rounded(place.nipple_distance_mm, 1),
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(float(value), digits)


def _overlay(
    inquiry: Inquiry, exam: Exam, number: int, answers: Sequence[ViewAnswer], images: Images
) -> dict[str, str]:
    """The picture of one phrase, where pictures are wanted. Raises QuestionError where it cannot be written."""
    if inquiry.overlays is None:
        return {}
    question, loaded = inquiry.questions[number], {image.view: image for image in images.loaded}
    views = {
        answer.view: _drawn(loaded[answer.view], answer)
        for answer in answers
        if answer.asked and answer.index is not None
    }
    absent = {answer.view: "; ".join(answer.remarks) for answer in answers if not answer.asked}
    absent |= {unread.view: unread.reason for unread in images.unread}
    models = inquiry.models
    footer = f"exam_query {models.query.version}   weights {models.query.weights_hash[:12]}   {models.query_variant}"
    picture = render_phrase(question.text, "; ".join([inquiry.meaning, *question.remarks]), footer, views, absent)
    file = inquiry.overlays / f"{exam.study_instance_uid}-{number + 1}.png"
    try:
        inquiry.overlays.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    except OSError as error:
        raise QuestionError(f"{file}: cannot be written: {os.strerror(error.errno or 0)}") from error
    return {"overlay": str(file)}


def _drawn(image: LoadedView, answer: ViewAnswer) -> PhraseView:
    shown = image.shown
    reading = ViewReading(
        view=image.view,
        sop_instance_uid=shown.sop_instance_uid,
        sop_class_uid=shown.sop_class_uid,
        path=shown.path,
        rows=shown.rows,
        columns=shown.columns,
        placement=image.prepared.placement,
        display=image.prepared.pixels,
        heatmap=None if answer.registered is None else answer.registered[None],
        finding_probabilities=(),
        orientation=image.orientation,
        flags=image.flags,
    )
    marks = tuple(
        mark_of(mark.contour, number, f"heat {mark.peak_heat:.2f}") for number, mark in enumerate(answer.marks, 1)
    )
    words = (f"index {answer.index:.2f}", f"heat {answer.heat:.2f}", *answer.remarks)
    return PhraseView(reading, marks, words)
