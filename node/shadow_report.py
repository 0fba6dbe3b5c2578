"""`mammoclip-node shadow`: what a candidate says in shadow beside what was said and sent, in words and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from node.comparing import LEAST_FOR_A_PERCENTILE, Comparison, Marked, Matched, Spread, compare
from node.database import Database
from node.database.shadows import (
    Pair,
    ShadowStatus,
    shadow_counts,
    shadow_pairs,
    shadow_troubles,
    shadowed_candidates,
)
from node.errors import NodeError

Identity = tuple[str, str, str, str]
"""Name, version, variant, weights hash."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two models by identity, on the exams that both read; seconds of one inference, the middle one."""

    first: Identity
    candidate: Identity
    comparison: Comparison
    first_seconds: float | None
    candidate_seconds: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known of one candidate's shadow."""

    candidate: str
    counts: Mapping[ShadowStatus, int]
    compared: tuple[Compared, ...]
    """One for each pair of identities: numbers of two models are never mixed with those of others."""
    troubles: tuple[tuple[str, str, str], ...]
    """(Study Instance UID, status, reason)."""


def report_of(database: Database, candidate: str | None, worst: int = 10) -> Report:
    """Of the candidate of that name, else of the last one. Raises NodeError where nothing was read in shadow."""
    known = shadowed_candidates(database)
    name = candidate or (known[-1] if known else None)
    if name is None:
        raise NodeError("nothing is or was to be read in shadow; [candidate] of the settings has `shadow`")
    groups: dict[tuple[Identity, Identity], list[Pair]] = {}
    for pair in shadow_pairs(database, name):
        groups.setdefault((pair.first.model, pair.candidate.model), []).append(pair)
    return Report(
        candidate=name,
        counts=shadow_counts(database, name),
        compared=tuple(_compared(*models, pairs, worst) for models, pairs in groups.items()),
        troubles=shadow_troubles(database, name),
    )


def as_words(report: Report) -> str:
    """For people."""
    said = ", ".join(f"{report.counts[status]} {word}" for status, word in _STANDING if status in report.counts)
    lines = [f"candidate {report.candidate} in shadow: {said or 'no exam yet'}"]
    for compared in report.compared:
        lines += ["", f"{_model(compared.first)} against {_model(compared.candidate)}", *_lines(compared)]
    if report.troubles:
        lines += ["", "failures and delays"]
        lines += [f"  {count} x {status}: {reason}" for (status, reason), count in _grouped(report).items()]
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """For scripts; numbers as in `comparing`."""
    return {
        "candidate": report.candidate,
        "counts": {status.value: count for status, count in report.counts.items()},
        "compared": [_compared_json(compared) for compared in report.compared],
        "troubles": [
            {"study_instance_uid": uid, "status": status, "reason": reason} for uid, status, reason in report.troubles
        ],
    }


_STANDING = (
    (ShadowStatus.READ, "read"),
    (ShadowStatus.PENDING, "waiting"),
    (ShadowStatus.READING, "being read"),
    (ShadowStatus.FAILED, "failed"),
    (ShadowStatus.DROPPED, "dropped (the exam got other images)"),
)


def _compared(first: Identity, candidate: Identity, pairs: Sequence[Pair], worst: int) -> Compared:
    said = [(pair.study_instance_uid, pair.first.prediction, pair.candidate.prediction) for pair in pairs]
    return Compared(
        first=first,
        candidate=candidate,
        comparison=compare(said, worst),
        first_seconds=_seconds([pair.first.seconds for pair in pairs]),
        candidate_seconds=_seconds([pair.candidate.seconds for pair in pairs]),
    )


def _seconds(stages: Sequence[Mapping[str, float]]) -> float | None:
    inferences = [each["infer"] for each in stages if "infer" in each]
    return median(inferences) if inferences else None


def _grouped(report: Report) -> Counter[tuple[str, str]]:
    return Counter((status, reason) for _, status, reason in report.troubles)


def _lines(compared: Compared) -> list[str]:
    comparison = compared.comparison
    unsaid = f", {comparison.not_assessed} without a probability" if comparison.not_assessed else ""
    lines = [f"  exams          {comparison.exams}{unsaid}", *_spread_lines(comparison.spread)]
    lines += [_marked_line(comparison.marked), f"  findings       {_matched_words(comparison.findings)}"]
    lines += [f"    {kind.replace('_', ' ')}: {_matched_words(each)}" for kind, each in comparison.by_kind.items()]
    if compared.first_seconds is not None and compared.candidate_seconds is not None:
        lines.append(
            f"  inference      {compared.first_seconds:.2f} s, candidate {compared.candidate_seconds:.2f} s (medians)"
        )
    if comparison.worst:
        lines.append("  furthest apart (first model, candidate)")
    lines += [
        f"    {each.study_instance_uid}  {each.first:.3f}  {each.candidate:.3f}  {each.difference:+.3f}"
        for each in comparison.worst
    ]
    return lines


def _spread_lines(spread: Spread) -> list[str]:
    if spread.mean is None or spread.mean_absolute is None or spread.largest_absolute is None:
        return ["  difference     not told: no exam has both probabilities"]
    interval = "" if spread.mean_interval is None else f", 95 % interval {_range(spread.mean_interval)}"
    lines = [f"  difference     {spread.mean:+.3f} on average (candidate minus first{interval})"]
    if spread.limits is None:
        lines.append("  limits         not told: one exam has no spread")
    else:
        lines.append(f"  limits         {_range(spread.limits)}: where 95 % of further exams are expected")
    percentile = (
        f"no 95th percentile below {LEAST_FOR_A_PERCENTILE} exams"
        if spread.percentile_95_absolute is None
        else f"95th percentile {spread.percentile_95_absolute:.3f}"
    )
    sizes = f"{spread.mean_absolute:.3f} on average, {percentile}, largest {spread.largest_absolute:.3f}"
    return [*lines, f"  size           {sizes}"]


def _marked_line(marked: Marked) -> str:
    words = (
        f"both {marked.both}, neither {marked.neither}, first alone {marked.first_only}, "
        f"candidate alone {marked.candidate_only}"
    )
    if marked.agreement is None or marked.agreement_interval is None:
        return f"  marked exams   {words}"
    low, high = marked.agreement_interval
    return f"  marked exams   {words}: they agree in {marked.agreement:.0%} ({low:.0%} to {high:.0%})"


def _matched_words(matched: Matched) -> str:
    overlap = "" if matched.mean_overlap is None else f" (overlap {matched.mean_overlap:.2f} on average)"
    return (
        f"{matched.both} of both{overlap}, first alone {matched.first_only}, candidate alone {matched.candidate_only}"
    )


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _model(identity: Identity) -> str:
    name, version, variant, weights_hash = identity
    return f"{name} {version} ({variant}, weights {weights_hash[:12]})"


def _compared_json(compared: Compared) -> dict[str, Any]:
    comparison = compared.comparison
    marked = comparison.marked
    return {
        "first": _identity_json(compared.first),
        "candidate": _identity_json(compared.candidate),
        "exams": comparison.exams,
        "not_assessed": comparison.not_assessed,
        "difference": asdict(comparison.spread),
        "marked": {
            **asdict(marked),
            "agreement": marked.agreement,
            "agreement_interval": marked.agreement_interval,
        },
        "findings": asdict(comparison.findings),
        "findings_by_kind": {kind: asdict(each) for kind, each in comparison.by_kind.items()},
        "furthest_apart": [{**asdict(each), "difference": each.difference} for each in comparison.worst],
        "median_seconds": {"first": compared.first_seconds, "candidate": compared.candidate_seconds},
    }


def _identity_json(identity: Identity) -> dict[str, str]:
    return dict(zip(("name", "version", "variant", "weights_hash"), identity, strict=True))
