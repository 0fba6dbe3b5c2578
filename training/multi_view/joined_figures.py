"""The joined exam encoder less each of its parents on the same exams, and what follows: ship it, or ship System A."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.cache import exam_path, render_seeds
from training.figures.intervals import auc_interval
from training.mammo_clip.released import CheckpointError
from training.mammo_clip.served_figures import Table, Truth, auc_differences, differences, model_figures
from training.mammo_clip.served_rows import answered, rows_of
from training.multi_view.joined_exams import GREATEST, LEAST, ExamRule, chosen_seeds
from training.multi_view.joined_export import JOINED, PARENT_A, PARENT_B, RECORD
from training.phantoms import GENERATOR_VERSION, TEST_SEED, VALIDATION_SEED

EXAM = "exam, malignant"
MODELS = (JOINED, PARENT_A, PARENT_B)
ENOUGH = 2000
"""Exams of which the decision is made."""
POINTING = 0.02
"""So much pointing may be lost."""


def rule_of(joined: Path, min_conspicuity: float | None, benign_share: float | None) -> ExamRule:
    """The rule that A chose when the model was joined, or another. Raises CheckpointError where nothing was joined."""
    try:
        record = json.loads((joined / RECORD).read_text(encoding="utf-8"))
        rule = ExamRule(**record["test_set"][-1]["rule"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{joined}: holds no joined model; give what `python -m training joined` wrote"
        ) from error
    least = rule.min_conspicuity if min_conspicuity is None else min_conspicuity
    return ExamRule(least, rule.benign_share if benign_share is None else benign_share)


def compared(
    joined: Path, cache: Path, exams: tuple[str, int], rule: ExamRule, work: Path, threads: int
) -> dict[str, Any]:
    """Figures of the three served files and the differences. `exams`: split, and how many of the rule's.

    Exams that the cache lacks are rendered. Answers are kept in `work`.
    """
    split, number = exams
    seeds = chosen_seeds(rule, TEST_SEED if split == "test" else VALIDATION_SEED, number)
    for seed in seeds:
        render_seeds(cache, seed, 1)
    paths = [exam_path(cache, seed) for seed in seeds]
    truth = Truth(paths)
    table: dict[str, Any] = {
        "split": split,
        "generator": GENERATOR_VERSION,
        "rule": asdict(rule),
        "exams": len(paths),
        "last_seed": seeds[-1],
    }
    kept = work / f"rule-{rule.min_conspicuity}-{rule.benign_share}"
    kept.mkdir(exist_ok=True)
    said = {name: answered(joined / name / "exam_encoder", paths, kept, threads) for name in MODELS}
    rows = {name: rows_of(said[name], paths, bounds=False, threads=threads) for name in MODELS[:2]}
    table |= {name: model_figures(said[name], truth, rows[name]) for name in rows}
    cases = truth.cases(said[PARENT_B])
    table[PARENT_B] = {"auc": {name: auc_interval(*case).as_table() for name, case in cases.items()}}
    pair = [(said[name], rows[name]) for name in MODELS[:2]]
    table[f"{JOINED} less {PARENT_A}"] = differences(pair[0], pair[1], truth)
    table[f"{JOINED} less {PARENT_B}"] = auc_differences(said[JOINED], said[PARENT_B], truth)
    return table | {"decision": decision(table)}


def decision(table: Table) -> dict[str, Any]:
    """Whether the joined encoder ships, and each condition by its words: true, false."""
    own = table[PARENT_A]["auc"][EXAM]["value"]
    conditions = {
        f"{ENOUGH} exams at least": table["exams"] >= ENOUGH,
        f"A's exam AUC lies from {LEAST:.2f} to {GREATEST:.2f}": own is not None and LEAST <= own <= GREATEST,
    }
    for parent, name in ((PARENT_A, "A"), (PARENT_B, "B alone")):
        low = table[f"{JOINED} less {parent}"][f"auc: {EXAM}"]["low"]
        conditions[f"exam AUC above {name}'s, lower end of the interval too"] = low is not None and low > 0.0
    lost = {name: figure["low"] for name, figure in table[f"{JOINED} less {PARENT_A}"].items() if "pointing" in name}
    conditions[f"pointing within {POINTING} of A's"] = all(low is None or low >= -POINTING for low in lost.values())
    return {"ship": JOINED if all(conditions.values()) else PARENT_A, "conditions": conditions}


def said_in_words(table: Table) -> list[str]:
    """AUCs, differences and the decision, a line each."""
    lines = [f"{table['exams']} {table['split']} exams, rule {table['rule']}"]
    for name in MODELS:
        for unit, figure in table[name]["auc"].items():
            lines.append(f"{name}: {unit}: AUC {figure['value']} ({figure['low']} to {figure['high']})")
    for parent in (PARENT_A, PARENT_B):
        for what, figure in table[f"{JOINED} less {parent}"].items():
            lines.append(f"{JOINED} less {parent}: {what}: {figure['value']} ({figure['low']} to {figure['high']})")
    made = table["decision"]
    for words, kept in made["conditions"].items():
        lines.append(f"{'yes' if kept else 'no'}: {words}")
    ships = "the joined encoder ships" if made["ship"] == JOINED else "System A ships, the joined encoder does not"
    return [*lines, ships]
