"""Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500: what was looked for, what was found, where, and by what.

A probability of cancer is written only by a model that was calibrated on patients, or where the site allows it;
otherwise every value is a suspicion index, which is what it is called.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from node.mammography.findings import FINDING_CODES, Code, Finding, FindingKind
from node.mammography.views import Laterality, View
from node.results import codes, names, uids
from node.results.document import (
    DISCLAIMER,
    images_read,
    new_document,
    series_references,
    source_of,
    to_result,
)
from node.results.image_library import image_library
from node.results.ours import MANUFACTURER
from node.results.reading import EncodedResult, Reading, ResultKind, ViewReading

SERIES_DESCRIPTION = "AI mammography report (research)"


def encode(reading: Reading, sources: Mapping[View, Dataset]) -> EncodedResult:
    """The report of one reading. One without findings is as full: it says what was looked for and not found."""
    dataset = new_document(reading, sources, ResultKind.STRUCTURED_REPORT, Comprehensive3DSRStorage, SERIES_DESCRIPTION)
    dataset.Modality = "SR"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    evidence = Dataset()
    evidence.StudyInstanceUID = reading.study_instance_uid
    evidence.ReferencedSeriesSequence = series_references(images_read(reading, sources), "ReferencedSOPSequence")
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence]
    dataset.update(_content(reading, sources))
    return to_result(dataset, ResultKind.STRUCTURED_REPORT)


def _content(reading: Reading, sources: Mapping[View, Dataset]) -> Dataset:
    """The content tree: TID 1500."""
    groups = [*_exam_groups(reading), *_breast_groups(reading), *_search_groups(reading), *_finding_groups(reading)]
    report = hd.sr.MeasurementReport(
        observation_context=_observation_context(reading),
        procedure_reported=_concept(codes.IMAGING_PROCEDURE),
        imaging_measurements=groups,
    )
    root: Dataset = report[0]
    measurements = root.ContentSequence.pop()
    root.ContentSequence.append(image_library([(view, source_of(view, sources)) for view in reading.views]))
    root.ContentSequence.append(measurements)
    root.ContentSequence.append(_evaluations_in_words(reading))
    return root


def _concept(code: Code) -> Any:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


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


def _algorithm(reading: Reading) -> Any:
    """TID 4019."""
    model = reading.model
    parameters = [
        f"weights SHA-256 {model.weights_hash}",
        f"variant {model.variant}",
        f"preset {model.preset}",
        f"settings SHA-256 {reading.settings_hash}",
    ]
    return hd.sr.AlgorithmIdentification(name=model.name, version=model.version, parameters=parameters)


def _tracking(reading: Reading, name: str) -> Any:
    return hd.sr.TrackingIdentifier(uid=uids.tracking_uid(reading, name), identifier=name)


def _site(side: Laterality | None) -> Any:
    laterality = codes.BILATERAL if side is None else codes.SIDES[side]
    return hd.sr.FindingSite(anatomic_location=_concept(codes.BREAST), laterality=_concept(laterality))


def _value(reading: Reading, probability: float, meaning: Code) -> Any:
    """NUM: a percentage called `meaning`, or the suspicion index in [0, 1]."""
    if names.writes_probability(reading):
        return hd.sr.Measurement(
            name=_concept(meaning), value=round(100.0 * probability, 2), unit=_concept(codes.PERCENT)
        )
    return hd.sr.Measurement(
        name=_concept(codes.SUSPICION_INDEX), value=round(probability, 4), unit=_concept(codes.NO_UNITS)
    )


def _exam_groups(reading: Reading) -> list[Any]:
    """One group, none where the exam was not read."""
    if reading.exam_probability is None:
        return []
    return [
        hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(reading, "Exam"),
            algorithm_id=_algorithm(reading),
            finding_sites=[_site(None)],
            measurements=[_value(reading, reading.exam_probability, codes.PROBABILITY_OF_CANCER)],
        )
    ]


def _breast_groups(reading: Reading) -> list[Any]:
    """One group for each breast that was assessed."""
    return [
        hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(reading, f"{names.SIDE_WORDS[breast.laterality]} breast"),
            algorithm_id=_algorithm(reading),
            finding_sites=[_site(breast.laterality)],
            measurements=[_value(reading, breast.probability, codes.PROBABILITY_OF_CANCER)],
        )
        for breast in reading.breasts
        if breast.probability is not None
    ]


def _search_groups(reading: Reading) -> list[Any]:
    """One group for each view and kind of finding that was looked for, marked or not."""
    return [
        _search_group(reading, view, kind, probability)
        for view in reading.views
        for kind, probability in view.finding_probabilities
    ]


def _search_group(reading: Reading, view: ViewReading, kind: FindingKind, probability: float) -> Any:
    marked = any(finding.view == view.view and finding.kind is kind for finding in reading.findings)
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(reading, f"{view.view.name} {names.KIND_WORDS[kind]}"),
        algorithm_id=_algorithm(reading),
        finding_type=_concept(FINDING_CODES[kind]),
        finding_sites=[_site(view.view.laterality)],
        measurements=[_value(reading, probability, codes.CERTAINTY_OF_FINDING)],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(
                name=_concept(codes.REGION_MARKED), value=_concept(codes.PRESENT if marked else codes.ABSENT)
            )
        ],
        source_images=[hd.sr.SourceImageForMeasurementGroup(view.sop_class_uid, view.sop_instance_uid)],
    )


def _finding_groups(reading: Reading) -> list[Any]:
    """For each marked region its outline and its centre, both under the region's tracking identifier.

    The centre is what a mark is drawn at (TID 4021 has both too). It also keeps a report with a single region valid for
    PixelMed's validator of 2022, which holds every measurement group against TID 1410 where the whole report has
    exactly one Image Region.
    """
    views = {view.view: view for view in reading.views}
    named = zip(names.finding_names(reading), reading.findings, strict=True)
    return [
        group
        for name, finding in named
        for group in (
            _outline_group(reading, name, finding, views[finding.view]),
            _centre_group(reading, name, finding, views[finding.view]),
        )
    ]


def _outline_group(reading: Reading, name: str, finding: Finding, view: ViewReading) -> Any:
    """TID 1410 with the contour and the values."""
    peak = hd.sr.Measurement(
        name=_concept(codes.PEAK_VALUE), value=round(finding.peak_heat, 4), unit=_concept(codes.NO_UNITS)
    )
    values = [_value(reading, finding.probability, codes.CERTAINTY_OF_FINDING), peak]
    return _region_group(reading, name, finding, _region(finding.contour, view), codes.OUTLINE, values)


def _centre_group(reading: Reading, name: str, finding: Finding, view: ViewReading) -> Any:
    """TID 1410 with the centre alone."""
    return _region_group(reading, name, finding, _region((finding.centre,), view), codes.CENTRE, [])


def _region(points: Sequence[tuple[float, float]], view: ViewReading) -> Any:
    """Image Region: one point, or a closed line, in the frame of SCOORD (PS3.3 C.18.6)."""
    kinds = hd.sr.GraphicTypeValues
    return hd.sr.ImageRegion(
        graphic_type=kinds.POINT if len(points) == 1 else kinds.POLYLINE,
        graphic_data=np.array(points, dtype=np.float64),
        source_image=hd.sr.SourceImageForRegion(view.sop_class_uid, view.sop_instance_uid),
    )


def _region_group(
    reading: Reading, name: str, finding: Finding, region: Any, purpose: Code, measurements: list[Any]
) -> Any:
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(reading, name),
        referenced_region=region,
        algorithm_id=_algorithm(reading),
        finding_category=_concept(codes.ABNORMAL_STRUCTURE),
        finding_type=_concept(FINDING_CODES[finding.kind]),
        finding_sites=[_site(finding.view.laterality)],
        geometric_purpose=_concept(purpose),
        measurements=measurements or None,
    )


def _evaluations_in_words(reading: Reading) -> Any:
    """Qualitative Evaluations (TID 1500 rows 12 to 14): scope, what was not assessed, and what this is not."""
    container = hd.sr.ContainerContentItem(
        name=_concept(codes.QUALITATIVE_EVALUATIONS), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )
    texts = [(codes.COMMENT, DISCLAIMER), (codes.LOOKED_FOR, _looked_for(reading))]
    texts += [(codes.NOT_ASSESSED, words) for words in reading.not_assessed]
    texts += [(codes.COMMENT, f"{view.view.name}: {flag}") for view in reading.views for flag in view.flags]
    if not names.writes_probability(reading):
        texts.append((codes.COMMENT, "Values are a suspicion index, not calibrated on patients; no probability"))
    container.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.TextContentItem(
                name=_concept(name), value=words, relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
            )
            for name, words in texts
        ]
    )
    return container


def _looked_for(reading: Reading) -> str:
    """For example "RCC, LCC: Mass, Calcification cluster; 1 region marked"."""
    views = ", ".join(view.view.name for view in reading.views)
    kinds = dict.fromkeys(names.KIND_WORDS[kind] for view in reading.views for kind, _ in view.finding_probabilities)
    count = len(reading.findings)
    marked = "no region marked" if count == 0 else f"{count} region{'s' if count > 1 else ''} marked"
    return f"{views}: {', '.join(kinds) or 'malignancy'}; {marked}"
