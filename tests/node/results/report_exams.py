"""Readings that the TID 1500 report is written of: one of each outcome, and one with all that may stand in it."""

from dataclasses import replace

from node.mammography.findings import BreastDensity, Correspondence, Depth, Finding, FindingKind, Place, Sector
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, ViewPosition
from node.results.reading import DocumentReference, InstanceReference, Outcome, Predecessor, Reading, ResultKind
from tests.node.results import cad_exams, exams

REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
DOCUMENTS = (
    DocumentReference(ResultKind.STRUCTURED_REPORT, "", "2.25.11", REPORT_CLASS, "2.25.12", ("pacs",)),
    DocumentReference(
        ResultKind.SEGMENTATION, "", "2.25.13", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.14", ("pacs", "archive")
    ),
    DocumentReference(ResultKind.REJECTION, "a", "2.25.15", "1.2.840.10008.5.1.4.1.1.88.59", "2.25.16", ("pacs",)),
)


def place_of(finding: Finding) -> Place:
    """Upper outer quadrant; millimetres in CC alone."""
    if finding.view.position is ViewPosition.CC:
        return Place(0.41, 31.26, Depth.MIDDLE, Sector.OUTER)
    return Place(0.44, None, Depth.MIDDLE, Sector.UPPER)


def whole() -> Reading:
    """A lesion in CC and MLO of the right breast, one in LMLO, density, a For Processing source."""
    made = exams.reading()
    findings = tuple(replace(finding, place=place_of(finding)) for finding in made.findings)
    number = {finding.view: index for index, finding in enumerate(findings)}
    made = replace(
        made,
        findings=findings,
        correspondences=(Correspondence(number[RCC], number[RMLO]),),
        density=BreastDensity("C", 0.61),
    )
    twin = InstanceReference(cad_exams.FOR_PROCESSING, f"{exams.STUDY}.2.1", f"{exams.STUDY}.2")
    return cad_exams.with_view(made, RCC, read_from=twin)


def later() -> Reading:
    made = exams.reading(number=2)
    return replace(made, predecessor=Predecessor(1, made.read_at.replace(hour=11, minute=5), DOCUMENTS))


def partial() -> Reading:
    """Three views read, LMLO refused, RMLO read with something wrong."""
    made = exams.reading(views=(RCC, LCC, RMLO))
    made = cad_exams.with_view(made, RMLO, quality=(cad_exams.FAINT,))
    return replace(made, unread=(cad_exams.unread(LMLO, "constant image", cad_exams.BLANK),))


def many(count: int = 12) -> Reading:
    """`count` findings, three in each view."""
    made = exams.reading(lesions={})
    kinds = exams.KINDS
    findings = tuple(
        cad_exams.finding(kinds[number % 2], STANDARD_VIEWS[number % 4], (400.0 + 20.0 * number, 300.0 + 90.0 * number))
        for number in range(count)
    )
    return replace(made, findings=findings)


READINGS = {
    "findings": exams.reading,
    "whole": whole,
    "one region": lambda: exams.reading(lesions={LCC: (FindingKind.MASS, 300.0, 700.0)}),
    "nothing found, LMLO missing": lambda: exams.reading(views=(RCC, LCC, RMLO), lesions={}),
    "probability": lambda: replace(whole(), allow_probability=True),
    "twelve findings": many,
    "later": later,
    "one view failed": partial,
    "not attempted": lambda: cad_exams.not_read(Outcome.NOT_ATTEMPTED, "views missing: LMLO"),
    "failed": lambda: cad_exams.not_read(Outcome.FAILED, "the model did not answer"),
    "refused": lambda: cad_exams.not_read(Outcome.REFUSED, "no view can be assessed", cad_exams.BLANK),
}
