"""Operating values of a mapper, from validation views: when a finding counts as shown, how hot true lesions are, and
how near to the trained phrases a phrase is to be.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from node.mammography.known_phrases import KnownPhrases
from node.mammography.regions import HeatGrid
from training.mammo_clip.factor_figures import ViewHeat
from training.mammo_clip.factor_phrases import PhraseSet, SplitPhrases, embed
from training.mammo_clip.factor_views import truth_of
from training.mammo_clip.loading import LoadedModel
from training.mammo_clip.localising import breast_of, registered
from training.mammo_clip.open_vocabulary import Threshold

FALSE_SHARE = 0.075
"""Of normal views that may count as showing one finding: four findings make .3 such views."""
FAR_QUANTILE = 0.02
"""Of phrases that mean what was trained and were not trained on themselves, so many count as far."""
_LEAST_HEAT = 1e-9
_TIE = 1e-3
"""Normal views whose cosines are all but equal stay below the threshold together."""


def thresholds_of(heats: Iterable[ViewHeat], names: Sequence[str], grid: HeatGrid, source: str) -> dict[str, Threshold]:
    """By finding. Presence is exceeded by FALSE_SHARE of the views without any finding; the heat's scale is the median
    over lesions of the greatest heat on them. Views must hold both.
    """
    normal: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[float]] = {name: [] for name in names}
    for at in heats:
        if not at.view.seen:
            for column, name in enumerate(names):
                normal[name].append(float(at.presence[source][column]))
            continue
        inside, truth = breast_of(at.plane), truth_of(at.view, at.plane.shape)
        for column, name in enumerate(names):
            if name in truth.masks:
                placed = registered(at.heat[source][column], grid, inside)
                peaks[name].append(float(placed[truth.masks[name]].max()))
    return {
        name: Threshold(
            float(np.quantile(normal[name], 1.0 - FALSE_SHARE)) + _TIE if normal[name] else 0.0,
            max(float(np.median(peaks[name])) if peaks[name] else 1.0, _LEAST_HEAT),
        )
        for name in names
    }


def known_phrases(model: LoadedModel, phrases: PhraseSet, split: SplitPhrases) -> KnownPhrases:
    """The phrases that were trained, their words, and how near phrases come that mean the same in other words: the
    other wordings, and the phrases held out.
    """
    texts: Tensor = phrases.texts
    probes = phrases.embeddings[:, 1:].flatten(0, 1)
    cosines = (probes @ texts.T).amax(1).numpy()
    if split.held_out:
        others = embed(model, [phrase.text for phrase in split.held_out])
        cosines = np.append(cosines, (others @ texts.T).amax(1).numpy())
    words = {word.strip(".,") for phrase in phrases.phrases for text in phrase.wordings for word in text.split()}
    least = float(np.quantile(cosines, FAR_QUANTILE))
    return KnownPhrases(tuple(phrase.text for phrase in phrases.phrases), frozenset(words), min(max(least, -1.0), 1.0))
