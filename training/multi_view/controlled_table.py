"""The table of controlled runs: AUC of each arm, and each question as a paired difference with its interval.

Intervals: bootstrap over the test exams and over the training seeds together; both arms of a difference are drawn with
the same exams and the same seeds. With few seeds their part of the spread is estimated roughly, and too small.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.figures import resampling
from training.multi_view.controlled_arms import FULL, RESULT, arm_folder, is_done, read_logits
from training.multi_view.controlled_exams import ORDINARY, TWO_BREASTS, TWO_VIEWS, ExamStore
from training.multi_view.controlled_recipe import MISSING, ControlledRecipe

ALL, SMALL = "all", "small calcifications"
Logits = NDArray[np.float64]
NO_DIFFERENCE = "no difference seen"


def groups_of(exams: ExamStore, small_mm: float) -> dict[str, NDArray[np.int64]]:
    """Rows of each group of test exams that has both classes.

    Small calcifications: ordinary exams whose positive lesions are all such clusters, against ordinary negative ones.
    """
    names = np.array([record.group for record in exams.records])
    small = np.array([record.small_mm for record in exams.records])
    ordinary = names == ORDINARY
    wanted = {
        ALL: np.ones(len(exams), bool),
        ORDINARY: ordinary,
        TWO_VIEWS: names == TWO_VIEWS,
        TWO_BREASTS: names == TWO_BREASTS,
        SMALL: ordinary & (~exams.positive | ((small > 0) & (small <= small_mm))),
    }
    found = {name: np.flatnonzero(there) for name, there in wanted.items()}
    return {name: rows for name, rows in found.items() if len(set(exams.positive[rows].tolist())) == 2}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    @property
    def as_auc(self) -> str:
        """Without a sign."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def words(self) -> str:
        """What the interval says of a difference."""
        if self.low <= 0.0 <= self.high:
            return NO_DIFFERENCE
        return "higher" if self.low > 0.0 else "lower"


def bootstrapped(
    first: Sequence[Logits],
    second: Sequence[Logits] | None,
    positive: NDArray[np.bool_],
    patients: NDArray[Any],
    draws: int,
) -> Figure:
    """Mean AUC over the seeds of `first`, less that of `second` where there is one: (N) logits for each seed."""
    pairs = [[resampling.auc(one, positive) for one in side] for side in (first, second) if side is not None]
    rng = np.random.default_rng(1)
    found = []
    for counts in resampling.drawn(patients, draws):
        values = np.stack([_of_seeds(side, counts) for side in pairs])
        chosen = rng.integers(len(first), size=(len(counts), len(first)))
        means = np.take_along_axis(values, chosen.T[None].repeat(len(pairs), 0), axis=1).mean(1)
        found.append(means[0] if second is None else means[0] - means[1])
    once = resampling.once(len(positive))
    exact = [float(_of_seeds(side, once).mean()) for side in pairs]
    samples = np.concatenate(found)
    low, high = np.percentile(samples[~np.isnan(samples)], (2.5, 97.5))
    return Figure(exact[0] - (exact[1] if second is not None else 0.0), float(low), float(high))


def _of_seeds(statistics: Sequence[resampling.Statistic], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([statistic(counts) for statistic in statistics])


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """The arms whose seeds are all there: logits by arm, by what was left out, by seed."""

    recipe: ControlledRecipe
    exams: ExamStore
    logits: Mapping[str, Mapping[str, list[Logits]]]
    facts: Mapping[str, list[dict[str, Any]]]


def read_tested(out: Path, recipe: ControlledRecipe, exams: ExamStore) -> Tested:
    """What is done so far."""
    seeds = range(recipe.seeds)
    done = [name for name in recipe.arms if all(is_done(out, name, seed) for seed in seeds)]
    logits: dict[str, dict[str, list[Logits]]] = {}
    facts = {}
    for name in done:
        found = [read_logits(out, name, seed) for seed in seeds]
        logits[name] = {key: [one[key] for one in found] for key in found[0]}
        facts[name] = [json.loads((arm_folder(out, name, s) / "run.json").read_text(encoding="utf-8")) for s in seeds]
    return Tested(recipe, exams, logits, facts)


def table_of(tested: Tested) -> dict[str, Any]:
    """All figures, for JSON and for the page."""
    exams, draws = tested.exams, tested.recipe.draws
    groups = groups_of(exams, tested.recipe.exams.small_mm)
    patients = np.array([record.patient for record in exams.records])

    def figure(first: Sequence[Logits], second: Sequence[Logits] | None, rows: NDArray[np.int64]) -> Figure:
        chosen = [[one[rows] for one in side] if side is not None else None for side in (first, second)]
        assert chosen[0] is not None
        return bootstrapped(chosen[0], chosen[1], exams.positive[rows], patients[rows], draws)

    arms = {
        name: {group: figure(found[FULL], None, rows) for group, rows in groups.items()}
        for name, found in tested.logits.items()
    }
    missing = {
        name: {key: figure(found[key], found[FULL], groups[ALL]) for key in MISSING if key in found}
        for name, found in tested.logits.items()
        if any(key in found for key in MISSING)
    }
    questions = []
    for contrast in tested.recipe.contrasts:
        there = contrast.first in tested.logits and contrast.second in tested.logits
        for group in contrast.groups:
            if group not in groups:
                continue
            sides = [tested.logits[name][FULL] for name in (contrast.first, contrast.second)] if there else None
            found = figure(sides[0], sides[1], groups[group]) if sides else None
            questions.append((contrast, group, found))
    return {"groups": groups, "arms": arms, "missing": missing, "questions": questions}


def write_table(out: Path, tested: Tested, notes: Sequence[str]) -> tuple[Path, Path]:
    """`table.md` and `table.json`; arms that are not run yet are named."""
    table = table_of(tested)
    markdown, record = out / "table.md", out / "table.json"
    markdown.write_text("\n".join(_page(tested, table, notes)) + "\n", encoding="utf-8")
    record.write_text(json.dumps(_json(tested, table, notes), indent=2) + "\n", encoding="utf-8")
    return markdown, record


def _page(tested: Tested, table: dict[str, Any], notes: Sequence[str]) -> list[str]:
    recipe, groups = tested.recipe, table["groups"]
    positive = tested.exams.positive
    lines = [f"# {recipe.name}", "", *(f"- {note}" for note in notes), ""]
    waiting = [name for name in recipe.arms if name not in tested.logits]
    if waiting:
        lines += [f"Not run yet, or not with every seed: {', '.join(waiting)}.", ""]
    lines += ["## Test exams", "", "| group | exams | positive |", "|---|---|---|"]
    lines += [f"| {name} | {len(rows)} | {int(positive[rows].sum())} |" for name, rows in groups.items()]
    lines += ["", f"## AUC, mean of {recipe.seeds} seeds", ""]
    lines += [f"| arm | {' | '.join(groups)} |", f"|---|{'---|' * len(groups)}"]
    for name, found in table["arms"].items():
        lines.append(f"| {name} | {' | '.join(found[group].as_auc for group in groups)} |")
    lines += ["", "## Questions: difference in AUC", "", "| question | first | second | on | difference | |"]
    lines.append("|---|---|---|---|---|---|")
    for contrast, group, figure in table["questions"]:
        told = f"{figure} | {figure.words}" if figure else "not run yet | "
        lines.append(f"| {contrast.question} | {contrast.first} | {contrast.second} | {group} | {told} |")
    if table["missing"]:
        lines += ["", "## Views missing at the test, against all views", "", "| arm | missing | difference | |"]
        lines.append("|---|---|---|---|")
        for name, found in table["missing"].items():
            lines += [f"| {name} | {key} | {figure} | {figure.words} |" for key, figure in found.items()]
    return lines


def _json(tested: Tested, table: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    positive = tested.exams.positive
    return {
        "recipe": tested.recipe.name,
        "notes": list(notes),
        "groups": {n: {"exams": len(r), "positive": int(positive[r].sum())} for n, r in table["groups"].items()},
        "arms": {
            name: {"auc": {g: _plain(f) for g, f in found.items()}, "runs": tested.facts[name]}
            for name, found in table["arms"].items()
        },
        "not run": [name for name in tested.recipe.arms if name not in tested.logits],
        "questions": [
            {
                "question": c.question,
                "first": c.first,
                "second": c.second,
                "on": group,
                **(_plain(figure) | {"words": figure.words} if figure else {"words": "not run yet"}),
            }
            for c, group, figure in table["questions"]
        ],
        "missing": {
            name: {k: _plain(f) | {"words": f.words} for k, f in found.items()}
            for name, found in table["missing"].items()
        },
    }


def _plain(figure: Figure) -> dict[str, Any]:
    return {"value": round(figure.value, 4), "low": round(figure.low, 4), "high": round(figure.high, 4)}


__all__ = ["ALL", "RESULT", "SMALL", "Figure", "Tested", "bootstrapped", "groups_of", "read_tested", "write_table"]
