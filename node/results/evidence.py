"""References by study and series (PS3.3 Table C.17-3): evidence, predecessor documents."""

from collections.abc import Iterable

from pydicom import Dataset

from node.results.document import series_references
from node.results.reading import DocumentReference, EncodedResult, InstanceReference, Reading, ResultKind


def study_item(study_instance_uid: str, instances: Iterable[Dataset]) -> Dataset:
    """One study as the Hierarchical SOP Instance Reference macro has it; `instances` have their three UIDs."""
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedSeriesSequence = series_references(instances, "ReferencedSOPSequence")
    return item


def instance(made: EncodedResult | DocumentReference | InstanceReference) -> Dataset:
    """The UIDs of one object, as `study_item` takes them."""
    dataset = Dataset()
    dataset.SeriesInstanceUID = made.series_instance_uid
    dataset.SOPClassUID = made.sop_class_uid
    dataset.SOPInstanceUID = made.sop_instance_uid
    return dataset


def predecessors(reading: Reading, kind: ResultKind, form: str | None = None) -> list[Dataset]:
    """Predecessor Documents Sequence (0040,A360): what the document replaces of the reading before; may be empty.

    The document of the same kind and form, where there is one; else all of the same kind that went somewhere. Without
    `form` always all: a report that refers to segmentations has a form of its own in each reading, and a destination
    knows only the one that it got.
    """
    before = reading.predecessor
    of_kind = [document for document in before.documents if document.kind is kind] if before else []
    of_form = [document for document in of_kind if document.form == form]
    replaced = of_form or [document for document in of_kind if document.destinations] or of_kind
    return [study_item(reading.study_instance_uid, map(instance, replaced))] if replaced else []
