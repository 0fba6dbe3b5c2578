"""Marks against lesions: FROC and average precision of boxes, both with intervals by patient.

A view's marks are boxes with a number that says how sure the model is. Each mark is given to the lesion that it
overlaps most, from an intersection over union on, or to none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.figures.intervals import Interval, interval_of
from training.figures.resampling import Counts, Statistic, once, ratio
from training.localisation import Box, overlap

NO_LESION = -1
FROC_RATES = (0.1, 0.3, 1.0)
"""False marks per normal view at which the sensitivity is told."""

_CELLS = 1 << 20
"""Entries of an array of draws times events: 8 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewMarks:
    """Marks of one view: `logits` (M), `lesion` (M) the number of the lesion that each lies on or NO_LESION.

    `lesions` is how many the view shows; `normal`: no lesion of any kind, so its marks are false marks of the FROC.
    """

    patient: str
    logits: npt.NDArray[np.float64]
    lesion: npt.NDArray[np.int64]
    lesions: int
    normal: bool


def view_marks(
    patient: str,
    boxes: Sequence[Box],
    logits: Sequence[float],
    truth: Sequence[Box],
    *,
    iou: float,
    normal: bool | None = None,
) -> ViewMarks:
    """Marks given to lesions by their boxes (left, top, right, bottom)."""
    lesion = [_lesion_of(box, truth, iou) for box in boxes]
    plain = not truth if normal is None else normal
    return ViewMarks(patient, np.asarray(logits, np.float64), np.asarray(lesion, np.int64), len(truth), plain)


def _lesion_of(box: Box, truth: Sequence[Box], iou: float) -> int:
    overlaps = [overlap(box, lesion) for lesion in truth]
    best = int(np.argmax(overlaps)) if overlaps else NO_LESION
    return best if overlaps and overlaps[best] >= iou else NO_LESION


@dataclass(frozen=True, slots=True, eq=False)
class Froc:
    """The curve (`false_marks` per normal view, `sensitivity` per lesion), and sensitivities at some rates."""

    false_marks: npt.NDArray[np.float64]
    sensitivity: npt.NDArray[np.float64]
    at: tuple[tuple[float, Interval], ...]
    normal_views: int

    def as_table(self) -> dict[str, Any]:
        """For JSON, without the curve."""
        table = {f"sensitivity at {rate:g}": found.as_table() for rate, found in self.at}
        return {"normal_views": self.normal_views, **table}


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Marks that change the curve, the surest first: the best mark on each lesion, and marks in normal views."""

    view: npt.NDArray[np.int64]
    found: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float64]


def froc(views: Sequence[ViewMarks], rates: Sequence[float] = FROC_RATES) -> Froc:
    """Lesions found against false marks per normal view, over all thresholds. The views of one kind of finding."""
    events = _froc_events(views)
    lesions = np.array([view.lesions for view in views], np.float64)
    normal = np.array([view.normal for view in views])
    patients = np.array([view.patient for view in views])
    ones = np.ones((1, len(views)))
    false, sensitivity = (curve[0] for curve in _froc_curves(events, lesions, normal, ones))
    at = tuple(
        (
            rate,
            interval_of(_sensitivity_at(rate, events, lesions, normal), patients, lesions, width=events.logits.size),
        )
        for rate in rates
    )
    return Froc(np.append(0.0, false), np.append(0.0, sensitivity), at, int(normal.sum()))


def _froc_events(views: Sequence[ViewMarks]) -> _Events:
    rows: list[tuple[float, int, bool]] = []
    for number, view in enumerate(views):
        for lesion in range(view.lesions):
            mine = view.logits[view.lesion == lesion]
            rows += [(float(mine.max()), number, True)] if mine.size else []
        if view.normal:
            rows += [(float(logit), number, False) for logit in view.logits]
    rows.sort(key=lambda row: (-row[0], row[2]))
    return _events(rows)


def _events(rows: list[tuple[float, int, bool]]) -> _Events:
    logits, views, found = list(zip(*rows, strict=True)) or [(), (), ()]
    return _Events(np.array(views, np.int64), np.array(found, np.bool_), np.array(logits, np.float64))


def _froc_curves(
    events: _Events, lesions: npt.NDArray[np.float64], normal: npt.NDArray[np.bool_], counts: Counts
) -> tuple[Counts, Counts]:
    """False marks per normal view and sensitivity after each event, both (draws, events)."""
    times = counts[:, events.view]
    false = np.cumsum(times * ~events.found, axis=1) / np.maximum(counts @ normal.astype(np.float64), 1.0)[:, None]
    found = np.cumsum(times * events.found, axis=1) / np.maximum(counts @ lesions, 1.0)[:, None]
    return false, found


def _sensitivity_at(
    rate: float, events: _Events, lesions: npt.NDArray[np.float64], normal: npt.NDArray[np.bool_]
) -> Statistic:
    """The highest sensitivity with at most `rate` false marks per normal view."""

    def statistic(counts: Counts) -> npt.NDArray[np.float64]:
        false, found = _froc_curves(events, lesions, normal, counts)
        reached = np.where(_whole_ties(events) & (false <= rate), found, 0.0)
        best = reached.max(1) if reached.shape[1] else np.zeros(len(counts))
        known = (counts @ lesions > 0) & (counts @ normal > 0)
        return np.where(known, best, np.nan)

    return _bounded(statistic, events)


def _bounded(statistic: Statistic, events: _Events) -> Statistic:
    """The same, so few draws at a time that draws times events stay in memory: detectors mark 100 boxes a view."""
    step = max(1, _CELLS // max(1, events.logits.size))

    def parts(counts: Counts) -> npt.NDArray[np.float64]:
        return np.concatenate([statistic(counts[first : first + step]) for first in range(0, len(counts), step)])

    return parts


def _whole_ties(events: _Events) -> npt.NDArray[np.bool_]:
    """Events after which the next mark has another number: thresholds that exist."""
    return np.append(events.logits[1:] != events.logits[:-1], True)[: events.logits.size]


def voc_average_precision(views: Sequence[ViewMarks]) -> Interval:
    """Area under precision against recall, precision made falling (VOC, continuous).

    The surest mark on a lesion is right, each further one on it is wrong, as is any mark on none, in all views.
    `n` counts views, `positives` lesions.
    """
    lesions = np.array([view.lesions for view in views], np.float64)
    patients = np.array([view.patient for view in views])
    events = _voc_events(views)
    return interval_of(_voc(events, lesions), patients, lesions, width=events.logits.size)


def voc_area(views: Sequence[ViewMarks]) -> float:
    """The value of `voc_average_precision` without its interval: for choosing an epoch. NaN without lesions."""
    lesions = np.array([view.lesions for view in views], np.float64)
    return float(_voc(_voc_events(views), lesions)(once(len(views)))[0])


def _voc_events(views: Sequence[ViewMarks]) -> _Events:
    rows = [row for number, view in enumerate(views) for row in _voc_rows(number, view)]
    rows.sort(key=lambda row: -row[0])
    return _events(rows)


def _voc_rows(number: int, view: ViewMarks) -> list[tuple[float, int, bool]]:
    rows, taken = [], set[int]()
    for mark in np.argsort(-view.logits, kind="stable"):
        lesion = int(view.lesion[mark])
        rows.append((float(view.logits[mark]), number, lesion != NO_LESION and lesion not in taken))
        taken.add(lesion)
    return rows


def _voc(events: _Events, lesions: npt.NDArray[np.float64]) -> Statistic:
    def statistic(counts: Counts) -> npt.NDArray[np.float64]:
        times, total = counts[:, events.view], counts @ lesions
        right, made = times * events.found, np.cumsum(times, axis=1)
        precision = np.cumsum(right, axis=1) / np.maximum(made, 1.0)
        falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        area = (right * falling).sum(1)
        return ratio(area, total)

    return _bounded(statistic, events)
