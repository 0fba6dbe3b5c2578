"""Figures of where: pointing beside chance, filter and true mask, boxes, marks per normal view, FROC, boxes' precision.

A view's first box counts as sure as the finding in the view; a further one less, by its heat. Operating points come
from views of `fit`: the lowest one with at most MARKS_A_NORMAL_VIEW marks a normal view, shared equally by the labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.figures.detection import Froc, ViewMarks, froc, view_marks, voc_average_precision
from training.figures.intervals import Interval, share_interval
from training.figures.report import Measured
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.localising import BOX_LIMIT, OVERLAPS, HeatBox, hits
from training.mammo_clip.location_views import Found

CHOSEN = "the one chosen on validation"
MARKS_A_NORMAL_VIEW = 0.3
NO_FINDINGS = ("cancer", "No_Finding")
"""Labels that say nothing of what a view shows."""
FEWEST_NORMAL_VIEWS = 50
"""To choose an operating point on."""
Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """What was found in the views of some images, and the logit of each label for each of them (N)."""

    images: Sequence[LabelledImage]
    found: Sequence[Found]
    logits: Mapping[str, Logits]

    def of(self, label: str) -> list[Found]:
        """What was found of one label."""
        return [one for one in self.found if one.label == label]

    def patients(self, rows: Sequence[Found]) -> NDArray[np.str_]:
        """Whose views they are."""
        return np.array([self.images[one.row].patient for one in rows], np.str_)

    def normal(self, one: Found) -> bool:
        """Whether the view is known to show nothing."""
        return shows_nothing(self.images[one.row])


def shows_nothing(image: LabelledImage) -> bool:
    """Whether something is told of the image's findings, and none is there."""
    told = [value for label, value in image.labels.items() if label not in NO_FINDINGS and value is not None]
    return bool(told) and not any(told)


def pointing_figures(label: str, located: Located, chosen: str) -> list[Measured]:
    """The share of views with the finding whose greatest heat lies on it, for each mapper, beside what it is worth."""
    shown = [one for one in located.of(label) if one.truth]
    patients = located.patients(shown)
    if not shown:
        return []
    chance = float(np.mean([one.chance for one in shown]))
    rows = []
    for name in shown[0].points or {}:
        points = np.array([(one.points or {})[name] for one in shown])
        note = f"area chance {chance:.3f}; " + (CHOSEN if name == chosen else "another")
        measured = _share(f"{label}, {name}", "pointing", points, patients, note)
        rows.append(replace(measured, chance=chance))
    return rows + _baselines(label, located, shown)


def _baselines(label: str, located: Located, shown: Sequence[Found]) -> list[Measured]:
    told = [one for one in shown if one.log_filter and one.true_mask]
    patients, rows = located.patients(told), []
    for words, values in (
        ("true mask in the same cells", [one.true_mask for one in told]),
        ("Laplacian of Gaussian, no network", [one.log_filter for one in told]),
    ):
        known = [value for value in values if value]
        if known:
            what = f"{label}, {words}"
            rows.append(_share(what, "pointing", np.array([value.points for value in known]), patients, "beside it"))
            hit = np.array([value.box for value in known])
            rows.append(_share(what, f"box hit at IoU {OVERLAPS[0]:g}", hit, patients, "beside it"))
    return rows


def _share(what: str, figure: str, hit: NDArray[np.bool_], patients: NDArray[np.str_], note: str) -> Measured:
    return Measured(what, figure, share_interval(hit, patients), "view with the finding", note)


def box_figures(label: str, located: Located, threshold: float | None, split: str) -> list[Measured]:
    """Box hits with and without the operating point, by both kinds of boxes, and their average precision."""
    rows = located.of(label)
    shown = [one for one in rows if one.truth]
    patients, what = located.patients(shown), f"{label}, FActOR"
    if not shown:
        return []
    measured = []
    kinds = (("half of the view's maximum", "boxes"), ("above the 95th percentile, published", "published"))
    for words, kind in kinds:
        for least in OVERLAPS:
            hit = np.array([hits(getattr(one, kind), one.truth, least) for one in shown])
            note = f"{words}, at most {BOX_LIMIT} a view"
            measured.append(_share(what, f"box hit at IoU {least:g}", hit, patients, note))
            views = [_marks(located, one, getattr(one, kind), least) for one in rows]
            area = voc_average_precision(views)
            measured.append(Measured(what, f"VOC AP at IoU {least:g}", area, "view, lesions counted", words))
    if threshold is not None:
        sure = located.logits[label][[one.row for one in shown]] >= threshold
        hit = np.array([hits(one.boxes, one.truth, OVERLAPS[0]) for one in shown]) & sure
        note = f"half of the view's maximum, and the finding above its operating point of {split}"
        measured.append(_share(what, f"marked, box hit at IoU {OVERLAPS[0]:g}", hit, patients, note))
    return measured


def _marks(located: Located, one: Found, boxes: Sequence[HeatBox], least: float) -> ViewMarks:
    """Marks with what they are sure of: the view's logit, less by the logarithm of how much cooler a box is."""
    base = float(located.logits[one.label][one.row])
    hottest = max((box.peak_heat for box in boxes), default=1.0)
    sure = [base + float(np.log(max(box.peak_heat / hottest, 1e-6))) for box in boxes]
    places = [box.box for box in boxes]
    patient = located.images[one.row].patient
    return view_marks(patient, places, sure, one.truth, iou=least, normal=located.normal(one))


def froc_of(label: str, located: Located) -> Froc | None:
    """The curve of one label; None without lesions or without normal views."""
    views = [_marks(located, one, one.boxes, OVERLAPS[0]) for one in located.of(label)]
    if not any(view.lesions for view in views) or not any(view.normal for view in views):
        return None
    return froc(views)


def froc_figures(label: str, curve: Froc) -> list[Measured]:
    """Sensitivities at the rates of the curve."""
    note = f"half of the view's maximum, IoU {OVERLAPS[0]:g}; {curve.normal_views} normal views"
    return [
        Measured(
            f"{label}, FActOR", f"lesions found at {rate:g} false marks a normal view", found, "lesions of views", note
        )
        for rate, found in curve.at
    ]


def operating_points(fit: Located, labels: Sequence[str]) -> dict[str, float] | None:
    """Of each label the lowest logit at which normal views of `fit` get their share of marks; None with few of them."""
    points = {}
    for label in labels:
        normal = [one for one in fit.of(label) if fit.normal(one)]
        if len(normal) < FEWEST_NORMAL_VIEWS:
            return None
        logits = fit.logits[label][[one.row for one in normal]]
        marks = np.array([len(one.boxes) for one in normal], np.float64)
        points[label] = lowest_point(logits, marks, MARKS_A_NORMAL_VIEW / len(labels))
    return points


def lowest_point(logits: Logits, marks: NDArray[np.float64], most: float) -> float:
    """The lowest of the logits from which on views together have at most `most` marks a view; else just above all."""
    order = np.argsort(-logits, kind="stable")
    ordered, total = logits[order], np.cumsum(marks[order]) / logits.size
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)
    good = np.flatnonzero(last_of_tie & (total <= most))
    return float(ordered[good[-1]]) if good.size else float(np.nextafter(ordered[0], np.inf))


def normal_view_figures(located: Located, points: Mapping[str, float], split: str) -> list[Measured]:
    """Marks in views that show nothing, at the operating points: of each label, and of all together."""
    rows: dict[int, dict[str, int]] = {}
    for one in located.found:
        if one.label in points and located.normal(one):
            sure = located.logits[one.label][one.row] >= points[one.label]
            rows.setdefault(one.row, {})[one.label] = len(one.boxes) if sure else 0
    if not rows:
        return []
    patients = np.array([located.images[row].patient for row in rows], np.str_)
    note = f"at the operating points of {split}; positive: the number of marks"

    def measured(what: str, counts: list[int]) -> Measured:
        found: Interval = share_interval(np.array(counts, np.float64), patients)
        return Measured(what, "marks per normal view", found, "normal view", note)

    each = [measured(f"{label}, FActOR", [marks.get(label, 0) for marks in rows.values()]) for label in points]
    return [*each, measured("all findings, FActOR", [sum(marks.values()) for marks in rows.values()])]
