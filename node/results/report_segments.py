"""How the report refers to segments: in each group, the segment of a segmentation with the group's tracking UID.

TID 1410 has three places for a segmentation. Referenced Segmentation Frame (121214) excludes the contour, which is what
viewers draw; Referenced Segment (121191) belongs to TID 1411; and one item of either makes PixelMed's validator of 2022
hold all groups of the report against TID 1410 or 1411, the exam's and the breasts' too, which are then invalid. The
third is Illustration of ROI (121200), row 9: optional, beside the contour, in every validator's rules. An IMAGE item
with Referenced Segment Number stands there; without, for a label map, where dciodvfy of 2026 wants none: the segment is
the one with the group's tracking UID. One item for each group, as the row allows: the first segmentation given counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import highdicom as hd
import pydicom

from node.results import codes
from node.results.labelmap import LABEL_MAP_SEGMENTATION_STORAGE
from node.results.reading import EncodedResult
from node.results.report_items import CONTAINS, concept


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a segmentation of ours."""

    sop_class_uid: str
    sop_instance_uid: str
    number: int


Segments = Mapping[str, Segment]
"""By tracking UID."""


def segments_of(segmentations: Iterable[EncodedResult]) -> Segments:
    """The segments that carry a tracking UID; of several with one UID the first."""
    found: dict[str, Segment] = {}
    for made in segmentations:
        dataset = pydicom.dcmread(BytesIO(made.content), specific_tags=["SegmentSequence"], stop_before_pixels=True)
        for item in dataset.get("SegmentSequence", ()):
            segment = Segment(made.sop_class_uid, made.sop_instance_uid, int(item.SegmentNumber))
            found.setdefault(str(item.get("TrackingUID", "")), segment)
    found.pop("", None)
    return found


def illustrated(group: Any, tracking_uid: str, segments: Segments) -> Any:
    """The measurement group with a reference to the segment of the same tracking UID, where there is one."""
    segment = segments.get(tracking_uid)
    if segment is not None:
        is_label_map = segment.sop_class_uid == LABEL_MAP_SEGMENTATION_STORAGE
        group[0].ContentSequence.append(
            hd.sr.ImageContentItem(
                name=concept(codes.ILLUSTRATION_OF_ROI),
                referenced_sop_class_uid=segment.sop_class_uid,
                referenced_sop_instance_uid=segment.sop_instance_uid,
                referenced_segment_numbers=None if is_label_map else segment.number,
                relationship_type=CONTAINS,
            )
        )
    return group
