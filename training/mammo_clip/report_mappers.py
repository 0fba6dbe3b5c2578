"""FActOR's mappers as a report shows them: the chosen seed, the others, and fixed weights of channels beside them."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from node.mammography.findings import FindingKind
from training.mammo_clip.factor import (
    HeatSettings,
    PaperMapper,
    SharedMapper,
    channel_statistics,
    phrase_heat,
)
from training.mammo_clip.factor_figures import HeatSource
from training.mammo_clip.factor_folder import (
    BASELINES,
    MAPPER,
    LoadedMapper,
    check_fits,
    load_any_mapper,
    load_baselines,
    seed_folders,
)
from training.mammo_clip.factor_phrases import embed, finding_embeddings, plain_phrase
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.localising import heat_grid
from training.mammo_clip.one_pass import Heater
from training.mammo_clip.phantom_breasts import GRAMMAR_NAMES
from training.mammo_clip.phrases import PHANTOM_WORDS
from training.mammo_clip.report import Mappers
from training.mammo_clip.report_location import Heated

_PROBES = 4
"""Images of noise on which the place of cells is measured, where the encoder does not tell it."""


class _Statistics:
    """Channel statistics of the last maps: all mappers of a pass ask for the same."""

    def __init__(self) -> None:
        self.maps: Tensor | None = None
        self.values: Tensor | None = None

    def __call__(self, maps: Tensor) -> Tensor:
        if self.values is None or self.maps is not maps:
            self.maps, self.values = maps, channel_statistics(maps)
        return self.values


def load_mappers(model: LoadedModel, folder: Path, size: tuple[int, int]) -> Mappers:
    """Every mapper of a folder of `python -m training factor`. Raises CheckpointError."""
    chosen = load_any_mapper(folder)
    check_fits(folder, chosen, model)
    labels = tuple(_label(name) for name in chosen.finding_names)
    phrases = _phrases(model, chosen, labels)
    statistics = _Statistics()
    name = _name(chosen)
    heaters = {name: _heater(chosen, phrases, statistics)}
    for number, place in seed_folders(folder).items():
        heaters.setdefault(f"FActOR seed {number}", _heater(load_any_mapper(place), phrases, statistics))
    for baseline, weights in load_baselines(folder).items():
        heaters[f"{baseline} weights of channels"] = _fixed(weights)
    noise = torch.rand(_PROBES, *size, generator=torch.Generator().manual_seed(0))
    grid = heat_grid(
        model.image_encoder,
        lambda images: model.image_encoder.features(images).feature_map,  # type: ignore[operator]
        model.input.normalise(noise),
    )
    return Mappers(heaters, Heated(labels, name, grid), _identity(folder))


def _label(name: str) -> str:
    """The grammar's name of a finding; a record may have the node's."""
    return name if name in PHANTOM_WORDS else GRAMMAR_NAMES[FindingKind(name)]


def _phrases(model: LoadedModel, chosen: LoadedMapper, labels: tuple[str, ...]) -> Tensor:
    """(K, D): what the folder's own figures ask for. The paper's heads learnt the mean of all prompts."""
    if isinstance(chosen.mapper, PaperMapper):
        return finding_embeddings(model, labels)
    return embed(model, [plain_phrase(label).text for label in labels])


def _name(chosen: LoadedMapper) -> str:
    return f"FActOR seed {chosen.record['seed']}" if "seed" in chosen.record else "FActOR"


def _heater(found: LoadedMapper, phrases: Tensor, statistics: _Statistics) -> Heater:
    mapper, heat = found.mapper, found.heat
    if isinstance(mapper, PaperMapper):
        return _paper(mapper, phrases, heat)
    return _shared(mapper, phrases, heat, statistics)


def _shared(mapper: SharedMapper, phrases: Tensor, heat: HeatSettings, statistics: _Statistics) -> Heater:
    return lambda maps: phrase_heat(maps, mapper.vectors(statistics(maps)) @ phrases.T, heat)


def _paper(mapper: PaperMapper, phrases: Tensor, heat: HeatSettings) -> Heater:
    return lambda maps: phrase_heat(maps, mapper(maps, phrases), heat)


def _fixed(weights: Tensor) -> Heater:
    source = HeatSource("", weights=weights)
    return lambda maps: source.heat(maps)[0]


def _identity(folder: Path) -> str:
    """Changes when any mapper of the folder does."""
    digest = hashlib.sha256()
    for path in sorted([*folder.rglob(MAPPER), *folder.glob(BASELINES)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
