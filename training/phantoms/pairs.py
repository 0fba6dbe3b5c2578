"""Pairs of exams that one view cannot tell apart: the four views of each have, one by one, the same distribution."""

from dataclasses import replace

import numpy as np

from node.mammography.views import BREASTS, Laterality, ViewPosition
from training.phantoms.anatomy import draw_side
from training.phantoms.exam import PhantomExam, draw_site, make_exam
from training.phantoms.lesions import (
    ASYMMETRY_FOCAL,
    MASS_IRREGULAR,
    MASS_LOBULATED,
    MASS_OVAL,
    MASS_ROUND,
    Distractor,
    DistractorKind,
    Lesion,
    draw_size,
)

_MASSES = (MASS_ROUND, MASS_OVAL, MASS_LOBULATED, MASS_IRREGULAR)


def make_mass_pair(seed: int) -> tuple[PhantomExam, PhantomExam]:
    """One exam with a mass in both views of a breast, one with two summation shadows, each in one view alone.

    The shadows lie in the CC of one breast and the MLO of the other and look like the mass: any single view shows
    something in half of the exams of either sort. The two exams are of different women.
    """
    rng = np.random.default_rng((seed, 31))
    with_mass, with_shadows = _bare(seed, 0), _bare(seed, 1)
    kind = _MASSES[int(rng.integers(len(_MASSES)))]
    side = draw_side(rng)
    site = draw_site(with_mass, side, 8.0, rng)
    lesion = Lesion(kind, side, site, draw_size(rng, kind), _contrast(rng), int(rng.integers(2**31)))
    shadows = []
    first = draw_side(rng)
    for where, position in ((first, ViewPosition.CC), (_other(first), ViewPosition.MLO)):
        place, size = draw_site(with_shadows, where, 8.0, rng), draw_size(rng, kind)
        shadow = Distractor(
            DistractorKind.SUMMATION_SHADOW,
            where,
            place,
            size,
            _contrast(rng),
            int(rng.integers(2**31)),
            (position,),
            kind,
        )
        shadows.append(shadow)
    return (
        replace(with_mass, lesions=(lesion,)),
        replace(with_shadows, distractors=with_shadows.distractors + tuple(shadows)),
    )


def make_asymmetry_pair(seed: int) -> tuple[PhantomExam, PhantomExam]:
    """One exam with a density in one breast (focal asymmetry), one with it in both breasts or, as often, in neither."""
    rng = np.random.default_rng((seed, 32))
    asymmetric, symmetric = _bare(seed, 2), _bare(seed, 3)
    side = draw_side(rng)
    site = draw_site(asymmetric, side, 8.0, rng)
    size = draw_size(rng, ASYMMETRY_FOCAL)
    lesion = Lesion(ASYMMETRY_FOCAL, side, site, size, _contrast(rng), int(rng.integers(2**31)))
    site, size, contrast = draw_site(symmetric, side, 8.0, rng), draw_size(rng, ASYMMETRY_FOCAL), _contrast(rng)
    grain = int(rng.integers(2**31))
    densities = [
        Distractor(DistractorKind.SYMMETRIC_DENSITY, breast, site, size, contrast, grain + i)
        for i, breast in enumerate(BREASTS)
    ]
    both = tuple(densities) if rng.random() < 0.5 else ()
    return replace(asymmetric, lesions=(lesion,)), replace(symmetric, distractors=symmetric.distractors + both)


def _bare(seed: int, which: int) -> PhantomExam:
    """A woman of the pair without lesions and without what imitates one."""
    exam = make_exam(seed * 4 + which, kinds=())
    imitations = (DistractorKind.SUMMATION_SHADOW, DistractorKind.SYMMETRIC_DENSITY)
    return replace(exam, distractors=tuple(d for d in exam.distractors if d.kind not in imitations))


def _contrast(rng: np.random.Generator) -> float:
    return float(np.exp(rng.normal(0.0, 0.22)))


def _other(side: Laterality) -> Laterality:
    return Laterality.LEFT if side is Laterality.RIGHT else Laterality.RIGHT
