"""What a CAD report found: Individual Impressions (TID 4003) of lesions, image quality and breast composition.

A finding's probability is calibrated as "present in this view": it is the Certainty of Finding (111012), the certainty
that the device places on what it marked. No finding has a Probability of cancer (111047): the models give none.
"""

from collections.abc import Sequence

from pydicom import Dataset

from node.destinations import CadProfile
from node.mammography.findings import Code
from node.mammography.quality import CODES, QualityFinding
from node.results import cad_codes, codes, names, uids
from node.results import content_items as items
from node.results.cad_lesions import Lesion, has_operating_point, lesions_of
from node.results.cad_library import Library, views_known
from node.results.content_items import Relationship
from node.results.ours import MANUFACTURER
from node.results.reading import ModelIdentity, Reading

CORRESPONDENCE = "CC and MLO correspondence"
QUALITY = "image quality"
"""Names of the node's own rules, which are no part of the model."""


def algorithm(model: ModelIdentity, rule: str = "", parameters: Sequence[str] = ()) -> list[Dataset]:
    """TID 4019: the model, or one of the node's own rules by its name."""
    name = f"{MANUFACTURER} {rule}" if rule else model.name
    version = f"encoder {uids.ENCODER_VERSION}" if rule else model.version
    texts = [(cad_codes.ALGORITHM_NAME, name), (cad_codes.ALGORITHM_VERSION, version)]
    texts += [(cad_codes.ALGORITHM_PARAMETERS, words) for words in parameters]
    return [items.text(Relationship.HAS_PROPERTIES, concept, words) for concept, words in texts]


def impressions(reading: Reading, profile: CadProfile, library: Library) -> list[Dataset]:
    """One Individual Impression for each lesion that is shown, each image with quality findings, the composition."""
    return [
        *(_lesion(reading, lesion, profile, library) for lesion in lesions_of(reading, profile)),
        *_quality(reading),
        *_composition(reading),
    ]


def _impression(intent: Code, content: Dataset) -> Dataset:
    """TID 4003, of one finding or feature."""
    return items.container(
        Relationship.INFERRED_FROM, cad_codes.INDIVIDUAL_IMPRESSION, _rendering_intent(intent), content
    )


def _rendering_intent(intent: Code, *children: Dataset) -> Dataset:
    return items.code(Relationship.HAS_CONCEPT_MOD, cad_codes.RENDERING_INTENT, intent, *children)


def _lesion(reading: Reading, lesion: Lesion, profile: CadProfile, library: Library) -> Dataset:
    if len(lesion.findings) == 1:
        (index,) = lesion.findings
        return _impression(
            lesion.intent, _single(reading, index, lesion.intent, profile, library, Relationship.CONTAINS)
        )
    return _impression(lesion.intent, _composite(reading, lesion, profile, library))


def _composite(reading: Reading, lesion: Lesion, profile: CadProfile, library: Library) -> Dataset:
    """TID 4004 with the body of TID 4005: one lesion in two views of its breast."""
    names_of = names.finding_names(reading)
    kind = reading.findings[lesion.findings[0]].kind
    return items.code(
        Relationship.CONTAINS,
        cad_codes.COMPOSITE_FEATURE,
        cad_codes.COMPOSITE_FEATURES[kind],
        _rendering_intent(lesion.intent),
        *_tracking(reading, " and ".join(names_of[index] for index in lesion.findings)),
        items.code(Relationship.HAS_PROPERTIES, cad_codes.COMPOSITE_TYPE, cad_codes.RELATED_SPATIALLY),
        items.code(Relationship.HAS_PROPERTIES, cad_codes.SCOPE_OF_FEATURE, cad_codes.ON_MULTIPLE_IMAGES),
        *algorithm(reading.model, CORRESPONDENCE),
        *(
            _single(reading, index, lesion.intent, profile, library, Relationship.INFERRED_FROM)
            for index in lesion.findings
        ),
    )


def _single(
    reading: Reading,
    index: int,
    intent: Code,
    profile: CadProfile,
    library: Library,
    relationship: Relationship,
) -> Dataset:
    """TID 4006: code, intent, tracking, algorithm, certainty, place."""
    finding = reading.findings[index]
    return items.code(
        relationship,
        cad_codes.SINGLE_IMAGE_FINDING,
        cad_codes.SINGLE_IMAGE_FINDINGS[finding.kind],
        _rendering_intent(intent, *_operating_point(intent, has_operating_point(finding.kind, profile))),
        *_tracking(reading, names.finding_names(reading)[index]),
        *algorithm(reading.model),
        items.number(
            Relationship.HAS_PROPERTIES, codes.CERTAINTY_OF_FINDING, 100.0 * finding.probability, codes.PERCENT
        ),
        *_geometry(reading, index, library),
    )


def _operating_point(intent: Code, has_point: bool) -> list[Dataset]:
    """TID 4006 row 3: the operating point from which on an optional mark is shown."""
    if intent is not cad_codes.OPTIONAL or not has_point:
        return []
    return [items.number(Relationship.HAS_PROPERTIES, cad_codes.OPERATING_POINT, 1, cad_codes.FROM_ONE)]


def _tracking(reading: Reading, name: str) -> list[Dataset]:
    """TID 4108: the name and the UID that the other objects of this reading give the same region."""
    return [
        items.text(Relationship.HAS_OBS_CONTEXT, cad_codes.TRACKING_IDENTIFIER, name),
        items.uid_reference(Relationship.HAS_OBS_CONTEXT, cad_codes.TRACKING_UID, uids.tracking_uid(reading, name)),
    ]


def _geometry(reading: Reading, index: int, library: Library) -> list[Dataset]:
    """TID 4021: centre and outline, selected from the image that is displayed."""
    finding = reading.findings[index]
    shown = next(view for view in reading.views if view.view == finding.view)
    position = library.position(shown.sop_instance_uid)
    return [
        items.point(
            Relationship.HAS_PROPERTIES,
            codes.CENTRE,
            finding.centre,
            items.by_reference(Relationship.SELECTED_FROM, position),
        ),
        items.outline(
            Relationship.HAS_PROPERTIES,
            codes.OUTLINE,
            finding.contour,
            items.by_reference(Relationship.SELECTED_FROM, position),
        ),
    ]


def _quality(reading: Reading) -> list[Dataset]:
    """One Individual Impression for each image that something is wrong with, read or unread."""
    return [_quality_impression(reading, view.view.name, view.quality) for view in views_known(reading) if view.quality]


def _quality_impression(reading: Reading, view_name: str, found: Sequence[QualityFinding]) -> Dataset:
    """TID 4006 with TID 4014, of the image as a whole: Presentation Required where it was refused, else Optional.

    The reference of row 18 (the image that the finding is inferred from) is left out: PixelMed's validator, which
    sites and connectathons hold reports against, calls it an error. The tracking identifier names the view.
    """
    refused = any(finding.refused for finding in found)
    intent = cad_codes.REQUIRED if refused else cad_codes.OPTIONAL
    reasons = dict.fromkeys(CODES[finding.reason] for finding in found)
    return _impression(
        intent,
        items.code(
            Relationship.CONTAINS,
            cad_codes.SINGLE_IMAGE_FINDING,
            cad_codes.IMAGE_QUALITY,
            _rendering_intent(intent),
            *_tracking(reading, f"{view_name} {QUALITY}"),
            *algorithm(reading.model, QUALITY),
            *(items.code(Relationship.HAS_PROPERTIES, cad_codes.QUALITY_FINDING, reason) for reason in reasons),
        ),
    )


def _composition(reading: Reading) -> list[Dataset]:
    """TID 4006 with TID 4007: the category of the exam, and how certain the model is of it."""
    density = reading.density
    if density is None:
        return []
    finding = items.code(
        Relationship.CONTAINS,
        cad_codes.SINGLE_IMAGE_FINDING,
        cad_codes.BREAST_COMPOSITION,
        _rendering_intent(cad_codes.REQUIRED),
        *algorithm(reading.model),
        items.number(
            Relationship.HAS_PROPERTIES, codes.CERTAINTY_OF_FINDING, 100.0 * density.probability, codes.PERCENT
        ),
        items.code(Relationship.HAS_PROPERTIES, cad_codes.BREAST_COMPOSITION, cad_codes.COMPOSITIONS[density.category]),
    )
    return [_impression(cad_codes.REQUIRED, finding)]
