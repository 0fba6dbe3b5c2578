"""Open vocabulary on views whose truth is known: phrases and combinations held out of the mapper's training, views with
two different lesions, denied findings.

The unit is a view asked with a phrase; intervals are by bootstrap over patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node.mammography.anatomy import Landmarks
from node.mammography.phrases import parse
from node.mammography.place_words import place_mask
from node.mammography.regions import HeatGrid
from training.figures.intervals import auc_interval, share_interval
from training.localisation import FloatImage
from training.mammo_clip.factor import image_scores, phrase_heat
from training.mammo_clip.factor_phrases import SplitPhrases, embed, plain_phrase
from training.mammo_clip.factor_views import FactorView, Truth, truth_of
from training.mammo_clip.images import PhantomView, Plane
from training.mammo_clip.localising import BoolImage, breast_of, points_at, registered
from training.mammo_clip.open_vocabulary import Asker, landmarks_of, phantom_image
from training.mammo_clip.phrases import Phrase, negated_phrases, shown

Table = dict[str, Any]


@dataclass(slots=True, eq=False)
class Shares:
    """Rows of yes and no with their patients."""

    patients: list[str] = field(default_factory=list)
    rows: list[bool] = field(default_factory=list)

    def add(self, patient: str, row: bool) -> None:
        """One more."""
        self.patients.append(patient)
        self.rows.append(row)

    def as_table(self) -> Table:
        """The share with its interval."""
        return share_interval(np.array(self.rows, np.bool_), np.array(self.patients)).as_table()


class PhraseFigures:
    """Takes views with their maps one after the other; `as_table` at the end.

    Where a phrase says a place, pointing is told with the mask of its words and without. A view with two lesions of the
    finding is not asked for one of its kinds: which of the two is meant, its masks do not tell.
    """

    def __init__(self, asker: Asker, split: SplitPhrases, grid: HeatGrid) -> None:
        self.asker, self.split, self.grid, self.names = asker, split, grid, tuple(asker.thresholds)
        self.texts = list(
            dict.fromkeys(
                [
                    *(plain_phrase(name).bare for name in self.names),
                    *(phrase.bare for phrase in (*split.held_out, *split.held_out_placed)),
                ]
            )
        )
        self.embeddings = embed(asker.model, self.texts)
        self.shares: dict[str, Shares] = {}
        self.patients: list[str] = []
        self.presence: dict[str, list[float]] = {name: [] for name in self.names}
        self.truth: dict[str, list[bool]] = {name: [] for name in self.names}

    @torch.inference_mode()
    def add(self, view: FactorView, plane: Plane, maps: Tensor) -> None:
        """One view with its maps (1, C, h, w)."""
        cosines = self.asker.mapper(maps, self.embeddings)
        scores = image_scores(cosines, self.asker.settings)[0]
        self.patients.append(view.patient)
        for number, name in enumerate(self.names):
            self.presence[name].append(float(scores[number]))
            self.truth[name].append(any(seen.name == name for seen in view.seen))
        if not view.seen:
            return
        truth, inside = truth_of(view, plane.shape), breast_of(plane)
        asked = _Asked(self, view, plane, truth, inside, maps, cosines)
        self._held_out(asked)
        self._two_lesions(asked)

    def _held_out(self, asked: "_Asked") -> None:
        for phrase in self.split.held_out:
            if asked.is_alone(phrase):
                self._share("held-out phrases").add(asked.view.patient, asked.points(phrase))
                self._share(f'"{phrase.text}"').add(asked.view.patient, asked.points(phrase))
        for phrase in self.split.held_out_placed:
            if shown(phrase, asked.view.seen):
                masked = asked.points(phrase, placed=True)
                self._share("held-out combinations, with the mask of their place").add(asked.view.patient, masked)
                self._share("held-out combinations, without the mask").add(asked.view.patient, asked.points(phrase))

    def _two_lesions(self, asked: "_Asked") -> None:
        names = [name for name in self.names if name in asked.truth.masks]
        if len(names) < 2:
            return
        for name in names:
            own = asked.truth.masks[name]
            others = np.logical_or.reduce([asked.truth.masks[other] for other in names if other != name])
            heat = asked.heat(plain_phrase(name))
            patient = asked.view.patient
            self._share("two lesions: the one asked for").add(patient, points_at(heat, asked.inside, own))
            wrong = points_at(heat, asked.inside, others & ~own)
            self._share("two lesions: the other one").add(patient, wrong)
            self._share(f"two lesions: {name}").add(patient, points_at(heat, asked.inside, own))

    def _share(self, name: str) -> Shares:
        return self.shares.setdefault(name, Shares())

    def as_table(self) -> Table:
        """Shares by what was asked, and how denied findings were answered."""
        pointing = {name: found.as_table() for name, found in sorted(self.shares.items())}
        return {"pointing": pointing, "denied": self._denied()}

    def _denied(self) -> Table:
        """Denied findings: are they read as such, and is what is answered true?"""
        read = [parse(text).negated for phrase in negated_phrases() for text in phrase.wordings]
        table: Table = {"sentences": len(read), "read as denied": sum(read)}
        patients = np.array(self.patients)
        for name in self.names:
            presence, truth = np.array(self.presence[name]), np.array(self.truth[name])
            absent = presence < self.asker.thresholds[name].presence
            table[name] = {
                "absent where it is absent": share_interval(absent, patients, ~truth).as_table(),
                "not confirmed where it is there": share_interval(~absent, patients, truth).as_table(),
                "auc of presence": auc_interval(presence, truth, patients).as_table(),
            }
        return table


@dataclass(slots=True, eq=False)
class _Asked:
    """One view that shows something, ready for phrases; heat and masks are made once."""

    figures: PhraseFigures
    view: FactorView
    plane: Plane
    truth: Truth
    inside: BoolImage
    maps: Tensor
    cosines: Tensor
    heats: dict[str, FloatImage] = field(default_factory=dict)
    landmarks: list[Landmarks | None] = field(default_factory=list)

    def heat(self, phrase: Phrase) -> FloatImage:
        """(H, W) of the words without place."""
        if phrase.bare not in self.heats:
            column = self.figures.texts.index(phrase.bare)
            heat = phrase_heat(self.maps, self.cosines[..., column : column + 1], self.figures.asker.settings)
            self.heats[phrase.bare] = registered(heat[0, 0].numpy(), self.figures.grid, self.inside)
        return self.heats[phrase.bare]

    def is_alone(self, phrase: Phrase) -> bool:
        """The view shows it and no second lesion of that finding."""
        return shown(phrase, self.view.seen) and sum(seen.name == phrase.name for seen in self.view.seen) == 1

    def points(self, phrase: Phrase, *, placed: bool = False) -> bool:
        """Whether the greatest heat, inside the place where it is said, lies on the finding."""
        inside = self.inside & self._place(phrase) if placed else self.inside
        return points_at(self.heat(phrase), inside, self.truth.masks[phrase.name])

    def _place(self, phrase: Phrase) -> BoolImage:
        if self.view.view is None or not isinstance(self.view.picture, PhantomView):
            return self.inside
        image = phantom_image(self.view.row, self.plane, self.view.view)
        if not self.landmarks:
            self.landmarks.append(landmarks_of(image))
        found = place_mask(parse(phrase.text), image.view, image.prepared, self.landmarks[0], image.orientation)
        return found.inside


def held_out_words(split: SplitPhrases) -> Sequence[str]:
    """For the record: what did not train."""
    return [*(phrase.text for phrase in split.held_out), *(phrase.text for phrase in split.held_out_placed)]
