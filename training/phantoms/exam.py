"""A phantom exam: a woman, what stands in her breasts, what a report would say. Everything follows from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from node.mammography.views import BREASTS, STANDARD_VIEWS, Laterality, View, ViewPosition
from training.phantoms import reports
from training.phantoms.anatomy import Projection, Woman, draw_side, draw_woman, project
from training.phantoms.lesions import (
    Distractor,
    DistractorKind,
    Lesion,
    LesionKind,
    Site,
    draw_kinds,
    draw_size,
)

GENERATOR_VERSION = "1.1.0"
"""Changes with anything that changes a pixel, a mask or a sentence."""

TRAIN_SEED = 0
VALIDATION_SEED = 1_000_000
CALIBRATION_SEED = 2_000_000
TEST_SEED = 3_000_000
"""First seed of each split; a split has fewer than a million exams."""


@dataclass(frozen=True, slots=True)
class PhantomExam:
    """One woman's exam. Equal seeds (and kinds) give equal exams."""

    seed: int
    woman: Woman
    lesions: tuple[Lesion, ...]
    distractors: tuple[Distractor, ...]

    @property
    def density(self) -> str:
        """Breast density, A to D."""
        return self.woman.density

    @property
    def malignant_breasts(self) -> tuple[bool, bool]:
        """Right, left: holds a malignant kind."""
        right, left = (any(x.malignant and x.laterality is side for x in self.lesions) for side in BREASTS)
        return right, left

    @property
    def malignant(self) -> bool:
        """Either breast is malignant."""
        return any(self.malignant_breasts)

    def sentences(self) -> tuple[str, ...]:
        """One report sentence for each finding, side included; a negative one where there is none."""
        return reports.exam_sentences(self.lesions)

    def view_sentences(self, view: View) -> tuple[str, ...]:
        """The same without side words, with only those place words that the view shows."""
        return reports.view_sentences(self.lesions, view)

    def projection(self, view: View) -> Projection:
        """The compressed breast of one of the four standard views."""
        order = STANDARD_VIEWS.index(view)
        return project(self.woman, view, np.random.default_rng((self.seed, 5, order)))


def make_exam(seed: int, *, kinds: Sequence[LesionKind] | None = None) -> PhantomExam:
    """The exam of a seed. `kinds` forces its lesions (empty: none); a kind with a laterality forces the breast too."""
    rng = np.random.default_rng((seed, 1))
    woman = draw_woman(rng)
    bare = PhantomExam(seed, woman, (), ())
    drawn = draw_kinds(np.random.default_rng((seed, 2)))
    wanted = drawn if kinds is None else list(kinds)
    lesion_rng = np.random.default_rng((seed, 3))
    lesions = tuple(_draw_lesion(bare, kind, lesion_rng) for kind in wanted)
    distractors = _draw_distractors(bare, np.random.default_rng((seed, 4)))
    return PhantomExam(seed, woman, lesions, distractors)


def _draw_lesion(exam: PhantomExam, kind: LesionKind, rng: np.random.Generator) -> Lesion:
    side = draw_side(rng)
    side = kind.laterality or side
    size = draw_size(rng, kind)
    site = draw_site(exam, side, 0.35 * size + 4.0, rng)
    contrast = float(np.exp(rng.normal(0.0, 0.22)))
    return Lesion(kind, side, site, size, contrast, int(rng.integers(2**31)))


def draw_site(exam: PhantomExam, side: Laterality, margin_mm: float, rng: np.random.Generator) -> Site:
    """A place that lies inside the breast, by `margin_mm` where it can, in both views of the side."""
    views = [view for view in STANDARD_VIEWS if view.laterality is side]
    projections = [exam.projection(view) for view in views]
    best, best_margin = None, -np.inf
    for _ in range(40):
        site = _propose(exam.woman.depth_mm, rng)
        margin = min(p.margin(*p.locate(site.nipple_distance_mm, site.angle_in(p.position))) for p in projections)
        if best is None or margin > best_margin:
            best, best_margin = site, margin
        if best_margin >= margin_mm:
            break
    assert best is not None
    return best


def _propose(depth_mm: float, rng: np.random.Generator) -> Site:
    """Upper outer places are the commonest; the upper and lower words hold in the MLO too."""
    distance = float(rng.uniform(0.16, 0.86) * depth_mm)
    while True:
        tilt = np.radians(52.0) * np.sqrt(rng.random())
        clock = rng.normal(np.pi / 4, 0.7) if rng.random() < 0.45 else rng.uniform(0, 2 * np.pi)
        site = Site(distance, float(tilt * np.cos(clock)), float(tilt * np.sin(clock)))
        if site.upper * site.angle_in(ViewPosition.MLO) <= 0:
            return site


_BOTH = (ViewPosition.CC, ViewPosition.MLO)


def _draw_distractors(exam: PhantomExam, rng: np.random.Generator) -> tuple[Distractor, ...]:
    found: list[Distractor] = []
    for side in BREASTS:
        counts = {
            DistractorKind.GLAND_ISLAND: int(rng.poisson(1.6)),
            DistractorKind.VESSEL: int(rng.poisson(1.0)),
            DistractorKind.VASCULAR_CALCIFICATION: int(rng.random() < 0.22),
            DistractorKind.BENIGN_CALCIFICATION: int(rng.poisson(1.2)),
            DistractorKind.SCATTERED_CALCIFICATION: int(rng.random() < 0.30),
            DistractorKind.CLIP: int(rng.random() < 0.06),
            DistractorKind.SUMMATION_SHADOW: int(rng.random() < 0.25),
        }
        for kind, count in counts.items():
            found += [_draw_distractor(exam, kind, side, rng) for _ in range(count)]
    if rng.random() < 0.15:
        found += symmetric_density(exam, rng)
    return tuple(found)


_DISTRACTOR_SIZES = {
    DistractorKind.GLAND_ISLAND: (10.0, 26.0),
    DistractorKind.VESSEL: (40.0, 90.0),
    DistractorKind.VASCULAR_CALCIFICATION: (35.0, 80.0),
    DistractorKind.BENIGN_CALCIFICATION: (0.5, 2.2),
    DistractorKind.SCATTERED_CALCIFICATION: (60.0, 110.0),
    DistractorKind.CLIP: (3.0, 6.0),
    DistractorKind.SUMMATION_SHADOW: (10.0, 24.0),
    DistractorKind.SYMMETRIC_DENSITY: (18.0, 38.0),
}
"""Least and greatest extent in mm."""


def _draw_distractor(exam: PhantomExam, kind: DistractorKind, side: Laterality, rng: np.random.Generator) -> Distractor:
    size = float(rng.uniform(*_DISTRACTOR_SIZES[kind]))
    site = draw_site(exam, side, 5.0, rng)
    contrast = float(np.exp(rng.normal(0.0, 0.25)))
    positions: tuple[ViewPosition, ...] = _BOTH
    if kind is DistractorKind.SUMMATION_SHADOW:
        positions = (_BOTH[int(rng.integers(2))],)
    return Distractor(kind, side, site, size, contrast, int(rng.integers(2**31)), positions)


def symmetric_density(exam: PhantomExam, rng: np.random.Generator) -> list[Distractor]:
    """The same soft density at mirrored places of both breasts."""
    site = draw_site(exam, Laterality.RIGHT, 8.0, rng)
    size = float(rng.uniform(*_DISTRACTOR_SIZES[DistractorKind.SYMMETRIC_DENSITY]))
    contrast = float(np.exp(rng.normal(0.0, 0.2)))
    seed = int(rng.integers(2**31))
    return [
        Distractor(DistractorKind.SYMMETRIC_DENSITY, side, site, size, contrast, seed + i)
        for i, side in enumerate(BREASTS)
    ]
