"""What a report is made of: a source's images that are reported and those that are chosen on, passed through once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.mammo_clip.breasts import DataError
from training.mammo_clip.film_exams import load_exams
from training.mammo_clip.labelled import Labelled, Reading, load_labelled
from training.mammo_clip.labelled_images import LabelledImage
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.one_pass import Heater, Pass, Passed, pass_over
from training.mammo_clip.regions import TILE_PX
from training.mammo_clip.report_recipe import ReportRecipe

HELD_OUT = ("calibration", "validation")
"""Splits on which a report chooses, the first one that has rows."""
_TRAINED_ON = {"phantoms": ("phantoms", "tiles"), "cbis": ("cbis-crops", "cbis"), "vindr": ("vindr",)}
EXAMS = "exams"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one split, as the encoder answered them; axes as in one_pass.py."""

    split: str
    images: tuple[LabelledImage, ...]
    pooled: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    heat: dict[str, NDArray[np.float16]]


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """One source: `test` rows are reported, `held_out` calibrate, `validation` choose operating points of marks.

    `size` (H, W) of the planes. `problems` are rows that were left out, and why.
    """

    source: str
    size: tuple[int, int]
    test: Rows
    held_out: Rows
    validation: Rows
    problems: tuple[str, ...]

    @property
    def facts(self) -> dict[str, int]:
        """Numbers for the report's head."""
        test = self.test.images
        return {
            f"{self.source} images": len(test),
            f"{self.source} patients": len({image.patient for image in test}),
            f"{self.source} left out": len(self.problems),
        }


def read_source(
    source: str, recipe: ReportRecipe, model: LoadedModel, size: tuple[int, int], *, strict: bool
) -> Labelled:
    """Test, validation and, of phantoms, calibration rows. Raises TableError, DataError."""
    data = recipe.data
    exams = {
        "validation": data.phantom_validation_exams,
        "calibration": data.phantom_calibration_exams,
        "test": data.phantom_test_exams,
    }
    splits = ("test", "validation", "calibration")
    reading = Reading(data.rows, preset_of(recipe, model, size), splits, data.validation_share, exams, strict)
    kind, _, rest = source.partition("=")
    labelled = load_exams(Path(rest), reading) if kind == EXAMS else load_labelled(source, reading)
    if not labelled.of("test"):
        raise DataError(f"{source}: has no rows of the test split")
    return labelled


def preset_of(recipe: ReportRecipe, model: LoadedModel, size: tuple[int, int]) -> str:
    """The preset of whole images; `fit-HxW` follows the size that is asked for."""
    chosen = recipe.images.preset or model.input.preset
    return f"fit-{size[0]}x{size[1]}" if chosen.startswith("fit-") else chosen


def size_of(recipe: ReportRecipe, model: LoadedModel) -> tuple[int, int]:
    """Height and width of whole images."""
    height, width = (int(side) for side in recipe.images.image_size)
    return height or model.input.height, width or model.input.width


def passed_source(
    labelled: Labelled,
    recipe: ReportRecipe,
    model: LoadedModel,
    size: tuple[int, int],
    heaters: dict[str, Heater],
    phrases: str,
    folder: Path,
) -> ReportData:
    """Every row through the encoder, once. Lesion crops are squares and have no heat: all of one is lesion."""
    crops = labelled.source == "cbis"
    planes = (recipe.images.crop_px or TILE_PX,) * 2 if crops else size
    run = Pass(model, planes, {} if crops else heaters, phrases, recipe.images.batch, recipe.images.precision)
    passed = pass_over(run, [image.picture for image in labelled.images], folder)
    problems = [*labelled.problems, *passed.problems.values()]
    rows = {split: _rows(labelled, passed, split) for split in ("test", *HELD_OUT)}
    held_out = next((rows[split] for split in HELD_OUT if rows[split].images), rows["validation"])
    return ReportData(labelled.source, planes, rows["test"], held_out, rows["validation"], tuple(problems))


def _rows(labelled: Labelled, passed: Passed, split: str) -> Rows:
    """Rows of one split whose pictures could be read; heat stays on the disk where they lie one after the other."""
    images = enumerate(labelled.images)
    kept = [row for row, image in images if image.split == split and row not in passed.problems]
    together = bool(kept) and kept[-1] - kept[0] == len(kept) - 1
    chosen: Any = slice(kept[0], kept[-1] + 1) if together else kept
    return Rows(
        split,
        tuple(labelled.images[row] for row in kept),
        passed.pooled[chosen],
        None if passed.embeddings is None else passed.embeddings[chosen],
        {name: heat[chosen] for name, heat in passed.heat.items()},
    )


def how_prompted(source: str, model: LoadedModel) -> str:
    """ "zero-shot" only where neither the source nor its like stood in the training sentences; phantoms never are."""
    facts = model.record.get("data")
    trained = {word.strip() for word in str(facts.get("sources", "") if isinstance(facts, dict) else "").split(",")}
    seen = source == "phantoms" or not trained.isdisjoint(_TRAINED_ON.get(source, (source,)))
    return "text-prompted" if seen else "zero-shot"
