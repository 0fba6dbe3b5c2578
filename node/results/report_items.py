"""What the parts of the TID 1500 report are built from: concepts, values, sites, tracking identifiers, algorithm."""

from collections.abc import Sequence
from typing import Any

import highdicom as hd

from node.mammography.findings import Code
from node.mammography.views import Laterality
from node.results import codes, names, uids
from node.results.reading import Reading, UnreadView, ViewReading

CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS
MODIFIES = hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD


def concept(code: Code) -> Any:
    """`code` as highdicom takes it."""
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def text(name: Code, words: str, relationship: Any = CONTAINS) -> Any:
    """TEXT item."""
    return hd.sr.TextContentItem(name=concept(name), value=words, relationship_type=relationship)


def coded(name: Code, value: Code) -> Any:
    """CODE item."""
    return hd.sr.CodeContentItem(name=concept(name), value=concept(value), relationship_type=CONTAINS)


def evaluation(name: Code, value: Code) -> Any:
    """Qualitative evaluation of a measurement group."""
    return hd.sr.QualitativeEvaluation(name=concept(name), value=concept(value))


def number(name: Code, value: float, unit: Code, words: str = "") -> Any:
    """TID 300. `words` say what is meant where the coded name is wider (121050, Equivalent Meaning of Concept Name)."""
    measurement = hd.sr.Measurement(name=concept(name), value=value, unit=concept(unit))
    if words:
        measurement[0].ContentSequence = hd.sr.ContentSequence([text(codes.EQUIVALENT_MEANING, words, MODIFIES)])
    return measurement


def value(reading: Reading, probability: float, meaning: Code) -> Any:
    """NUM: a percentage called `meaning`, or the suspicion index in [0, 1]."""
    if names.writes_probability(reading):
        return number(meaning, round(100.0 * probability, 2), codes.PERCENT)
    return number(codes.SUSPICION_INDEX, round(probability, 4), codes.NO_UNITS, codes.SUSPICION_INDEX_WORDS)


def site(side: Laterality | None, location: Code = codes.BREAST, modifier: Code | None = None) -> Any:
    """Finding Site: one breast, both where `side` is None; `modifier` is the topographical one."""
    laterality = codes.BILATERAL if side is None else codes.SIDES[side]
    return hd.sr.FindingSite(
        anatomic_location=concept(location),
        laterality=concept(laterality),
        topographical_modifier=None if modifier is None else concept(modifier),
    )


def tracking(reading: Reading, name: str) -> Any:
    """Tracking Identifier and its UID, which segments of the same thing share."""
    return hd.sr.TrackingIdentifier(uid=uids.tracking_uid(reading, name), identifier=name)


def algorithm(reading: Reading) -> Any:
    """TID 4019."""
    model = reading.model
    parameters = [
        f"weights SHA-256 {model.weights_hash}",
        f"variant {model.variant}",
        f"preset {model.preset}",
        f"settings SHA-256 {reading.settings_hash}",
    ]
    return hd.sr.AlgorithmIdentification(name=model.name, version=model.version, parameters=parameters)


def group(
    reading: Reading,
    name: str,
    finding_site: Any,
    measurements: Sequence[Any] = (),
    evaluations: Sequence[Any] = (),
    finding_type: Code | None = None,
    images: Sequence[ViewReading | UnreadView] = (),
) -> Any:
    """TID 1501: values and evaluations of whole images, of a breast or of the exam."""
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(reading, name),
        algorithm_id=algorithm(reading),
        finding_type=None if finding_type is None else concept(finding_type),
        finding_sites=[finding_site],
        measurements=list(measurements) or None,
        qualitative_evaluations=list(evaluations) or None,
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid) for image in images
        ]
        or None,
    )
