"""What a CAD report tried: Summaries of Detections and Analyses (TID 4015 to 4018), and the summary of all (TID 4001).

Silence must not be taken for "no finding": each image that could not be looked at stands among the failed detections.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from node.destinations import CadProfile
from node.mammography.findings import FINDING_KINDS, Code, FindingKind
from node.mammography.views import BREASTS, View, ViewPosition
from node.results import cad_codes
from node.results import content_items as items
from node.results.cad_findings import CORRESPONDENCE, QUALITY, algorithm
from node.results.cad_lesions import has_operating_point
from node.results.cad_library import Library
from node.results.content_items import Relationship
from node.results.reading import Outcome, Reading


@dataclass(frozen=True, slots=True)
class Attempt:
    """One algorithm on some views. `code` is of CID 6014 (detections) or CID 6043 (analyses)."""

    code: Code
    views: tuple[View, ...]
    succeeded: bool
    rule: str = ""
    """Name of the node's own rule; empty: the model."""
    parameters: tuple[str, ...] = ()
    has_operating_points: bool = False


def detections_of(reading: Reading, profile: CadProfile) -> tuple[Attempt, ...]:
    """What was looked for in single images: findings, in the views read with success and in the unread without; and
    what is wrong with the image. None: not attempted.
    """
    if reading.outcome is Outcome.NOT_ATTEMPTED:
        return ()
    by_code: dict[Code, list[FindingKind]] = {}
    for kind in _kinds(reading):
        by_code.setdefault(cad_codes.SINGLE_IMAGE_FINDINGS[kind], []).append(kind)
    lesions = [
        _detection(reading, profile, code, kinds, views, succeeded)
        for views, succeeded in _tried(reading)
        for code, kinds in by_code.items()
    ]
    return (*lesions, *_quality_detections(reading))


def _tried(reading: Reading) -> list[tuple[tuple[View, ...], bool]]:
    """The views on which the model succeeded, and those on which it did not."""
    tried = [(tuple(view.view for view in reading.views), True), (tuple(view.view for view in reading.unread), False)]
    return [(views, succeeded) for views, succeeded in tried if views]


def _kinds(reading: Reading) -> Iterable[FindingKind]:
    """As the views read tell, else as the model is known to look for; every kind where neither says."""
    read = dict.fromkeys(kind for view in reading.views for kind, _ in view.finding_probabilities)
    return tuple(read) if reading.views else reading.model.findings or FINDING_KINDS


def _detection(
    reading: Reading,
    profile: CadProfile,
    code: Code,
    kinds: Sequence[FindingKind],
    views: tuple[View, ...],
    succeeded: bool,
) -> Attempt:
    """Mass and asymmetry have one code in one image: what was looked for stands among the parameters."""
    looked_for = f"looks for {', '.join(kind.value.replace('_', ' ') for kind in kinds)}"
    has_points = any(has_operating_point(kind, profile) for kind in kinds)
    return Attempt(code, views, succeeded, "", (looked_for, *parameters_of(reading)), has_points)


def parameters_of(reading: Reading) -> tuple[str, ...]:
    """Algorithm Parameters of the model: what its name and version do not tell."""
    model = reading.model
    return (
        f"weights SHA-256 {model.weights_hash}",
        f"variant {model.variant}",
        f"preset {model.preset}",
        f"settings SHA-256 {reading.settings_hash}",
    )


def _quality_detections(reading: Reading) -> list[Attempt]:
    """Image quality is a finding in a single image (CID 6014), measured wherever pixels could be read; of an exam that
    failed it is known where something was found alone.
    """
    measured = [view.view for view in reading.views] + [view.view for view in reading.unread if view.quality]
    is_complete = reading.outcome in (Outcome.READ, Outcome.REFUSED)
    unreadable = [view.view for view in reading.unread if is_complete and not view.quality]
    return [
        Attempt(cad_codes.IMAGE_QUALITY, tuple(views), succeeded, QUALITY)
        for views, succeeded in ((measured, True), (unreadable, False))
        if views
    ]


def analyses_of(reading: Reading) -> tuple[Attempt, ...]:
    """CC beside MLO, composition and the exam as a whole, those that were attempted."""
    return (*_correspondence_analyses(reading), *_exam_analyses(reading))


def _correspondence_analyses(reading: Reading) -> list[Attempt]:
    """In each breast that has findings to compare: of one kind in both views, each with a known place."""
    both = [(View(side, ViewPosition.CC), View(side, ViewPosition.MLO)) for side in BREASTS]
    return [
        Attempt(cad_codes.COLLOCATION_ANALYSIS, (cc, mlo), True, CORRESPONDENCE)
        for cc, mlo in both
        if _was_compared(reading, cc, mlo)
    ]


def _was_compared(reading: Reading, cc: View, mlo: View) -> bool:
    found: dict[View, set[FindingKind]] = {cc: set(), mlo: set()}
    for finding in reading.findings:
        if finding.view in found and finding.place is not None:
            found[finding.view].add(finding.kind)
    paired = any(reading.findings[pair.cc].view == cc for pair in reading.correspondences)
    return paired or bool(found[cc] & found[mlo])


def _exam_analyses(reading: Reading) -> list[Attempt]:
    """Values of the exam as a whole: a view that was not read has no part in them."""
    values = [reading.exam_probability, *(breast.probability for breast in reading.breasts)]
    attempted = [
        (cad_codes.COMPOSITION_ANALYSIS, reading.density is not None),
        (cad_codes.OVERALL_ANALYSIS, any(value is not None for value in values)),
    ]
    return [
        Attempt(code, views, succeeded, "", parameters_of(reading))
        for code, was_made in attempted
        if was_made
        for views, succeeded in _tried(reading)
    ]


def summary_code(attempts: Sequence[Attempt], has_findings: bool) -> Code:
    """CID 6047, of all detections and analyses and of whether any finding stands in the report."""
    if not any(attempt.succeeded for attempt in attempts) and not has_findings:
        return cad_codes.NONE_SUCCEEDED
    if all(attempt.succeeded for attempt in attempts):
        return cad_codes.ALL_WITH_FINDINGS if has_findings else cad_codes.ALL_WITHOUT_FINDINGS
    return cad_codes.SOME_WITH_FINDINGS if has_findings else cad_codes.SOME_WITHOUT_FINDINGS


def status_code(attempts: Sequence[Attempt]) -> Code:
    """CID 6042."""
    outcomes = {attempt.succeeded for attempt in attempts}
    if not outcomes:
        return cad_codes.NOT_ATTEMPTED
    if len(outcomes) == 2:
        return cad_codes.PARTIALLY_SUCCEEDED
    return cad_codes.SUCCEEDED if True in outcomes else cad_codes.FAILED


def summary_of_detections(reading: Reading, attempts: Sequence[Attempt], library: Library) -> Dataset:
    """TID 4000 row 6, TID 4015."""
    return items.code(
        Relationship.CONTAINS,
        cad_codes.SUMMARY_OF_DETECTIONS,
        status_code(attempts),
        *_gathered(
            reading,
            attempts,
            library,
            cad_codes.DETECTION_PERFORMED,
            (cad_codes.SUCCESSFUL_DETECTIONS, cad_codes.FAILED_DETECTIONS),
        ),
    )


def summary_of_analyses(reading: Reading, attempts: Sequence[Attempt], library: Library) -> Dataset:
    """TID 4000 row 8, TID 4016."""
    return items.code(
        Relationship.CONTAINS,
        cad_codes.SUMMARY_OF_ANALYSES,
        status_code(attempts),
        *_gathered(
            reading,
            attempts,
            library,
            cad_codes.ANALYSIS_PERFORMED,
            (cad_codes.SUCCESSFUL_ANALYSES, cad_codes.FAILED_ANALYSES),
        ),
    )


def _gathered(
    reading: Reading, attempts: Sequence[Attempt], library: Library, concept: Code, gathers: tuple[Code, Code]
) -> list[Dataset]:
    """The container of those that succeeded, then of those that failed; none that is empty."""
    containers = []
    for succeeded, gather in zip((True, False), gathers, strict=True):
        performed = [_performed(reading, each, library, concept) for each in attempts if each.succeeded is succeeded]
        if performed:
            containers.append(items.container(Relationship.INFERRED_FROM, gather, *performed))
    return containers


def _performed(reading: Reading, attempt: Attempt, library: Library, concept: Code) -> Dataset:
    """TID 4017, TID 4018: algorithm, images by reference, operating points."""
    positions = [position for view in attempt.views for position in library.positions(view)]
    return items.code(
        Relationship.CONTAINS,
        concept,
        attempt.code,
        *algorithm(reading.model, attempt.rule, attempt.parameters),
        *(items.by_reference(Relationship.HAS_PROPERTIES, position) for position in positions),
        *(_operating_points() if attempt.has_operating_points else ()),
    )


def _operating_points() -> list[Dataset]:
    """TID 4023: two points, 0 shows the required marks alone, 1 the optional ones too."""
    return [
        items.number(Relationship.HAS_PROPERTIES, cad_codes.MAXIMUM_OPERATING_POINT, 1, cad_codes.ARBITRARY),
        items.number(Relationship.HAS_PROPERTIES, cad_codes.RECOMMENDED_OPERATING_POINT, 0, cad_codes.FROM_ZERO),
    ]
