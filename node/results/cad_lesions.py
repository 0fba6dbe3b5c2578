"""What a CAD report shows at a site: findings gathered into lesions, each with its rendering intent (CID 6034)."""

from dataclasses import dataclass

from node.destinations import CadProfile
from node.mammography.findings import Code, Finding, FindingKind
from node.results import cad_codes
from node.results.reading import Reading

INTENTS: dict[str, Code] = {"optional": cad_codes.OPTIONAL, "not": cad_codes.NOT_SHOWN}
"""Rendering intent by `CadProfile.below`; "omit" has none."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One finding, or the two of CC and MLO that correspond: indices in the reading's findings, CC first."""

    findings: tuple[int, ...]
    intent: Code


def lesions_of(reading: Reading, profile: CadProfile) -> tuple[Lesion, ...]:
    """The lesions that stand in the report, in the order of their first findings."""
    pairs = {pair.cc: pair.mlo for pair in reading.correspondences}
    seconds = set(pairs.values())
    firsts = [index for index in range(len(reading.findings)) if index not in seconds]
    groups = [(index, pairs[index]) if index in pairs else (index,) for index in firsts]
    lesions = [(group, _intent([reading.findings[index] for index in group], profile)) for group in groups]
    return tuple(Lesion(group, intent) for group, intent in lesions if intent is not None)


def _intent(findings: list[Finding], profile: CadProfile) -> Code | None:
    """Two views of a lesion are shown or not as one: the greater probability decides. None: left out."""
    threshold = threshold_of(findings[0].kind, profile)
    if max(finding.probability for finding in findings) >= threshold:
        return cad_codes.REQUIRED
    return INTENTS.get(profile.below)


def threshold_of(kind: FindingKind, profile: CadProfile) -> float:
    """The probability from which on a mark is Presentation Required; 0 where the site names none."""
    return dict(profile.required_at).get(kind.value, 0.0)


def has_operating_point(kind: FindingKind, profile: CadProfile) -> bool:
    """Whether marks of this kind may be optional: operating point 1 shows them, 0 does not (PS3.17 E.4)."""
    return profile.below == "optional" and threshold_of(kind, profile) > 0.0
