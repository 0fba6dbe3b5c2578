"""What the status list and reports show of a reading, as JSON."""

from dataclasses import asdict
from typing import Any

from node.mammography.findings import Finding
from node.mammography.quality import QualityFinding
from node.results.reading import Reading, UnreadView, ViewReading
from node.results.words import report_lines


def summary_of(reading: Reading, rule: str) -> dict[str, Any]:
    """Probabilities, findings and what was not assessed; `rule` is the name of the rule that decided."""
    return {
        "exam_probability": reading.exam_probability,
        "breasts": {breast.laterality.value: breast.probability for breast in reading.breasts},
        "views": {view.view.name: _view(view) for view in reading.views},
        "unread": {view.view.name: _unread(view) for view in reading.unread},
        "findings": [_finding(finding) for finding in reading.findings],
        "correspondences": [[pair.cc, pair.mlo] for pair in reading.correspondences],
        "density": None if reading.density is None else asdict(reading.density),
        "not_assessed": list(reading.not_assessed),
        "calibrated_on_patients": reading.model.calibrated_on_patients,
        "replaces": None if reading.predecessor is None else reading.predecessor.number,
        "report": list(report_lines(reading)),
        "rule": rule,
    }


def _view(view: ViewReading) -> dict[str, Any]:
    return {
        "sop_instance_uid": view.sop_instance_uid,
        "read_from": None if view.read_from is None else view.read_from.sop_instance_uid,
        "probabilities": {kind.value: probability for kind, probability in view.finding_probabilities},
        "flags": list(view.flags),
        "quality": [_quality(finding) for finding in view.quality],
    }


def _unread(view: UnreadView) -> dict[str, Any]:
    return {
        "sop_instance_uid": view.sop_instance_uid,
        "reason": view.reason,
        "quality": [_quality(finding) for finding in view.quality],
    }


def _quality(finding: QualityFinding) -> dict[str, Any]:
    return {"reason": finding.reason.value, "words": finding.words, "refused": finding.refused}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "view": finding.view.name,
        "kind": finding.kind.value,
        "associated": [kind.value for kind in finding.associated],
        "probability": finding.probability,
        "peak_heat": finding.peak_heat,
        "centre": list(finding.centre),
        "box": [finding.box.left, finding.box.top, finding.box.right, finding.box.bottom],
        "contour": [list(point) for point in finding.contour],
        "place": None if finding.place is None else asdict(finding.place),
    }
