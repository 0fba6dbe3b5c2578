"""Image Library of a report (TID 1600 to 1603): the images read and those not assessed, with side, view and size."""

from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from node.mammography.findings import Code
from node.results import codes
from node.results.reading import UnreadView, ViewReading

_ACQUISITION = hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = hd.sr.RelationshipTypeValues.CONTAINS


def image_library(images: list[tuple[ViewReading | UnreadView, Dataset]]) -> Any:
    """The library's container, one group of all images."""
    group = hd.sr.ContainerContentItem(name=standard.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence([_entry(view, source) for view, source in images])
    library = hd.sr.ContainerContentItem(name=standard.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def _entry(view: ViewReading | UnreadView, source: Dataset) -> Any:
    item = hd.sr.ImageContentItem(
        name=hd.sr.CodedConcept("260753009", "SCT", "Source"),
        referenced_sop_class_uid=view.sop_class_uid,
        referenced_sop_instance_uid=view.sop_instance_uid,
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
    """Imager Pixel Spacing (row spacing, column spacing), in millimetres, where the source states one."""
    spacing = source.get("ImagerPixelSpacing")
    if not spacing or isinstance(spacing, str) or len(spacing) != 2 or min(float(value) for value in spacing) <= 0.0:
        return []
    concepts = (standard.DCM.HorizontalPixelSpacing, standard.DCM.VerticalPixelSpacing)
    return [
        hd.sr.NumContentItem(
            name=name, value=float(value), unit=standard.UCUM.Millimeter, relationship_type=_ACQUISITION
        )
        for name, value in zip(concepts, (spacing[1], spacing[0]), strict=True)
    ]
