"""A model's contract as JSON, and what must hold before the node uses the model (contract, version 1)."""

import json
import math
import re
from dataclasses import asdict
from typing import Any

from node.errors import ContractError, SettingsError
from node.inference.contract_fields import (
    Fields,
    flag,
    integer,
    integer_pair,
    members,
    number,
    number_pair,
    optional_text,
    refusal,
    text,
    texts,
)
from node.mammography.contract import (
    CONTRACT_VERSION,
    Calibration,
    ModelContract,
    OperatingPoint,
    QueryContract,
    TextContract,
)
from node.mammography.findings import FindingKind
from node.mammography.pixels import preset
from node.mammography.views import STANDARD_VIEWS

REQUIRED_OUTPUTS = ("exam_logit", "exam_embedding")
OPTIONAL_OUTPUTS = ("breast_logits", "finding_logits", "heatmaps", "view_embeddings", "density_logits")
FIRST_FINDINGS = (FindingKind.MASS, FindingKind.SUSPICIOUS_CALCIFICATION)
VIEW_ORDER = tuple(view.name for view in STANDARD_VIEWS)
WIRE_TYPES = ("float32", "float16", "uint8")


def contract_to_json(contract: ModelContract) -> str:
    """ASCII JSON with the fields of `ModelContract` by name, enums by value; what `contract_from_json` reads."""
    return json.dumps(asdict(contract), indent=1)


def contract_from_json(written: str) -> ModelContract:
    """The checked contract. Raises ContractError naming the field that is missing, unknown, mistyped or refused."""
    fields = fields_of(written)
    contract = ModelContract(
        contract_version=CONTRACT_VERSION,
        name=fields.take("name", text),
        version=fields.take("version", text),
        preset=fields.take("preset", text),
        views=fields.take("views", texts),
        findings=tuple(_finding(name, "findings") for name in fields.take("findings", texts)),
        outputs=fields.take("outputs", texts),
        input_shape=fields.take("input_shape", integer_pair),
        wire_type=fields.take("wire_type", text),
        embed_dim=fields.take("embed_dim", integer),
        heatmap_shape=fields.take("heatmap_shape", integer_pair),
        heatmap_stride=fields.take("heatmap_stride", number_pair),
        heatmap_offset=fields.take("heatmap_offset", number_pair),
        calibration=fields.take("calibration", calibrations),
        operating_points=fields.take("operating_points", _operating_points),
        calibrated_on_patients=fields.take("calibrated_on_patients", flag),
        weights_hash=fields.take("weights_hash", text),
        text_space=fields.take("text_space", optional_text),
        variant=fields.take("variant", text),
    )
    fields.finish()
    check_contract(contract)
    return contract


def check_contract(contract: ModelContract) -> None:
    """Raises ContractError naming the first field whose value the node cannot work with."""
    check_identity(contract)
    if contract.text_space == "":
        raise refusal("text_space", "is empty; null says that the model has none")
    _check_axes(contract)
    check_input(contract)
    check_heatmap_grid(contract)
    _check_calibration(contract)
    _check_operating_points(contract)


def _check_axes(contract: ModelContract) -> None:
    check_view_axis(contract)
    if contract.findings[:2] != FIRST_FINDINGS:
        raise refusal("findings", f"must begin {', '.join(FIRST_FINDINGS)}")
    if len(set(contract.findings)) != len(contract.findings):
        raise refusal("findings", "names one twice")
    for name in contract.outputs:
        if name not in REQUIRED_OUTPUTS + OPTIONAL_OUTPUTS or contract.outputs.count(name) > 1:
            raise refusal("outputs", f"{name} is unknown or named twice")
    for name in REQUIRED_OUTPUTS:
        if name not in contract.outputs:
            raise refusal("outputs", f"{name} is required")
    if contract.embed_dim < 1:
        raise refusal("embed_dim", f"is {contract.embed_dim}; it must be positive")


def fields_of(written: str) -> Fields:
    """A contract's JSON without its version, which is checked. Raises ContractError."""
    try:
        document = json.loads(written)
    except json.JSONDecodeError as error:
        raise ContractError(f"contract: not JSON: {error}") from error
    fields = Fields(document, "")
    version = fields.take("contract_version", integer)
    if version != CONTRACT_VERSION:
        raise refusal("contract_version", f"is {version}; this node understands {CONTRACT_VERSION}")
    return fields


def check_identity(contract: ModelContract | QueryContract | TextContract) -> None:
    """Which model this is. Raises ContractError."""
    for field in ("name", "version", "variant"):
        if not 0 < len(getattr(contract, field)) <= 64:  # they become DICOM Long Strings (PS3.5 6.2)
            raise refusal(field, "must have 1 to 64 characters")
    if not re.fullmatch(r"[0-9a-f]{64}", contract.weights_hash):
        raise refusal("weights_hash", "is no SHA-256 in 64 lower-case hexadecimal digits")


def check_view_axis(contract: ModelContract | QueryContract) -> None:
    """Raises ContractError where it is not that of the node."""
    if contract.views != VIEW_ORDER:
        raise refusal("views", f"are {', '.join(contract.views)}; the view axis is {', '.join(VIEW_ORDER)}")


def check_input(contract: ModelContract | QueryContract) -> None:
    """Raises ContractError where preset, shape and wire type do not fit together."""
    try:
        wanted = preset(contract.preset)
    except SettingsError as error:
        raise refusal("preset", str(error)) from error
    if contract.input_shape != (wanted.height, wanted.width):
        raise refusal("input_shape", f"is {contract.input_shape}; {wanted.name} gives {wanted.height, wanted.width}")
    if contract.wire_type not in WIRE_TYPES:
        raise refusal("wire_type", f"is {contract.wire_type}; known are {', '.join(WIRE_TYPES)}")
    if contract.wire_type == "uint8" and not wanted.eight_bit:
        raise refusal("wire_type", f"is uint8, but {wanted.name} is no 8-bit preset")


def check_heatmap_grid(contract: ModelContract | QueryContract) -> None:
    """Raises ContractError where cells lie outside the image."""
    if min(contract.heatmap_shape) < 1:
        raise refusal("heatmap_shape", f"is {contract.heatmap_shape}; both must be positive")
    for axis, size in enumerate(contract.input_shape):
        stride, offset = contract.heatmap_stride[axis], contract.heatmap_offset[axis]
        if stride <= 0:
            raise refusal("heatmap_stride", f"is {contract.heatmap_stride}; both must be positive")
        last = offset + stride * (contract.heatmap_shape[axis] - 1)
        if offset < -stride or last > size + stride:  # padding may shift border cells out, never by a whole cell
            raise refusal("heatmap_offset", f"puts cells at {offset:g} to {last:g} of {size} model pixels")


def _check_calibration(contract: ModelContract) -> None:
    wanted = {"exam_logit", "breast_logits"} & set(contract.outputs)
    if "finding_logits" in contract.outputs:
        wanted |= {f"finding_logits.{kind.value}" for kind in contract.findings}
    _check_keys("calibration", set(contract.calibration), wanted)
    for name, calibration in contract.calibration.items():
        check_calibration(f"calibration.{name}", calibration)


def _check_operating_points(contract: ModelContract) -> None:
    localises = {"finding_logits", "heatmaps"} <= set(contract.outputs)
    wanted = {kind.value for kind in contract.findings} if localises else set()
    _check_keys("operating_points", {kind.value for kind in contract.operating_points}, wanted)
    for kind, point in contract.operating_points.items():
        check_operating_point(f"operating_points.{kind.value}", point)


def check_calibration(path: str, calibration: Calibration) -> None:
    """Raises ContractError where it would turn an output round or say nothing."""
    if not (math.isfinite(calibration.a) and calibration.a > 0 and math.isfinite(calibration.b)):
        raise refusal(path, "needs a > 0 and both a and b finite")
    if not 0 < calibration.prevalence < 1:
        raise refusal(f"{path}.prevalence", f"is {calibration.prevalence}; it lies between 0 and 1")
    if not calibration.dataset:
        raise refusal(f"{path}.dataset", "is empty")


def check_operating_point(path: str, point: OperatingPoint) -> None:
    """Raises ContractError where everything would be marked, or nothing could be."""
    if not 0 <= point.probability <= 1:
        raise refusal(f"{path}.probability", f"is {point.probability}; it lies in [0, 1]")
    if not (math.isfinite(point.heat) and point.heat > 0):
        raise refusal(f"{path}.heat", f"is {point.heat}; it must be positive")


def _check_keys(field: str, found: set[str], wanted: set[str]) -> None:
    for name in sorted(wanted - found):
        raise refusal(f"{field}.{name}", "is missing")
    for name in sorted(found - wanted):
        raise refusal(f"{field}.{name}", "belongs to no output or finding of this model")


def _finding(name: str, path: str) -> FindingKind:
    try:
        return FindingKind(name)
    except ValueError as error:
        raise refusal(path, f"{name} is no finding that this node knows") from error


def calibrations(value: Any, path: str) -> dict[str, Calibration]:
    """Calibrations by output."""
    result = {}
    for name, fields in members(value, path):
        result[name] = Calibration(
            a=fields.take("a", number),
            b=fields.take("b", number),
            dataset=fields.take("dataset", text),
            prevalence=fields.take("prevalence", number),
        )
        fields.finish()
    return result


def operating_point(value: Any, path: str) -> OperatingPoint:
    """Probability and heat."""
    return _operating_point(Fields(value, path))


def _operating_point(fields: Fields) -> OperatingPoint:
    point = OperatingPoint(probability=fields.take("probability", number), heat=fields.take("heat", number))
    fields.finish()
    return point


def _operating_points(value: Any, path: str) -> dict[FindingKind, OperatingPoint]:
    return {_finding(name, path): _operating_point(fields) for name, fields in members(value, path)}
