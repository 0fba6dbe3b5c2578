"""Two models on the same exams: how far apart what they say is, in numbers that hold for few exams too. Pure.

Takes summaries as `summary.summary_of` writes them. Differences are candidate minus first model, of calibrated exam
probabilities in [0, 1]. Nothing here says which model is right: for that the truth of the exams is needed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

LEAST_OVERLAP = 0.25
"""Intersection over union of two boxes from which two findings of one kind in one view are the same."""
LEAST_FOR_A_PERCENTILE = 20
"""Of fewer exams a 95th percentile is no more than a guess at the largest."""
CONFIDENCE = 0.975
WILSON_Z = 1.959964

Summary = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One exam."""

    study_instance_uid: str
    first: float
    candidate: float

    @property
    def difference(self) -> float:
        """Candidate minus first model."""
        return self.candidate - self.first


@dataclass(frozen=True, slots=True)
class Spread:
    """Differences in exam probability of `exams` exams. None: too few exams to say.

    `mean` with its 95 % confidence interval; `limits`: where 95 % of the differences of further exams are expected
    (Bland-Altman, with Student's t in place of 1.96 and widened by sqrt(1 + 1/n), so that few exams give wide limits).
    """

    exams: int
    mean: float | None
    mean_interval: tuple[float, float] | None
    limits: tuple[float, float] | None
    mean_absolute: float | None
    largest_absolute: float | None
    percentile_95_absolute: float | None


@dataclass(frozen=True, slots=True)
class Marked:
    """Exams by who marks at least one finding: at the operating points in force."""

    both: int
    neither: int
    first_only: int
    candidate_only: int

    @property
    def exams(self) -> int:
        """All of them."""
        return self.both + self.neither + self.first_only + self.candidate_only

    @property
    def agreement(self) -> float | None:
        """Share of the exams in which both mark something, or neither does."""
        return (self.both + self.neither) / self.exams if self.exams else None

    @property
    def agreement_interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the agreement (Wilson), which is honest for few exams and for 100 %."""
        return wilson(self.both + self.neither, self.exams) if self.exams else None


@dataclass(frozen=True, slots=True)
class Matched:
    """Findings of one kind, or of all, over all exams: matched by overlap, or seen by one model alone."""

    both: int = 0
    first_only: int = 0
    candidate_only: int = 0
    mean_overlap: float | None = None
    """Mean intersection over union of those that match."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two models say of the same exams."""

    exams: int
    not_assessed: int
    """Exams of which one of the two gives no exam probability: they are in no number below but the findings."""
    spread: Spread
    marked: Marked
    findings: Matched
    by_kind: Mapping[str, Matched]
    worst: tuple[Difference, ...]
    """The exams with the greatest differences, the greatest first."""


def compare(pairs: Sequence[tuple[str, Summary, Summary]], worst: int = 10) -> Comparison:
    """Compare (Study Instance UID, what the first model said, what the candidate said), one for each exam."""
    differences = [
        Difference(uid, first["exam_probability"], candidate["exam_probability"])
        for uid, first, candidate in pairs
        if first["exam_probability"] is not None and candidate["exam_probability"] is not None
    ]
    matches = [match for _, first, candidate in pairs for match in matched(first["findings"], candidate["findings"])]
    kinds = sorted({kind for kind, *_ in matches})
    ordered = sorted(differences, key=lambda each: (-abs(each.difference), each.study_instance_uid))
    return Comparison(
        exams=len(pairs),
        not_assessed=len(pairs) - len(differences),
        spread=spread([each.difference for each in differences]),
        marked=_marked(pairs),
        findings=_counted(matches, lambda _: True),
        by_kind={kind: _counted(matches, kind.__eq__) for kind in kinds},
        worst=tuple(ordered[:worst]),
    )


def spread(differences: Sequence[float]) -> Spread:
    """Of differences in probability."""
    count = len(differences)
    if not count:
        return Spread(0, None, None, None, None, None, None)
    mean, sizes = math.fsum(differences) / count, sorted(abs(each) for each in differences)
    interval = limits = None
    if count > 1:
        deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in differences) / (count - 1))
        t = float(stdtrit(count - 1, CONFIDENCE))
        half, wide = t * deviation / math.sqrt(count), t * deviation * math.sqrt(1 + 1 / count)
        interval, limits = (mean - half, mean + half), (mean - wide, mean + wide)
    return Spread(
        exams=count,
        mean=mean,
        mean_interval=interval,
        limits=limits,
        mean_absolute=math.fsum(sizes) / count,
        largest_absolute=sizes[-1],
        percentile_95_absolute=percentile(sizes, 0.95) if count >= LEAST_FOR_A_PERCENTILE else None,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order, by linear interpolation between neighbours (numpy's default)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927)."""
    share, z2 = hits / count, WILSON_Z**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = WILSON_Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def matched(
    first: Sequence[Summary], candidate: Sequence[Summary]
) -> list[tuple[str, Summary | None, Summary | None, float]]:
    """(kind, finding of the first model, of the candidate, overlap): the best overlaps first, each finding once."""
    pairs = sorted(
        (
            (overlap(one["box"], other["box"]), i, j)
            for i, one in enumerate(first)
            for j, other in enumerate(candidate)
            if (one["view"], one["kind"]) == (other["view"], other["kind"])
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    result: list[tuple[str, Summary | None, Summary | None, float]] = []
    used_first, used_candidate = set[int](), set[int]()
    for share, i, j in pairs:
        if share >= LEAST_OVERLAP and i not in used_first and j not in used_candidate:
            used_first.add(i)
            used_candidate.add(j)
            result.append((first[i]["kind"], first[i], candidate[j], share))
    result += [(one["kind"], one, None, 0.0) for i, one in enumerate(first) if i not in used_first]
    result += [(other["kind"], None, other, 0.0) for j, other in enumerate(candidate) if j not in used_candidate]
    return result


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom) in stored pixels; 0 where both are empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _marked(pairs: Sequence[tuple[str, Summary, Summary]]) -> Marked:
    said = [(bool(first["findings"]), bool(candidate["findings"])) for _, first, candidate in pairs]
    return Marked(
        both=said.count((True, True)),
        neither=said.count((False, False)),
        first_only=said.count((True, False)),
        candidate_only=said.count((False, True)),
    )


def _counted(
    matches: Sequence[tuple[str, Summary | None, Summary | None, float]], wanted: Callable[[str], bool]
) -> Matched:
    of_kind = [(first, candidate, share) for kind, first, candidate, share in matches if wanted(kind)]
    shares = [share for first, candidate, share in of_kind if first is not None and candidate is not None]
    return Matched(
        both=len(shares),
        first_only=sum(candidate is None for _, candidate, _ in of_kind),
        candidate_only=sum(first is None for first, _, _ in of_kind),
        mean_overlap=math.fsum(shares) / len(shares) if shares else None,
    )
