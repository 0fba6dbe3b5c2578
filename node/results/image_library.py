"""Image Library of a report (TID 1600 to 1603): the images read and those not assessed, with side, view and size."""

from collections.abc import Mapping
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from node.mammography.findings import Code
from node.mammography.views import STANDARD_VIEWS, View
from node.results import codes
from node.results.document import receptor_spacing_mm, source_of
from node.results.reading import InstanceReference, Reading, UnreadView, ViewReading

_ACQUISITION = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS


def image_library(reading: Reading, sources: Mapping[View, Dataset]) -> Any:
    """The library's container, one group of all images in the order of STANDARD_VIEWS.

    The For Processing image that was read in place of the one displayed follows it, where its series is known: rows,
    columns and orientation are the same.
    """
    views: list[ViewReading | UnreadView] = [*reading.views, *reading.unread]
    entries = []
    for view in sorted(views, key=lambda view: STANDARD_VIEWS.index(view.view)):
        source = source_of(view, sources)
        entries.append(_entry(view.sop_class_uid, view.sop_instance_uid, view, source))
        twin = twin_of(view)
        if twin is not None:
            entries.append(_entry(twin.sop_class_uid, twin.sop_instance_uid, view, source))
    group = hd.sr.ContainerContentItem(name=standard.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence(entries)
    library = hd.sr.ContainerContentItem(name=standard.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def twin_of(view: ViewReading | UnreadView) -> InstanceReference | None:
    """The image that was read in place of the one displayed, where there is one that a report can name."""
    twin = view.read_from if isinstance(view, ViewReading) else None
    return twin if twin is not None and twin.series_instance_uid else None


def _entry(sop_class_uid: str, sop_instance_uid: str, view: ViewReading | UnreadView, source: Dataset) -> Any:
    item = hd.sr.ImageContentItem(
        name=_concept(codes.SOURCE),
        referenced_sop_class_uid=sop_class_uid,
        referenced_sop_instance_uid=sop_instance_uid,
        relationship_type=_CONTAINS,
    )
    item.ContentSequence = hd.sr.ContentSequence(
        [
            _coded(standard.DCM.Modality, codes.MAMMOGRAPHY),
            _pixels(standard.DCM.PixelDataRows, view.rows),
            _pixels(standard.DCM.PixelDataColumns, view.columns),
            _coded(codes.IMAGE_LATERALITY, codes.SIDES[view.view.laterality]),
            _coded(codes.IMAGE_VIEW, codes.VIEWS[view.view.position]),
            *_orientation(view),
            *_spacing(source),
        ]
    )
    return item


def _concept(code: Any) -> Any:
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning) if isinstance(code, Code) else code


def _coded(name: Any, value: Code) -> Any:
    return hd.sr.CodeContentItem(name=_concept(name), value=_concept(value), relationship_type=_ACQUISITION)


def _pixels(name: Any, value: int) -> Any:
    unit = hd.sr.CodedConcept("{pixels}", "UCUM", "Pixels")
    return hd.sr.NumContentItem(name=name, value=value, unit=unit, relationship_type=_ACQUISITION)


def _orientation(view: ViewReading | UnreadView) -> list[Any]:
    if len(view.orientation) != 2:
        return []
    concepts = (standard.DCM.PatientOrientationRow, standard.DCM.PatientOrientationColumn)
    return [
        hd.sr.TextContentItem(name=name, value=value, relationship_type=_ACQUISITION)
        for name, value in zip(concepts, view.orientation, strict=True)
    ]


def _spacing(source: Dataset) -> list[Any]:
    """Imager Pixel Spacing in millimetres, where the source states one."""
    spacing = receptor_spacing_mm(source)
    if spacing is None:
        return []
    concepts = (standard.DCM.HorizontalPixelSpacing, standard.DCM.VerticalPixelSpacing)
    return [
        hd.sr.NumContentItem(name=name, value=value, unit=standard.UCUM.Millimeter, relationship_type=_ACQUISITION)
        for name, value in zip(concepts, (spacing[1], spacing[0]), strict=True)
    ]
