"""Qualitative Evaluations of the report (TID 1500 rows 12 to 14): what became of the exam, in codes and in words."""

from collections.abc import Mapping
from typing import Any

import highdicom as hd
from pydicom import Dataset

from node.mammography.findings import Code
from node.mammography.views import View
from node.results import codes, names, words
from node.results.document import DISCLAIMER, images_known
from node.results.reading import Outcome, Reading, UnreadView, ViewReading
from node.results.report_groups import DENSITIES, FAILED, NOT_ATTEMPTED, PARTIALLY_SUCCEEDED, SUCCEEDED
from node.results.report_items import CONTAINS, coded, concept, text

ALL_WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
ALL_WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
NOT_ALL_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
NOT_ALL_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")
"""CID 6047."""


def evaluations(reading: Reading, sources: Mapping[View, Dataset]) -> Any:
    """The container: the summary in codes, the report in words, scope, what was not assessed, what this is not."""
    container = hd.sr.ContainerContentItem(name=concept(codes.QUALITATIVE_EVALUATIONS), relationship_type=CONTAINS)
    report = words.report_text(reading, images_known(reading, sources)[0])
    container.ContentSequence = hd.sr.ContentSequence(
        [
            coded(codes.FINDINGS_SUMMARY, findings_summary(reading)),
            coded(codes.SUMMARY_OF_DETECTIONS, detections_summary(reading)),
            *_density(reading),
            text(codes.SUMMARY, report),
            *(text(name, said) for name, said in _texts(reading)),
        ]
    )
    return container


def _density(reading: Reading) -> list[Any]:
    density = reading.density
    return [] if density is None else [coded(codes.BREAST_COMPOSITION, DENSITIES[density.category])]


def findings_summary(reading: Reading) -> Code:
    """CID 6047. An image refused for quality has that as its finding (111101)."""
    if reading.outcome in (Outcome.NOT_ATTEMPTED, Outcome.FAILED):
        return NONE_SUCCEEDED
    refused = any(finding.refused for view in reading.unread for finding in view.quality)
    if reading.unread or reading.outcome is Outcome.REFUSED:
        return NOT_ALL_WITH_FINDINGS if reading.findings or refused else NOT_ALL_WITHOUT_FINDINGS
    return ALL_WITH_FINDINGS if reading.findings else ALL_WITHOUT_FINDINGS


def detections_summary(reading: Reading) -> Code:
    """CID 6042."""
    if reading.outcome is Outcome.READ:
        return PARTIALLY_SUCCEEDED if reading.unread else SUCCEEDED
    return NOT_ATTEMPTED if reading.outcome is Outcome.NOT_ATTEMPTED else FAILED


def _texts(reading: Reading) -> list[tuple[Code, str]]:
    """Name and value of each TEXT item after the report."""
    known: list[ViewReading | UnreadView] = [*reading.views, *reading.unread]
    said = [(codes.COMMENT, DISCLAIMER)]
    if reading.outcome is Outcome.READ:
        said.append((codes.LOOKED_FOR, _looked_for(reading)))
    else:
        said.append((codes.WHY_NOT, _why_not(reading)))
    said += [(codes.NOT_ASSESSED, not_assessed) for not_assessed in _not_assessed(reading)]
    said += [(codes.COMMENT, f"{view.view.name}: {flag}") for view in reading.views for flag in view.flags]
    said += [(codes.COMMENT, f"{view.view.name}: {finding.words}") for view in known for finding in view.quality]
    said += [
        (codes.COMMENT, f"{view.view.name}: read from image {view.read_from.sop_instance_uid}, marked on the one shown")
        for view in reading.views
        if view.read_from is not None
    ]
    if reading.outcome is Outcome.READ and not names.writes_probability(reading):
        said.append((codes.COMMENT, "Values are a suspicion index, not calibrated on patients; no probability"))
    return list(dict.fromkeys(said))


def _why_not(reading: Reading) -> str:
    """For example "Not attempted: views missing: LMLO"."""
    outcome = reading.outcome.value.capitalize()
    return f"{outcome}: {reading.reason}" if reading.reason else outcome


def _not_assessed(reading: Reading) -> list[str]:
    """The reading's own words, and each image that was not assessed with its reason."""
    unread = {view.view.name: view.reason for view in reading.unread}
    others = [said for said in reading.not_assessed if said.partition(":")[0] not in unread]
    return [*(f"{name}: {reason}" for name, reason in unread.items()), *others]


def _looked_for(reading: Reading) -> str:
    """For example "RCC, LCC: Mass, Calcification cluster; 1 region marked"."""
    views = ", ".join(view.view.name for view in reading.views)
    kinds = dict.fromkeys(names.KIND_WORDS[kind] for view in reading.views for kind, _ in view.finding_probabilities)
    count = len(reading.findings)
    marked = "no region marked" if count == 0 else f"{count} region{'s' if count > 1 else ''} marked"
    return f"{views}: {', '.join(kinds) or 'malignancy'}; {marked}"
