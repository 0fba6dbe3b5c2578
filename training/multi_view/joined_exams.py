"""The exams on which the joined encoder is compared with its parents: a rule on what the generator put into an exam.

The rule is chosen before any joined model is looked at, by System A alone, on exams that are not test exams. It reads
lesions and their contrast, never a picture and never an answer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from training.multi_view.joined_recipe import ExamsPart
from training.phantoms import PhantomExam, make_exam
from training.statistics import auc

LEAST, GREATEST = 0.80, 0.92
"""The band in which A's exam AUC lies on the test set."""


@dataclass(frozen=True, slots=True)
class ExamRule:
    """`min_conspicuity`: of the exam's faintest lesion, see `conspicuity`. `benign_share`: so many of the exams whose
    lesions are all benign; exams with a malignant lesion and exams without any all stay.
    """

    min_conspicuity: float
    benign_share: float

    def takes(self, exam: PhantomExam) -> bool:
        """Whether an exam is of the set."""
        if not exam.lesions:
            return True
        if conspicuity(exam) < self.min_conspicuity:
            return False
        return exam.malignant or _drawn(exam.seed) < self.benign_share


def conspicuity(exam: PhantomExam) -> float:
    """The least relative contrast of an exam's lesions, 1.0 being typical; infinite without lesions."""
    return min((lesion.contrast for lesion in exam.lesions), default=float("inf"))


def _drawn(seed: int) -> float:
    """A number in [0, 1) of each seed, the same for every rule: a smaller share is a part of a larger one."""
    return float(np.random.default_rng((seed, 41)).random())


def chosen_seeds(rule: ExamRule, first: int, exams: int) -> list[int]:
    """The first so many seeds from `first` on that the rule takes."""
    taking: Iterator[int] = (seed for seed in count(first) if rule.takes(make_exam(seed)))
    return list(islice(taking, exams))


@dataclass(frozen=True, slots=True)
class TriedRule:
    """A rule, and A's exam AUC over so many exams of it."""

    rule: ExamRule
    auc: float
    exams: int
    malignant: int


def try_rules(
    part: ExamsPart, seeds: Iterable[int], logits: NDArray[np.float32], malignant: NDArray[np.bool_]
) -> list[TriedRule]:
    """Every rule of the recipe on exams that are no test exams, by A's exam logits (N), up to the one that is taken:
    the first whose AUC reaches the recipe's least; else all.
    """
    exams = [make_exam(seed) for seed in seeds]
    tried = []
    for share in part.benign_shares:
        rule = ExamRule(part.min_conspicuity, share)
        kept = np.array([rule.takes(exam) for exam in exams])
        found = auc(logits[kept], malignant[kept])
        tried.append(TriedRule(rule, round(found, 4), int(kept.sum()), int(malignant[kept].sum())))
        if found >= part.least_auc:
            break
    return tried
