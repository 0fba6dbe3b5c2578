"""Groups of the report for exam, breasts, density, images: what was looked for and what was wrong with an image."""

from typing import Any

from node.mammography.findings import FINDING_CODES, Code, FindingKind
from node.mammography.quality import CODES, QualityFinding
from node.results import codes, names, uids
from node.results.reading import Outcome, Reading, UnreadView, ViewReading
from node.results.report_items import evaluation, group, number, site, value
from node.results.report_segments import Segments, illustrated

DENSITIES: dict[str, Code] = {
    "A": Code("129716005", "SCT", "Almost entirely fat"),
    "B": Code("129717001", "SCT", "Scattered fibroglandular densities"),
    "C": Code("129718006", "SCT", "Heterogeneously dense"),
    "D": Code("129719003", "SCT", "Extremely dense"),
}
"""CID 6000, Overall Breast Composition, by ACR BI-RADS category."""

SUCCEEDED = Code("111222", "DCM", "Succeeded")
PARTIALLY_SUCCEEDED = Code("111223", "DCM", "Partially Succeeded")
FAILED = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")
"""CID 6042."""


def exam_groups(reading: Reading) -> list[Any]:
    """One group for the exam and one for each breast that was assessed."""
    groups = [
        group(
            reading,
            f"{names.SIDE_WORDS[breast.laterality]} breast",
            site(breast.laterality),
            [value(reading, breast.probability, codes.PROBABILITY_OF_CANCER)],
        )
        for breast in reading.breasts
        if breast.probability is not None
    ]
    if reading.exam_probability is None:
        return groups
    exam = [value(reading, reading.exam_probability, codes.PROBABILITY_OF_CANCER)]
    return [group(reading, "Exam", site(None), exam), *groups]


def density_groups(reading: Reading) -> list[Any]:
    """Breast composition with the value that the model gives it; none where the model gives none."""
    if reading.density is None:
        return []
    return [
        group(
            reading,
            "Breast composition",
            site(None),
            [value(reading, reading.density.probability, codes.CERTAINTY_OF_FINDING)],
            [evaluation(codes.BREAST_COMPOSITION, DENSITIES[reading.density.category])],
        )
    ]


def search_groups(reading: Reading, segments: Segments) -> list[Any]:
    """One group for each view and kind of finding that was looked for, marked or not."""
    return [
        _search_group(reading, view, kind, probability, segments)
        for view in reading.views
        for kind, probability in view.finding_probabilities
    ]


def _search_group(
    reading: Reading, view: ViewReading, kind: FindingKind, probability: float, segments: Segments
) -> Any:
    """`segments` may hold the heat of this kind in this view, under the group's tracking UID."""
    marked = sum(finding.view == view.view and finding.kind is kind for finding in reading.findings)
    name = f"{view.view.name} {names.KIND_WORDS[kind]}"
    made = group(
        reading,
        name,
        site(view.view.laterality),
        [
            value(reading, probability, codes.CERTAINTY_OF_FINDING),
            number(codes.REGIONS_MARKED, marked, codes.NO_UNITS, codes.REGIONS_MARKED_WORDS),
        ],
        finding_type=FINDING_CODES[kind],
        images=[view],
    )
    return illustrated(made, uids.tracking_uid(reading, name), segments)


def quality_groups(reading: Reading) -> list[Any]:
    """One group for each image that something is wrong with, and for each that was not assessed."""
    read = [_quality_group(reading, view, view.quality, []) for view in reading.views if view.quality]
    outcome = NOT_ATTEMPTED if reading.outcome is Outcome.NOT_ATTEMPTED else FAILED
    return [
        *read,
        *(
            _quality_group(reading, view, view.quality, [evaluation(codes.SUMMARY_OF_DETECTIONS, outcome)])
            for view in reading.unread
        ),
    ]


def _quality_group(
    reading: Reading, view: ViewReading | UnreadView, quality: tuple[QualityFinding, ...], evaluations: list[Any]
) -> Any:
    """CID 6041 under Quality Finding (TID 4014 has it so), each code once."""
    found = dict.fromkeys(CODES[finding.reason] for finding in quality)
    return group(
        reading,
        f"{view.view.name} image",
        site(view.view.laterality),
        evaluations=[*evaluations, *(evaluation(codes.QUALITY_FINDING, code) for code in found)],
        finding_type=codes.IMAGE_QUALITY if found else None,
        images=[view],
    )
