"""Phrases asked of one exam: what each view answers, and where. Pure.

Side, view, position and depth in a phrase limit where heat counts (mammography.place_words); what is left names the
finding, for the text encoder. A denied phrase ("no mass") asks for the finding and is answered as its absence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from node.errors import QuestionError
from node.interpretation import calibrated, heat_grid, outline_of
from node.mammography.anatomy import find_landmarks, place
from node.mammography.contract import QueryAnswer, QueryContract
from node.mammography.findings import Box, Place
from node.mammography.marking import FURTHER_SHARE, MAXIMUM_REGIONS
from node.mammography.phrases import Statement, parse
from node.mammography.pixels import CONSTANT_IMAGE, PreparedView
from node.mammography.place_words import PlaceMask, place_mask
from node.mammography.regions import breast_mask, find_regions, register_heatmap
from node.mammography.views import STANDARD_VIEWS, View

LONGEST_PHRASE = 200
"""Characters."""


@dataclass(frozen=True, slots=True)
class Question:
    """One phrase as it was asked and as it is understood; `remarks` are what the asker should know of it."""

    text: str
    statement: Statement
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhraseMark:
    """One region: centre, contour and box in stored pixels as in findings.Finding, its peak heat and its place."""

    centre: tuple[float, float]
    contour: tuple[tuple[float, float], ...]
    box: Box
    peak_heat: float
    place: Place | None


@dataclass(frozen=True, slots=True, eq=False)
class ViewAnswer:
    """What one view says of one phrase.

    `asked` False: the phrase speaks of another side or view, and nothing else is told. `index` in [0, 1] is the
    calibrated logit of the whole view, whatever the place; `heat` the greatest heat inside the breast and the phrase's
    place, `heat_at` where that is, in stored pixels. `shown`: both reach their operating values. `marks`: none where
    the phrase is denied or not shown. `registered` (H, W): heat on the model's pixels, 0 outside the place.
    """

    view: View
    asked: bool
    remarks: tuple[str, ...]
    logit: float | None = None
    index: float | None = None
    heat: float | None = None
    heat_at: tuple[float, float] | None = None
    shown: bool = False
    marks: tuple[PhraseMark, ...] = ()
    registered: NDArray[np.float32] | None = None


def question_of(text: str) -> Question:
    """Understand a phrase. Raises QuestionError in words for whoever asks."""
    if not text.strip() or len(text) > LONGEST_PHRASE:
        raise QuestionError(f"a phrase has 1 to {LONGEST_PHRASE} characters, not {len(text.strip())}")
    try:
        return Question(text, parse(text))
    except ValueError as error:
        raise QuestionError(str(error)) from error


def answers_of(
    question: Question,
    index: int,
    answer: QueryAnswer,
    contract: QueryContract,
    prepared: Mapping[View, PreparedView],
    *,
    orientations: Mapping[View, tuple[str, ...]] = MappingProxyType({}),
    spacings: Mapping[View, tuple[float, float] | None] = MappingProxyType({}),
) -> tuple[ViewAnswer, ...]:
    """What each view of `prepared` says of the question that is number `index` of `answer`, in STANDARD_VIEWS' order.

    `orientations` and `spacings` are those of anatomy.place.
    """
    return tuple(
        _view_answer(
            question.statement,
            _Look(view, prepared[view], orientations.get(view, ()), spacings.get(view)),
            float(answer.logits[STANDARD_VIEWS.index(view), index]),
            answer.heatmaps[STANDARD_VIEWS.index(view), index],
            contract,
        )
        for view in STANDARD_VIEWS
        if view in prepared
    )


def absence_words(answer: ViewAnswer) -> str:
    """The answer to a denied phrase in one view."""
    if not answer.shown or answer.heat_at is None:
        return "not seen: the absence is not contradicted"
    column, row = answer.heat_at
    return f"absence cannot be confirmed: heat {answer.heat:.2f} at column {column:.0f}, row {row:.0f}"


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One view and how it lies."""

    view: View
    prepared: PreparedView
    orientation: Sequence[str]
    spacing_mm: tuple[float, float] | None


def _view_answer(
    statement: Statement, look: _Look, logit: float, cells: NDArray[np.float32], contract: QueryContract
) -> ViewAnswer:
    if CONSTANT_IMAGE in look.prepared.flags:
        return ViewAnswer(look.view, False, (CONSTANT_IMAGE,))
    landmarks = find_landmarks(look.prepared, look.view, look.orientation, look.spacing_mm)
    where = place_mask(statement, look.view, look.prepared, landmarks, look.orientation, look.spacing_mm)
    if not where.asked:
        return ViewAnswer(look.view, False, where.remarks)
    point, grid = contract.operating_point, heat_grid(contract)
    registered = register_heatmap(cells, grid, *look.prepared.pixels.shape)
    inside = breast_mask(look.prepared.pixels) & where.inside
    counted = np.where(inside, registered, np.float32(0))
    heat, index = float(counted.max()), calibrated(logit, contract.calibration)
    shown = index >= point.probability and heat >= point.heat
    regions = (
        find_regions(cells, registered, grid, inside, point.heat, MAXIMUM_REGIONS, FURTHER_SHARE)
        if shown and not statement.negated
        else ()
    )
    outlines = [(region, outline_of(region, look.prepared.placement)) for region in regions]
    return ViewAnswer(
        view=look.view,
        asked=True,
        remarks=_remarks(where),
        logit=logit,
        index=index,
        heat=heat,
        heat_at=_hottest(counted, look.prepared) if heat > 0 else None,
        shown=shown,
        marks=tuple(
            PhraseMark(
                outline.centre,
                outline.contour,
                outline.box,
                region.peak_heat,
                place(outline.centre, look.view, landmarks, look.orientation, look.spacing_mm),
            )
            for region, outline in outlines
        ),
        registered=counted,
    )


def _remarks(where: PlaceMask) -> tuple[str, ...]:
    return where.remarks if where.inside.any() else (*where.remarks, "this place lies outside the image")


def _hottest(counted: NDArray[np.float32], prepared: PreparedView) -> tuple[float, float]:
    row, column = np.unravel_index(int(counted.argmax()), counted.shape)
    x, y = prepared.placement.to_stored(np.array([[column + 0.5, row + 0.5]], dtype=np.float64))[0]
    return float(x), float(y)
