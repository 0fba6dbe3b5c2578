"""What we promise of every object of ours, whatever its IOD: identity, research, evidence, places in images."""

from collections.abc import Iterator, Mapping, Sequence

from pydicom import Dataset
from pydicom.encaps import generate_frames

from node.results.document import SERIES_NUMBERS
from node.results.gate.tree import Item, Subject
from node.results.ours import is_ours
from node.results.reading import ResultKind

_SLACK_PX = 1.0
"""A mark may end this far outside its image: nothing more than rounding."""
_PICTURES = frozenset({ResultKind.SECONDARY_CAPTURE, ResultKind.VIEW_CAPTURE})
_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
_ROWS, _COLUMNS = "110910", "110911"


def of_identity(subject: Subject) -> Iterator[str]:
    """The data set, its file meta information and what the node knows of it name the same object."""
    result, dataset, meta = subject.result, subject.dataset, subject.dataset.file_meta
    for name, stands, wanted in (
        ("SOPClassUID", dataset.get("SOPClassUID"), result.sop_class_uid),
        ("SOPInstanceUID", dataset.get("SOPInstanceUID"), result.sop_instance_uid),
        ("SeriesInstanceUID", dataset.get("SeriesInstanceUID"), result.series_instance_uid),
        ("MediaStorageSOPClassUID", meta.get("MediaStorageSOPClassUID"), result.sop_class_uid),
        ("MediaStorageSOPInstanceUID", meta.get("MediaStorageSOPInstanceUID"), result.sop_instance_uid),
        ("TransferSyntaxUID", meta.get("TransferSyntaxUID"), result.transfer_syntax_uid),
    ):
        if str(stands or "") != wanted:
            yield f"{name} is not {wanted or 'told'}"


def of_own_rules(subject: Subject) -> Iterator[str]:
    """Research only, ours, in a series of its own, without the patient in the pixels, derived, with its evidence."""
    result, dataset = subject.result, subject.dataset
    if dataset.get("ContentQualification") != "RESEARCH":
        yield "ContentQualification is not RESEARCH"
    if not is_ours(dataset):
        yield "ContributingEquipmentSequence does not name this node"
    if dataset.get("SeriesNumber") != SERIES_NUMBERS[result.kind]:
        yield f"SeriesNumber is not {SERIES_NUMBERS[result.kind]}"
    if result.kind in _PICTURES and dataset.get("BurnedInAnnotation") != "NO":
        yield "BurnedInAnnotation is not NO"
    if "PixelData" in dataset:
        if list(dataset.get("ImageType") or ())[:1] != ["DERIVED"]:
            yield "ImageType is not DERIVED"
        yield from _of_pixels(dataset)
    if subject.root is not None:
        yield from _of_evidence(dataset, subject.root)


def _of_pixels(dataset: Dataset) -> Iterator[str]:
    """As many bytes, or frames, as rows, columns and frames say."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        stored = sum(1 for _ in generate_frames(dataset.PixelData, number_of_frames=frames))
        if stored != frames:
            yield f"PixelData holds {stored} frames of {frames}"
        return
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated * frames
    length = (bits + 7) // 8
    if len(dataset.PixelData) != length + length % 2:
        yield f"PixelData has {len(dataset.PixelData)} bytes instead of {length + length % 2}"


def _of_evidence(dataset: Dataset, root: Item) -> Iterator[str]:
    """Every object that a document's content names stands in its evidence (PS3.3 C.17.2.3), in this study."""
    studies = [item for keyword in _EVIDENCE for item in dataset.get(keyword) or ()]
    listed = {
        str(instance.get("ReferencedSOPInstanceUID", ""))
        for study in studies
        for series in study.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedSOPSequence") or ()
    }
    for missing in dict.fromkeys(uid for item in root.walk() for uid in _named(item) if uid not in listed):
        yield f"{missing} is named in the content and not in the evidence"
    for study in studies:
        if study.get("StudyInstanceUID") != dataset.get("StudyInstanceUID"):
            yield "the evidence names another study"


def _named(item: Item) -> list[str]:
    references = item.dataset.get("ReferencedSOPSequence") or ()
    return [str(reference.get("ReferencedSOPInstanceUID", "")) for reference in references]


def of_coordinates(subject: Subject) -> Iterator[str]:
    """Marks lie inside the image that they stand on, where the object tells its size."""
    if subject.root is not None:
        yield from _of_report(subject.root)
    if "GraphicAnnotationSequence" in subject.dataset:
        yield from _of_presentation(subject.dataset)


def _of_report(root: Item) -> Iterator[str]:
    """SCOORD against rows and columns in the image library."""
    sizes = _library_sizes(root)
    for item in root.walk():
        if item.value_type != "SCOORD":
            continue
        for uid in [uid for child in item.children for uid in _named(child)]:
            points = list(item.dataset.get("GraphicData") or ())
            if uid in sizes and not _is_inside(points, *sizes[uid]):
                yield f"{item.where}: a mark outside its image {uid}"


def _library_sizes(root: Item) -> dict[str, tuple[float, float]]:
    """SOP Instance UID to (columns, rows)."""
    sizes = {}
    for item in root.walk():
        numbers = {child.name[0]: _number(child) for child in item.children if child.name[0] in (_ROWS, _COLUMNS)}
        if item.value_type == "IMAGE" and len(numbers) == 2:
            sizes.update(dict.fromkeys(_named(item), (numbers[_COLUMNS], numbers[_ROWS])))
    return sizes


def _number(item: Item) -> float:
    return float(item.dataset.MeasuredValueSequence[0].NumericValue)


def _of_presentation(dataset: Dataset) -> Iterator[str]:
    """Annotations in PIXEL units against the displayed area, which is the whole image (PS3.3 C.10.4, C.10.5)."""
    sizes = _displayed_sizes(dataset)
    for annotation in dataset.GraphicAnnotationSequence:
        uids = [str(image.ReferencedSOPInstanceUID) for image in annotation.get("ReferencedImageSequence") or ()]
        for graphic in annotation.get("GraphicObjectSequence") or ():
            if graphic.get("GraphicAnnotationUnits") != "PIXEL":
                yield "a graphic object is not in PIXEL units"
            yield from _outside(uids, sizes, list(graphic.get("GraphicData") or ()))
        for text in annotation.get("TextObjectSequence") or ():
            if text.get("AnchorPointAnnotationUnits") == "PIXEL":
                yield from _outside(uids, sizes, list(text.get("AnchorPoint") or ()))


def _outside(uids: Sequence[str], sizes: Mapping[str, tuple[float, float]], points: Sequence[float]) -> Iterator[str]:
    for uid in uids:
        if uid not in sizes:
            yield f"an annotation stands on {uid}, which has no displayed area"
        elif not _is_inside(points, *sizes[uid]):
            yield f"an annotation outside its image {uid}"


def _displayed_sizes(dataset: Dataset) -> dict[str, tuple[float, float]]:
    sizes = {}
    for area in dataset.get("DisplayedAreaSelectionSequence") or ():
        columns, rows = area.DisplayedAreaBottomRightHandCorner
        for image in area.get("ReferencedImageSequence") or ():
            sizes[str(image.ReferencedSOPInstanceUID)] = (float(columns), float(rows))
    return sizes


def _is_inside(points: Sequence[float], columns: float, rows: float) -> bool:
    xs, ys = points[0::2], points[1::2]
    return all(-_SLACK_PX <= x <= columns + _SLACK_PX for x in xs) and all(
        -_SLACK_PX <= y <= rows + _SLACK_PX for y in ys
    )
