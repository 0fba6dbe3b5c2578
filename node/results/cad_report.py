"""Mammography CAD SR (PS3.3 A.35.5) with TID 4000: what breast workstations show marks from.

It is written for every exam that a site wants to hear of: read with and without findings, read in part, refused for
quality, failed, not attempted. A destination's `CadProfile` decides which marks are required and where exam values go.
"""

from collections.abc import Mapping
from dataclasses import asdict

from pydicom import Dataset
from pydicom.uid import MammographyCADSRStorage

from node.destinations import CadProfile
from node.mammography.findings import Code
from node.mammography.views import View
from node.results import cad_codes, codes, names, uids, words
from node.results import content_items as items
from node.results.cad_findings import algorithm, impressions
from node.results.cad_library import Library, library_of, views_known
from node.results.cad_summary import (
    analyses_of,
    detections_of,
    parameters_of,
    summary_code,
    summary_of_analyses,
    summary_of_detections,
)
from node.results.content_items import Relationship
from node.results.document import DISCLAIMER, images_known, new_document, to_result
from node.results.evidence import predecessors, study_item
from node.results.reading import EncodedResult, Outcome, Reading, ResultKind, UnreadView

SERIES_DESCRIPTION = "AI mammography CAD (research)"


def form(profile: CadProfile) -> str:
    """The name of the form that a profile asks for; "" for the default one."""
    return "" if _shape(profile) == _shape(CadProfile()) else uids.form_of("CADSR", _shape(profile))


def _shape(profile: CadProfile) -> dict[str, object]:
    """What of a profile shapes the bytes: where no mark is below a threshold, `below` says nothing."""
    shape = asdict(profile)
    shape["required_at"] = sorted([name, threshold] for name, threshold in profile.required_at)
    shape["below"] = profile.below if profile.required_at else ""
    return shape


def encode(reading: Reading, sources: Mapping[View, Dataset], profile: CadProfile) -> EncodedResult:
    """The CAD report of one reading, or of an exam that was not read. Raises EncodeError where a source is missing."""
    name = form(profile)
    dataset = new_document(
        reading, sources, ResultKind.CAD_REPORT, MammographyCADSRStorage, SERIES_DESCRIPTION, form=name
    )
    library = library_of(reading, sources)
    dataset.Modality = "SR"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.CurrentRequestedProcedureEvidenceSequence = [study_item(reading.study_instance_uid, library.references())]
    replaced = predecessors(reading, ResultKind.CAD_REPORT, name)
    if replaced:
        dataset.PredecessorDocumentsSequence = replaced
    dataset.update(_content(reading, images_known(reading, sources)[0], library, profile))
    return to_result(dataset, ResultKind.CAD_REPORT, name)


def _content(reading: Reading, source: Dataset, library: Library, profile: CadProfile) -> Dataset:
    """The content tree, TID 4000; the order of its rows is significant."""
    found = impressions(reading, profile, library)
    detections, analyses = detections_of(reading, profile), analyses_of(reading)
    root = items.container(
        None,
        cad_codes.REPORT,
        items.code(Relationship.HAS_CONCEPT_MOD, cad_codes.LANGUAGE, cad_codes.ENGLISH),
        library.container(),
        items.code(
            Relationship.CONTAINS,
            cad_codes.FINDINGS_SUMMARY,
            summary_code([*detections, *analyses], bool(found)),
            *_overall_impression(reading, source, profile),
            *found,
        ),
        summary_of_detections(reading, detections, library),
        summary_of_analyses(reading, analyses, library),
    )
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "4000"
    root.ContentTemplateSequence = [template]
    return root


def _overall_impression(reading: Reading, source: Dataset, profile: CadProfile) -> list[Dataset]:
    """TID 4002: what the exam is worth and what was not read in words, by which algorithm; numbers where asked for."""
    lines = _read_lines(reading, profile) if reading.outcome is Outcome.READ else words.report_lines(reading, source)
    if not lines:
        return []
    return [
        items.text(Relationship.HAS_PROPERTIES, cad_codes.IMPRESSION_DESCRIPTION, "\r\n".join(lines)),
        *algorithm(reading.model, parameters=parameters_of(reading)),
        *(_numbers(reading) if profile.exam_value == "number" else ()),
    ]


def _read_lines(reading: Reading, profile: CadProfile) -> list[str]:
    """Values, views that were not read, images that something is wrong with; nothing where there is none of it."""
    lines = [*(_value_lines(reading) if profile.exam_value != "none" else ()), *_view_lines(reading)]
    return [f"{DISCLAIMER}.", *lines] if lines else []


def _value_lines(reading: Reading) -> list[str]:
    """ "Suspicion: exam index 0.82; right breast index 0.82; ..." and that an index is no probability."""
    values = [("exam", reading.exam_probability)]
    values += [(f"{names.SIDE_WORDS[each.laterality].lower()} breast", each.probability) for each in reading.breasts]
    if all(probability is None for _, probability in values):
        return []
    told = "; ".join(f"{name} {names.value_words(reading, probability)}" for name, probability in values)
    if names.writes_probability(reading):
        return [f"Probability of cancer: {told}."]
    return [f"Suspicion: {told}.", "The index is not calibrated on patients and is no probability."]


def _view_lines(reading: Reading) -> list[str]:
    """ "Not assessed: LMLO: pixels cannot be decoded.", "Note on RCC: ..."."""
    lines = []
    for view in views_known(reading):
        what, reason = ("Not assessed:", view.reason) if isinstance(view, UnreadView) else ("Note on", "")
        reasons = dict.fromkeys([reason, *(found.words for found in view.quality)])
        told = "; ".join(reason for reason in reasons if reason)
        if told:
            lines.append(f"{what} {view.view.name}: {told}.")
    return lines


def _numbers(reading: Reading) -> list[Dataset]:
    """NUM for the exam and each breast: outside TID 4002, for workstations that read an exam's value from there."""
    values: list[tuple[Code, float | None]] = [(cad_codes.BOTH_SIDES, reading.exam_probability)]
    values += [(cad_codes.SIDES[breast.laterality], breast.probability) for breast in reading.breasts]
    return [_value(reading, side, value) for side, value in values if value is not None]


def _value(reading: Reading, side: Code, probability: float) -> Dataset:
    laterality = items.code(Relationship.HAS_CONCEPT_MOD, cad_codes.LATERALITY, side)
    if names.writes_probability(reading):
        percentage = 100.0 * probability
        return items.number(
            Relationship.HAS_PROPERTIES, codes.PROBABILITY_OF_CANCER, percentage, codes.PERCENT, laterality
        )
    meaning = items.text(Relationship.HAS_CONCEPT_MOD, codes.EQUIVALENT_MEANING, codes.SUSPICION_INDEX_WORDS)
    return items.number(
        Relationship.HAS_PROPERTIES, codes.SUSPICION_INDEX, probability, codes.NO_UNITS, meaning, laterality
    )
