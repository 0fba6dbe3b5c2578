"""What a finding and a value are called, the same in every result."""

from collections import Counter
from collections.abc import Sequence

from node.mammography.findings import Finding, FindingKind
from node.mammography.views import Laterality
from node.results.reading import Reading

KIND_WORDS: dict[FindingKind, str] = {
    FindingKind.MASS: "Mass",
    FindingKind.SUSPICIOUS_CALCIFICATION: "Calcification cluster",
    FindingKind.ARCHITECTURAL_DISTORTION: "Architectural distortion",
    FindingKind.ASYMMETRY: "Asymmetry",
}
SIDE_WORDS: dict[Laterality, str] = {Laterality.RIGHT: "Right", Laterality.LEFT: "Left"}


def lesion_words(findings: Sequence[Finding]) -> str:
    """ "Mass with architectural distortion": what one lesion is in its views, all findings being of one kind."""
    beside = dict.fromkeys(KIND_WORDS[kind].lower() for finding in findings for kind in finding.associated)
    return f"{KIND_WORDS[findings[0].kind]}{' with ' if beside else ''}{' and '.join(beside)}"


def finding_names(reading: Reading) -> tuple[str, ...]:
    """One name for each of `reading.findings`: "RCC Mass 1". It is the Tracking Identifier in SR and SEG."""
    seen: Counter[str] = Counter()
    names = []
    for finding in reading.findings:
        stem = f"{finding.view.name} {KIND_WORDS[finding.kind]}"
        seen[stem] += 1
        names.append(f"{stem} {seen[stem]}")
    return tuple(names)


def lesion_numbers(reading: Reading) -> tuple[int, ...]:
    """A number for each of `reading.findings`, from 1: the same one for findings that are taken for one lesion."""
    partners = partners_of(reading)
    numbers: dict[int, int] = {}
    for index in range(len(reading.findings)):
        partner = partners.get(index)
        known = numbers.get(partner) if partner is not None else None
        numbers[index] = known or 1 + max(numbers.values(), default=0)
    return tuple(numbers[index] for index in range(len(reading.findings)))


def partners_of(reading: Reading) -> dict[int, int]:
    """Index of a finding to that of the finding of the other view that is taken for the same lesion."""
    pairs = [(pair.cc, pair.mlo) for pair in reading.correspondences]
    return dict(pairs) | {mlo: cc for cc, mlo in pairs}


def findings_of(reading: Reading, view_name: str) -> tuple[tuple[str, Finding], ...]:
    """The findings of one view with their names."""
    named = zip(finding_names(reading), reading.findings, strict=True)
    return tuple((name, finding) for name, finding in named if finding.view.name == view_name)


def writes_probability(reading: Reading) -> bool:
    """Whether values may be called probabilities: calibrated on patients, or allowed by the site."""
    return reading.model.calibrated_on_patients or reading.allow_probability


def value_words(reading: Reading, probability: float | None) -> str:
    """A value as text: "87 %", "index 0.87", "not assessed"."""
    if probability is None:
        return "not assessed"
    return f"{100 * probability:.0f} %" if writes_probability(reading) else f"index {probability:.2f}"
