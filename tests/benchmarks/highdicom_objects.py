"""The same content as plain highdicom writes it: FRACTIONAL and BINARY segmentations, a TID 1500 report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import highdicom as hd
import numpy as np
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from node.mammography.findings import FINDING_CODES, Finding, FindingKind
from node.mammography.views import View
from node.results.heatmap_segmentation import MAXIMUM_VALUE, STEPS, heat_values, hot_kinds, spread
from node.results.reading import Reading
from node.results.segmentation import region_mask

EQUIPMENT = {
    "manufacturer": "benchmark",
    "manufacturer_model_name": "highdicom",
    "software_versions": hd.__version__,
    "device_serial_number": "1",
}


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What highdicom is given of one view: its image, masks (1, rows, columns, N), heat likewise, in [0, 1]."""

    source: Dataset
    findings: tuple[Finding, ...]
    masks: NDArray[np.uint8]
    kinds: tuple[FindingKind, ...]
    heat: NDArray[np.float32]


def given(reading: Reading, sources: Mapping[View, Dataset]) -> list[Given]:
    """Masks and heat on stored pixels, ready to be written: what takes time in ours is left out here."""
    found = []
    for view in reading.views:
        findings = tuple(finding for finding in reading.findings if finding.view == view.view)
        masks = [region_mask(finding, view.rows, view.columns) for finding in findings]
        layers = []
        for _, heat in hot_kinds(view):
            rows, which = spread(heat_values(heat, STEPS[0]), view.placement)
            layers.append(rows[which])
        scaled = np.stack(layers, axis=-1)[None] / np.float32(MAXIMUM_VALUE[STEPS[0]])
        kinds = tuple(kind for kind, _ in hot_kinds(view))
        stacked = np.stack(masks, axis=-1)[None].astype(np.uint8)
        found.append(Given(_readable(sources[view.view]), findings, stacked, kinds, scaled))
    return found


def _readable(source: Dataset) -> Dataset:
    """The header with what highdicom asks of a source image."""
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return source


def write_heat(views: Sequence[Given]) -> list[bytes]:
    """A FRACTIONAL segmentation of each view, RLE."""
    return [
        _segmentation(
            view.source, view.heat, "FRACTIONAL", view.kinds, RLELossless, max_fractional_value=MAXIMUM_VALUE[STEPS[0]]
        )
        for view in views
    ]


def write_regions(views: Sequence[Given]) -> list[bytes]:
    """A BINARY segmentation of each view."""
    return [
        _segmentation(
            view.source, view.masks, "BINARY", [finding.kind for finding in view.findings], ExplicitVRLittleEndian
        )
        for view in views
    ]


def _segmentation(
    source: Dataset,
    pixels: NDArray[np.generic],
    segmentation_type: str,
    kinds: Sequence[FindingKind],
    transfer_syntax_uid: str,
    **more: object,
) -> bytes:
    made = hd.seg.Segmentation(
        [source],
        pixels,
        segmentation_type,
        [_segment(number, kind) for number, kind in enumerate(kinds, start=1)],
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        transfer_syntax_uid=transfer_syntax_uid,
        omit_empty_frames=False,
        **EQUIPMENT,
        **more,
    )
    return _written(made)


def _segment(number: int, kind: FindingKind) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=kind.value,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=_concept(kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "exam_encoder", codes.DCM.ArtificialIntelligence, "1"
        ),
    )


def _concept(kind: FindingKind) -> CodedConcept:
    code = FINDING_CODES[kind]
    return CodedConcept(code.value, code.scheme, code.meaning)


def write_report(views: Sequence[Given]) -> list[bytes]:
    """A Comprehensive 3D SR with a planar region and its probability for each finding."""
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=hd.UID()),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[_group(view.source, finding) for view in views for finding in view.findings],
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=[view.source for view in views],
        content=report,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        **EQUIPMENT,
    )
    return [_written(made)]


def _group(source: Dataset, finding: Finding) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    image = hd.sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), finding.kind.value),
        referenced_region=hd.sr.ImageRegion("POLYLINE", np.array(finding.contour), image),
        finding_type=_concept(finding.kind),
        measurements=[
            hd.sr.Measurement(
                CodedConcept("111047", "DCM", "Probability of cancer"), finding.probability * 100, codes.UCUM.Percent
            )
        ],
    )


def _written(dataset: Dataset) -> bytes:
    content = BytesIO()
    dataset.save_as(content)
    return content.getvalue()


WRITERS: dict[str, Callable[[Sequence[Given]], list[bytes]]] = {
    "SR": write_report,
    "SEG": write_regions,
    "HEATMAP": write_heat,
}
