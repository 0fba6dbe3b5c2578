"""Key Object Selection Documents (PS3.3 A.35.4, TID 2010): what a destination gets of one reading, what is withdrawn.

`encode` names all objects of a reading, so that one reading can be found whole. `reject` is the rejection note of IHE
IOCM for the reading before: it names objects of ours alone, never an image of the study.
"""

from collections.abc import Mapping, Sequence

from pydicom import Dataset
from pydicom.uid import (
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from node.mammography.findings import Code
from node.mammography.views import View
from node.results import codes, evidence, uids
from node.results.content_items import Relationship, code, container, image, text, uid_reference
from node.results.document import DISCLAIMER, images_known, local_time, new_document, to_result
from node.results.labelmap import LABEL_MAP_SEGMENTATION_STORAGE
from node.results.ours import MANUFACTURER
from node.results.reading import DocumentReference, EncodedResult, Reading, ResultKind

SERIES_DESCRIPTION = "AI mammography results, key objects (research)"
REJECTION_DESCRIPTION = "AI mammography results withdrawn (research)"

_IMAGES = frozenset({SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE, SecondaryCaptureImageStorage})
"""SOP classes of ours with pixels: IMAGE; the others are COMPOSITE."""

_DEVICE = Code("121007", "DCM", "Device")
_WHY_REJECTED = Code("111220", "DCM", "Other failure")
"""CID 7011 asks for a reason and has none for "replaced": no statement about the quality of any image."""


def form(named: Sequence[EncodedResult | DocumentReference]) -> str:
    """The document's form: what it names is its content."""
    return uids.form_of(sorted(each.sop_instance_uid for each in named))


def encode(reading: Reading, sources: Mapping[View, Dataset], results: Sequence[EncodedResult]) -> EncodedResult:
    """Of Interest (113000): all of `results`, which are at least one object of `reading`."""
    count = f"{len(results)} result object{'s' if len(results) != 1 else ''}"
    words = f"{DISCLAIMER}. Reading {reading.number} by {reading.model.name} {reading.model.version}: {count}."
    root = container(None, codes.OF_INTEREST, *_preamble(reading), _description(words), *map(_reference, results))
    return _written(reading, sources, ResultKind.KEY_OBJECTS, SERIES_DESCRIPTION, root, results)


def reject(reading: Reading, sources: Mapping[View, Dataset], documents: Sequence[DocumentReference]) -> EncodedResult:
    """Rejected for Quality Reasons (113001): `documents`, at least one, are objects of the reading before."""
    before = reading.predecessor
    at = "" if before is None else f" of {local_time(before.read_at, images_known(reading, sources)[0]):%Y-%m-%d %H:%M}"
    words = f"AI results{at} are withdrawn: AI reading {reading.number} replaces them. No image is withdrawn."
    modifier = code(Relationship.HAS_CONCEPT_MOD, codes.TITLE_MODIFIER, _WHY_REJECTED)
    items = (modifier, *_preamble(reading), _description(words), *map(_reference, documents))
    root = container(None, codes.REJECTED_FOR_QUALITY, *items)
    return _written(reading, sources, ResultKind.REJECTION, REJECTION_DESCRIPTION, root, documents)


def _written(
    reading: Reading,
    sources: Mapping[View, Dataset],
    kind: ResultKind,
    description: str,
    root: Dataset,
    named: Sequence[EncodedResult | DocumentReference],
) -> EncodedResult:
    """Key Object Document Series and Key Object Document modules (PS3.3 C.17.6.1, C.17.6.2) round the content."""
    made_form = form(named)
    dataset = new_document(reading, sources, kind, KeyObjectSelectionDocumentStorage, description, form=made_form)
    dataset.Modality = "KO"
    dataset.ReferencedPerformedProcedureStepSequence = []
    instances = map(evidence.instance, named)
    dataset.CurrentRequestedProcedureEvidenceSequence = [evidence.study_item(reading.study_instance_uid, instances)]
    dataset.update(root)
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "2010"
    dataset.ContentTemplateSequence = [template]
    return to_result(dataset, kind, made_form)


def _preamble(reading: Reading) -> list[Dataset]:
    """Language (TID 1204), and the observer, which is a device (TID 1002, 1004)."""
    model = reading.model
    context = Relationship.HAS_OBS_CONTEXT
    return [
        code(Relationship.HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
        code(context, Code("121005", "DCM", "Observer Type"), _DEVICE),
        uid_reference(context, Code("121012", "DCM", "Device Observer UID"), uids.device_uid(model)),
        text(context, Code("121013", "DCM", "Device Observer Name"), MANUFACTURER),
        text(context, Code("121014", "DCM", "Device Observer Manufacturer"), MANUFACTURER),
        text(context, Code("121015", "DCM", "Device Observer Model Name"), model.name),
        text(context, Code("121016", "DCM", "Device Observer Serial Number"), model.weights_hash),
    ]


def _description(words: str) -> Dataset:
    return text(Relationship.CONTAINS, codes.KEY_OBJECT_DESCRIPTION, words)


def _reference(named: EncodedResult | DocumentReference) -> Dataset:
    """IMAGE or COMPOSITE, without a concept name (TID 2010 rows 8 and 10)."""
    item = image(Relationship.CONTAINS, named.sop_class_uid, named.sop_instance_uid)
    if named.sop_class_uid not in _IMAGES:
        item.ValueType = "COMPOSITE"
    return item
