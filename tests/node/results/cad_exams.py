"""Readings that a Mammography CAD SR is written of: one of each outcome, and one with all that may stand in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO

import pydicom
from pydicom import Dataset

from node.destinations import CadProfile
from node.mammography.findings import Box, BreastDensity, Correspondence, Finding, FindingKind
from node.mammography.quality import QualityFinding, QualityReason
from node.mammography.views import LCC, LMLO, RCC, RMLO, STANDARD_VIEWS, View
from node.results import cad_report
from node.results.reading import (
    DocumentReference,
    EncodedResult,
    InstanceReference,
    Outcome,
    Predecessor,
    Reading,
    UnreadView,
    ViewReading,
)
from tests.node.results import exams
from tests.node.results.sr_tree import Node, tree

FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
DEFAULT = CadProfile()
REQUIRED, OPTIONAL, NOT_SHOWN = "111150", "111151", "111152"
BLANK = QualityFinding(QualityReason.CONSTANT_IMAGE, "every pixel has the value 0", refused=True)
FAINT = QualityFinding(QualityReason.UNDER_EXPOSED, "Deviation Index is -4", refused=False)


def square(at: tuple[float, float], half: float = 40.0) -> tuple[tuple[float, float], ...]:
    """A closed outline about `at`."""
    x, y = at
    corners = ((x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half))
    return (*corners, corners[0])


def finding(kind: FindingKind, view: View, at: tuple[float, float], probability: float = 0.8) -> Finding:
    x, y = at
    return Finding(kind, view, probability, 1.0, at, square(at), Box(x - 40.0, y - 40.0, x + 40.0, y + 40.0))


def unread(view: View, reason: str, *quality: QualityFinding) -> UnreadView:
    source = exams.source(view)
    return UnreadView(
        view=view,
        sop_instance_uid=str(source.SOPInstanceUID),
        sop_class_uid=str(source.SOPClassUID),
        rows=exams.ROWS,
        columns=exams.COLUMNS,
        orientation=tuple(source.PatientOrientation),
        reason=reason,
        quality=quality,
    )


def not_read(outcome: Outcome, reason: str, *quality: QualityFinding) -> Reading:
    """An exam without a reading: four images, none looked at."""
    made = exams.reading(lesions={})
    return replace(
        made,
        outcome=outcome,
        reason=reason,
        views=(),
        unread=tuple(unread(view, reason, *quality) for view in STANDARD_VIEWS),
        exam_probability=None,
        breasts=tuple(replace(breast, probability=None) for breast in made.breasts),
        not_assessed=(),
        model=replace(made.model, findings=exams.KINDS),
    )


def with_view(reading: Reading, view: View, **changes: object) -> Reading:
    """The reading, one of its views changed."""
    views: tuple[ViewReading, ...] = tuple(
        replace(each, **changes) if each.view == view else each for each in reading.views
    )
    return replace(reading, views=views)


def pairs_of_all_kinds() -> Reading:
    """Each kind of finding in both views of the right breast."""
    places = {kind: (300.0 + 150.0 * number, 500.0) for number, kind in enumerate(FindingKind)}
    found = tuple(finding(kind, view, at) for kind, at in places.items() for view in (RCC, RMLO))
    pairs = tuple(Correspondence(2 * number, 2 * number + 1) for number in range(len(places)))
    made = replace(exams.reading(lesions={}), findings=found, correspondences=pairs, allow_probability=True)
    kinds = tuple((kind, 0.8) for kind in FindingKind)
    return replace(made, views=tuple(replace(view, finding_probabilities=kinds) for view in made.views))


TWIN = InstanceReference(FOR_PROCESSING, f"{exams.STUDY}.2.1", f"{exams.STUDY}.2")


def first_report() -> EncodedResult:
    """The report that `everything` replaces."""
    return cad_report.encode(exams.reading(), exams.sources(), DEFAULT)


def twin() -> Dataset:
    """The For Processing source of the right CC."""
    return exams.source(
        RCC,
        SOPClassUID=TWIN.sop_class_uid,
        SOPInstanceUID=TWIN.sop_instance_uid,
        SeriesInstanceUID=TWIN.series_instance_uid,
    )


def everything() -> Reading:
    """A later reading with a lesion in two views, one in one view, quality, density, a For Processing source."""
    first = first_report()
    before = DocumentReference(
        first.kind, first.form, first.series_instance_uid, first.sop_class_uid, first.sop_instance_uid
    )
    made = replace(
        exams.reading(number=2),
        correspondences=(Correspondence(0, 1),),
        density=BreastDensity("C", 0.7),
        predecessor=Predecessor(1, datetime(2026, 3, 14, 11, 5, tzinfo=UTC), (before,)),
    )
    return with_view(with_view(made, RCC, read_from=TWIN), LMLO, quality=(FAINT,))


def odd_headers() -> dict[View, Dataset]:
    """No orientation, no spacing, no names, dates that are none, identifiers of 64 characters."""
    headers = exams.sources()
    for header in headers.values():
        del header.PatientOrientation, header.ImagerPixelSpacing, header.SpecificCharacterSet
        header.PatientName = header.ReferringPhysicianName = header.PatientID = ""
        header.ContentDate, header.ContentTime = "", ""
        header.StudyTime = ""
        uid = str(header.SOPInstanceUID)
        header.SOPInstanceUID = uid + "." + "7" * (63 - len(uid))
        header.SeriesInstanceUID = f"{exams.STUDY}.1." + "8" * (64 - len(f"{exams.STUDY}.1."))
    return headers


@dataclass(frozen=True)
class Variant:
    """What one report is made of."""

    reading: Callable[[], Reading]
    profile: CadProfile = DEFAULT
    headers: Callable[[], dict[View, Dataset]] = exams.sources


def odd_reading() -> Reading:
    made = exams.reading(headers=odd_headers())
    return replace(made, views=tuple(replace(view, orientation=()) for view in made.views))


VARIANTS: dict[str, Variant] = {
    "findings": Variant(exams.reading),
    "everything": Variant(
        everything, CadProfile(required_at=(("mass", 0.9), ("suspicious_calcification", 0.5)), below="optional")
    ),
    "all kinds in two views": Variant(pairs_of_all_kinds, CadProfile(required_at=(("mass", 0.9),), below="not")),
    "no findings": Variant(lambda: exams.reading(lesions={}), CadProfile(exam_value="none")),
    "one view failed": Variant(
        lambda: exams.reading(views=(RCC, LCC, RMLO), unread=(unread(LMLO, "pixels cannot be decoded"),))
    ),
    "one view refused": Variant(
        lambda: exams.reading(views=(RCC, LCC, RMLO), lesions={}, unread=(unread(LMLO, "refused", BLANK),))
    ),
    "refused": Variant(lambda: not_read(Outcome.REFUSED, "no view could be assessed", BLANK)),
    "failed": Variant(lambda: not_read(Outcome.FAILED, "RCC: pixels cannot be decoded")),
    "not attempted": Variant(lambda: not_read(Outcome.NOT_ATTEMPTED, "views missing: LMLO")),
    "odd headers": Variant(odd_reading, DEFAULT, odd_headers),
}
"""Everything within the template."""

OUTSIDE_THE_TEMPLATE = Variant(exams.reading, CadProfile(exam_value="number"))


def root(reading: Reading, profile: CadProfile = DEFAULT, headers: dict | None = None) -> Node:
    return tree(cad_report.encode(reading, headers or exams.sources(), profile).content)


def dataset(reading: Reading, profile: CadProfile = DEFAULT) -> Dataset:
    return pydicom.dcmread(BytesIO(cad_report.encode(reading, exams.sources(), profile).content))
