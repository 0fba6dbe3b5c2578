"""The folder of one run: its recipe, what code and data it was made of, its curves, and a card of its model."""

import csv
import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.mammo_clip.checkpoint import Progress
from training.mammo_clip.pretraining_recipe import PretrainingRecipe, RecipeError

RECIPE, FACTS, CURVES, CARD, LEFT_OUT = "recipe.toml", "run.json", "curves.csv", "card.md", "left-out.txt"
COLUMNS = (
    "step",
    "epoch",
    "training_loss",
    "validation_loss",
    "learning_rate",
    "logit_scale",
    "rows_per_second",
)
FREE_TO_CHANGE = "keeping"
"""Part of a recipe that does not decide the weights."""


def start_folder(
    run: Path, recipe: Path, facts: dict[str, Any], problems: list[str], columns: tuple[str, ...] = COLUMNS
) -> None:
    """Make the folder of a new run. Raises RecipeError where there is one already."""
    check_free(run)
    run.mkdir(parents=True, exist_ok=True)
    (run / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (run / LEFT_OUT).write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
    with (run / CURVES).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(columns)
    shutil.copyfile(recipe, run / RECIPE)


def check_free(run: Path) -> None:
    """Whether a new run can be begun there. Raises RecipeError."""
    if (run / RECIPE).exists():
        raise RecipeError(f"{run}: a run stands there already; go on with it by --resume, or take another folder")


def check_same(run: Path, recipe: Path, facts: dict[str, Any]) -> None:
    """Whether a run can go on with this recipe and these data. Raises RecipeError saying what differs."""
    if not (run / RECIPE).exists():
        raise RecipeError(f"{run}: no run stands there to go on with; leave --resume out")
    old, new = (tomllib.loads(path.read_text(encoding="utf-8")) for path in (run / RECIPE, recipe))
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if wrong := [key for key in differing if key != FREE_TO_CHANGE]:
        raise RecipeError(f"{recipe}: differs in {', '.join(wrong)} from the recipe that {run} was begun with")
    begun = json.loads((run / FACTS).read_text(encoding="utf-8"))
    for key in ("data", "vocabulary", "processes"):
        if begun[key] != facts[key]:
            raise RecipeError(f"{run}: was begun with other {key}: {begun[key]}, now {facts[key]}")


def facts_of(data: dict[str, Any], vocabulary: Path | None, processes: int, device: torch.device) -> dict[str, Any]:
    """Code, libraries, device and data of a run, as JSON takes them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type} {name}",
        "processes": processes,
        "data": data,
        "vocabulary": "" if vocabulary is None else hashlib.sha256(vocabulary.read_bytes()).hexdigest()[:16],
    }


def code_version() -> str:
    """The package's version with the git commit, "changed" where files differ from it; "unknown" outside a checkout."""
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    changed = ", changed" if commit and _git(folder, "status", "--porcelain", "--untracked-files=no", ".") else ""
    try:
        version = importlib.metadata.version("mammoclip-node")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    return f"{version}, commit {commit or 'unknown'}{changed}"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Curves:
    """RUN/curves.csv."""

    path: Path
    columns: tuple[str, ...] = COLUMNS

    def add(self, progress: Progress, **values: float) -> None:
        """One row; what is not given stays empty."""
        row = {"step": progress.step, "epoch": progress.epoch, **{key: f"{value:.8g}" for key, value in values.items()}}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def rewind(self, progress: Progress) -> None:
        """Drop what was written later: a run that goes on writes it again."""
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values() and _is_until(progress, row)]
        part = self.path.with_suffix(".part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)


def _is_until(progress: Progress, row: dict[str, str]) -> bool:
    return int(row["step"]) <= progress.step and int(row["epoch"]) <= progress.epoch


def write_card(run: Path, recipe: PretrainingRecipe, facts: dict[str, Any], progress: Progress) -> None:
    """The model card: what made the model, its one figure, and what it is not."""
    data = "\n".join(f"- {key}: {value}" for key, value in facts["data"].items())
    text = f"""# {recipe.name}

A dual encoder of mammograms and report sentences after Mammo-CLIP (arXiv 2405.12255), trained from `{RECIPE}` beside
this card. For research; no medical device.

- Image encoder: {recipe.image.encoder}, {recipe.data.height} x {recipe.data.width}, padding {recipe.image.padding},
  begun from weights "{recipe.image.weights}"
- Text encoder: BERT, {recipe.text.layers} layers of {recipe.text.hidden}, vocabulary "{recipe.text.vocabulary}"
- Code: {facts["code"]}; torch {facts["torch"]}; {facts["device"]}; {facts["processes"]} processes
- Kept: epoch {progress.best_epoch} of {progress.epoch}, contrastive loss on validation {progress.best_loss:.4f}

## Data

{data}

The validation rows chose the epoch. They are no test: figures of tests stand where the evaluation wrote them.
Phantom exams are drawn by a program and stand for no patient; what is learnt from them alone says nothing of patients.
The own vocabulary was trained on sentences of this project, on findings of CDD-CESM (Khaled et al. 2022, CC BY 4.0) and
on descriptors of CBIS-DDSM (Lee et al. 2017, CC BY 3.0).
Weights that training began from keep their own licences.
"""
    (run / CARD).write_text(text, encoding="utf-8")
