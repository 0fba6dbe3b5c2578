"""Plots of a report as PNG: ROC, FROC, reliability. Drawn by matplotlib's Agg alone: no window, no global state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.figures.calibration import Bin
from training.figures.detection import Froc
from training.figures.intervals import Interval
from training.figures.resampling import BoolArray, FloatArray
from training.figures.thresholds import roc_points

COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5", "#64473a", "#e03e3e", "#555555")
_DOTS_PER_INCH = 110
_LEAST_RATE = 0.01
Place = Literal["lower right", "upper left"]


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """One line of a ROC plot: logits and truth (N), and its area with interval."""

    name: str
    logits: FloatArray
    positive: BoolArray
    area: Interval


def roc_plot(path: Path, title: str, curves: Sequence[Roc]) -> Path:
    """Sensitivity against false positives; curves without both classes are named in the legend and not drawn."""
    figure, axes = _square(title, "false positive rate (1 - specificity)", "sensitivity")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        both = bool(curve.positive.any()) and not bool(curve.positive.all())
        false, true = roc_points(curve.logits, curve.positive) if both else (np.zeros(0), np.zeros(0))
        axes.plot(false, true, color=colour, linewidth=1.8, label=f"{curve.name}: {curve.area}")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    return _saved(figure, axes, path, "lower right")


def froc_plot(path: Path, title: str, curves: Sequence[tuple[str, Froc]], target: float | None = 0.3) -> Path:
    """Lesions found against false marks per normal view, on a logarithmic scale; `target` is drawn as a line."""
    figure, axes = _square(title, "false marks per normal view", "lesions found (sensitivity)")
    for (name, curve), colour in zip(curves, _colours(len(curves)), strict=True):
        rates = np.maximum(curve.false_marks, _LEAST_RATE)
        axes.step(rates, curve.sensitivity, where="post", color=colour, linewidth=1.8, label=name)
        points = [(rate, found) for rate, found in curve.at if not np.isnan(found.low)]
        values = np.array([[found.value, found.low, found.high] for _, found in points]).reshape(-1, 3)
        spread = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(
            [rate for rate, _ in points], values[:, 0], spread, fmt="o", color=colour, markersize=4, capsize=3
        )
    if target is not None:
        axes.axvline(target, color="#bbbbbb", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(left=_LEAST_RATE)
    axes.set_ylim(-0.01, 1.01)
    return _saved(figure, axes, path, "upper left")


def reliability_plot(path: Path, title: str, tables: Sequence[tuple[str, Sequence[Bin]]]) -> Path:
    """Share of positives against the mean probability of each bin, with Wilson's intervals."""
    figure, axes = _square(title, "probability told", "share that is positive")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for (name, table), colour in zip(tables, _colours(len(tables)), strict=True):
        values = np.array([[row.probability, row.share, row.low, row.high] for row in table])
        spread = np.abs(values[:, 2:] - values[:, 1:2]).T
        axes.errorbar(values[:, 0], values[:, 1], spread, fmt="o-", color=colour, markersize=4, capsize=2, label=name)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    return _saved(figure, axes, path, "upper left")


def _square(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 6.0), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _saved(figure: Figure, axes: Axes, path: Path, place: Place) -> Path:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, fontsize=8.5, framealpha=0.9)
    figure.savefig(path, metadata={"Software": None})
    return path
