"""Groups of the report for what was marked: outline and centre of each region, and lesions seen in two views."""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np

from node.mammography.findings import (
    FINDING_CODES,
    Code,
    Correspondence,
    Depth,
    Finding,
    FindingKind,
    Place,
    Sector,
)
from node.mammography.views import View
from node.results import codes, names, uids
from node.results.reading import Reading, ViewReading
from node.results.report_items import algorithm, concept, evaluation, group, number, site, tracking, value
from node.results.report_segments import Segments, illustrated

SECTORS: dict[Sector, Code] = {
    Sector.OUTER: Code("49370004", "SCT", "Lateral"),
    Sector.INNER: Code("255561001", "SCT", "Medial"),
    Sector.UPPER: Code("264217000", "SCT", "Superior"),
    Sector.LOWER: Code("261089000", "SCT", "Inferior"),
    Sector.CENTRAL: Code("26216008", "SCT", "Central"),
}
"""CID 2: one view tells a half of the breast, no quadrant."""

DEPTHS: dict[Depth, Code] = {
    Depth.ANTERIOR: Code("255549009", "SCT", "Anterior"),
    Depth.MIDDLE: Code("C25569", "NCIt", "Middle"),
    Depth.POSTERIOR: Code("255551008", "SCT", "Posterior"),
}
"""CID 6024."""

QUADRANTS: dict[frozenset[Sector], Code] = {
    frozenset({Sector.UPPER, Sector.OUTER}): Code("76365002", "SCT", "Upper outer quadrant of breast"),
    frozenset({Sector.UPPER, Sector.INNER}): Code("77831004", "SCT", "Upper inner quadrant of breast"),
    frozenset({Sector.LOWER, Sector.OUTER}): Code("33564002", "SCT", "Lower outer quadrant of breast"),
    frozenset({Sector.LOWER, Sector.INNER}): Code("19100000", "SCT", "Lower inner quadrant of breast"),
}
"""CID 6020: what CC and MLO tell together."""

COMPOSITES: dict[FindingKind, Code] = FINDING_CODES | {
    FindingKind.MASS: Code("129788004", "SCT", "Mammographic breast mass"),
}
"""CID 6016: what a finding is once two views show it."""

SHARE_WORDS = "Distance from nipple as a share of the distance from nipple to chest wall"


def finding_groups(reading: Reading, segments: Segments) -> list[Any]:
    """For each marked region its outline and its centre, both under the region's tracking identifier.

    The centre is what a mark is drawn at (TID 4021 has both too). It also keeps a report with a single region valid for
    PixelMed's validator of 2022, which holds every measurement group against TID 1410 where the whole report has
    exactly one Image Region.
    """
    views = {view.view: view for view in reading.views}
    named = zip(names.finding_names(reading), reading.findings, strict=True)
    return [
        made
        for name, finding in named
        for made in (
            illustrated(
                _outline_group(reading, name, finding, views[finding.view]), uids.tracking_uid(reading, name), segments
            ),
            _centre_group(reading, name, finding, views[finding.view]),
        )
    ]


def lesion_groups(reading: Reading) -> list[Any]:
    """One group for each lesion seen in CC and MLO: its images, its quadrant, and its findings by their names.

    The lesion has a tracking UID of its own. The two findings keep theirs: a viewer that gathers items by tracking UID
    (OHIF does) would draw one contour for both views.
    """
    found = names.finding_names(reading)
    views = {view.view: view for view in reading.views}
    return [_lesion_group(reading, pair, found, views) for pair in reading.correspondences]


def _lesion_group(
    reading: Reading, pair: Correspondence, found: Sequence[str], views: Mapping[View, ViewReading]
) -> Any:
    cc, mlo = reading.findings[pair.cc], reading.findings[pair.mlo]
    return group(
        reading,
        f"{found[pair.cc]} and {found[pair.mlo]}",
        _lesion_site(cc, mlo),
        evaluations=[evaluation(codes.COMPOSITE_FEATURE, COMPOSITES[cc.kind])],
        finding_type=FINDING_CODES[cc.kind],
        images=[views[cc.view], views[mlo.view]],
    )


def _lesion_site(cc: Finding, mlo: Finding) -> Any:
    sectors = frozenset(
        place.sector for place in (cc.place, mlo.place) if place is not None and place.sector is not None
    )
    if sectors in QUADRANTS:
        return site(cc.view.laterality, QUADRANTS[sectors])
    only = next(iter(sectors)) if len(sectors) == 1 else None
    return site(cc.view.laterality, modifier=None if only is None else SECTORS[only])


def _outline_group(reading: Reading, name: str, finding: Finding, view: ViewReading) -> Any:
    """TID 1410 with the contour, the values and the place."""
    peak = number(codes.PEAK_VALUE, round(finding.peak_heat, 4), codes.NO_UNITS)
    measured = [value(reading, finding.probability, codes.CERTAINTY_OF_FINDING), peak, *_distance(finding.place)]
    region = _region(finding.contour, view)
    return _region_group(reading, name, finding, region, codes.OUTLINE, measured, _depth(finding.place))


def _centre_group(reading: Reading, name: str, finding: Finding, view: ViewReading) -> Any:
    """TID 1410 with the centre alone."""
    return _region_group(reading, name, finding, _region((finding.centre,), view), codes.CENTRE, [], [])


def _distance(place: Place | None) -> list[Any]:
    """In millimetres where the spacing is known, else as a percentage of the breast's depth."""
    if place is None:
        return []
    if place.nipple_distance_mm is not None:
        return [number(codes.DISTANCE_FROM_NIPPLE, round(place.nipple_distance_mm, 1), codes.MILLIMETRE)]
    share = round(100.0 * place.nipple_distance, 1)
    return [number(codes.DISTANCE_FROM_NIPPLE, share, codes.PERCENT, SHARE_WORDS)]


def _depth(place: Place | None) -> list[Any]:
    return [] if place is None else [evaluation(codes.DEPTH, DEPTHS[place.depth])]


def _region(points: Sequence[tuple[float, float]], view: ViewReading) -> Any:
    """Image Region: one point, or a closed line, in the frame of SCOORD (PS3.3 C.18.6)."""
    kinds = hd.sr.GraphicTypeValues
    return hd.sr.ImageRegion(
        graphic_type=kinds.POINT if len(points) == 1 else kinds.POLYLINE,
        graphic_data=np.array(points, dtype=np.float64),
        source_image=hd.sr.SourceImageForRegion(view.sop_class_uid, view.sop_instance_uid),
    )


def _region_group(
    reading: Reading,
    name: str,
    finding: Finding,
    region: Any,
    purpose: Code,
    measurements: list[Any],
    evaluations: list[Any],
) -> Any:
    sector = None if finding.place is None or finding.place.sector is None else SECTORS[finding.place.sector]
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(reading, name),
        referenced_region=region,
        algorithm_id=algorithm(reading),
        finding_category=concept(codes.ABNORMAL_STRUCTURE),
        finding_type=concept(FINDING_CODES[finding.kind]),
        finding_sites=[site(finding.view.laterality, modifier=sector)],
        geometric_purpose=concept(purpose),
        measurements=measurements or None,
        qualitative_evaluations=evaluations or None,
    )
