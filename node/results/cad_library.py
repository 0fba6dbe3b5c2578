"""Image Library of a CAD report (TID 4020): every image that the reading is about, to be referred to by position."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from node.mammography.findings import Code
from node.mammography.view_codes import MODIFIERS
from node.mammography.views import STANDARD_VIEWS, View, modifiers_of
from node.results import cad_codes, codes
from node.results import content_items as items
from node.results.content_items import Relationship
from node.results.document import receptor_spacing_mm, source_of
from node.results.reading import InstanceReference, Reading, UnreadView, ViewReading

LIBRARY_POSITION = (1, 2)
"""The library is the second child of the root (TID 4000 row 3), after the language."""


@dataclass(frozen=True, slots=True, eq=False)
class LibraryImage:
    """One image. `header` is the data set that side, view, dates and spacing are told from."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    view: View
    orientation: tuple[str, ...]
    header: Dataset
    is_header_s: bool
    """False: the For Processing source of the image that `header` is of; its own dates are unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """The images in the order of STANDARD_VIEWS, the For Processing source after the image that is displayed."""

    images: tuple[LibraryImage, ...]

    def position(self, sop_instance_uid: str) -> tuple[int, ...]:
        """Referenced Content Item Identifier (0040,DB73) of an image. Raises StopIteration where it is not here."""
        found = next(
            number for number, image in enumerate(self.images, 1) if image.sop_instance_uid == sop_instance_uid
        )
        return (*LIBRARY_POSITION, found)

    def positions(self, view: View) -> tuple[tuple[int, ...], ...]:
        """All images of a view: the one displayed, and the one that was read in its place."""
        return tuple(self.position(image.sop_instance_uid) for image in self.images if image.view == view)

    def references(self) -> list[Dataset]:
        """The images as data sets of class, instance and series, as `evidence.study_item` takes them."""
        return [_reference(image) for image in self.images]

    def container(self) -> Dataset:
        """TID 4000 row 3."""
        entries = [_entry(image) for image in self.images]
        return items.container(Relationship.CONTAINS, cad_codes.IMAGE_LIBRARY, *entries)


def views_known(reading: Reading) -> list[ViewReading | UnreadView]:
    """The views read and unread, in the order of STANDARD_VIEWS."""
    views: list[ViewReading | UnreadView] = [*reading.views, *reading.unread]
    return sorted(views, key=lambda view: STANDARD_VIEWS.index(view.view))


def library_of(reading: Reading, sources: Mapping[View, Dataset]) -> Library:
    """Images of the views read and unread, and the For Processing images that were read in their place.

    Raises EncodeError where `sources` lacks one.
    """
    known = views_known(reading)
    return Library(tuple(chain.from_iterable(_images(view, source_of(view, sources)) for view in known)))


def _images(view: ViewReading | UnreadView, source: Dataset) -> list[LibraryImage]:
    shown = LibraryImage(
        view.sop_class_uid,
        view.sop_instance_uid,
        str(source.SeriesInstanceUID),
        view.view,
        view.orientation,
        source,
        is_header_s=True,
    )
    read_from = view.read_from if isinstance(view, ViewReading) else None
    return [shown] if read_from is None or not read_from.series_instance_uid else [shown, _twin(read_from, shown)]


def _twin(read_from: InstanceReference, shown: LibraryImage) -> LibraryImage:
    """The For Processing source: of the same study, side, view, orientation and spacing, or it were none."""
    return LibraryImage(
        read_from.sop_class_uid,
        read_from.sop_instance_uid,
        read_from.series_instance_uid,
        shown.view,
        shown.orientation,
        shown.header,
        is_header_s=False,
    )


def _reference(image: LibraryImage) -> Dataset:
    reference = Dataset()
    reference.SOPClassUID = image.sop_class_uid
    reference.SOPInstanceUID = image.sop_instance_uid
    reference.SeriesInstanceUID = image.series_instance_uid
    return reference


def _entry(image: LibraryImage) -> Dataset:
    """TID 4020: what is absent from the image is absent here."""
    children = [
        _coded(codes.IMAGE_LATERALITY, cad_codes.SIDES[image.view.laterality]),
        _coded(codes.IMAGE_VIEW, codes.VIEWS[image.view.position], *_modifiers(image.header)),
        *_orientation(image),
        *_dates(image),
        *_spacing(image.header),
    ]
    return items.image(Relationship.CONTAINS, image.sop_class_uid, image.sop_instance_uid, *children)


def _coded(concept: Code, value: Code, *children: Dataset) -> Dataset:
    return items.code(Relationship.HAS_ACQ_CONTEXT, concept, value, *children)


def _modifiers(header: Dataset) -> list[Dataset]:
    """CID 4015, in SNOMED CT, in the order of the table."""
    present = modifiers_of(header)
    return [
        items.code(
            Relationship.HAS_CONCEPT_MOD,
            cad_codes.VIEW_MODIFIER,
            Code(modifier.codes.sct, "SCT", name.capitalize()),
        )
        for name, modifier in MODIFIERS.items()
        if name in present
    ]


def _orientation(image: LibraryImage) -> list[Dataset]:
    if len(image.orientation) != 2:
        return []
    concepts = (cad_codes.ORIENTATION_ROW, cad_codes.ORIENTATION_COLUMN)
    return [
        items.text(Relationship.HAS_ACQ_CONTEXT, concept, direction)
        for concept, direction in zip(concepts, image.orientation, strict=True)
    ]


def _dates(image: LibraryImage) -> list[Dataset]:
    """Study and content date and time, those that are dates and times."""
    concepts = {"StudyDate": cad_codes.STUDY_DATE, "StudyTime": cad_codes.STUDY_TIME}
    if image.is_header_s:
        concepts |= {"ContentDate": cad_codes.CONTENT_DATE, "ContentTime": cad_codes.CONTENT_TIME}
    stated = [(concept, keyword, _stated(image.header, keyword)) for keyword, concept in concepts.items()]
    return [
        (items.date if keyword.endswith("Date") else items.time)(Relationship.HAS_ACQ_CONTEXT, concept, value)
        for concept, keyword, value in stated
        if value
    ]


def _stated(header: Dataset, keyword: str) -> str:
    """The value of a DA or TM, "" where it is none (PS3.5 6.2)."""
    try:
        value = str(header.get(keyword) or "").strip()
        if keyword.endswith("Date"):
            return datetime.strptime(value, "%Y%m%d").strftime("%Y%m%d") if len(value) == 8 else ""
        validate_value("TM", value, RAISE)
    except (ValueError, TypeError, OverflowError):
        return ""
    return value


def _spacing(header: Dataset) -> list[Dataset]:
    """Imager Pixel Spacing: the concepts mean the receptor's plane."""
    spacing = receptor_spacing_mm(header)
    if spacing is None:
        return []
    rows, columns = spacing
    return [
        items.number(Relationship.HAS_ACQ_CONTEXT, concept, value, cad_codes.MILLIMETRE)
        for concept, value in ((cad_codes.HORIZONTAL_SPACING, columns), (cad_codes.VERTICAL_SPACING, rows))
    ]
