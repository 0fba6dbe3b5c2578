"""The card of a mapper: what made it, how it was chosen, what it reaches on validation, what it is not."""

from pathlib import Path
from typing import Any

from training.mammo_clip.factor_recipe import FactorRecipe
from training.mammo_clip.run_folder import CARD, RECIPE

Table = dict[str, Any]


def write_factor_card(out: Path, recipe: FactorRecipe, facts: Table, figures: Table, licence: str) -> None:
    """Write CARD."""
    data = "\n".join(f"- {key}: {value}" for key, value in facts["data"].items())
    parts = [
        f"# {recipe.name}",
        f"Mammo-FActOR (arXiv 2405.12255), mapper `{recipe.mapper}`, trained from `{RECIPE}` beside this card on a "
        "frozen encoder in eval mode. For research; no medical device.",
        f"- Code: {facts['code']}; torch {facts['torch']}; {facts['device']}\n{data}",
        *([f"Weights it was made from: {licence}"] if licence else []),
        f"Seed {figures['chosen seed']} of {len(figures['seeds'])} was kept: it points best on validation views. Masks "
        "were used for that choice and for the heat's scale alone; training saw which view shows which phrase, not "
        "where.",
        "## Pointing of all seeds, validation",
        _seeds(figures),
        "## The kept seed beside others, validation",
        _sources(figures["sources"]),
        "FROC and average precision stand in `figures.json`. Validation chose the seed, so these figures flatter it; "
        "tests stand where the evaluation wrote them.",
        *([_open(figures["open vocabulary"])] if "open vocabulary" in figures else []),
    ]
    (out / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _seeds(figures: Table) -> str:
    names = list(figures["pointing over seeds"])
    rows = [f"| seed | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for seed, found in figures["seeds"].items():
        rows.append(f"| {seed} | {' | '.join(_plain(found['pointing'].get(name)) for name in names)} |")
    return "\n".join(rows)


def _sources(sources: Table) -> str:
    rows = [
        "| heat | finding | views | pointing | area chance | box hit .25, half of maximum | above 95th percentile |"
    ]
    rows.append("|---" * 7 + "|")
    for name, by in sources.items():
        for finding, found in by.items():
            shown = [_share(found[key]) for key in ("pointing", "box_hit_0.25", "box_hit_percentile_0.25")]
            cells = [name, finding, str(found["views"]), shown[0], _plain(found["area_chance"]), *shown[1:]]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _open(table: Table) -> str:
    rows = ["## Open vocabulary, validation", "", "| asked | points at it | n |", "|---|---|---|"]
    for name, found in table["pointing"].items():
        rows.append(f"| {name} | {_share(found)} | {found['n']} |")
    denied = table["denied"]
    rows.append(f"\nDenied findings: {denied['read as denied']} of {denied['sentences']} sentences are read as such.")
    return "\n".join(rows)


def _share(found: Table) -> str:
    if found["value"] is None:
        return "-"
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
