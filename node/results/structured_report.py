"""Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500: what was looked for, what was found, where, and by what.

A probability of cancer is written only by a model that was calibrated on patients, or where the site allows it;
otherwise every value is a suspicion index, which is what it is called. An exam that was not read has a report too: it
holds its images, why nobody read them, and what is wrong with them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from node.mammography.findings import Code
from node.mammography.views import View
from node.results import codes, evidence, uids
from node.results.document import images_known, items_of, new_document, to_result
from node.results.image_library import image_library, twin_of
from node.results.ours import MANUFACTURER
from node.results.reading import EncodedResult, Reading, ResultKind
from node.results.report_findings import finding_groups, lesion_groups
from node.results.report_groups import density_groups, exam_groups, quality_groups, search_groups
from node.results.report_items import CONTAINS, MODIFIES, concept
from node.results.report_segments import Segments, segments_of
from node.results.report_words import evaluations

SERIES_DESCRIPTION = "AI mammography report (research)"


def encode(
    reading: Reading,
    sources: Mapping[View, Dataset],
    segmentations: Sequence[EncodedResult] = (),
    regions_only: bool = False,
) -> EncodedResult:
    """The report of one reading. One without findings is as full: it says what was looked for and not found.

    `segmentations` are those that the report's destination gets: all are evidence, and the groups refer to their
    segments (report_segments). They are part of the report's form, and so of its UID.

    `regions_only`: Imaging Measurements hold the marked regions alone, all else stands under Qualitative Evaluations in
    codes and words. OHIF 3.12.10 and 3.13.2 take every measurement group for one with coordinates, and do not open a
    report that has another.
    """
    kind, made_form = ResultKind.STRUCTURED_REPORT, form(segmentations, regions_only)
    dataset = new_document(reading, sources, kind, Comprehensive3DSRStorage, SERIES_DESCRIPTION, form=made_form)
    dataset.Modality = "SR"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = _procedures(images_known(reading, sources)[0])
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    twins = [twin for twin in map(twin_of, reading.views) if twin is not None]
    images = images_known(reading, sources)
    images += [*map(evidence.instance, twins), *map(evidence.instance, segmentations)]
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence.study_item(reading.study_instance_uid, images)]
    replaced = evidence.predecessors(reading, kind)
    if replaced:
        dataset.PredecessorDocumentsSequence = replaced
    dataset.update(_content(reading, sources, segments_of(segmentations), regions_only))
    return to_result(dataset, kind, made_form)


def form(segmentations: Sequence[EncodedResult], regions_only: bool = False) -> str:
    """The report's form: the segmentations that it refers to, and whether it holds regions alone; "" by default."""
    named = sorted(made.sop_instance_uid for made in segmentations)
    return uids.form_of(named, *(["regions only"] if regions_only else [])) if named or regions_only else ""


def _procedures(source: Dataset) -> list[Dataset]:
    """Performed Procedure Code Sequence (0040,A372): the source's Procedure Code Sequence where valid, or mammography.

    Procedure Reported inside the tree is wider: Imaging procedure is the only code of CID 100 that fits.
    """
    stated = items_of(source, "ProcedureCodeSequence")
    valid = [_code_of(item) for item in stated if _is_code(item)]
    return valid or [codes.code_item(codes.MAMMOGRAPHY_PROCEDURE)]


def _code_of(item: Dataset) -> Dataset:
    """The code alone: what else a source's item may hold is not for us to vouch for."""
    copied = codes.code_item(Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning)))
    if item.get("CodingSchemeVersion"):
        copied.CodingSchemeVersion = item.CodingSchemeVersion
    return copied


def _is_code(item: Dataset) -> bool:
    """Code Value, its scheme, its meaning (PS3.3 Table 8.8-1), as their VRs allow."""
    limits = {"CodeValue": 16, "CodingSchemeDesignator": 16, "CodeMeaning": 64}
    return all(0 < len(str(item.get(keyword) or "")) <= limit for keyword, limit in limits.items())


def _content(
    reading: Reading, sources: Mapping[View, Dataset], segments: Segments, regions_only: bool
) -> hd.sr.ContainerContentItem:
    """The content tree: TID 1500."""
    root = hd.sr.ContainerContentItem(name=concept(_title(reading, regions_only)), template_id="1500")
    root.ContentSequence = hd.sr.ContentSequence(
        [
            *hd.sr.LanguageOfContentItemAndDescendants(concept(codes.ENGLISH)),
            *_observation_context(reading),
            hd.sr.CodeContentItem(
                name=concept(codes.PROCEDURE_REPORTED),
                value=concept(codes.IMAGING_PROCEDURE),
                relationship_type=MODIFIES,
            ),
            image_library(reading, sources),
            *_measurements(reading, segments, regions_only),
            evaluations(reading, sources),
        ],
        is_root=False,
    )
    return root


def _title(reading: Reading, regions_only: bool) -> Code:
    """CID 7021. OHIF 3.12.10 opens an Imaging Measurement Report as marks on images, and fails where there is no mark;
    a report by another title it shows as text.
    """
    return codes.ONCOLOGY_REPORT if regions_only and not reading.findings else codes.MEASUREMENT_REPORT


def _measurements(reading: Reading, segments: Segments, regions_only: bool) -> list[Any]:
    """Imaging Measurements (TID 1500 row 6), none where there is no group."""
    others = [
        *exam_groups(reading),
        *density_groups(reading),
        *quality_groups(reading),
        *search_groups(reading, segments),
        *lesion_groups(reading),
    ]
    groups = [*([] if regions_only else others), *finding_groups(reading, segments)]
    if not groups:
        return []
    container = hd.sr.ContainerContentItem(name=concept(codes.IMAGING_MEASUREMENTS), relationship_type=CONTAINS)
    container.ContentSequence = hd.sr.ContentSequence([item for group in groups for item in group])
    return [container]


def _observation_context(reading: Reading) -> Any:
    """The observer is a device (TID 1004)."""
    model = reading.model
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=uids.device_uid(model),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
        serial_number=model.weights_hash,
    )
    context = hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    return hd.sr.ObservationContext(observer_device_context=context)
