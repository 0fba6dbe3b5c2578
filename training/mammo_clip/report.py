"""A whole report: every source passed through once, every part kept as JSON when it is done, then written together.

A part whose model, recipe, source and mappers are the same as before is not made again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from training.figures.meaning import meaning_section
from training.figures.report import Section
from training.mammo_clip.detection_model import LoadedDetector
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.location_figures import Located
from training.mammo_clip.one_pass import Heater
from training.mammo_clip.report_data import ReportData, how_prompted, passed_source, read_source, size_of
from training.mammo_clip.report_location import Heated, Points, located, location_section, points_of
from training.mammo_clip.report_page import page_section
from training.mammo_clip.report_parts import Logits, Part, Scorer, class_section, detection_section
from training.mammo_clip.report_recipe import ReportRecipe
from training.mammo_clip.report_scores import probe_scorer, prompt_scorer
from training.mammo_clip.reporting import end_report

PASSES, PARTS = "passes", "parts"


@dataclass(frozen=True, slots=True, eq=False)
class Mappers:
    """FActOR's heat: of each mapper by name, the `heated` axis, and words that change when any of it does."""

    heaters: dict[str, Heater]
    heated: Heated
    identity: str


@dataclass(slots=True, eq=False)
class Reporting:
    """What a report is made with; `points` are the operating points that a source brought."""

    recipe: ReportRecipe
    model: LoadedModel
    out: Path
    probe: Path | None = None
    mappers: Mappers | None = None
    detector: LoadedDetector | None = None
    strict: bool = False
    points: Points | None = None
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def write_whole_report(run: Reporting, sources: Sequence[str]) -> list[Section]:
    """Every part of every source, and the report's files in `out`."""
    for folder in (run.out / PASSES, run.out / PARTS):
        folder.mkdir(parents=True, exist_ok=True)
    sections = [section for source in sources for section in _sections(run, source)]
    if not run.probe:
        run.facts["linear probe"] = "not given: --probe"
    if not run.mappers:
        run.facts["FActOR"] = "not given: --factor"
    if not run.detector:
        run.facts["detector"] = "not given: --detector"
    whole = [meaning_section(sections), *sections]
    title = f"Evaluation of {run.model.folder.resolve().parent.name}/{run.model.folder.name}"
    end_report(run.out, title, run.model, {"recipe": run.recipe.name, **run.facts}, whole, run.problems)
    print("\n".join(whole[0].paragraphs), flush=True)
    return whole


def _sections(run: Reporting, source: str) -> list[Section]:
    print(f"{source.partition('=')[0]}: reading", flush=True)
    one = _Source(run, source)
    made = [_kept(run, one, name, make) for name, make in _parts(run, one).items()]
    run.problems += one.data.problems
    run.facts.update(one.data.facts)
    return made


@dataclass(eq=False)
class _Source:
    """One source; what several parts need is made when the first of them asks."""

    run: Reporting
    source: str

    @cached_property
    def data(self) -> ReportData:
        run = self.run
        size = size_of(run.recipe, run.model)
        labelled = read_source(self.source, run.recipe, run.model, size, strict=run.strict)
        heaters = run.mappers.heaters if run.mappers else {}
        identity = run.mappers.identity if run.mappers else ""
        return passed_source(labelled, run.recipe, run.model, size, heaters, identity, run.out / PASSES)

    @property
    def part(self) -> Part:
        return Part(self.data, self.run.recipe, self.run.out)

    @cached_property
    def prompts(self) -> Scorer:
        return prompt_scorer(self.run.model, self.run.recipe.labels, self.run.recipe.prompts)

    @cached_property
    def scorer(self) -> Scorer:
        """What says that a finding is in a view: the probe, else the prompts."""
        return probe_scorer(self.run.probe, self.run.model) if self.run.probe else self.prompts

    @cached_property
    def logits(self) -> Logits:
        return self.scorer(self.data.test)

    @cached_property
    def points(self) -> Points | None:
        """This source's own, else those of an earlier one."""
        assert self.run.mappers
        own = points_of(self.part, self.run.mappers.heated, self.scorer(self.data.validation))
        self.run.points = own or self.run.points
        return own or self.run.points

    @cached_property
    def found(self) -> Located:
        assert self.run.mappers
        return located(self.part, self.data.test, self.run.mappers.heated, self.logits, test=True)


def _parts(run: Reporting, one: _Source) -> dict[str, Callable[[], Section]]:
    """The parts that the recipe wants and this source can give, in the recipe's order."""
    able: dict[str, Callable[[], Section]] = {}
    if run.model.dual is not None and run.model.tokenizer is not None:
        how = how_prompted(one.data.source, run.model)
        able["prompts"] = lambda: class_section(one.part, "prompts", how, one.prompts, _PROMPTS)
    if run.probe:
        able["probe"] = lambda: class_section(one.part, "probe", "linear probe", one.scorer, _PROBE)
    if run.mappers and one.data.test.heat:
        heated = run.mappers.heated
        able["location"] = lambda: location_section(one.part, one.found, heated, one.points)
        able["page"] = lambda: page_section(one.part, one.data.test, one.found, heated, one.points)
    if run.detector and one.data.source != "cbis":
        detector = run.detector
        able["detection"] = lambda: detection_section(one.part, detector, run.recipe.images.batch)
    return {name: able[name] for name in run.recipe.parts if name in able}


_PROMPTS = (
    "Cosine with the wordings of the finding less that with those of its absence, times the logit scale; calibrated "
    "on other rows."
)
_PROBE = "A linear layer on the frozen pooled features, fitted on training rows; see `python -m training probe`."


def _kept(run: Reporting, one: _Source, name: str, make: Callable[[], Section]) -> Section:
    """A part from its JSON where everything that decides it is the same, else made and kept."""
    path = run.out / PARTS / f"{one.data.source}-{name}.json"
    key = _key(run, one, name)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("key") == key:
        run.points = _points(known["points"]) or run.points
        print(f"{one.data.source}, {name}: kept from before", flush=True)
        return Section.from_table(known["section"])
    print(f"{one.data.source}, {name}", flush=True)
    section = make()
    points = asdict(run.points) if run.points else None
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps({"key": key, "points": points, "section": asdict(section)}, indent=1), encoding="utf-8")
    part.replace(path)
    return section


def _points(table: Mapping[str, Any] | None) -> Points | None:
    return None if table is None else Points(table["logits"], table["heat"], table["chosen_on"])


def _key(run: Reporting, one: _Source, name: str) -> str:
    """A hash of what decides a part: weights, recipe, rows, and the probe, mappers or detector that it uses."""
    rows = [(image.row, image.split, sorted(image.labels.items(), key=str)) for image in one.data.test.images]
    held = [(image.row, image.split) for image in (*one.data.held_out.images, *one.data.validation.images)]
    decides = {
        "weights": run.model.weights_hash,
        "recipe": asdict(run.recipe),
        "rows": [str(rows), str(held), [str(image.picture.key()) for image in one.data.test.images]],
        "probe": _hash_of(run.probe) if run.probe else "",
        "mappers": run.mappers.identity if run.mappers else "",
        "detector": str(run.detector.record) if run.detector and name == "detection" else "",
        "points": asdict(run.points) if run.points and name in ("location", "page") else "",
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _hash_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
