"""The folder of an evaluation: its recipe, its report as Markdown and JSON, what was left out."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.figures.report import Section, told, write_report
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.run_folder import LEFT_OUT, RECIPE, code_version

_SHOWN = 20


def begin_report(folder: Path, recipe: Path) -> None:
    """Make the folder and put the recipe there; figures of an earlier run are written over."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe, folder / RECIPE)


def end_report(
    folder: Path,
    title: str,
    model: LoadedModel,
    facts: dict[str, Any],
    sections: Sequence[Section],
    problems: Sequence[str],
) -> None:
    """Write report.md, report.json and left-out.txt, and print the AUCs."""
    (folder / LEFT_OUT).write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
    for problem in problems[:_SHOWN]:
        print(f"left out: {problem}")
    if len(problems) > _SHOWN:
        print(f"left out: {len(problems) - _SHOWN} more, see {folder / LEFT_OUT}")
    markdown, record = write_report(
        folder, title, {**facts, **_model_facts(model), "left out": len(problems)}, sections
    )
    for section in sections:
        print(section.title)
        for row in section.figures:
            if row["figure"] in ("AUC", "balanced accuracy", "macro AUC") and "," not in row["what"]:
                note = f", {row['note']}" if row["note"] else ""
                print(f"  {row['what']} {row['figure']} by {row['unit']}: {told(row)}, n {row['n']}{note}")
    print(f"{markdown}, {record}")


def _model_facts(model: LoadedModel) -> dict[str, Any]:
    licence = {"licence of the weights": model.licence} if model.licence else {}
    return {
        "model": f"{model.kind}, weights {model.weights_hash[:16]}",
        "code": code_version(),
        **licence,
    }
